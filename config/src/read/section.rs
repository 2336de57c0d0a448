//! A table of the file whose keys are taken out one by one; what is left is unknown.
use crate::{Size, SizeError, report::Finding};
use miette::Severity;
use std::{borrow::Cow, fmt::Display, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Collects what is found while reading.
#[derive(Default)]
pub(super) struct Findings {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Findings {
    pub fn error(&mut self, span: Range<usize>, key: &str, cause: impl Display, cure: impl Display) {
        self.errors.push(finding(Severity::Error, span, key, cause, cure));
    }

    pub fn warn(&mut self, span: Range<usize>, key: &str, cause: impl Display, cure: impl Display) {
        self.warnings.push(finding(Severity::Warning, span, key, cause, cure));
    }
}

fn finding(severity: Severity, span: Range<usize>, key: &str, cause: impl Display, cure: impl Display) -> Finding {
    Finding { severity, span, key: key.to_owned(), cause: cause.to_string(), cure: cure.to_string() }
}

/// A value with its key's full name and the place of the value.
pub(super) struct At<T> {
    pub value: T,
    pub key: String,
    pub span: Range<usize>,
}

impl<T> At<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> At<U> {
        At { value: map(self.value), key: self.key, span: self.span }
    }
}

/// One table.
pub(super) struct Section<'i> {
    /// `volume[1].store`; empty for the whole file.
    pub name: String,
    /// Its header or its braces.
    pub span: Range<usize>,
    entries: Vec<(Spanned<Cow<'i, str>>, Spanned<DeValue<'i>>)>,
    known: &'static [&'static str],
}

impl<'i> Section<'i> {
    pub fn new(name: String, span: Range<usize>, table: DeTable<'i>, known: &'static [&'static str]) -> Section<'i> {
        Section { name, span, entries: table.into_iter().collect(), known }
    }

    /// Of a value that has to be a table. None: it isn't, and that is reported.
    pub fn of(
        value: At<DeValue<'i>>,
        known: &'static [&'static str],
        example: &str,
        out: &mut Findings,
    ) -> Option<Section<'i>> {
        match value.value {
            DeValue::Table(table) => Some(Section::new(value.key, value.span, table, known)),
            other => {
                wrong_type(&value.key, value.span, &other, "a table", example, out);
                None
            }
        }
    }

    /// The full name of a key.
    pub fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Takes a key's value, whatever it is.
    pub fn take(&mut self, key: &str) -> Option<At<DeValue<'i>>> {
        debug_assert!(self.known.contains(&key), "{key}");
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        let (_, value) = self.entries.remove(at);
        Some(At { key: self.full(key), span: value.span(), value: value.into_inner() })
    }

    /// Where the key is, or the table if it isn't there.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        let entry = self.entries.iter().find(|(name, _)| name.get_ref() == key);
        entry.map_or(self.span.clone(), |(_, value)| value.span())
    }

    /// Whether it is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.get_ref() == key)
    }

    pub fn string(&mut self, key: &str, example: &str, out: &mut Findings) -> Option<At<Cow<'i, str>>> {
        let at = self.take(key)?;
        string(at, example, out)
    }

    pub fn boolean(&mut self, key: &str, default: bool, out: &mut Findings) -> bool {
        let Some(at) = self.take(key) else {
            return default;
        };
        match at.value {
            DeValue::Boolean(value) => value,
            other => {
                wrong_type(&at.key, at.span, &other, "true or false", &format!("{key} = {}", !default), out);
                default
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, key: &str, bounds: Range<u64>, example: u64, out: &mut Findings) -> Option<At<u64>> {
        let at = self.take(key)?;
        let example = format!("{key} = {example}");
        integer(at, bounds, &example, out)
    }

    /// A limit: its default if it is absent or wrong. `bounds` are inclusive.
    pub fn limit(&mut self, key: &str, low: u32, high: u32, default: u32, out: &mut Findings) -> u32 {
        let bounds = u64::from(low)..u64::from(high) + 1;
        let found = self.integer(key, bounds, u64::from(default), out);
        found.and_then(|at| u32::try_from(at.value).ok()).unwrap_or(default)
    }

    /// A size: text with a unit, or a number of bytes; `example`: such as "10GiB".
    pub fn size(&mut self, key: &str, example: &str, out: &mut Findings) -> Option<At<u64>> {
        let at = self.take(key)?;
        let parsed = match &at.value {
            DeValue::String(text) => text.parse::<Size>(),
            DeValue::Integer(number) if number.as_str().starts_with('-') => Err(SizeError::Number),
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(Size(bytes)),
                _ => Err(SizeError::TooLarge),
            },
            other => {
                wrong_type(&at.key, at.span, other, "a size", &format!("{key} = \"{example}\""), out);
                return None;
            }
        };
        match parsed {
            Ok(size) => Some(at.map(|_| size.bytes())),
            Err(error) => {
                let cure = match &error {
                    SizeError::Unit { nearest, .. } => {
                        format!("units are KiB, MiB, GiB, TiB and PiB (of 1024); is `{nearest}` meant?")
                    }
                    _ => format!(
                        "write a number with KiB, MiB, GiB, TiB or PiB, such as {key} = \"{example}\", or bytes"
                    ),
                };
                out.error(at.span, &at.key, format!("the size can't be read: {error}"), cure);
                None
            }
        }
    }

    /// The items of an array, each with its key (`luns[2]`). Empty if it is absent or wrong.
    pub fn array(&mut self, key: &str, example: &str, out: &mut Findings) -> Vec<At<DeValue<'i>>> {
        let Some(at) = self.take(key) else {
            return Vec::new();
        };
        match at.value {
            DeValue::Array(items) => {
                let item = |(index, item): (usize, Spanned<DeValue<'i>>)| At {
                    key: format!("{}[{index}]", at.key),
                    span: item.span(),
                    value: item.into_inner(),
                };
                items.into_iter().enumerate().map(item).collect()
            }
            other => {
                wrong_type(&at.key, at.span, &other, "an array", example, out);
                Vec::new()
            }
        }
    }

    /// The tables of `[[key]]`.
    pub fn tables(&mut self, key: &str, known: &'static [&'static str], out: &mut Findings) -> Vec<Section<'i>> {
        let header = format!("[[{}]]", if self.name.is_empty() { key.to_owned() } else { header(&self.full(key)) });
        self.array(key, &header, out).into_iter().filter_map(|at| Section::of(at, known, &header, out)).collect()
    }

    /// Reports every key that was not taken.
    pub fn finish(self, out: &mut Findings) {
        for (key, _) in &self.entries {
            let name = key.get_ref();
            let cure = match nearest(name, self.known) {
                Some(known) => format!("is `{known}` meant?"),
                None => format!("the keys here are {}", listed(self.known)),
            };
            out.error(key.span(), &self.full(name), format!("unknown key `{name}`"), cure);
        }
    }
}

/// `volume[1].access` to `volume.access`.
fn header(key: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = (inside || *c == '[') && *c != ']';
        !inside && *c != ']'
    };
    key.chars().filter(keep).collect()
}

pub(super) fn string<'i>(at: At<DeValue<'i>>, example: &str, out: &mut Findings) -> Option<At<Cow<'i, str>>> {
    match at.value {
        DeValue::String(text) => Some(At { value: text, key: at.key, span: at.span }),
        other => {
            wrong_type(&at.key, at.span, &other, "a string", example, out);
            None
        }
    }
}

pub(super) fn integer(at: At<DeValue<'_>>, bounds: Range<u64>, example: &str, out: &mut Findings) -> Option<At<u64>> {
    match &at.value {
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if bounds.contains(&value) => Some(at.map(|_| value)),
            _ => {
                let cure = format!("it has to be from {} to {}, such as {example}", bounds.start, bounds.end - 1);
                out.error(at.span.clone(), &at.key, format!("{number} is out of range"), cure);
                None
            }
        },
        other => {
            wrong_type(&at.key, at.span.clone(), other, "a whole number", example, out);
            None
        }
    }
}

pub(super) fn wrong_type(
    key: &str,
    span: Range<usize>,
    found: &DeValue<'_>,
    wanted: &str,
    example: &str,
    out: &mut Findings,
) {
    let found = match found {
        DeValue::Integer(_) => "a number".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        other => format!("a {}", other.type_str()),
    };
    out.error(span, key, format!("this is {found}, and {wanted} is needed"), format!("write {example}"));
}

/// The known word that a wrong one is most like, if it is like one at all.
pub(super) fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    // The measure is quadratic: a hostile key gets no proposal.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase();
    // The one is good at words that end wrong, the other at words with two letters in the wrong order.
    let score = |word: &&str| {
        let word = word.to_lowercase();
        strsim::jaro_winkler(&wrong, &word).max(strsim::normalized_damerau_levenshtein(&wrong, &word) + 0.1)
    };
    let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) >= 0.75).then_some(best)
}

/// `a`, `b` and `c`
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
