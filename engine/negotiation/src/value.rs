//! Values of operational keys: text to number, boolean or list, and back (RFC 7143 6.1).

/// Answers a key that the receiver does not know.
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
/// Answers a key that means nothing in this negotiation.
pub const IRRELEVANT: &str = "Irrelevant";
/// Answers a value that can't be accepted.
pub const REJECT: &str = "Reject";

/// True for a value that is only ever an answer.
pub fn is_refusal(value: &str) -> bool {
    matches!(value, NOT_UNDERSTOOD | IRRELEVANT | REJECT)
}

/// A numerical value: a decimal constant, or a hexadecimal one after `0x`; None when it is none or exceeds 32 bits.
pub fn number(value: &str) -> Option<u32> {
    let (digits, radix) = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // from_str_radix would also take a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// `Yes` or `No`.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// The values of a list, which commas part.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',')
}

/// Text of a boolean.
pub fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// Appends `key=value` and its NUL.
pub fn put(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal_and_nothing_else() {
        for (text, expected) in [
            ("0", Some(0)),
            ("262144", Some(262_144)),
            ("0x1fF", Some(511)),
            ("0X10", Some(16)),
            ("007", Some(7)),
            ("", None),
            ("0x", None),
            ("-1", None),
            ("+1", None),
            ("1 ", None),
            ("1~2", None),
            ("0x+1", None),
            ("12a", None),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn booleans_are_spelt_as_the_standard_spells_them() {
        assert_eq!(boolean("Yes"), Some(true));
        assert_eq!(boolean("No"), Some(false));
        for other in ["yes", "NO", "1", "", "Yes,No"] {
            assert_eq!(boolean(other), None, "{other:?}");
        }
    }
}
