//! Sizes as people write them: `"10GiB"`, `"512 KiB"`, or a plain number of bytes.
use serde::Serialize;
use std::{fmt, str::FromStr};

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 6] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SizeError {
    /// No digits at its beginning.
    #[error("no number at its beginning")]
    Number,
    /// The unit is none of the known ones. Carries a unit that may be meant.
    #[error("`{unit}` is not a unit of size")]
    Unit {
        /// As written.
        unit: String,
        /// The nearest one that exists.
        nearest: &'static str,
    },
    /// It does not fit in 63 bits.
    #[error("it is more than 8 EiB")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let digits: String = digits.chars().filter(|c| *c != '_').collect();
        if digits.is_empty() {
            return Err(SizeError::Number);
        }
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => {
                    return Err(SizeError::Unit { unit: unit.to_owned(), nearest: nearest_unit(unit) });
                }
            }
        };
        let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
        match number.checked_mul(factor) {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Size(bytes)),
            _ => Err(SizeError::TooLarge),
        }
    }
}

/// `GB`, `G`, `gib` and the like mean `GiB` to most people; ask them to say so.
fn nearest_unit(unit: &str) -> &'static str {
    match unit.chars().next().map(|c| c.to_ascii_uppercase()) {
        Some('K') => "KiB",
        Some('M') => "MiB",
        Some('T') => "TiB",
        Some('P') => "PiB",
        Some('B') => "B",
        _ => "GiB",
    }
}

impl fmt::Display for Size {
    /// The largest unit that leaves no fraction; sizes above 10 MiB that fit none are shown to a tenth of a MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let text = match exact {
            Some((unit, factor)) if *factor > 1024 || self.0 < 10 << 20 => {
                format!("{} {unit}", self.0 / factor)
            }
            None if self.0 == 0 => "0 B".to_owned(),
            _ => format!("{:.1} MiB", self.0 as f64 / f64::from(1u32 << 20)),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("10GiB", 10 << 30),
            ("512 KiB", 512 << 10),
            ("1TiB", 1 << 40),
            ("4096", 4096),
            ("3MiB", 3 << 20),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn other_units_are_refused_with_the_one_that_is_meant() {
        for (text, nearest) in [("10GB", "GiB"), ("1g", "GiB"), ("5 mb", "MiB"), ("1Tib", "TiB"), ("2kB", "KiB")] {
            assert!(matches!(text.parse::<Size>(), Err(SizeError::Unit { nearest: n, .. }) if n == nearest), "{text}");
        }
        assert_eq!("".parse::<Size>(), Err(SizeError::Number));
        assert_eq!("GiB".parse::<Size>(), Err(SizeError::Number));
        assert_eq!("-1".parse::<Size>(), Err(SizeError::Number));
        assert_eq!("99999999TiB".parse::<Size>(), Err(SizeError::TooLarge));
        assert_eq!("99999999999999999999".parse::<Size>(), Err(SizeError::TooLarge));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_whole_unit() {
        for (bytes, text) in
            [(0, "0 B"), (512, "512 B"), (10 << 30, "10 GiB"), (65536, "64 KiB"), ((10 << 20) + 4096, "10.0 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
