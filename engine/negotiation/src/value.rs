//! Values that stand for themselves in a negotiation, and pairs into text. What other values say is read by
//! [`wire::value`].

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

/// A numerical value of at most 32 bits.
pub(crate) fn number(value: &str) -> Option<u32> {
    wire::value::number(value).ok().and_then(|number| u32::try_from(number).ok())
}

/// Appends `key=value` and its NUL. Both are ours or were read as text: neither has a NUL.
pub fn put(out: &mut Vec<u8>, key: &str, value: &str) {
    debug_assert!(!key.contains('\0') && !value.contains('\0'));
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}
