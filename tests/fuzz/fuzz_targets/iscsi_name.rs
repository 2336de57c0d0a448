//! Names: one that is accepted is short, printable, and accepted in its normal form too. Addresses come back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::names::{MAX_NAME_LEN, TargetAddress, check, normalize};

fuzz_target!(|name: &str| {
    if let Ok(name_type) = check(name) {
        assert!(name.len() <= MAX_NAME_LEN && !name.chars().any(|c| c.is_control() || c.is_whitespace()));
        assert_eq!(check(&normalize(name)), Ok(name_type));
    }
    if let Some(address) = TargetAddress::parse(name) {
        assert_eq!(TargetAddress::parse(&address.to_string()), Some(address));
    }
});
