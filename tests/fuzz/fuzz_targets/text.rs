//! Text: pairs that are read can be written, and come back through fragments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::text::{TextAccumulator, TextWriter, fragments, pairs};

fuzz_target!(|input: (u8, &[u8])| {
    let (max, text) = input;
    let read: Vec<(&str, &str)> = pairs(text).map_while(Result::ok).collect();
    let mut written = Vec::new();
    let mut writer = TextWriter::new(&mut written);
    for (key, value) in &read {
        writer.pair(key, value).expect("it was read");
    }
    assert!(written.len() <= text.len());
    let mut accumulator = TextAccumulator::new(written.len());
    for (fragment, _) in fragments(&written, usize::from(max)) {
        accumulator.push(fragment).expect("within the limit");
    }
    let again: Result<Vec<_>, _> = accumulator.pairs().collect();
    assert_eq!(again.expect("written"), read);
});
