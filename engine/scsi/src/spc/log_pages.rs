//! LOG SENSE and LOG SELECT (SPC-4 6.6, 6.7, 7.3; SBC-3 6.4): what the unit has counted, and its informational
//! exceptions. Nothing is saved, and counters can be reset alone.

use crate::{
    command::{Command, Context, Step, answer, fail, good},
    counters::{Count, Totals},
    sense::{Sense, asc},
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

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
}

/// PARAMETER CODE, FORMAT AND LINKING, and PARAMETER VALUE.
type Parameter = (u16, u8, Vec<u8>);

/// In ascending order. Cache memory statistics have what is known of writes; reads come out of the kernel's cache, which
/// doesn't say so.
const PAGES: [(u8, u8, Content); 6] = [
    (0x00, 0x00, Content::Pages),
    (0x00, 0xFF, Content::Subpages),
    (0x19, 0x00, Content::Counters(general, &[Count::Reads, Count::ReadBlocks, Count::Writes, Count::WrittenBlocks])),
    (0x19, 0x20, Content::Counters(cache, &[Count::CachedWrites, Count::Flushes])),
    (0x19, 0xFF, Content::Subpages),
    (0x2F, 0x00, Content::Exceptions),
];

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
    let (control, code, subpage, pointer) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3F, cdb.byte(3), cdb.u16(5));
    let Some((.., content)) = PAGES.iter().find(|(page, sub, _)| (*page, *sub) == (code, subpage)) else {
        let known = PAGES.iter().any(|(page, ..)| *page == code);
        return fail(if known { Sense::field_in_cdb(3, None) } else { Sense::field_in_cdb(2, Some(5)) });
    };
    let out = &mut *context.scratch;
    out.clear();
    // DS: nothing is saved.
    let lists = matches!(content, Content::Pages | Content::Subpages);
    out.extend([u8::from(!lists) << 7 | u8::from(subpage != 0) << 6 | code, subpage, 0, 0]);
    let parameters = match content {
        Content::Pages => {
            out.extend(PAGES.iter().filter(|(_, sub, _)| *sub == 0).map(|(page, ..)| page));
            Vec::new()
        }
        Content::Subpages => {
            for (page, sub, _) in PAGES.iter().filter(|(page, ..)| code == 0 || *page == code) {
                out.extend([page, sub]);
            }
            Vec::new()
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
    let last = parameters.last().map_or(0, |(code, ..)| *code);
    if pointer > last {
        return fail(Sense::field_in_cdb(5, None));
    }
    for (code, format, value) in parameters.iter().filter(|(code, ..)| *code >= pointer) {
        out.extend(code.to_be_bytes());
        out.extend([*format, value.len() as u8]); // at most 64
        out.extend_from_slice(value);
    }
    let length = (out.len() - 4) as u16; // a few parameters
    out[2..4].copy_from_slice(&length.to_be_bytes());
    let allocation_length = u32::from(command.cdb.u16(7));
    answer(context, allocation_length)
}

/// PCR, and PC 11b, reset the counters of a page, or of all by page 00h.
fn log_select(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let cdb = &command.cdb;
    let (control, code, subpage) = (cdb.byte(2) >> 6, cdb.byte(2) & 0x3F, cdb.byte(3));
    if cdb.u16(7) != 0 {
        return fail(Sense::field_in_cdb(7, None));
    }
    let all = (code, subpage) == (0, 0);
    let mut pages = PAGES.iter().filter(|(page, sub, _)| all || (*page, *sub) == (code, subpage)).peekable();
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
