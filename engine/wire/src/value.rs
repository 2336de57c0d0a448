//! What the values of text keys say (RFC 7143 6.1): numbers, ranges, booleans, lists, binary values.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use core::fmt;

/// A value that is not of the type that its key asks for. It names no part of the value, which may be a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ValueError {
    /// Not a decimal or hexadecimal number of at most 64 bits.
    #[error("not a number")]
    Number,
    /// Not `a~b` with a at most b.
    #[error("not a range `a~b`")]
    Range,
    /// Neither `Yes` nor `No`.
    #[error("neither Yes nor No")]
    Boolean,
    /// Not a binary value: `0x` and hex digits, or `0b` and base64.
    #[error("not a binary value (`0x..` or `0b..`)")]
    Binary,
    /// A binary value of more bytes than allowed.
    #[error("a binary value of more than {limit} bytes")]
    BinaryTooLong {
        /// Bytes.
        limit: usize,
    },
}

/// What is after `0x` or `0X`.
fn hex_digits(value: &str) -> Option<&str> {
    value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"))
}

/// A numerical value: a decimal constant (no sign, no leading zeroes) or a hex constant, at most 64 bits.
pub fn number(value: &str) -> Result<u64, ValueError> {
    let (digits, radix) = match hex_digits(value) {
        Some(digits) => (digits, 16),
        None if value.len() > 1 && value.starts_with('0') => return Err(ValueError::Number),
        None => (value, 10),
    };
    // from_str_radix would take a sign.
    if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(ValueError::Number);
    }
    u64::from_str_radix(digits, radix).map_err(|_| ValueError::Number)
}

/// A numerical range `a~b`, both ends in it.
pub fn range(value: &str) -> Result<(u64, u64), ValueError> {
    let (first, last) = value.split_once('~').ok_or(ValueError::Range)?;
    match (number(first), number(last)) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(ValueError::Range),
    }
}

/// A boolean value, `Yes` or `No`; the case matters.
pub fn boolean(value: &str) -> Result<bool, ValueError> {
    match value {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err(ValueError::Boolean),
    }
}

/// `Yes` or `No`.
pub const fn from_boolean(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// The elements of a list value, in order of preference. An empty value has one empty element.
pub fn list(value: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    value.split(',')
}

/// Padding may be missing; bits that encode nothing must be 0, so that a value has one encoding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a binary value: `0x` and hex digits, or `0b` and base64 (RFC 4648). An odd number of hex digits has a leading
/// zero in thought, as a number has. At most `limit` bytes; nothing larger is allocated.
pub fn binary(value: &str, limit: usize) -> Result<Vec<u8>, ValueError> {
    if let Some(digits) = hex_digits(value) {
        return hex(digits.as_bytes(), limit);
    }
    let Some(encoded) = value.strip_prefix("0b").or_else(|| value.strip_prefix("0B")) else {
        return Err(ValueError::Binary);
    };
    let significant = encoded.trim_end_matches('=');
    if significant.is_empty() {
        return Err(ValueError::Binary);
    }
    if significant.len().div_ceil(4).saturating_sub(1).saturating_mul(3) > limit {
        return Err(ValueError::BinaryTooLong { limit });
    }
    let bytes = BASE64.decode(encoded).map_err(|_| ValueError::Binary)?;
    if bytes.len() > limit { Err(ValueError::BinaryTooLong { limit }) } else { Ok(bytes) }
}

fn nibble(digit: u8) -> Result<u8, ValueError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ValueError::Binary),
    }
}

fn hex(digits: &[u8], limit: usize) -> Result<Vec<u8>, ValueError> {
    if digits.is_empty() {
        return Err(ValueError::Binary);
    }
    if digits.len().div_ceil(2) > limit {
        return Err(ValueError::BinaryTooLong { limit });
    }
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    let mut bytes = Vec::with_capacity(digits.len().div_ceil(2));
    for digit in odd {
        bytes.push(nibble(*digit)?);
    }
    for pair in pairs.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Ok(bytes)
}

/// Prints bytes as a binary value in hex, `0x` first.
#[derive(Clone, Copy)]
pub struct HexValue<'a>(pub &'a [u8]);

impl fmt::Display for HexValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A binary value in hex: `0x..`.
pub fn to_hex(bytes: &[u8]) -> String {
    HexValue(bytes).to_string()
}

/// A binary value in base64 with padding: `0b..`.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut value = String::from("0b");
    BASE64.encode_string(bytes, &mut value);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_decimal_or_hex_of_64_bits() {
        for (value, expected) in [
            ("0", 0),
            ("262144", 262_144),
            ("0x1aB", 0x1ab),
            ("0X10", 16),
            ("18446744073709551615", u64::MAX),
            ("0x0000000000000000000001", 1),
        ] {
            assert_eq!(number(value), Ok(expected), "{value}");
        }
        for value in ["", "-1", "+1", "1 ", " 1", "01", "0x", "0xg", "0x-1", "1a", "18446744073709551616", "0x+1", "²"]
        {
            assert_eq!(number(value), Err(ValueError::Number), "{value}");
        }
    }

    #[test]
    fn ranges_are_ordered() {
        assert_eq!(range("8~0x10"), Ok((8, 16)));
        assert_eq!(range("8~8"), Ok((8, 8)));
        for value in ["8", "9~8", "~", "1~", "~1", "1~2~3"] {
            assert_eq!(range(value), Err(ValueError::Range), "{value}");
        }
    }

    #[test]
    fn booleans_are_yes_and_no_alone() {
        assert_eq!((boolean("Yes"), boolean("No")), (Ok(true), Ok(false)));
        for value in ["yes", "NO", "", "Yes ", "1"] {
            assert_eq!(boolean(value), Err(ValueError::Boolean), "{value}");
        }
    }

    #[test]
    fn lists_keep_their_order() {
        assert_eq!(list("CRC32C,None").collect::<Vec<_>>(), ["CRC32C", "None"]);
        assert_eq!(list("").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn binary_values_are_hex_or_base64() {
        assert_eq!(binary("0x0aFF", 2), Ok(vec![0x0a, 0xff]));
        assert_eq!(binary("0xaFF", 2), Ok(vec![0x0a, 0xff]));
        assert_eq!(binary("0bCv8=", 2), Ok(vec![0x0a, 0xff]));
        assert_eq!(binary("0BCv8", 2), Ok(vec![0x0a, 0xff]));
        for value in ["", "0x", "0b", "0b=", "0b====", "10", "0xzz", "0bC", "0bCv9=", "0bCv8=x", "0b Cv8="] {
            assert_eq!(binary(value, 8), Err(ValueError::Binary), "{value}");
        }
    }

    #[test]
    fn binary_values_are_bounded() {
        let error = Err(ValueError::BinaryTooLong { limit: 2 });
        assert_eq!(binary("0x010203", 2), error);
        assert_eq!(binary("0x10203", 2), error);
        assert_eq!(binary("0bAQID", 2), error);
        assert_eq!(binary(&format!("0b{}", "A".repeat(100_000)), 2), error);
    }

    proptest! {
        #[test]
        fn binary_values_come_back(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            prop_assert_eq!(binary(&to_hex(&bytes), bytes.len()).unwrap(), bytes.clone());
            prop_assert_eq!(binary(&to_base64(&bytes), bytes.len()).unwrap(), bytes.clone());
            let limit = bytes.len() - 1;
            prop_assert_eq!(binary(&to_hex(&bytes), limit), Err(ValueError::BinaryTooLong { limit }));
            prop_assert_eq!(binary(&to_base64(&bytes), limit), Err(ValueError::BinaryTooLong { limit }));
        }

        #[test]
        fn any_value_is_read_without_panic(value in "(0[xXbB])?.{0,40}", limit in 0usize..40) {
            if let Ok(bytes) = binary(&value, limit) {
                prop_assert!(bytes.len() <= limit);
            }
            let _ = (number(&value), range(&value), boolean(&value));
        }

        #[test]
        fn numbers_come_back(n: u64) {
            prop_assert_eq!(number(&n.to_string()), Ok(n));
            prop_assert_eq!(number(&format!("{n:#x}")), Ok(n));
        }
    }
}
