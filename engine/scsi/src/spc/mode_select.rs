//! MODE SELECT 6 and 10 (SPC-4 6.11, 6.12).

use crate::{
    command::{Command, Context, Received, Step, fail, good},
    lasting::KEPT,
    sense::{Sense, asc},
    spc::mode_pages::{self, Page, Selected, Values, long_descriptor, short_descriptor, who},
    table::{Entry, Traits},
    unit::{Flags, LogicalUnit},
};
use backstore_api::StoreError;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x15, 0x11, 0x00, 0x00, 0xFF, 0x00], Traits::NONE, mode_select_6),
    Entry::new(&[0x55, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00], Traits::NONE, mode_select_10),
];

fn mode_select_6(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let length = u32::from(command.cdb.byte(4));
    mode_select(command, length, unit, context, |command, list, unit, context| select(command, list, 4, unit, context))
}

fn mode_select_10(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let length = u32::from(command.cdb.u16(7));
    mode_select(command, length, unit, context, |command, list, unit, context| select(command, list, 8, unit, context))
}

fn mode_select(
    command: &mut Command,
    length: u32,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
    then: Received,
) -> Step {
    // PF: pages have the standard's format only.
    if !command.cdb.bit(1, 4) && length > 0 {
        return fail(Sense::field_in_cdb(1, Some(4)));
    }
    match length {
        0 => apply(command, unit, context, |_| Ok(())),
        length => command.receive(length, then),
    }
}

/// The parameter list has come. All of it is checked before any of it holds.
fn select(command: &mut Command, list: &[u8], header: usize, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    apply(command, unit, context, |values| parse(list, header, values, unit))
}

/// SP: all pages are saved, those that were not sent too (SPC-4 6.11).
fn apply(
    command: &mut Command,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
    change: impl FnOnce(&mut Values) -> Result<(), Sense>,
) -> Step {
    match unit.select(who(context), command.cdb.bit(1, 0), change) {
        Err(sense) => fail(sense),
        Ok(Selected { save: Some(number), .. }) => command.save(number, saved),
        // What the cache held has to be on the medium once it is off (SBC-3 6.5.5).
        Ok(Selected { old, new, .. }) if old.has(Flags::WRITE_CACHE) && !new.has(Flags::WRITE_CACHE) => command.flush(),
        Ok(_) => good(),
    }
}

/// The pages are saved, or as before. If the cache was off already, flushing it again costs little.
fn saved(
    command: &mut Command,
    result: Result<(), StoreError>,
    number: u64,
    unit: &LogicalUnit,
    context: &mut Context<'_>,
) -> Step {
    match result {
        Ok(()) if !unit.write_cache() => command.flush(),
        result => KEPT(command, result, number, unit, context),
    }
}

fn parse(list: &[u8], header: usize, new: &mut Values, unit: &LogicalUnit) -> Result<(), Sense> {
    const TRUNCATED: Sense = Sense::illegal(asc::PARAMETER_LIST_LENGTH_ERROR);
    let (descriptor_length, long) = match (header, list.get(..header)) {
        (4, Some(bytes)) => (usize::from(bytes[3]), false),
        (_, Some(bytes)) => (usize::from(u16::from_be_bytes([bytes[6], bytes[7]])), bytes[4] & 1 != 0),
        (_, None) => return Err(TRUNCATED),
    };
    let length_at = if header == 4 { 3 } else { 6 };
    let mut at = header;
    if descriptor_length > 0 {
        let expected = if long { 16 } else { 8 };
        if descriptor_length != expected {
            return Err(Sense::field_in_parameters(length_at, None));
        }
        let descriptor = list.get(at..at + expected).ok_or(TRUNCATED)?;
        check_descriptor(descriptor, at as u16, unit)?;
        at += expected;
    }
    while at < list.len() {
        let (page, values_at) = page_at(list, at, unit).ok_or(TRUNCATED)??;
        let values = list.get(values_at..values_at + page.length()).ok_or(TRUNCATED)?;
        page.select(values, new).map_err(|(byte, bit)| Sense::field_in_parameters((at + byte) as u16, Some(bit)))?;
        at = values_at + page.length();
    }
    Ok(())
}

/// The page whose header is at this place, and where its values begin. None: the list ends too early.
fn page_at(list: &[u8], at: usize, unit: &LogicalUnit) -> Option<Result<(&'static Page, usize), Sense>> {
    let first = *list.get(at)?;
    let (code, with_subpage) = (first & 0x3F, first & 0x40 != 0);
    let (subpage, length, length_at) = match with_subpage {
        false => (0, usize::from(*list.get(at + 1)?), at + 1),
        true => {
            let header = list.get(at..at + 4)?;
            (header[1], usize::from(u16::from_be_bytes([header[2], header[3]])), at + 2)
        }
    };
    // SPF says which format the header has, so a page without subpages may not have it set.
    let page = mode_pages::pages(unit.thin())
        .find(|page| page.code == code && page.subpage == subpage && (subpage != 0) == with_subpage);
    Some(match page {
        None => Err(Sense::field_in_parameters(at as u16, Some(5))),
        Some(page) if page.length() != length => Err(Sense::field_in_parameters(length_at as u16, None)),
        Some(page) => Ok((page, at + page.header())),
    })
}

/// A block descriptor may only say what is (SBC-3 6.5.2): all or the same number of blocks, of the same length.
fn check_descriptor(descriptor: &[u8], at: u16, unit: &LogicalUnit) -> Result<(), Sense> {
    let (short, long) = (short_descriptor(unit), long_descriptor(unit));
    let (current, count) = if descriptor.len() == 8 { (&short[..], 4) } else { (&long[..], 8) };
    let (number, rest) = descriptor.split_at(count);
    let same = number == &current[..count] || number.iter().all(|b| *b == 0) || number.iter().all(|b| *b == 0xFF);
    if !same {
        return Err(Sense::field_in_parameters(at, None));
    }
    // Byte 4 of the short one is a density code in old initiators; three bytes of block length follow.
    if rest[rest.len() - 3..] != current[current.len() - 3..] {
        return Err(Sense::field_in_parameters(at + descriptor.len() as u16 - 3, None));
    }
    Ok(())
}
