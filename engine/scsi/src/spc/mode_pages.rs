//! Mode pages: what they hold, and which bits of them change (SPC-4 7.5, SBC-3 6.5).
//!
//! Three bits are changeable: WCE, D_SENSE and SWP. Nothing is saved.

use crate::{
    command::Context,
    unit::{Flags, LogicalUnit},
};

/// PAGE CONTROL of MODE SENSE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Current,
    Changeable,
    Default,
}

/// A mode page, or subpage.
pub(crate) struct Page {
    pub code: u8,
    pub subpage: u8,
    /// Default values without header, padded to the page's length.
    defaults: &'static [u8],
    /// Bytes of the page without header.
    length: usize,
    /// Byte of the values, bit mask, and the state that it shows.
    bits: &'static [(usize, u8, Flags)],
}

/// In ascending order of page and subpage.
pub(crate) const PAGES: [Page; 5] = [
    // Read-write error recovery: AWRE, ARRE.
    Page { code: 0x01, subpage: 0, defaults: &[0xC0], length: 10, bits: &[] },
    // Caching.
    Page { code: 0x08, subpage: 0, defaults: &[0x04], length: 18, bits: &[(0, 0x04, Flags::WRITE_CACHE)] },
    // Control: TST 001b, QUEUE ALGORITHM MODIFIER 1h, QERR 00b, UA_INTLCK_CTRL 00b, TAS 0, no busy timeout limit.
    Page {
        code: 0x0A,
        subpage: 0,
        defaults: &[0x20, 0x10, 0x00, 0x00, 0, 0, 0xFF, 0xFF, 0, 0],
        length: 10,
        bits: &[(0, 0x04, Flags::DESCRIPTOR_SENSE), (2, 0x08, Flags::SOFTWARE_PROTECTED)],
    },
    // Control extension: MAXIMUM SENSE DATA LENGTH.
    Page { code: 0x0A, subpage: 1, defaults: &[0, 0, 252], length: 28, bits: &[] },
    // Informational exceptions control: DEXCPT.
    Page { code: 0x1C, subpage: 0, defaults: &[0x08], length: 10, bits: &[] },
];

impl Page {
    /// Bytes of header: with SPF there is a subpage code and a longer length.
    pub fn header(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }

    /// Its values, without header, under this state.
    pub fn values(&self, control: Control, flags: Flags) -> impl Iterator<Item = u8> + '_ {
        (0..self.length).map(move |at| {
            let mut value = match control {
                Control::Changeable => 0,
                _ => self.defaults.get(at).copied().unwrap_or(0),
            };
            for (_, mask, flag) in self.bits.iter().filter(|(byte, ..)| *byte == at) {
                match control {
                    Control::Default => (),
                    Control::Changeable => value |= mask,
                    Control::Current if flags.has(*flag) => value |= mask,
                    Control::Current => value &= !mask,
                }
            }
            value
        })
    }

    /// Appends it with its header.
    pub fn emit(&self, control: Control, flags: Flags, out: &mut Vec<u8>) {
        if self.subpage == 0 {
            out.extend([self.code, self.length as u8]);
        } else {
            out.extend([0x40 | self.code, self.subpage, 0, self.length as u8]);
        }
        out.extend(self.values(control, flags));
    }

    /// Takes new values: changes `flags`, or gives the byte (from the page's begin) and bit of the first that may not
    /// change. `values` has the page's length.
    pub fn select(&self, values: &[u8], flags: &mut Flags) -> Result<(), (usize, u8)> {
        let old: Vec<u8> = self.values(Control::Current, *flags).collect();
        for (at, value) in values.iter().enumerate() {
            let changeable = self.bits.iter().filter(|(byte, ..)| *byte == at).fold(0, |all, (_, mask, _)| all | mask);
            let wrong = (value ^ old.get(at).copied().unwrap_or(0)) & !changeable;
            if wrong != 0 {
                return Err((self.header() + at, 7 - wrong.leading_zeros() as u8));
            }
        }
        for (at, mask, flag) in self.bits {
            flags.set(*flag, values.get(*at).is_some_and(|value| value & mask != 0));
        }
        Ok(())
    }

    /// Bytes without header.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// WP and DPOFUA of the DEVICE-SPECIFIC PARAMETER (SBC-3 6.5.1).
pub(crate) fn device_specific(flags: Flags) -> u8 {
    let protected = flags.has(Flags::READ_ONLY) || flags.has(Flags::SOFTWARE_PROTECTED);
    0x10 | if protected { 0x80 } else { 0 }
}

/// The short block descriptor (SBC-3 6.5.2.2).
pub(crate) fn short_descriptor(unit: &LogicalUnit) -> [u8; 8] {
    let mut descriptor = [0; 8];
    let blocks = u32::try_from(unit.blocks()).unwrap_or(u32::MAX);
    descriptor[..4].copy_from_slice(&blocks.to_be_bytes());
    descriptor[4..].copy_from_slice(&unit.block_size().to_be_bytes());
    descriptor
}

/// The long LBA block descriptor (SBC-3 6.5.2.3).
pub(crate) fn long_descriptor(unit: &LogicalUnit) -> [u8; 16] {
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&unit.blocks().to_be_bytes());
    descriptor[12..].copy_from_slice(&unit.block_size().to_be_bytes());
    descriptor
}

/// Identifier of the nexus, that hears nothing of a change of its own.
pub(crate) fn who(context: &Context<'_>) -> Option<u64> {
    context.nexus.as_ref().map(|nexus| nexus.id())
}
