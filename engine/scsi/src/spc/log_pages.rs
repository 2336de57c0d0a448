//! LOG SENSE and LOG SELECT (SPC-4 6.6, 6.7, 7.3; SBC-3 6.4): what the unit has counted, and its informational
//! exceptions. Nothing is saved, and counters can be reset alone.

use crate::{
    cdb::Cdb,
    command::{Command, Context, State, Step, answer, fail, good},
    counters::{Count, Totals},
    sense::{Sense, asc},
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use backstore_api::Space;

pub(crate) const TABLE: &[Entry] = &[
    Entry::new(&[0x4C, 0x02, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00], Traits::NONE, log_select),
    Entry::new(&[0x4D, 0x00, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00], Traits::NONE, log_sense),
];

/// What a page has.
enum Content {
    /// Codes of pages without subpages.
    Pages,
    /// Codes of pages with their subpages; of this page alone, if it isn't page 00h.
    Subpages,
    /// Parameters that count.
    Counters(fn(&Totals) -> Vec<Parameter>, &'static [Count]),
    /// ASC and ASCQ of an informational exception.
    Exceptions,
    /// How full the store is: of thin units alone.
    Provisioning,
}

/// PARAMETER CODE, FORMAT AND LINKING, and PARAMETER VALUE.
type Parameter = (u16, u8, Vec<u8>);

/// In ascending order. Cache memory statistics have what is known of writes; reads come out of the kernel's cache, which
/// doesn't say so.
const PAGES: [(u8, u8, Content); 7] = [
    (0x00, 0x00, Content::Pages),
    (0x00, 0xFF, Content::Subpages),
    (0x0C, 0x00, Content::Provisioning),
    (0x19, 0x00, Content::Counters(general, &[Count::Reads, Count::ReadBlocks, Count::Writes, Count::WrittenBlocks])),
    (0x19, 0x20, Content::Counters(cache, &[Count::CachedWrites, Count::Flushes])),
    (0x19, 0xFF, Content::Subpages),
    (0x2F, 0x00, Content::Exceptions),
];

fn pages(unit: &LogicalUnit) -> impl Iterator<Item = &'static (u8, u8, Content)> + use<> {
    let thin = unit.thin();
    PAGES.iter().filter(move |(.., content)| thin || !matches!(content, Content::Provisioning))
}

/// FORMAT AND LINKING: a counter without bound, a binary list.
const COUNTER: u8 = 0b10;
const LIST: u8 = 0b11;

/// General statistics and performance: commands, and blocks from and to initiators. Processing and idle intervals, of a
/// millisecond, are not measured, and stay zero with what is weighted by them.
fn general(totals: &Totals) -> Vec<Parameter> {
    let of = |count: Count| totals[count as usize].to_be_bytes();
    let known = [of(Count::Reads), of(Count::Writes), of(Count::WrittenBlocks), of(Count::ReadBlocks)];
    let mut value = known.concat();
    value.resize(64, 0);
    let interval = [(-3i32).to_be_bytes(), 1u32.to_be_bytes()].concat();
    vec![(0x0001, COUNTER, value), (0x0002, COUNTER, vec![0; 8]), (0x0003, LIST, interval)]
}

/// Write cache memory hits, and writes from it.
fn cache(totals: &Totals) -> Vec<Parameter> {
    let of = |count: Count| totals[count as usize].to_be_bytes().to_vec();
    vec![(0x0003, COUNTER, of(Count::CachedWrites)), (0x0004, COUNTER, of(Count::Flushes))]
}

fn log_sense(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let cdb = &command.cdb;
    let (control, code, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3F, cdb.byte(3));
    let Some((.., content)) = pages(unit).find(|(page, sub, _)| (*page, *sub) == (code, subpage)) else {
        let known = pages(unit).any(|(page, ..)| *page == code);
        return fail(if known { Sense::field_in_cdb(3, None) } else { Sense::field_in_cdb(2, Some(5)) });
    };
    let parameters = match content {
        Content::Pages => {
            let codes = pages(unit).filter(|(_, sub, _)| *sub == 0).map(|(page, ..)| *page).collect();
            return list(cdb, codes, context);
        }
        Content::Subpages => {
            let of_page = pages(unit).filter(|(page, ..)| code == 0 || *page == code);
            return list(cdb, of_page.flat_map(|(page, sub, _)| [*page, *sub]).collect(), context);
        }
        Content::Provisioning => {
            command.state = State::Space;
            return Step::Space;
        }
        Content::Counters(parameters, _) => match control {
            0b01 => parameters(&unit.totals()),
            // Default cumulative values.
            0b11 => parameters(&Totals::default()),
            // Nothing has a threshold.
            _ => return fail(Sense::field_in_cdb(2, Some(7))),
        },
        Content::Exceptions => {
            let code = if unit.modes(|modes| modes.current.exceptions().0) { asc::FALSE_FAILURE_PREDICTION } else { 0 };
            let [code, qualifier] = code.to_be_bytes();
            // The temperature is not known.
            vec![(0x0000, LIST, vec![code, qualifier, 0xFF, 0x00])]
        }
    };
    page(cdb, &parameters, context)
}

/// Logical block provisioning (SBC-4 6.4.5): what the store says of itself, in threshold sets.
pub(crate) fn provisioning(cdb: &Cdb, space: Space, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    // SCOPE: of this unit alone; what is free may be used by others too.
    const ONE: u8 = 0b01;
    const SHARED: u8 = 0b10;
    let resources = [(0x0001, space.available, SHARED), (0x0002, space.used, ONE)];
    let parameter = |(code, bytes, scope): (u16, Option<u64>, u8)| {
        let count = u32::try_from(unit.threshold_sets(bytes?)).unwrap_or(u32::MAX);
        Some((code, LIST, [&count.to_be_bytes()[..], &[scope, 0, 0, 0]].concat()))
    };
    let parameters: Vec<Parameter> = resources.into_iter().filter_map(parameter).collect();
    page(cdb, &parameters, context)
}

/// A page of codes, which has no DS.
fn list(cdb: &Cdb, codes: Vec<u8>, context: &mut Context<'_>) -> Step {
    if cdb.u16(5) > 0 {
        return fail(Sense::field_in_cdb(5, None));
    }
    emit(cdb, 0, &codes, context)
}

/// A page of parameters, from the PARAMETER POINTER on. DS: nothing is saved.
fn page(cdb: &Cdb, parameters: &[Parameter], context: &mut Context<'_>) -> Step {
    let pointer = cdb.u16(5);
    if pointer > parameters.last().map_or(0, |(code, ..)| *code) {
        return fail(Sense::field_in_cdb(5, None));
    }
    let mut bytes = Vec::new();
    for (code, format, value) in parameters.iter().filter(|(code, ..)| *code >= pointer) {
        bytes.extend(code.to_be_bytes());
        bytes.extend([*format, value.len() as u8]); // at most 64
        bytes.extend_from_slice(value);
    }
    emit(cdb, 0x80, &bytes, context)
}

fn emit(cdb: &Cdb, save: u8, bytes: &[u8], context: &mut Context<'_>) -> Step {
    let (code, subpage) = (cdb.byte(2) & 0x3F, cdb.byte(3));
    let [high, low] = (bytes.len() as u16).to_be_bytes(); // a few parameters
    context.scratch.clear();
    context.scratch.extend([save | u8::from(subpage != 0) << 6 | code, subpage, high, low]);
    context.scratch.extend(bytes);
    answer(context, u32::from(cdb.u16(7)))
}

/// PCR, and PC 11b, reset the counters of a page, or of all by page 00h.
fn log_select(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let cdb = &command.cdb;
    let (control, code, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3F, cdb.byte(3));
    if cdb.u16(7) != 0 {
        return fail(Sense::field_in_cdb(7, None));
    }
    let all = (code, subpage) == (0, 0);
    let mut pages = pages(unit).filter(|(page, sub, _)| all || (*page, *sub) == (code, subpage)).peekable();
    if pages.peek().is_none() {
        return fail(Sense::field_in_cdb(2, Some(5)));
    }
    if cdb.bit(1, 1) || control == 0b11 {
        let counts: Vec<Count> = pages
            .filter_map(|(.., content)| if let Content::Counters(_, counts) = content { Some(*counts) } else { None })
            .flatten()
            .copied()
            .collect();
        unit.reset_counters(&counts, who(context));
    }
    good()
}
