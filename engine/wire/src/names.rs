//! iSCSI names (RFC 7143 4.2.7, RFC 3722) and TargetAddress values (RFC 7143 13.8).

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// Longest iSCSI name, bytes of UTF-8.
pub const MAX_NAME_LEN: usize = 223;
/// The port of iSCSI.
pub const DEFAULT_PORT: u16 = 3260;

/// Why a name is not an iSCSI name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Longer than 223 bytes.
    #[error("an iSCSI name has at most 223 bytes")]
    TooLong,
    /// Does not begin with `iqn.`, `eui.` or `naa.`.
    #[error("an iSCSI name begins with `iqn.`, `eui.` or `naa.`")]
    UnknownType,
    /// Has a character that names may not have.
    #[error("an iSCSI name may not have the character {0:?}")]
    Character(char),
    /// `iqn.` is not followed by a month and a reversed domain name.
    #[error("an iqn name is `iqn.YYYY-MM.` and a reversed domain name, then optionally `:` and anything")]
    Iqn,
    /// `eui.` is not followed by 16 hex digits.
    #[error("an eui name is `eui.` and 16 hexadecimal digits")]
    Eui,
    /// `naa.` is not followed by 16 or 32 hex digits.
    #[error("a naa name is `naa.` and 16 or 32 hexadecimal digits")]
    Naa,
}

/// The type of an iSCSI name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameType {
    /// iSCSI qualified name.
    Iqn,
    /// IEEE EUI-64.
    Eui,
    /// T11 network address authority.
    Naa,
}

/// Brings a name into the form in which names are compared: ASCII letters in lower case.
///
/// RFC 3722 folds the whole of Unicode; names with other than ASCII letters have to come in lower case here, so that two
/// different names never become the same.
pub fn normalize(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Checks a name, in any case of letters, and gives its type.
pub fn check(name: &str) -> Result<NameType, NameError> {
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong);
    }
    if let Some(bad) = name.chars().find(|&c| !is_name_character(c)) {
        return Err(NameError::Character(bad));
    }
    let (prefix, rest) = name.split_at_checked(4).ok_or(NameError::UnknownType)?;
    let hex = |lengths: &[usize]| lengths.contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_hexdigit());
    match () {
        () if prefix.eq_ignore_ascii_case("iqn.") => is_iqn(rest).then_some(NameType::Iqn).ok_or(NameError::Iqn),
        () if prefix.eq_ignore_ascii_case("eui.") => hex(&[16]).then_some(NameType::Eui).ok_or(NameError::Eui),
        () if prefix.eq_ignore_ascii_case("naa.") => hex(&[16, 32]).then_some(NameType::Naa).ok_or(NameError::Naa),
        () => Err(NameError::UnknownType),
    }
}

/// ASCII: letters, digits, `-`, `.`, `:` (RFC 3722 6.2), and `_`, which many initiators have in their names. Beyond
/// ASCII: what is neither space, control, format, private use nor no character at all (RFC 3722 6).
fn is_name_character(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | ':' | '_' => true,
        '\0'..='\u{7f}' => false,
        '\u{ad}'
        | '\u{340}'
        | '\u{341}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{2ff0}'..='\u{2ffb}'
        | '\u{3002}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{fdd0}'..='\u{fdef}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{ffff}'
        | '\u{e0000}'..='\u{10ffff}' => false,
        c => !c.is_control() && !c.is_whitespace() && u32::from(c) & 0xfffe != 0xfffe,
    }
}

/// What is after `iqn.`: `YYYY-MM.` and labels, then an optional `:` with anything behind it.
fn is_iqn(rest: &str) -> bool {
    let Some((date, after)) = rest.split_once('.') else {
        return false;
    };
    let authority = after.split_once(':').map_or(after, |(authority, _)| authority);
    is_month(date.as_bytes()) && authority.split('.').all(|label| !label.is_empty())
}

fn is_month(date: &[u8]) -> bool {
    let [y1, y2, y3, y4, b'-', m1, m2] = date else {
        return false;
    };
    [y1, y2, y3, y4].iter().all(|c| c.is_ascii_digit()) && matches!((m1, m2), (b'0', b'1'..=b'9') | (b'1', b'0'..=b'2'))
}

/// Address, port and portal group of a TargetAddress or a portal. Printed as `10.0.0.1:3260,1` and `[fe80::1]:3260,1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TargetAddress {
    /// Where to connect. Never an IPv4 address in IPv6 form.
    pub ip: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Portal group tag. A redirection (status class 1) has none.
    pub portal_group: Option<u16>,
}

impl TargetAddress {
    /// Of a socket's address. An IPv4 address in IPv6 form, as a dual-stack socket has it, becomes IPv4; a scope is
    /// left out, since it means nothing to the peer.
    pub fn new(address: SocketAddr, portal_group: u16) -> TargetAddress {
        let ip = address.ip().to_canonical();
        TargetAddress { ip, port: address.port(), portal_group: Some(portal_group) }
    }

    /// Parses `address[:port][,portal-group-tag]`; without a port it is 3260. `None` for anything else, domain names
    /// too, which the RFC allows: nothing here resolves names.
    pub fn parse(value: &str) -> Option<TargetAddress> {
        let (address, portal_group) = match value.split_once(',') {
            Some((address, tag)) => (address, Some(u16::try_from(crate::value::number(tag).ok()?).ok()?)),
            None => (value, None),
        };
        let (ip, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']')?;
                (IpAddr::V6(ip.parse().ok()?), if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match address.split_once(':') {
                Some((ip, port)) => (IpAddr::V4(ip.parse().ok()?), Some(port)),
                None => (IpAddr::V4(address.parse().ok()?), None),
            },
        };
        let port = match port {
            Some(port) if port.bytes().all(|c| c.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
            None => DEFAULT_PORT,
        };
        Some(TargetAddress { ip: ip.to_canonical(), port, portal_group })
    }

    /// The address to connect to.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_address().fmt(f)?;
        match self.portal_group {
            Some(tag) => write!(f, ",{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_real_initiators_and_targets_are_right() {
        for (name, expected) in [
            ("iqn.1994-05.com.redhat:8e89b27b5b8", NameType::Iqn),
            ("iqn.1991-05.com.microsoft:WIN-HOST.example.com", NameType::Iqn),
            ("iqn.2008-11.org.linux-kvm", NameType::Iqn),
            ("IQN.1998-01.com.vmware:host_1-5a6b", NameType::Iqn),
            ("iqn.1993-08.org.debian:01:604af6a341", NameType::Iqn),
            ("iqn.2001-04.com.example:", NameType::Iqn),
            ("iqn.2001-04.com.example:b\u{fc}cher", NameType::Iqn),
            ("eui.02004567A425678D", NameType::Eui),
            ("naa.52004567ba64678d", NameType::Naa),
            ("naa.62004567ba64678d0123456789abcdef", NameType::Naa),
        ] {
            assert_eq!(check(name), Ok(expected), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused_for_their_reason() {
        for (name, error) in [
            ("", NameError::UnknownType),
            ("iqn", NameError::UnknownType),
            ("foo.2001-04.com", NameError::UnknownType),
            ("\u{fc}\u{fc}x", NameError::UnknownType),
            ("iqn.", NameError::Iqn),
            ("iqn.2001-04", NameError::Iqn),
            ("iqn.2001-04.", NameError::Iqn),
            ("iqn.2001-04.:x", NameError::Iqn),
            ("iqn.2001-13.com.example", NameError::Iqn),
            ("iqn.2001-00.com.example", NameError::Iqn),
            ("iqn.201-004.com.example", NameError::Iqn),
            ("iqn.2001-04.com..example:x", NameError::Iqn),
            ("eui.02004567A425678", NameError::Eui),
            ("eui.02004567A425678G", NameError::Eui),
            ("naa.52004567ba64678", NameError::Naa),
            ("iqn.2001-04.com.example:a b", NameError::Character(' ')),
            ("iqn.2001-04.com.example:a\n", NameError::Character('\n')),
            ("iqn.2001-04.com.example:a/b", NameError::Character('/')),
            ("iqn.2001-04.com.example:*", NameError::Character('*')),
            ("iqn.2001-04.com.example:a\u{a0}", NameError::Character('\u{a0}')),
            ("iqn.2001-04.com.example:a\u{200e}", NameError::Character('\u{200e}')),
            ("iqn.2001-04.com.example:a\u{85}", NameError::Character('\u{85}')),
            ("iqn.2001-04.com.example:a\u{1fffe}", NameError::Character('\u{1fffe}')),
        ] {
            assert_eq!(check(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_223_bytes() {
        let longest = format!("iqn.2001-04.com.example:{}", "x".repeat(199));
        assert_eq!((longest.len(), check(&longest)), (223, Ok(NameType::Iqn)));
        assert_eq!(check(&format!("{longest}x")), Err(NameError::TooLong));
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        assert_eq!(normalize("IQN.2001-04.com.Example:DB1"), "iqn.2001-04.com.example:db1");
    }

    #[test]
    fn addresses_print_as_target_address() {
        for (socket, text) in [
            ("10.0.0.1:3260", "10.0.0.1:3260,1"),
            ("[fe80::1%4]:3260", "[fe80::1]:3260,1"),
            ("[::ffff:10.0.0.1]:860", "10.0.0.1:860,1"),
        ] {
            let address = TargetAddress::new(socket.parse().unwrap(), 1);
            assert_eq!(address.to_string(), text);
            assert_eq!(TargetAddress::parse(text), Some(address));
        }
    }

    #[test]
    fn port_and_tag_of_an_address_are_optional() {
        let parsed = |value| TargetAddress::parse(value).map(|a| (a.ip.to_string(), a.port, a.portal_group));
        assert_eq!(parsed("10.0.0.1"), Some(("10.0.0.1".into(), 3260, None)));
        assert_eq!(parsed("[::1]"), Some(("::1".into(), 3260, None)));
        assert_eq!(parsed("[::1],0x10"), Some(("::1".into(), 3260, Some(16))));
        assert_eq!(parsed("10.0.0.1:1,65535"), Some(("10.0.0.1".into(), 1, Some(65535))));
        for value in [
            "",
            "::1",
            "[::1",
            "[::1]3260",
            "10.0.0.1:",
            "10.0.0.1:+1",
            "10.0.0.1:65536",
            "10.0.0.1,",
            "a.b:1",
            "10.0.0.1,65536",
        ] {
            assert_eq!(parsed(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_checked_without_panic(name in "((iqn|eui|naa|IQN)\\.)?.{0,60}") {
            if check(&name).is_ok() {
                prop_assert!(!name.chars().any(|c| c.is_control() || c.is_whitespace()));
                prop_assert_eq!(check(&normalize(&name)), check(&name));
            }
            let _ = TargetAddress::parse(&name);
        }

        #[test]
        fn addresses_come_back(ip: std::net::IpAddr, port: u16, tag: Option<u16>) {
            let address = TargetAddress { ip: ip.to_canonical(), port, portal_group: tag };
            prop_assert_eq!(TargetAddress::parse(&address.to_string()), Some(address));
        }
    }
}
