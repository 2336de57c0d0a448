//! The opcode table: one entry per command, made of the families' tables. It dispatches, refuses reserved bits, and is
//! what REPORT SUPPORTED OPERATION CODES shows.

use crate::{
    cdb::Cdb,
    command::{Command, Context, Step},
    copy, sbc, spc,
    unit::LogicalUnit,
};
use backstore_api::Protection;

/// How a command starts once everything common is checked.
pub(crate) type Start = fn(&mut Command, &LogicalUnit, &mut Context<'_>) -> Step;

/// One command.
pub(crate) struct Entry {
    pub opcode: u8,
    /// SERVICE ACTION in byte 1, for opcodes that have them.
    pub service_action: Option<u16>,
    /// CDB USAGE DATA (SPC-4 6.35.3): the bits that are looked at; byte 0 is the opcode. Its length is the CDB's.
    pub usage: &'static [u8],
    /// Bits of the CDB that must be zero, as big-endian numbers over 16 bytes each.
    reserved: [u128; 2],
    pub traits: Traits,
    /// NOMINAL COMMAND PROCESSING TIMEOUT in seconds; 0: not said.
    pub nominal_s: u32,
    /// RECOMMENDED COMMAND TIMEOUT in seconds.
    pub recommended_s: u32,
    pub start: Start,
}

/// What is checked before a command starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits(u16);

impl Traits {
    pub const NONE: Traits = Traits(0);
    /// Runs with a unit attention pending (SPC-4 5.14: INQUIRY, REPORT LUNS, REQUEST SENSE).
    pub const EXEMPT: Traits = Traits(1);
    /// Needs a started unit.
    pub const MEDIUM: Traits = Traits(2);
    /// Changes the medium: refused when it is protected.
    pub const WRITES: Traits = Traits(4);
    /// There only when blocks can be unmapped.
    pub const THIN: Traits = Traits(8);
    /// Needs a medium, started or not.
    pub const PRESENT: Traits = Traits(16);
    /// There only when the store writes atomically.
    pub const ATOMIC: Traits = Traits(32);
    /// There only on a medium with protection information of type 2.
    pub const TYPE2: Traits = Traits(64);
    /// The upper three bits of byte 1 are RDPROTECT, WRPROTECT or VRPROTECT.
    pub const PROTECT: Traits = Traits(128);
    /// Answered while the unit works for itself, as those that are exempt are.
    pub const ALWAYS: Traits = Traits(512);

    /// There only when initiators may change access states.
    pub const EXPLICIT: Traits = Traits(256);

    pub const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }

    #[inline]
    pub const fn has(self, other: Traits) -> bool {
        self.0 & other.0 != 0
    }
}

impl Entry {
    /// An entry with timeouts that fit a command without medium access.
    pub const fn new(usage: &'static [u8], traits: Traits, start: Start) -> Entry {
        let mut bytes = [[0u8; 16]; 2];
        let mut i = 1;
        while i < usage.len() {
            bytes[i / 16][i % 16] = !usage[i];
            i += 1;
        }
        let reserved = [u128::from_be_bytes(bytes[0]), u128::from_be_bytes(bytes[1])];
        Entry {
            opcode: usage[0],
            service_action: None,
            usage,
            reserved,
            traits,
            nominal_s: 1,
            recommended_s: 10,
            start,
        }
    }

    /// The same for one service action. Byte 1 of `usage` holds its number, and further bits that are looked at.
    pub const fn action(action: u8, usage: &'static [u8], traits: Traits, start: Start) -> Entry {
        let mut entry = Entry::new(usage, traits, start);
        entry.service_action = Some(action as u16);
        // The service action's own bits are not reserved.
        entry.reserved[0] &= !(0x1F << 112);
        entry
    }

    /// The same for a service action of the CDB of 32 bytes (SPC-4 4.2.3): ADDITIONAL CDB LENGTH is looked at, too.
    pub const fn long(action: u16, usage: &'static [u8; 32], traits: Traits, start: Start) -> Entry {
        let mut entry = Entry::new(usage, traits, start);
        entry.service_action = Some(action);
        // The service action found the entry.
        entry.reserved[0] &= !(0xFFFF << 48);
        entry
    }

    /// The same with other timeouts, in seconds.
    pub const fn timeouts(mut self, nominal_s: u32, recommended_s: u32) -> Entry {
        self.nominal_s = nominal_s;
        self.recommended_s = recommended_s;
        self
    }

    /// Whether this unit has the command.
    #[inline]
    pub fn supported(&self, unit: &LogicalUnit) -> bool {
        (!self.traits.has(Traits::THIN) || unit.unmaps())
            && (!self.traits.has(Traits::ATOMIC) || sbc::write_atomic::most_blocks(unit) > 0)
            && (!self.traits.has(Traits::TYPE2) || unit.protection() == Some(Protection::Type2))
            && (!self.traits.has(Traits::EXPLICIT) || unit.explicit_access())
    }

    /// CDB USAGE DATA for a unit.
    pub fn usage(&self, unit: &LogicalUnit) -> Vec<u8> {
        let mut usage = self.usage.to_vec();
        // Type 2 has its own commands for it.
        if self.traits.has(Traits::PROTECT) && !matches!(unit.protection(), Some(Protection::Type1 | Protection::Type3))
        {
            usage[1] &= 0x1F;
        }
        usage
    }

    /// Where the first reserved bit is that the CDB has set: byte, and bit.
    #[inline]
    pub fn reserved_bit(&self, cdb: &Cdb) -> Option<(u16, u8)> {
        let [first, second] = cdb.halves();
        let set = [first & self.reserved[0], second & self.reserved[1]];
        let place = match set {
            [0, 0] => return None,
            [0, second] => 128 + second.leading_zeros(),
            [first, _] => first.leading_zeros(),
        };
        Some(((place / 8) as u16, 7 - (place % 8) as u8))
    }
}

/// The families. Order is that of REPORT SUPPORTED OPERATION CODES.
static FAMILIES: [&[Entry]; 31] = [
    spc::inquiry::TABLE,
    spc::sense::TABLE,
    spc::luns::TABLE,
    spc::log_pages::TABLE,
    spc::mode_sense::TABLE,
    spc::mode_select::TABLE,
    spc::opcodes::TABLE,
    spc::buffer::TABLE,
    spc::diagnostic::TABLE,
    spc::information::TABLE,
    spc::timestamp::TABLE,
    spc::persistent_reserve_in::TABLE,
    spc::persistent_reserve_out::TABLE,
    spc::reserve::TABLE,
    spc::port_groups::TABLE,
    sbc::transfer::TABLE,
    sbc::verify::TABLE,
    sbc::protection::TABLE,
    sbc::compare_and_write::TABLE,
    sbc::capacity::TABLE,
    sbc::orwrite::TABLE,
    sbc::write_atomic::TABLE,
    sbc::prefetch::TABLE,
    sbc::sanitize::TABLE,
    sbc::format::TABLE,
    sbc::synchronize::TABLE,
    sbc::start_stop::TABLE,
    sbc::defects::TABLE,
    sbc::write_same::TABLE,
    sbc::unmap::TABLE,
    copy::TABLE,
];

/// All entries.
pub(crate) fn entries() -> impl Iterator<Item = &'static Entry> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// Opcode to (family, place) of its first entry; (255, 255): none.
static INDEX: [(u8, u8); 256] = index();

const fn index() -> [(u8, u8); 256] {
    let mut index = [(255, 255); 256];
    let mut family = FAMILIES.len();
    while family > 0 {
        family -= 1;
        let mut place = FAMILIES[family].len();
        while place > 0 {
            place -= 1;
            index[FAMILIES[family][place].opcode as usize] = (family as u8, place as u8);
        }
    }
    index
}

/// What a CDB's opcode and service action lead to.
pub(crate) enum Found {
    Entry(&'static Entry),
    /// The opcode exists, the service action doesn't.
    NoAction,
    Nothing,
}

#[inline]
pub(crate) fn find(cdb: &Cdb) -> Found {
    match first(cdb.opcode()) {
        None => Found::Nothing,
        Some(entry) if entry.service_action.is_none() => Found::Entry(entry),
        Some(_) => find_action(cdb.opcode(), cdb.service_action()).map_or(Found::NoAction, Found::Entry),
    }
}

/// The first entry of an opcode.
#[inline]
pub(crate) fn first(opcode: u8) -> Option<&'static Entry> {
    let (family, place) = INDEX[usize::from(opcode)];
    FAMILIES.get(usize::from(family))?.get(usize::from(place))
}

/// The entry of an opcode with a service action.
pub(crate) fn find_action(opcode: u8, action: u16) -> Option<&'static Entry> {
    entries().find(|entry| entry.opcode == opcode && entry.service_action == Some(action))
}

/// Whether this unit has a command of an opcode.
pub(crate) fn has_opcode(opcode: u8, unit: &LogicalUnit) -> bool {
    entries().any(|entry| entry.opcode == opcode && entry.supported(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdb::VARIABLE_LENGTH;

    #[test]
    fn every_entry_is_found_by_its_own_opcode_and_action() {
        for entry in entries() {
            let mut cdb = Cdb::new(&[entry.opcode]);
            let action = entry.service_action.unwrap_or(0);
            if entry.opcode == VARIABLE_LENGTH {
                cdb.0[8..10].copy_from_slice(&action.to_be_bytes());
            } else {
                cdb.0[1] = action as u8;
            }
            let Found::Entry(found) = find(&cdb) else { panic!("{:02x}h is not found", entry.opcode) };
            assert!(std::ptr::eq(found, entry), "{:02x}h is there twice", entry.opcode);
        }
    }

    #[test]
    fn cdb_lengths_follow_the_group_code() {
        for entry in entries() {
            let expected = match entry.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                3 => 32,
                4 => 16,
                5 => 12,
                _ => unreachable!(),
            };
            assert_eq!(entry.usage.len(), expected, "{:02x}h", entry.opcode);
        }
    }

    #[test]
    fn usage_data_begins_with_opcode_and_service_action() {
        for entry in entries() {
            assert_eq!(entry.usage[0], entry.opcode);
            if let Some(action) = entry.service_action {
                assert_eq!(Cdb::new(entry.usage).service_action(), action);
            }
        }
    }
}
