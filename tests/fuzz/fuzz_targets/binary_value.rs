//! Values: binary ones stay within their limit and come back from both encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::value::{binary, boolean, list, number, range, to_base64, to_hex};

fuzz_target!(|input: (u8, &str)| {
    let (limit, value) = (usize::from(input.0), input.1);
    for element in list(value) {
        let _ = (boolean(element), range(element));
        if let Ok(n) = number(element) {
            assert_eq!(number(&n.to_string()), Ok(n));
        }
    }
    if let Ok(bytes) = binary(value, limit) {
        assert!(!bytes.is_empty() && bytes.len() <= limit);
        assert_eq!(binary(&to_hex(&bytes), limit).as_ref(), Ok(&bytes));
        assert_eq!(binary(&to_base64(&bytes), limit).as_ref(), Ok(&bytes));
    }
});
