//! INQUIRY and its standard data (SPC-4 6.6).

use crate::{
    cdb::Cdb,
    command::{Command, Context, Step, answer, fail},
    identity::{Identity, ascii},
    sense::Sense,
    spc::vpd,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const OPCODE: u8 = 0x12;

pub(crate) const TABLE: &[Entry] = &[Entry::new(&[OPCODE, 0x01, 0xFF, 0xFF, 0xFF, 0x00], Traits::EXEMPT, inquiry)];

/// SAM-5, iSCSI, SPC-4, SBC-3, each without a particular revision (SPC-4 table 143).
const VERSION_DESCRIPTORS: [u16; 4] = [0x00A0, 0x0960, 0x0460, 0x04C0];
/// Standard data ends behind the eight version descriptors and what is reserved.
const STANDARD_LENGTH: usize = 96;
/// PERIPHERAL QUALIFIER 011b, DEVICE TYPE 1Fh: no such logical unit can be there.
const ABSENT: u8 = 0x7F;
/// DEVICE TYPE 1Eh.
pub(crate) const WELL_KNOWN: u8 = 0x1E;

fn inquiry(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let (page, allocation_length) = (command.cdb.byte(2), u32::from(command.cdb.u16(3)));
    context.scratch.clear();
    if command.cdb.bit(1, 0) {
        if !vpd::emit(page, unit, context.port, context.scratch) {
            return fail(Sense::field_in_cdb(2, None));
        }
    } else if page != 0 {
        return fail(Sense::field_in_cdb(2, None));
    } else {
        let identity = unit.identity();
        let byte_5 = unit.target_port_groups() << 4 | u8::from(unit.protection().is_some());
        standard(
            0x00,
            unit.removable(),
            byte_5,
            &identity.vendor,
            &identity.product,
            &identity.revision,
            context.scratch,
        );
    }
    answer(context, allocation_length)
}

/// INQUIRY to a LUN that is not there. It has no vital product data.
pub(crate) fn absent(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    if cdb.bit(1, 0) || cdb.byte(2) != 0 {
        return fail(Sense::field_in_cdb(if cdb.bit(1, 0) { 1 } else { 2 }, None));
    }
    context.scratch.clear();
    standard(ABSENT, false, 0, "", "", "", context.scratch);
    answer(context, u32::from(cdb.u16(3)))
}

/// INQUIRY to the well-known logical unit, without vital product data. It speaks with the voice of its target's units.
pub(crate) fn well_known(cdb: &Cdb, context: &mut Context<'_>) -> Step {
    if cdb.byte(2) != 0 {
        return fail(Sense::field_in_cdb(2, None));
    }
    context.scratch.clear();
    let default = Identity::from_name("");
    let identity = context.port.luns.values().next().map_or(&default, |unit| unit.identity());
    standard(WELL_KNOWN, false, 0, &identity.vendor, &identity.product, &identity.revision, context.scratch);
    answer(context, u32::from(cdb.u16(3)))
}

fn standard(
    peripheral: u8,
    removable: bool,
    byte_5: u8,
    vendor: &str,
    product: &str,
    revision: &str,
    out: &mut Vec<u8>,
) {
    out.extend([
        peripheral,
        u8::from(removable) << 7, // RMB
        0x06,                     // VERSION: SPC-4
        0x12,                     // HISUP, RESPONSE DATA FORMAT 2
        (STANDARD_LENGTH - 5) as u8,
        byte_5 | 0x08, // TPGS, 3PC, PROTECT; no SCCS
        0x10,          // MULTIP
        0x02,          // CMDQUE
    ]);
    ascii(out, vendor, 8);
    ascii(out, product, 16);
    ascii(out, revision, 4);
    out.resize(58, 0);
    for version in VERSION_DESCRIPTORS {
        out.extend(version.to_be_bytes());
    }
    out.resize(STANDARD_LENGTH, 0);
}
