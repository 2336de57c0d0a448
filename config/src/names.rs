//! iSCSI names (RFC 7143 4.2.7, RFC 3722): what they may look like.

/// Longest iSCSI name, bytes (RFC 7143 4.2.7.1).
pub(crate) const MAX_NAME: usize = 223;

/// Checks the part of a target's name after the prefix and the colon. Err: what is wrong, and what would be right.
pub(crate) fn check_short(name: &str, prefix: &str) -> Result<(), (String, String)> {
    let suggestion = || {
        let legal: String = name
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c) { c } else { '-' })
            .collect();
        let legal = legal.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if legal.is_empty() { "such as `db1`".to_owned() } else { format!("such as `{legal}`") }
    };
    if name.is_empty() {
        return Err(("the name is empty".to_owned(), "give it a name, such as `db1`".to_owned()));
    }
    if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(*c))) {
        return Err((
            format!("the name has a character that iSCSI names don't have: {wrong:?}"),
            format!("use lower-case letters, digits, `-`, `.` and `:`, {}", suggestion()),
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err((
            "the name does not begin with a letter or a digit".to_owned(),
            format!("begin it with a letter or a digit, {}", suggestion()),
        ));
    }
    let length = prefix.len() + 1 + name.len();
    if length > MAX_NAME {
        return Err((
            format!("`iqn_prefix` and this name make {length} bytes, and an iSCSI name has {MAX_NAME} at most"),
            format!("shorten it by {} bytes", length - MAX_NAME),
        ));
    }
    Ok(())
}

/// Checks an `iqn_prefix`: `iqn.YYYY-MM.` and a domain in reverse, perhaps with more after a colon.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), String> {
    let Some(rest) = prefix.strip_prefix("iqn.") else {
        return Err("it does not begin with `iqn.`".to_owned());
    };
    let date = rest.split('.').next().unwrap_or_default();
    let date_is_right = matches!(date.as_bytes(), [y1, y2, y3, y4, b'-', m1, m2]
        if [y1, y2, y3, y4, m1, m2].iter().all(|c| c.is_ascii_digit())
            && (1..=12).contains(&((m1 - b'0') * 10 + (m2 - b'0'))));
    if !date_is_right {
        return Err(format!("`{date}` is not a year and a month"));
    }
    let domain = rest[date.len()..].trim_start_matches('.').split(':').next().unwrap_or_default();
    if !domain.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return Err("there is no domain after the month".to_owned());
    }
    if let Some(wrong) = prefix.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(*c)))
    {
        return Err(format!("it has a character that iSCSI names don't have: {wrong:?}"));
    }
    if prefix.ends_with([':', '.', '-']) {
        return Err("it ends with a separator; the colon before the volume's name is added".to_owned());
    }
    if prefix.len() > 180 {
        return Err("it is longer than 180 bytes and leaves no room for names".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_told_apart() {
        for good in ["iqn.2026-01.io.ringlun", "iqn.1997-05.com.amazon", "iqn.2001-04.com.example:storage.disk2"] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "iqn",
            "iqn.",
            "iqn.2026",
            "iqn.2026-13.io.x",
            "iqn.2026-01",
            "iqn.2026-01.",
            "iqn.2026-01.io.x:",
            "iqn.2026-01.IO.x",
            "eui.02004567A425678D",
            "iqn.26-01.io",
            "iqn.2026-01.io.a b",
        ] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_name_gets_a_legal_one_proposed() {
        let (cause, cure) = check_short("My_Disk", "iqn.2026-01.io.ringlun").unwrap_err();
        assert!(cause.contains("'M'") && cure.contains("`my-disk`"), "{cause} {cure}");
        assert!(check_short("db1", "iqn.2026-01.io.ringlun").is_ok());
        assert!(check_short("-db1", "iqn.2026-01.io.ringlun").is_err());
        assert!(check_short(&"a".repeat(210), "iqn.2026-01.io.ringlun").is_err());
    }
}
