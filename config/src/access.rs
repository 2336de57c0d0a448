//! Who may log in: rules of initiator names and addresses, and the credentials that they ask for. Pure code.
use crate::Secret;
use ipnet::IpNet;
use serde::Serialize;
use std::{fmt, net::IpAddr, str::FromStr};

/// Hash algorithms of CHAP (RFC 7143 13.11, and the IANA registry of PPP authentication algorithms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HashAlgorithm {
    /// 5
    #[serde(rename = "MD5")]
    Md5,
    /// 6
    #[serde(rename = "SHA1")]
    Sha1,
    /// 7
    #[serde(rename = "SHA-256")]
    Sha256,
    /// 8
    #[serde(rename = "SHA3-256")]
    Sha3_256,
}

impl HashAlgorithm {
    /// Strongest first.
    pub const ALL: [HashAlgorithm; 4] =
        [HashAlgorithm::Sha3_256, HashAlgorithm::Sha256, HashAlgorithm::Sha1, HashAlgorithm::Md5];

    /// Its number in CHAP_A.
    pub const fn number(self) -> u8 {
        match self {
            HashAlgorithm::Md5 => 5,
            HashAlgorithm::Sha1 => 6,
            HashAlgorithm::Sha256 => 7,
            HashAlgorithm::Sha3_256 => 8,
        }
    }

    /// As the file names it.
    pub const fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Md5 => "MD5",
            HashAlgorithm::Sha1 => "SHA1",
            HashAlgorithm::Sha256 => "SHA-256",
            HashAlgorithm::Sha3_256 => "SHA3-256",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One name with its secret. `Debug` shows the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Credentials {
    /// CHAP_N.
    pub user: String,
    /// At least 12 bytes.
    pub secret: Secret,
}

/// CHAP as a rule asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chap {
    /// What the initiator proves.
    pub initiator: Credentials,
    /// What the target proves if the initiator asks; its secret differs from the initiator's.
    pub target: Option<Credentials>,
    /// Allowed algorithms; never empty.
    pub algorithms: Vec<HashAlgorithm>,
}

/// An entry of `[[volume.access]]` or `[[target.access]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessRule {
    /// Who.
    pub initiator: InitiatorPattern,
    /// From where; empty: from anywhere.
    pub addresses: Vec<IpNet>,
    /// With which proof; None: without.
    pub chap: Option<Chap>,
}

impl AccessRule {
    /// Whether a peer at `address` is meant. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.is_empty() || self.addresses.iter().any(|network| network.contains(&address))
    }
}

/// An initiator's name, or a pattern in which `*` stands for any characters (or none). Kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct InitiatorPattern(String);

/// What can be wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// RFC 3722 forbids it.
    #[error("it has a character that no initiator name has: {0:?}")]
    Character(char),
    /// Not `iqn.`, `eui.` or `naa.`.
    #[error("no initiator name begins like this")]
    Beginning,
    /// RFC 7143 4.2.7.1.
    #[error("it is longer than 223 bytes")]
    Long,
}

impl FromStr for InitiatorPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<InitiatorPattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > 223 {
            return Err(PatternError::Long);
        }
        // RFC 3722: letters, digits, and of the rest of ASCII only `-`, `.` and `:`.
        if let Some(wrong) = text.chars().find(|c| !(c.is_alphanumeric() || "-.:*".contains(*c))) {
            return Err(PatternError::Character(wrong));
        }
        let lower = text.to_lowercase();
        let literal = lower.split('*').next().unwrap_or_default();
        let exact = literal.len() == lower.len();
        let fits = |form: &str| literal.starts_with(form) && lower.len() > form.len();
        let may_fit = |form: &str| !exact && form.starts_with(literal);
        if !["iqn.", "eui.", "naa."].into_iter().any(|form| fits(form) || may_fit(form)) {
            return Err(PatternError::Beginning);
        }
        Ok(InitiatorPattern(lower))
    }
}

impl InitiatorPattern {
    /// The pattern that every name fits.
    pub fn any() -> InitiatorPattern {
        InitiatorPattern("*".to_owned())
    }

    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a name and not a pattern.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// How specific it is: an exact name is more so than any pattern, a pattern more so with every literal character.
    fn rank(&self) -> (bool, usize) {
        (self.is_exact(), self.0.chars().filter(|c| *c != '*').count())
    }

    /// Whether the name fits.
    pub fn matches(&self, initiator: &str) -> bool {
        fits(self.0.as_bytes(), initiator.to_lowercase().as_bytes())
    }
}

impl fmt::Display for InitiatorPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Glob with `*` alone, in linear space and at most quadratic time: goes back to the last `*` only.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            p = after;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What a target says to an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// The target has no rules: anyone may log in, without CHAP.
    Open,
    /// This rule governs: with CHAP if it has one.
    Rule(&'a AccessRule),
    /// Not at all.
    Denied(Denial),
}

impl<'a> Access<'a> {
    /// Whether a login can succeed at all (and the target is shown in discovery).
    pub fn is_allowed(&self) -> bool {
        !matches!(self, Access::Denied(_))
    }

    /// The proof that is asked for.
    pub fn chap(&self) -> Option<&'a Chap> {
        match self {
            Access::Rule(rule) => rule.chap.as_ref(),
            Access::Open | Access::Denied(_) => None,
        }
    }
}

/// Why a login is refused before CHAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no such target.
    #[error("there is no such target")]
    NoSuchTarget,
    /// No rule names the initiator.
    #[error("no access entry names this initiator")]
    Initiator,
    /// The rules for this initiator are for other addresses.
    #[error("the initiator may not log in from this address")]
    Address,
}

/// See [`crate::Plan::access_for`].
pub(crate) fn decide<'a>(rules: &'a [AccessRule], initiator: &str, address: IpAddr) -> Access<'a> {
    if rules.is_empty() {
        return Access::Open;
    }
    let named = || rules.iter().filter(|rule| rule.initiator.matches(initiator));
    let Some(best) = named().map(|rule| rule.initiator.rank()).max() else {
        return Access::Denied(Denial::Initiator);
    };
    match named().find(|rule| rule.initiator.rank() == best && rule.admits(address)) {
        Some(rule) => Access::Rule(rule),
        None => Access::Denied(Denial::Address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(initiator: &str, addresses: &[&str]) -> AccessRule {
        AccessRule {
            initiator: initiator.parse().unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            chap: None,
        }
    }
    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn no_rule_means_anyone() {
        assert_eq!(decide(&[], "iqn.2000-01.com.x:a", at("10.0.0.1")), Access::Open);
    }

    #[test]
    fn any_rule_means_only_those_that_it_names() {
        let rules = [rule("iqn.2000-01.com.x:a", &[])];
        assert_eq!(decide(&rules, "iqn.2000-01.com.x:a", at("10.0.0.1")), Access::Rule(&rules[0]));
        assert_eq!(decide(&rules, "iqn.2000-01.com.x:ab", at("10.0.0.1")), Access::Denied(Denial::Initiator));
        assert_eq!(decide(&rules, "", at("10.0.0.1")), Access::Denied(Denial::Initiator));
    }

    #[test]
    fn an_exact_name_beats_the_longest_pattern_and_the_longest_pattern_the_others() {
        let rules = [
            rule("*", &[]),
            rule("iqn.2000-01.com.example.storage:*", &[]),
            rule("iqn.2000-01.*", &[]),
            rule("iqn.2000-01.com.example.storage:a", &[]),
        ];
        let pick = |name: &str| match decide(&rules, name, at("::1")) {
            Access::Rule(rule) => rule.initiator.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(pick("iqn.2000-01.com.example.storage:a"), "iqn.2000-01.com.example.storage:a");
        assert_eq!(pick("IQN.2000-01.com.Example.storage:B"), "iqn.2000-01.com.example.storage:*");
        assert_eq!(pick("iqn.2000-01.com.other:a"), "iqn.2000-01.*");
        assert_eq!(pick("eui.02004567a425678d"), "*");
    }

    #[test]
    fn the_address_is_asked_of_the_rules_that_govern_the_name_only() {
        let rules = [
            rule("iqn.2000-01.com.x:a", &["10.0.0.0/8"]),
            rule("iqn.2000-01.com.x:a", &["192.168.1.5/32", "fd00::/8"]),
            rule("*", &[]),
        ];
        let a = "iqn.2000-01.com.x:a";
        assert_eq!(decide(&rules, a, at("10.9.9.9")), Access::Rule(&rules[0]));
        assert_eq!(decide(&rules, a, at("::ffff:10.9.9.9")), Access::Rule(&rules[0]), "mapped into IPv6");
        assert_eq!(decide(&rules, a, at("192.168.1.5")), Access::Rule(&rules[1]));
        assert_eq!(decide(&rules, a, at("fd00::1")), Access::Rule(&rules[1]));
        assert_eq!(decide(&rules, a, at("11.0.0.1")), Access::Denied(Denial::Address), "the pattern doesn't help");
        assert_eq!(decide(&rules, "iqn.2000-01.com.x:b", at("11.0.0.1")), Access::Rule(&rules[2]));
    }

    #[test]
    fn patterns_that_no_name_can_fit_are_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("alice", PatternError::Beginning),
            ("iqn.", PatternError::Beginning),
            ("foo*", PatternError::Beginning),
            ("iqn.2000-01.com.x:a b", PatternError::Character(' ')),
            ("iqn.2000-01.com.x:a_b", PatternError::Character('_')),
            (&format!("iqn.{}", "a".repeat(220)), PatternError::Long),
        ] {
            assert_eq!(text.parse::<InitiatorPattern>(), Err(error), "{text:?}");
        }
        for text in ["*", "i*", "iqn.*", "*:db", "eui.02004567A425678D", "naa.5*"] {
            assert!(text.parse::<InitiatorPattern>().is_ok(), "{text}");
        }
    }

    /// The plain definition, for comparison.
    fn fits_slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|n| fits_slowly(rest, &name[n..])),
            Some((c, rest)) => name.first() == Some(c) && fits_slowly(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn patterns_match_as_their_definition_says(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), fits_slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
