//! Who a logical unit is: the names that INQUIRY and its VPD pages give.

use sha2::{Digest, Sha256};

/// Identity of a logical unit: immutable while it exists. Every field may be set; too long ones are cut where a page
/// has less room, and bytes that are not printable ASCII become spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 VENDOR IDENTIFICATION, 8 bytes.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, 16 bytes.
    pub product: String,
    /// PRODUCT REVISION LEVEL, 4 bytes.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER (VPD 80h).
    pub serial: String,
    /// NAA designator: its first eight bytes.
    pub naa: u64,
    /// The other eight, of type 6 (IEEE registered extended).
    pub naa_extension: Option<u64>,
    /// The volume's full name, `iqn_prefix:name`.
    pub name: String,
}

impl Identity {
    /// NAA type 3 (locally assigned, SPC-4 7.8.6.6.4) from the SHA-256 of the full name; the serial from the same
    /// digest; vendor RINGLUN, product DISK.
    pub fn from_name(full_name: &str) -> Identity {
        let digest = Sha256::digest(full_name.as_bytes());
        let mut head = [0u8; 8];
        head.copy_from_slice(&digest[..8]);
        let serial = digest[8..24].iter().map(|byte| format!("{byte:02x}")).collect();
        Identity {
            vendor: "RINGLUN".into(),
            product: "DISK".into(),
            revision: "0001".into(),
            serial,
            naa: 0x3 << 60 | u64::from_be_bytes(head) >> 4,
            naa_extension: None,
            name: full_name.into(),
        }
    }

    /// The whole NAA designator: 8 or 16 bytes.
    pub fn naa_bytes(&self) -> Vec<u8> {
        let mut bytes = self.naa.to_be_bytes().to_vec();
        bytes.extend(self.naa_extension.into_iter().flat_map(u64::to_be_bytes));
        bytes
    }
}

/// Appends `text` as a left-aligned ASCII field of `length` bytes, filled with spaces (SPC-4 4.3.1).
pub(crate) fn ascii(out: &mut Vec<u8>, text: &str, length: usize) {
    let printable = text.bytes().map(|b| if (0x20..0x7F).contains(&b) { b } else { b' ' });
    out.extend(printable.chain(std::iter::repeat(b' ')).take(length));
}
