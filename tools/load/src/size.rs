//! Sizes, ranges and lists of processors as the command line has them.

/// `4096`, `4k`, `4K`, `4KiB`, `1M`, `2GiB`: powers of 1024, as storage tools have it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(format!("`{text}` is not a size such as 4096, 4k, 64KiB, 1M or 2GiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size such as 4096, 4k, 64KiB, 1M or 2GiB"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` does not fit into 64 bits"))
}

/// A size that is not zero.
pub fn parse_positive_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("it must be more than 0".to_owned()),
        size => Ok(size),
    }
}

/// `OFFSET:LENGTH` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Reads a range.
pub fn parse_range(text: &str) -> Result<ByteRange, String> {
    let (offset, length) = text.split_once(':').ok_or("a range is OFFSET:LENGTH, such as 1GiB:512MiB")?;
    let range = ByteRange { offset: parse_size(offset)?, length: parse_positive_size(length)? };
    range.offset.checked_add(range.length).ok_or("the range ends behind 2^64")?;
    Ok(range)
}

/// A list of processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

/// `0,2-4`: processors 0, 2, 3 and 4.
pub fn parse_cpus(text: &str) -> Result<Cpus, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let wrong = |_| format!("`{part}` is not a processor such as 2, or a range such as 2-4");
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(wrong)?, last.parse().map_err(wrong)?);
        if first > last || last >= rustix::thread::CpuSet::MAX_CPU {
            return Err(format!("`{part}` is not a range of processors below {}", rustix::thread::CpuSet::MAX_CPU));
        }
        cpus.extend(first..=last);
    }
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("1M", 1 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "4kb", "4 k", "-1", "+1", "1.5k", "4iB", "99999999999999999999", "99999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_positive_size("0k").is_err());
    }

    #[test]
    fn ranges_have_an_offset_and_a_length() {
        assert_eq!(parse_range("1M:4k"), Ok(ByteRange { offset: 1 << 20, length: 4096 }));
        for text in ["1M", "1M:0", ":1", "18446744073709551615:1"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_listed() {
        assert_eq!(parse_cpus("0,2-4"), Ok(Cpus(vec![0, 2, 3, 4])));
        for text in ["", "a", "4-2", "1,", "0-99999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
