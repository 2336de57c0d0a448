//! `iscsi://[user@]host[:port]/target-name/lun`, as libiscsi and QEMU write it.

use std::{fmt, str::FromStr};

/// Where a logical unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// CHAP name, if the URL has one.
    pub user: Option<String>,
    /// DNS name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// iSCSI name of the target.
    pub target: String,
    /// Logical unit number.
    pub lun: u16,
}

/// The port that IANA gave to iSCSI.
const ISCSI_PORT: u16 = 3260;

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let shape = "an URL looks like iscsi://[user@]host[:port]/iqn.2026-01.com.example:disk/0";
        let wrong = |what: &str| format!("{what}: {shape}");
        let rest = text.strip_prefix("iscsi://").ok_or_else(|| wrong("it does not begin with iscsi://"))?;
        let (place, path) = rest.split_once('/').ok_or_else(|| wrong("there is no target name"))?;
        let (target, lun) = path.split_once('/').ok_or_else(|| wrong("there is no LUN"))?;
        if target.is_empty() {
            return Err(wrong("the target name is empty"));
        }
        let lun = number(lun).filter(|lun| *lun < 16384);
        let lun = lun.ok_or_else(|| wrong("the LUN is not a number below 16384"))?;
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        if user.is_some_and(|user| user.contains('%')) {
            return Err("a secret on the command line is seen by everybody: use --chap-secret-file".to_owned());
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a `[` without its `]`"))?;
                (host, port)
            }
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => number(port).filter(|port| *port != 0).ok_or_else(|| wrong("the port is no port number"))?,
            None if port.is_empty() => ISCSI_PORT,
            None => return Err(wrong("something stands behind the `]`")),
        };
        if host.is_empty() {
            return Err(wrong("the host is empty"));
        }
        Ok(Url { user: user.map(str::to_owned), host: host.to_owned(), port, target: target.to_owned(), lun })
    }
}

/// Digits alone: `u16::from_str` would take a sign.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "iscsi://{host}:{}/{}/{}", self.port, self.target, self.lun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn all_parts_are_read() {
        let all = url("iscsi://me@disk.example:1234/iqn.2026-01.io.ringlun:a/7");
        assert_eq!((all.user.as_deref(), all.host.as_str(), all.port), (Some("me"), "disk.example", 1234));
        assert_eq!((all.target.as_str(), all.lun), ("iqn.2026-01.io.ringlun:a", 7));
        let short = url("iscsi://10.0.0.1/iqn.a/0");
        assert_eq!((short.user, short.port, short.lun), (None, 3260, 0));
    }

    #[test]
    fn addresses_of_ipv6_stand_in_brackets() {
        let six = url("iscsi://[fe80::1]:99/iqn.a/0");
        assert_eq!((six.host.as_str(), six.port), ("fe80::1", 99));
        assert_eq!(url(&six.to_string()), six);
        assert_eq!(url("iscsi://[::1]/iqn.a/0").port, 3260);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("10.0.0.1/iqn.a/0", "begin with iscsi://"),
            ("iscsi://h", "no target name"),
            ("iscsi://h/iqn.a", "no LUN"),
            ("iscsi://h//0", "target name is empty"),
            ("iscsi://h/iqn.a/x", "LUN is not a number"),
            ("iscsi://h/iqn.a/16384", "LUN is not a number"),
            ("iscsi://h:0/iqn.a/0", "port"),
            ("iscsi://h:+1/iqn.a/0", "port"),
            ("iscsi://[::1/iqn.a/0", "without its"),
            ("iscsi://[::1]x/iqn.a/0", "behind the"),
            ("iscsi://:3260/iqn.a/0", "host is empty"),
            ("iscsi://me%secret@h/iqn.a/0", "--chap-secret-file"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
