//! Hides secrets in the text that is shown with a mistake. The text keeps its length and its lines, so that spans fit.
//!
//! Two ways: where the text could be parsed, the values are known ([`values`]). Where it could not, and in comments, keys
//! that speak of a secret are looked for in the bare text ([`lexical`]); this hides too much rather than too little.
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Replaces the ranges, and what a comment gives away, by asterisks.
pub(crate) fn hide(text: &str, ranges: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in ranges {
        let end = range.end.min(bytes.len());
        let start = range.start.min(end);
        for byte in &mut bytes[start..end] {
            if !matches!(*byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    }
    // A range that cuts a character in two leaves bytes that are no text; they are replaced one for one.
    String::from_utf8(bytes).unwrap_or_else(|error| {
        error.into_bytes().iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '*' }).collect()
    })
}

/// Ranges of the values that are, or may be meant as, secrets; and those of comments that speak of one.
pub(crate) fn values(table: &DeTable<'_>, text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    walk(table, false, &mut found);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = line.find('#')
            && speaks(&line[at..]).is_some()
        {
            found.push(offset + at + 1..offset + line.len());
        }
        offset += line.len();
    }
    found
}

/// Keys of a `chap` table that hold no secret.
const OPEN: [&str; 5] = ["user", "mutual_user", "secret_file", "mutual_secret_file", "algorithms"];

fn walk(table: &DeTable<'_>, in_chap: bool, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let key = key.get_ref().to_lowercase();
        let telling = (key.contains("secret") || key.contains("password")) && !key.ends_with("_file");
        let chap = in_chap || key == "chap";
        let open = OPEN.contains(&key.as_str());
        match value.get_ref() {
            _ if telling => found.push(value.span()),
            DeValue::Table(inner) => walk(inner, chap, found),
            DeValue::Array(items) => items.iter().for_each(|item| walk_item(item, chap && !open, found)),
            _ if chap && !open => found.push(value.span()),
            _ => {}
        }
    }
}

fn walk_item(item: &Spanned<DeValue<'_>>, in_chap: bool, found: &mut Vec<Range<usize>>) {
    match item.get_ref() {
        DeValue::Table(inner) => walk(inner, in_chap, found),
        DeValue::Array(items) => items.iter().for_each(|item| walk_item(item, in_chap, found)),
        _ if in_chap => found.push(item.span()),
        _ => {}
    }
}

/// Where in the text a word for a secret ends, if there is one that doesn't name a file.
fn speaks(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let ends = ["secret", "secert", "password", "chap"].iter().flat_map(|word| {
        lower.match_indices(word).map(|(at, word)| at + word.len()).filter(|end| !lower[*end..].starts_with("_file"))
    });
    ends.min()
}

/// For text that is no TOML: hides what follows a word for a secret up to the end of its line; where a string begins there
/// that doesn't end in the line, up to the end of the text; where a `chap` table is opened, up to the next header. Escapes
/// in a key can hide such a word, so a line with a backslash in its key is hidden as a whole.
pub(crate) fn lexical(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut offset = 0;
    let mut in_chap = false;
    for line in text.split_inclusive('\n') {
        let here = offset..offset + line.len();
        offset = here.end;
        let is_header = line.trim_start().starts_with('[');
        in_chap &= !is_header;
        let key = line.split('=').next().unwrap_or_default();
        let escaped = key.contains('\\').then_some(0);
        let at = if in_chap { Some(0) } else { speaks(line).or(escaped) };
        let Some(at) = at else { continue };
        let rest = &line[at..];
        let odd = |quote: char| rest.matches(quote).count() % 2 == 1;
        let string_goes_on = rest.contains("\"\"\"") || rest.contains("'''") || odd('"') || odd('\'');
        let value_follows = !is_header && !rest.chars().any(char::is_alphanumeric) && !rest.contains('{');
        if string_goes_on || value_follows && !in_chap {
            found.push(here.start + at..text.len());
            return found;
        }
        let table_opens = is_header || !rest.contains('}');
        in_chap |= table_opens && line.to_ascii_lowercase().contains("chap");
        found.push(here.start + at..here.end);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(range: Range<usize>) -> Vec<Range<usize>> {
        vec![range]
    }

    #[test]
    fn hidden_text_keeps_its_length_and_lines() {
        assert_eq!(hide("a = 'bcd\né'\n", &one(4..12)), "a = ****\n***\n");
        assert_eq!(hide("é", &one(0..1)).chars().count(), 2, "half a character is no reason to fail");
        assert_eq!(hide("ab", &one(1..100)), "a*");
    }

    #[test]
    fn values_of_secrets_are_found_wherever_they_stand() {
        for text in [
            "chap = { secret = \"hush-hush-hush\" }",
            "[[volume]]\n[[volume.access]]\nchap = { user = 'a', mutual_secret = 'hush-hush-hush' }",
            "[x.chap]\nsecert = 'hush-hush-hush'",
            "chap = 'alice:hush-hush-hush'",
            "chap = ['hush-hush-hush']",
            "chap = { secret = ['hush-hush-hush'] }",
            "chap = { a = { b = 'hush-hush-hush' } }",
            "password = 'hush-hush-hush'",
            "\"s\\u0065cret\" = 'hush-hush-hush'",
            "a = 1 # secret = 'hush-hush-hush'",
            "secret = '''\nhush-hush-hush'''",
        ] {
            let table = DeTable::parse(text).unwrap();
            let shown = hide(text, &values(table.get_ref(), text));
            assert!(!shown.contains("hush"), "{shown}");
            let shown = hide(text, &lexical(text));
            assert!(!shown.contains("hush"), "lexical: {shown}");
        }
    }

    #[test]
    fn broken_text_hides_secrets_too() {
        for text in [
            "secret = \"hush\nhush\"\n",
            "secret = hush hush\nb = 1",
            "chap = { user = \"a\", secret = \"hu\"sh\" }",
            "chap = {\n secret = \"\"\"\nhush\n",
            "secret =\n'hush'",
            "chap = {\n user = 'a',\n secrte = 'hush'\n",
            "[volume.access.chap]\nuser = 'a'\nsecrte = 'hush'\n= x",
            "chap =\n{ secrte = 'hush' }",
        ] {
            let shown = hide(text, &lexical(text));
            assert!(!shown.contains("hush") && !shown.contains("sh\""), "{shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        let text = "name = 'db1'\n[[access]]\nchap = { user = 'alice', secret = 'x', secret_file = '/etc/f' }\n";
        let table = DeTable::parse(text).unwrap();
        let shown = hide(text, &values(table.get_ref(), text));
        assert!(shown.contains("'alice'") && shown.contains("'/etc/f'") && shown.contains("secret = ***"), "{shown}");
    }
}
