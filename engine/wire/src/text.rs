//! `key=value` text of login and text PDUs (RFC 7143 6): pairs, each ended by a NUL.
//!
//! [`pairs`] reads, [`TextWriter`] writes, [`TextAccumulator`] joins text that comes in several PDUs (C bit), and
//! [`fragments`] cuts it. What values say is in [`crate::value`].

use core::fmt::{self, Write};

/// Longest key, bytes (RFC 7143 6.1).
pub const MAX_KEY_LEN: usize = 63;
/// Longest value that is read or written, bytes as encoded. The RFC's longest is a large binary value.
pub const MAX_VALUE_LEN: usize = 8192;

/// Text that breaks the format.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// The last pair has no NUL.
    #[error("the text does not end with a NUL")]
    Unterminated,
    /// A pair without `=`.
    #[error("a key=value pair without `=`")]
    MissingEquals,
    /// An empty key, a key longer than 63 bytes, or one that does not begin with a capital letter or has characters that
    /// a key may not have.
    #[error("not a valid key (a capital letter, then up to 62 of letters, digits and `.-+@_#`)")]
    InvalidKey,
    /// A value longer than [`MAX_VALUE_LEN`].
    #[error("the value of `{key}` is longer than 8192 bytes")]
    ValueTooLong {
        /// Whose value.
        key: String,
    },
    /// A value that is not UTF-8, or that was to be written and has a NUL in it.
    #[error("the value of `{key}` is not valid text")]
    InvalidValue {
        /// Whose value.
        key: String,
    },
    /// Text of several PDUs that is longer than allowed.
    #[error("the text is longer than the {limit} bytes that are allowed")]
    TextTooLong {
        /// Bytes.
        limit: usize,
    },
}

/// True for a key by RFC 7143 6.1: a letter (a capital one, but for `iSCSIProtocolLevel`), then letters, digits, `.`, `-`, `+`, `@`, `_`; and `#`, which
/// `X#`, `Y#` and `Z#` keys have.
pub fn is_key(key: &[u8]) -> bool {
    key.len() <= MAX_KEY_LEN
        && (key.first().is_some_and(u8::is_ascii_uppercase) || key == b"iSCSIProtocolLevel")
        && key.iter().all(|c| c.is_ascii_alphanumeric() || b".-+@_#".contains(c))
}

/// Iterates over the pairs in `text`, in order; repeated keys come repeatedly. Empty pairs (a NUL after a NUL) are
/// skipped. It ends after the first error.
pub fn pairs(text: &[u8]) -> Pairs<'_> {
    Pairs { rest: text }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

fn pair(pair: &[u8]) -> Result<(&str, &str), TextError> {
    // Not in the whole text: a hostile text without `=` must not cost more than its length.
    let at = pair.iter().take(MAX_KEY_LEN + 1).position(|&c| c == b'=');
    let Some(at) = at else {
        let long = pair.len() > MAX_KEY_LEN;
        return Err(if long { TextError::InvalidKey } else { TextError::MissingEquals });
    };
    let (key, value) = (&pair[..at], &pair[at + 1..]);
    if !is_key(key) {
        return Err(TextError::InvalidKey);
    }
    let key = core::str::from_utf8(key).map_err(|_| TextError::InvalidKey)?;
    if value.len() > MAX_VALUE_LEN {
        return Err(TextError::ValueTooLong { key: key.to_owned() });
    }
    let value = core::str::from_utf8(value).map_err(|_| TextError::InvalidValue { key: key.to_owned() })?;
    Ok((key, value))
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, &'a str), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [0, rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let found = match self.rest.iter().position(|&c| c == 0) {
            Some(end) => {
                let (this, rest) = self.rest.split_at(end);
                self.rest = &rest[1..];
                pair(this)
            }
            None => Err(TextError::Unterminated),
        };
        if found.is_err() {
            self.rest = &[];
        }
        Some(found)
    }
}

/// Appends pairs to a buffer.
#[derive(Debug)]
pub struct TextWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> TextWriter<'a> {
    /// Writes behind what is in `out`.
    pub fn new(out: &'a mut Vec<u8>) -> TextWriter<'a> {
        TextWriter { out }
    }

    /// Appends `key=value` and its NUL. On an error nothing is appended.
    ///
    /// # Errors
    /// [`TextError::InvalidKey`], [`TextError::InvalidValue`] (a NUL in it), [`TextError::ValueTooLong`].
    pub fn pair(&mut self, key: &str, value: impl fmt::Display) -> Result<(), TextError> {
        if !is_key(key.as_bytes()) {
            return Err(TextError::InvalidKey);
        }
        let start = self.out.len();
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'=');
        let written = Checked { out: self.out, left: MAX_VALUE_LEN, error: None };
        if let Some(error) = written.write(key, &value) {
            self.out.truncate(start);
            return Err(error);
        }
        self.out.push(0);
        Ok(())
    }
}

/// Where a value is formatted to: bounds its length, refuses NULs.
struct Checked<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
    error: Option<fn(String) -> TextError>,
}

impl Checked<'_> {
    fn write(mut self, key: &str, value: &dyn fmt::Display) -> Option<TextError> {
        let done = write!(self, "{value}");
        match (self.error, done) {
            (Some(error), _) => Some(error(key.to_owned())),
            (None, Err(_)) => Some(TextError::InvalidValue { key: key.to_owned() }),
            (None, Ok(())) => None,
        }
    }
}

impl fmt::Write for Checked<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if s.len() > self.left {
            self.error = Some(|key| TextError::ValueTooLong { key });
            return Err(fmt::Error);
        }
        if s.as_bytes().contains(&0) {
            self.error = Some(|key| TextError::InvalidValue { key });
            return Err(fmt::Error);
        }
        self.left -= s.len();
        self.out.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// Joins the text of PDUs with the C bit to one, up to a limit. Pairs may be cut anywhere (RFC 7143 6.2).
#[derive(Clone, PartialEq, Eq)]
pub struct TextAccumulator {
    bytes: Vec<u8>,
    limit: usize,
}

/// The text may hold CHAP values, so its length is all that is shown.
impl fmt::Debug for TextAccumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextAccumulator({} of {} bytes)", self.bytes.len(), self.limit)
    }
}

impl TextAccumulator {
    /// Empty; `limit` bytes are the most that it will hold. Allocates only what is pushed.
    pub fn new(limit: usize) -> TextAccumulator {
        TextAccumulator { bytes: Vec::new(), limit }
    }

    /// Appends the data segment of one PDU.
    ///
    /// # Errors
    /// [`TextError::TextTooLong`] if it would become longer than the limit; then it is as before.
    pub fn push(&mut self, segment: &[u8]) -> Result<(), TextError> {
        if segment.len() > self.limit - self.bytes.len() {
            return Err(TextError::TextTooLong { limit: self.limit });
        }
        self.bytes.extend_from_slice(segment);
        Ok(())
    }

    /// The text so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its pairs: right only after the last segment.
    pub fn pairs(&self) -> Pairs<'_> {
        pairs(&self.bytes)
    }

    /// True when nothing was pushed since the last `clear`.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the text and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Cuts text into data segments of at most `max` bytes (at least 1), each with whether it is the last: the others carry
/// the C bit. No text is one empty segment.
pub fn fragments(text: &[u8], max: usize) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let (this, after) = text.split_at(text.len().min(max.max(1)));
        rest = (!after.is_empty()).then_some(after);
        Some((this, rest.is_none()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
        pairs(text).collect()
    }

    #[test]
    fn pairs_come_in_order_with_their_values() {
        let text = b"InitiatorName=iqn.1994-05.com.redhat:8e\0AuthMethod=CHAP,None\0TargetAlias=\0X#a=b=c\0";
        let expected = [
            ("InitiatorName", "iqn.1994-05.com.redhat:8e"),
            ("AuthMethod", "CHAP,None"),
            ("TargetAlias", ""),
            ("X#a", "b=c"),
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn no_text_and_lone_nuls_are_no_pairs() {
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(read(b"\0\0A=1\0\0\0B=2\0\0").unwrap(), [("A", "1"), ("B", "2")]);
    }

    #[test]
    fn broken_pairs_are_refused() {
        assert_eq!(read(b"A=1"), Err(TextError::Unterminated));
        assert_eq!(read(b"SendTargets\0"), Err(TextError::MissingEquals));
        for key in ["", "a", "1A", "A b", "A\u{e9}", "A/"] {
            assert_eq!(read(format!("{key}=1\0").as_bytes()), Err(TextError::InvalidKey), "{key}");
        }
        assert_eq!(read(b"A=\xff\0"), Err(TextError::InvalidValue { key: "A".into() }));
    }

    #[test]
    fn keys_end_at_63_bytes_and_values_at_8192() {
        let key = "K".repeat(63);
        assert!(read(format!("{key}=\0").as_bytes()).is_ok());
        assert_eq!(read(format!("{key}K=\0").as_bytes()), Err(TextError::InvalidKey));
        assert_eq!(read(format!("{key}K\0").as_bytes()), Err(TextError::InvalidKey));
        assert!(read(format!("K={}\0", "v".repeat(8192)).as_bytes()).is_ok());
        let long = "v".repeat(8193);
        assert_eq!(read(format!("K={long}\0").as_bytes()), Err(TextError::ValueTooLong { key: "K".into() }));
        let mut out = b"before".to_vec();
        let mut writer = TextWriter::new(&mut out);
        assert_eq!(writer.pair("K", &long), Err(TextError::ValueTooLong { key: "K".into() }));
        assert_eq!(writer.pair("K", "a\0B=1"), Err(TextError::InvalidValue { key: "K".into() }));
        assert_eq!(writer.pair("k", 1), Err(TextError::InvalidKey));
        assert_eq!(writer.pair(&"K".repeat(64), 1), Err(TextError::InvalidKey));
        assert_eq!(out, b"before");
    }

    #[test]
    fn iteration_ends_after_an_error() {
        let mut broken = pairs(b"A=1\0oops\0B=2\0");
        assert_eq!(broken.next(), Some(Ok(("A", "1"))));
        assert!(matches!(broken.next(), Some(Err(_))));
        assert_eq!(broken.next(), None);
    }

    #[test]
    fn an_accumulator_is_bounded_and_keeps_what_it_had() {
        let mut accumulator = TextAccumulator::new(8);
        accumulator.push(b"Key=1").unwrap();
        assert_eq!(accumulator.push(b"2345"), Err(TextError::TextTooLong { limit: 8 }));
        accumulator.push(b"2\0").unwrap();
        assert_eq!(accumulator.pairs().next(), Some(Ok(("Key", "12"))));
        assert_eq!(format!("{accumulator:?}"), "TextAccumulator(7 of 8 bytes)");
        accumulator.clear();
        assert!(accumulator.is_empty() && accumulator.push(&[0; 8]).is_ok());
    }

    #[test]
    fn fragments_mark_the_last() {
        let cut = |text, max| fragments(text, max).collect::<Vec<_>>();
        assert_eq!(cut(b"", 4), [(&b""[..], true)]);
        assert_eq!(cut(b"abcd", 4), [(&b"abcd"[..], true)]);
        assert_eq!(cut(b"abcde", 4), [(&b"abcd"[..], false), (&b"e"[..], true)]);
        assert_eq!(cut(b"ab", 0), [(&b"a"[..], false), (&b"b"[..], true)]);
    }

    proptest! {
        #[test]
        fn text_comes_back_through_fragments(
            written in prop::collection::vec(("[A-Z][A-Za-z0-9.@_+#-]{0,62}", "[^\0]{0,80}"), 0..8),
            max in 1usize..200,
        ) {
            let mut text = Vec::new();
            let mut writer = TextWriter::new(&mut text);
            for (key, value) in &written {
                writer.pair(key, value).unwrap();
            }
            let mut accumulator = TextAccumulator::new(text.len());
            for (fragment, _) in fragments(&text, max) {
                prop_assert!(fragment.len() <= max);
                accumulator.push(fragment).unwrap();
            }
            let read: Vec<_> = accumulator.pairs().map(|pair| pair.unwrap()).collect();
            let expected: Vec<_> = written.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(text in prop::collection::vec(prop_oneof![
            Just(0u8), Just(b'='), b'A'..=b'Z', any::<u8>()], 0..300)) {
            for pair in pairs(&text).flatten() {
                prop_assert!(is_key(pair.0.as_bytes()));
            }
        }
    }
}
