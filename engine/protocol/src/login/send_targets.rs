//! The answer to SendTargets (RFC 7143 appendix C).

use super::TargetEntry;
use wire::text::TextWriter;

/// The text that lists these targets: TargetName, then a TargetAddress per portal. An entry whose name is not fit for a
/// text value is left out; a validated configuration has none.
pub fn send_targets_text(entries: &[TargetEntry]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in entries {
        let mut writer = TextWriter::new(&mut text);
        if writer.pair("TargetName", &entry.name).is_err() {
            continue;
        }
        for address in &entry.addresses {
            // An address prints without a NUL and short.
            let _ = writer.pair("TargetAddress", address);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_followed_by_its_portals() {
        let entries = [
            TargetEntry {
                name: "iqn.2026-01.io.ringlun:db1".into(),
                addresses: vec![
                    wire::names::TargetAddress::new("10.0.0.1:3260".parse().unwrap(), 1),
                    wire::names::TargetAddress::new("[fe80::1]:860".parse().unwrap(), 2),
                ],
            },
            TargetEntry { name: "iqn.2026-01.io.ringlun:db2".into(), addresses: vec![] },
            TargetEntry { name: "bad\0name".into(), addresses: vec![] },
        ];
        assert_eq!(
            send_targets_text(&entries),
            b"TargetName=iqn.2026-01.io.ringlun:db1\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[fe80::1]:860,2\0\
              TargetName=iqn.2026-01.io.ringlun:db2\0"
        );
    }
}
