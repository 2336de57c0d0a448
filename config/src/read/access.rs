//! Access entries of volumes and targets, and their CHAP.
use super::{
    Reader,
    section::{self, At, Section},
    server::unknown_word,
};
use crate::{AccessRule, Chap, Credentials, HashAlgorithm, InitiatorPattern, Secret};
use ipnet::IpNet;
use std::net::IpAddr;
use toml::de::DeValue;

pub(super) const ACCESS_KEYS: &[&str] = &["initiator", "addresses", "chap"];
const CHAP_KEYS: &[&str] =
    &["user", "secret", "secret_file", "mutual_user", "mutual_secret", "mutual_secret_file", "algorithms"];

/// Least length of a secret, bytes (RFC 7143 9.2.1: 96 bits).
const MIN_SECRET: usize = 12;

impl Reader<'_> {
    /// The entries of one target.
    pub(super) fn rules(&mut self, sections: Vec<Section<'_>>, target: &str) -> Vec<AccessRule> {
        let mut rules: Vec<AccessRule> = Vec::new();
        for mut section in sections {
            let span = section.span_of("initiator");
            let key = section.full("initiator");
            let initiator = self.initiator(&mut section);
            let addresses = self.addresses(&mut section);
            let chap = section.take("chap").and_then(|at| self.chap(at, initiator.as_ref(), target));
            section.finish(&mut self.out);
            let Some(initiator) = initiator else { continue };
            let hidden = |other: &&AccessRule| {
                other.initiator == initiator && (other.addresses.is_empty() || other.addresses == addresses)
            };
            if rules.iter().any(|rule| hidden(&rule)) {
                let cause = format!("an entry above is for `{initiator}` already, and this one would never be used");
                self.out.error(span, &key, cause, "make one entry of them, or give them different `addresses`");
            }
            rules.push(AccessRule { initiator, addresses, chap });
        }
        rules
    }

    fn initiator(&mut self, section: &mut Section<'_>) -> Option<InitiatorPattern> {
        if !section.has("initiator") {
            return Some(InitiatorPattern::any());
        }
        let example = "initiator = \"iqn.1994-05.com.redhat:8e89b27b5b8\"";
        let at = section.string("initiator", example, &mut self.out)?;
        match at.value.parse() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let cause = format!("this is no initiator name or pattern: {error}");
                let cure = "write a name (iqn., eui. or naa.), or a pattern such as \"iqn.1998-01.com.vmware:*\"";
                self.out.error(at.span, &at.key, cause, cure);
                None
            }
        }
    }

    fn addresses(&mut self, section: &mut Section<'_>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        let (given, span) = (section.has("addresses"), section.span_of("addresses"));
        let before = self.out.errors.len();
        let items = section.array("addresses", "addresses = [\"10.0.0.0/8\"]", &mut self.out);
        if given && items.is_empty() && self.out.errors.len() == before {
            // Taken at its word this would admit nobody, and as a default everybody.
            let cure = "name networks, such as [\"10.0.0.0/8\"], or leave the key out for any address";
            self.out.error(span, &section.full("addresses"), "the list of addresses is empty", cure);
        }
        for at in items {
            let Some(at) = section::string(at, "\"10.0.0.0/8\"", &mut self.out) else {
                continue;
            };
            match network(&at.value) {
                Ok(network) => networks.push(network),
                Err((cause, cure)) => self.out.error(at.span, &at.key, cause, cure),
            }
        }
        networks
    }

    fn chap(&mut self, at: At<DeValue<'_>>, initiator: Option<&InitiatorPattern>, target: &str) -> Option<Chap> {
        let example = "chap = { user = \"alice\", secret_file = \"/etc/ringlun/alice.secret\" }";
        let mut section = Section::of(at, CHAP_KEYS, example, &mut self.out)?;
        let span = section.span.clone();
        let user_span = section.span_of("user");
        let user = self.user(&mut section, "user");
        let user = user.unwrap_or_else(|| initiator.filter(|i| i.is_exact()).map(|i| i.as_str().to_owned()));
        if user.is_none() && initiator.is_some() {
            let cause = "a pattern is no user name, and there is no `user`";
            self.out.error(user_span, &section.full("user"), cause, "add user = \"alice\"");
        }
        let secret_given = section.has("secret") || section.has("secret_file");
        let secret = self.secret(&mut section, "secret", "secret_file");
        if !secret_given {
            let cure = "add secret_file = \"...\" or secret = \"...\" with at least 12 bytes";
            self.out.error(span, &section.full("secret"), "CHAP has no secret", cure);
        }
        let (mutual_user_given, mutual_user_span) = (section.has("mutual_user"), section.span_of("mutual_user"));
        let mutual_user = self.user(&mut section, "mutual_user");
        let mutual_given = section.has("mutual_secret") || section.has("mutual_secret_file");
        let mutual_secret = self.secret(&mut section, "mutual_secret", "mutual_secret_file");
        if mutual_user_given && !mutual_given {
            let cause = "`mutual_user` is without a `mutual_secret`";
            let cure = "add mutual_secret or mutual_secret_file, or take `mutual_user` away";
            self.out.error(mutual_user_span, &section.full("mutual_user"), cause, cure);
        }
        if let (Some(secret), Some(mutual)) = (&secret, &mutual_secret)
            && secret.value == mutual.value
        {
            let cure = "give the target a secret of its own (RFC 7143 9.2.1)";
            self.out.error(mutual.span.clone(), &mutual.key, "both secrets are equal", cure);
        }
        let algorithms = self.algorithms(&mut section);
        section.finish(&mut self.out);
        Some(Chap {
            initiator: Credentials { user: user?, secret: secret?.value },
            target: mutual_secret.map(|secret| Credentials {
                user: mutual_user.flatten().unwrap_or_else(|| target.to_owned()),
                secret: secret.value,
            }),
            algorithms,
        })
    }

    /// None: the key is absent. Some(None): it is wrong.
    fn user(&mut self, section: &mut Section<'_>, key: &str) -> Option<Option<String>> {
        if !section.has(key) {
            return None;
        }
        let Some(at) = section.string(key, &format!("{key} = \"alice\""), &mut self.out) else {
            return Some(Some(String::new()));
        };
        if at.value.is_empty() || at.value.len() > 255 || at.value.contains('\0') {
            self.out.error(at.span, &at.key, "this is no user name", "use 1 to 255 bytes");
        }
        Some(Some(at.value.into_owned()))
    }

    /// A secret from the file itself or from a file of its own. Nothing of it gets into a message.
    fn secret(&mut self, section: &mut Section<'_>, key: &str, file_key: &str) -> Option<At<Secret>> {
        if section.has(key) && section.has(file_key) {
            let cure = "keep one of them";
            let cause = format!("there are both `{key}` and `{file_key}`");
            self.out.error(section.span_of(file_key), &section.full(file_key), cause, cure);
        }
        let from_file = section.string(file_key, &format!("{file_key} = \"/etc/ringlun/alice.secret\""), &mut self.out);
        let found = match section.string(key, &format!("{key} = \"...\""), &mut self.out) {
            Some(at) => {
                self.secret_in_file.get_or_insert(at.span.clone());
                // An owned string has been made by the parser because of an escape: the secret takes it over.
                Some(At { value: Secret::new(at.value.into_owned().into_bytes()), key: at.key, span: at.span })
            }
            None => from_file.and_then(|at| self.secret_file(at)),
        }?;
        let length = found.value.len();
        if length < MIN_SECRET {
            let cause = format!("the secret is shorter than {MIN_SECRET} bytes: it has {length}");
            let cure = "use 12 to 16 bytes; some initiators take no more";
            self.out.error(found.span, &found.key, cause, cure);
            return None;
        }
        Some(found)
    }

    fn secret_file(&mut self, at: At<std::borrow::Cow<'_, str>>) -> Option<At<Secret>> {
        let path = self.resolve(&at.value);
        let shown = path.display();
        match self.host.read_secret(&path) {
            Ok((bytes, readable_by_others)) => {
                if readable_by_others {
                    let cause = format!("others can read {shown}, and it holds a secret");
                    self.out.warn(at.span.clone(), &at.key, cause, format!("chmod o-r {shown}"));
                }
                let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                Some(At { value: Secret::new(line.to_vec()), key: at.key, span: at.span })
            }
            Err(error) => {
                let cure = "name a file that this user may read and that holds the secret and nothing else";
                self.out.error(at.span, &at.key, format!("{shown} can't be read: {error}"), cure);
                None
            }
        }
    }

    fn algorithms(&mut self, section: &mut Section<'_>) -> Vec<HashAlgorithm> {
        let (given, span) = (section.has("algorithms"), section.span_of("algorithms"));
        let names = HashAlgorithm::ALL.map(HashAlgorithm::name);
        let before = self.out.errors.len();
        let mut algorithms = Vec::new();
        for at in section.array("algorithms", "algorithms = [\"SHA3-256\", \"SHA-256\"]", &mut self.out) {
            let Some(at) = section::string(at, "\"SHA-256\"", &mut self.out) else {
                continue;
            };
            match HashAlgorithm::ALL.into_iter().find(|known| known.name() == at.value) {
                Some(known) if algorithms.contains(&known) => {
                    self.out.error(at.span, &at.key, format!("`{known}` is named twice"), "name each algorithm once");
                }
                Some(known) => algorithms.push(known),
                None => unknown_word(at, "CHAP algorithm", &names, &mut self.out),
            }
        }
        if given && algorithms.is_empty() && self.out.errors.len() == before {
            let cure = "name at least one, or leave the key out";
            self.out.error(span, &section.full("algorithms"), "no algorithm is allowed", cure);
        }
        if algorithms.is_empty() { HashAlgorithm::ALL.to_vec() } else { algorithms }
    }
}

/// A network in CIDR form, or one address. Err: cause and cure.
fn network(text: &str) -> Result<IpNet, (String, String)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let form = "write a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address".to_owned();
    match text.parse::<IpNet>() {
        Ok(network) if network.network() == network.addr() => Ok(network),
        Ok(network) => Err((
            format!("{network} has bits behind its /{}", network.prefix_len()),
            format!("write \"{}\", or \"{}\" for that one address", network.trunc(), network.addr()),
        )),
        Err(_) => match text.split_once('/') {
            Some((address, length)) if address.parse::<IpAddr>().is_ok() => {
                let most = if address.contains(':') { 128 } else { 32 };
                Err((format!("`/{length}` is no prefix length"), format!("it has to be from /0 to /{most}")))
            }
            _ => Err((format!("`{text}` is no network"), form)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:1.2.3.4", "1.2.3.4/32"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown);
        }
        assert!(network("10.0.0.1/8").unwrap_err().1.contains("\"10.0.0.0/8\""));
        assert!(network("10.0.0.0/40").unwrap_err().0.contains("prefix length"));
        assert!(network("lan").is_err());
    }
}
