//! Additional header segments: what is read can be built, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::ahs::{Builder, CommandSegments, MAX_AHS_LEN, Segment, segments};

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(MAX_AHS_LEN)];
    let _ = CommandSegments::parse(bytes);
    let read: Vec<Segment<'_>> = segments(bytes).map_while(Result::ok).collect();
    let mut builder = Builder::new();
    for segment in &read {
        builder.push(*segment).expect("it came from as many bytes");
    }
    let again: Result<Vec<_>, _> = segments(builder.bytes()).collect();
    assert_eq!(again.expect("built"), read);
});
