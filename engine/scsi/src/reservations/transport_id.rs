//! TransportIDs of iSCSI initiator ports and devices (SPC-4 7.6.4.6).

use crate::port::{InitiatorPort, Path};
use std::sync::Arc;

/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 5;
/// What stands between the name and the ISID of a port.
const SEPARATOR: &str = ",i,0x";
/// The longest iSCSI name (RFC 7143 4.2.7.1).
const LONGEST_NAME: usize = 223;

/// An initiator port; without ISID an initiator device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TransportId {
    pub name: String,
    pub isid: Option<[u8; 6]>,
}

impl TransportId {
    /// The first one of `bytes`, and its length. None: it is none, or of another transport.
    pub fn parse(bytes: &[u8]) -> Option<(TransportId, usize)> {
        let (header, rest) = bytes.split_first_chunk::<4>()?;
        let [first, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if first & 0x3F != ISCSI || length < 20 || !length.is_multiple_of(4) {
            return None;
        }
        let text = rest.get(..length)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        if text[end..].iter().any(|byte| *byte != 0) {
            return None;
        }
        let text = std::str::from_utf8(&text[..end]).ok()?;
        let (name, isid) = match first >> 6 {
            0b00 => (text, None),
            0b01 => {
                let (name, isid) = text.split_once(SEPARATOR)?;
                (name, Some(isid_of(isid)?))
            }
            _ => return None,
        };
        let known_kind =
            ["iqn.", "eui.", "naa."].iter().any(|kind| name.get(..4).is_some_and(|n| n.eq_ignore_ascii_case(kind)));
        if !known_kind || name.len() > LONGEST_NAME || name.contains([',', ' ']) {
            return None;
        }
        Some((TransportId { name: name.to_ascii_lowercase(), isid }, 4 + length))
    }

    /// A list that begins with its length in four bytes and fills `bytes`.
    pub fn parse_list(bytes: &[u8]) -> Option<Vec<TransportId>> {
        let (length, mut rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*length) as usize != rest.len() {
            return None;
        }
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (id, length) = TransportId::parse(rest)?;
            all.push(id);
            rest = &rest[length..];
        }
        Some(all)
    }

    /// The initiator ports that it stands for: one, or all of the device that are known.
    pub fn ports<'a>(&self, known: impl Iterator<Item = &'a Path>) -> Vec<Arc<InitiatorPort>> {
        if let Some(isid) = self.isid {
            return vec![Arc::new(InitiatorPort { name: self.name.as_str().into(), isid })];
        }
        let mut ports: Vec<Arc<InitiatorPort>> = Vec::new();
        for path in known {
            if path.initiator.name.eq_ignore_ascii_case(&self.name) && !ports.contains(&path.initiator) {
                ports.push(path.initiator.clone());
            }
        }
        ports
    }

    /// Appends the TransportID of an initiator port.
    pub fn emit(port: &InitiatorPort, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0x40 | ISCSI, 0, 0, 0]);
        out.extend_from_slice(port.name.as_bytes());
        out.extend_from_slice(SEPARATOR.as_bytes());
        for byte in port.isid {
            out.extend(format!("{byte:02x}").bytes());
        }
        // A NUL at least, and a multiple of four.
        out.resize(start + 4 + padded(out.len() - start - 4), 0);
        let length = (out.len() - start - 4) as u16;
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Bytes that [`TransportId::emit`] appends.
    pub fn length(port: &InitiatorPort) -> usize {
        4 + padded(port.name.len() + SEPARATOR.len() + 12)
    }
}

fn padded(text: usize) -> usize {
    ((text + 4) / 4 * 4).max(20)
}

fn isid_of(text: &str) -> Option<[u8; 6]> {
    if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, isid @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(isid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed(name in "iqn\\.2026-01\\.io\\.[a-z0-9:.-]{1,200}", isid: [u8; 6]) {
            let port = InitiatorPort { name: name.as_str().into(), isid };
            let mut bytes = Vec::new();
            TransportId::emit(&port, &mut bytes);
            prop_assert_eq!(bytes.len(), TransportId::length(&port));
            let parsed = TransportId::parse(&bytes);
            prop_assert_eq!(parsed, Some((TransportId { name, isid: Some(isid) }, bytes.len())));
        }

        #[test]
        fn hostile_bytes_do_no_harm(mut bytes: Vec<u8>, honest_length: bool) {
            if honest_length && bytes.len() >= 8 {
                let length = (bytes.len() - 4) as u32;
                bytes[..4].copy_from_slice(&length.to_be_bytes());
                bytes[4] = 0x45;
            }
            let _ = TransportId::parse(&bytes);
            let _ = TransportId::parse_list(&bytes);
        }
    }

    #[test]
    fn a_device_without_isid_is_parsed_and_what_is_malformed_is_not() {
        let id = |first: u8, text: &str, length: usize| {
            let mut bytes = vec![first, 0, 0, length as u8];
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(4 + length, 0);
            TransportId::parse(&bytes)
        };
        let device = TransportId { name: "iqn.2026-01.io:a".into(), isid: None };
        assert_eq!(id(0x05, "iqn.2026-01.io:A", 20), Some((device, 24)));
        for (first, text, length, why) in [
            (0x06, "iqn.2026-01.io:a", 20, "another protocol"),
            (0x85, "iqn.2026-01.io:a", 20, "an unknown format"),
            (0x05, "iqn.2026-01.io:a", 16, "too short, and no NUL"),
            (0x05, "iqn.2026-01.io:ab", 21, "not a multiple of four"),
            (0x05, "2026-01.io:a", 20, "no iSCSI name"),
            (0x05, "iqn.2026-01.io:a,i,0x800000000001", 36, "an ISID in the format without"),
            (0x45, "iqn.2026-01.io:a", 20, "no ISID in the format with"),
            (0x45, "iqn.2026-01.io:a,i,0x80000000000", 36, "a short ISID"),
            (0x45, "iqn.2026-01.io:a,i,0x+00000000001", 36, "a sign"),
        ] {
            assert_eq!(id(first, text, length), None, "{why}");
        }
    }
}
