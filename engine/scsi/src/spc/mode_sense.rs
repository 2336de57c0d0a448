//! MODE SENSE 6 and 10 (SPC-4 6.13, 6.14).

use crate::{
    command::{Command, Context, Step, answer, fail},
    sense::Sense,
    spc::mode_pages::{self, Control, device_specific, long_descriptor, short_descriptor},
    table::{Entry, Traits},
    unit::LogicalUnit,
};

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0x00], Traits::NONE, mode_sense_6),
    Entry::new(&[0x5A, 0x18, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00], Traits::NONE, mode_sense_10),
];

const ALL_PAGES: u8 = 0x3F;
const ALL_SUBPAGES: u8 = 0xFF;

fn mode_sense_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let allocation_length = u32::from(command.cdb.byte(4));
    let out = &mut *context.scratch;
    out.clear();
    out.extend([0, 0, device_specific(unit.flags()), 0]);
    if !command.cdb.bit(1, 3) {
        out[3] = 8;
        out.extend(short_descriptor(unit));
    }
    if let Err(sense) = pages(command, unit, out) {
        return fail(sense);
    }
    // All pages are far below 255 bytes: a test holds that.
    out[0] = u8::try_from(out.len() - 1).unwrap_or(u8::MAX);
    answer(context, allocation_length)
}

fn mode_sense_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let allocation_length = u32::from(command.cdb.u16(7));
    let out = &mut *context.scratch;
    out.clear();
    out.extend([0, 0, 0, device_specific(unit.flags()), 0, 0, 0, 0]);
    let (disable_descriptors, long) = (command.cdb.bit(1, 3), command.cdb.bit(1, 4));
    match (disable_descriptors, long) {
        (true, _) => (),
        (false, true) => {
            out[4] = 0x01; // LONGLBA
            out[7] = 16;
            out.extend(long_descriptor(unit));
        }
        (false, false) => {
            out[7] = 8;
            out.extend(short_descriptor(unit));
        }
    }
    if let Err(sense) = pages(command, unit, out) {
        return fail(sense);
    }
    let length = u16::try_from(out.len() - 2).unwrap_or(u16::MAX);
    out[..2].copy_from_slice(&length.to_be_bytes());
    answer(context, allocation_length)
}

/// Appends the pages that bytes 2 and 3 ask for.
fn pages(command: &Command, unit: &LogicalUnit, out: &mut Vec<u8>) -> Result<(), Sense> {
    let (code, subpage) = (command.cdb.byte(2) & 0x3F, command.cdb.byte(3));
    let control = match command.cdb.byte(2) >> 6 {
        0b00 => Control::Current,
        0b01 => Control::Changeable,
        0b10 => Control::Default,
        _ => Control::Saved,
    };
    // Of all pages only 00h and FFh may be asked (SPC-4 table 172).
    if code == ALL_PAGES && !matches!(subpage, 0 | ALL_SUBPAGES) {
        return Err(Sense::field_in_cdb(3, None));
    }
    let thin = unit.thin();
    let of_code = || mode_pages::pages(thin).filter(|page| code == ALL_PAGES || page.code == code);
    let mut any = false;
    unit.modes(|modes| {
        for page in of_code().filter(|page| subpage == ALL_SUBPAGES || page.subpage == subpage) {
            page.emit(control, modes, thin, out);
            any = true;
        }
    });
    match any {
        true => Ok(()),
        // The page is there, then it is the subpage that is wrong.
        false if of_code().next().is_some() => Err(Sense::field_in_cdb(3, None)),
        false => Err(Sense::field_in_cdb(2, Some(5))),
    }
}
