//! The answer to SendTargets as a list (RFC 7143 Appendix C).

/// A target that discovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// TargetName.
    pub name: String,
    /// Where it can be reached; empty when the answer gave no address (then: where the question was asked).
    pub addresses: Vec<Address>,
}

/// One TargetAddress (RFC 7143 13.8): `domainname[:port][,portal-group-tag]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// DNS name, IPv4 address in dots, or IPv6 address without its brackets.
    pub host: String,
    /// TCP port; 3260 when not given.
    pub port: u16,
    /// Portal group tag; `None` in a redirection, which carries none.
    pub portal_group_tag: Option<u16>,
}

/// The text that can't be read as a list of targets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SendTargets answer: {reason}: `{text}`")]
pub struct TargetsError {
    /// What is wrong.
    pub reason: &'static str,
    /// The key=value pair (lossily decoded).
    pub text: String,
}

impl Address {
    /// Reads the value of a TargetAddress key.
    pub fn parse(value: &str) -> Option<Address> {
        let (place, portal_group_tag) = match value.split_once(',') {
            Some((place, tag)) => (place, Some(parse_number(tag)?)),
            None => (value, None),
        };
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, after) = rest.split_once(']')?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return None,
            }
        } else {
            match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            }
        };
        let port = match port {
            Some(port) => parse_number(port)?,
            None => 3260,
        };
        (!host.is_empty()).then(|| Address { host: host.to_owned(), port, portal_group_tag })
    }
}

/// Digits alone: `u16::from_str` would take a sign.
fn parse_number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads the text of a SendTargets answer. Keys other than TargetName and TargetAddress are passed over.
pub fn parse_targets(text: &[u8]) -> Result<Vec<Target>, TargetsError> {
    let mut targets: Vec<Target> = Vec::new();
    for pair in text.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
        let error = |reason| TargetsError { reason, text: String::from_utf8_lossy(pair).into_owned() };
        let pair = std::str::from_utf8(pair).map_err(|_| error("not UTF-8"))?;
        let (key, value) = pair.split_once('=').ok_or_else(|| error("no `=`"))?;
        match key {
            "TargetName" if value.is_empty() => return Err(error("empty name")),
            "TargetName" => targets.push(Target { name: value.to_owned(), addresses: Vec::new() }),
            "TargetAddress" => {
                let target = targets.last_mut().ok_or_else(|| error("address before any name"))?;
                target.addresses.push(Address::parse(value).ok_or_else(|| error("not an address"))?);
            }
            _ => {}
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(host: &str, port: u16, tag: Option<u16>) -> Address {
        Address { host: host.to_owned(), port, portal_group_tag: tag }
    }

    #[test]
    fn targets_keep_their_addresses_apart() {
        let text = b"TargetName=iqn.a\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[fe80::1]:99,2\0\
            TargetName=iqn.b\0TargetName=iqn.c\0TargetAddress=host,7\0";
        let targets = parse_targets(text).unwrap();
        assert_eq!(targets.len(), 3);
        assert_eq!(targets[0].addresses, [address("10.0.0.1", 3260, Some(1)), address("fe80::1", 99, Some(2))]);
        assert!(targets[1].addresses.is_empty());
        assert_eq!(targets[2].addresses, [address("host", 3260, Some(7))]);
    }

    #[test]
    fn a_redirection_has_no_portal_group_tag() {
        assert_eq!(Address::parse("[::1]"), Some(address("::1", 3260, None)));
        assert_eq!(Address::parse("a.b:1"), Some(address("a.b", 1, None)));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in ["", ":1", "[::1", "[::1]x", "a:+1", "a:65536", "a,", "a,x", "a,1,2", ":,"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
        assert!(parse_targets(b"TargetAddress=a\0").is_err());
        assert!(parse_targets(b"TargetName\0").is_err());
        assert!(parse_targets(b"TargetName=\xff\0").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_targets(&text);
        }
        #[test]
        fn any_address_is_read_without_panic(text in "[0-9a-z:,\\[\\]+]{0,12}") {
            let _ = Address::parse(&text);
        }
    }
}
