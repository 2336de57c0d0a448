//! `[[volume]]` and its store.
use super::{
    Reader,
    access::ACCESS_KEYS,
    section::{At, Findings, Section, listed},
    server::unknown_word,
};
use crate::{IdentityOverride, Naa, PathState, Provisioning, Size, Store, Volume, names};
use std::{collections::HashMap, ops::Range, path::Path};
use toml::de::DeValue;

pub(super) const KEYS: &[&str] = &[
    "name",
    "store",
    "block_size",
    "physical_block_size",
    "rotation_rate",
    "provisioning",
    "removable",
    "write_protected",
    "protection",
    "background_rate",
    "export",
    "identity",
    "max_sessions",
    "access",
];
const IDENTITY_KEYS: &[&str] = &["vendor", "product", "revision", "serial", "naa"];
const KINDS: &[&str] = &["file", "block", "ram", "null"];
/// Bytes of a piece of a file that is locked in memory.
const LEAST_PINNED: u64 = 2 << 20;
/// Every key of any kind of store.
const STORE_KEYS: &[&str] = &["kind", "path", "size", "direct", "poll", "preallocate", "pinned", "read_only"];

/// A volume before it is known which targets name it.
pub(super) struct Draft<'i> {
    /// Its name is empty when it is missing or wrong, which has been reported.
    pub volume: Volume,
    pub span: Range<usize>,
    pub export: Option<bool>,
    pub max_sessions: Option<u32>,
    /// Entries that are to be read once the target's name is known.
    pub access: Vec<Section<'i>>,
}

impl Draft<'_> {
    /// Short name, if it has one.
    pub fn name(&self) -> Option<&str> {
        Some(self.volume.name.as_str()).filter(|name| !name.is_empty())
    }
}

impl Reader<'_> {
    pub(super) fn volumes<'i>(&mut self, sections: Vec<Section<'i>>, prefix: &str) -> Vec<Draft<'i>> {
        let mut names: HashMap<String, String> = HashMap::new();
        let mut paths: HashMap<std::path::PathBuf, String> = HashMap::new();
        let mut naas: HashMap<Naa, String> = HashMap::new();
        let mut drafts = Vec::new();
        for mut section in sections {
            let section_name = section.name.clone();
            let name = self.name(&mut section, prefix, &mut names, "volume", "db1");
            let span = name.as_ref().map_or(section.span.clone(), |at| at.span.clone());
            let block_size = self.block_size(&mut section);
            let physical_block_size = self.physical_block_size(&mut section, block_size);
            let rotation_rate = self.rotation_rate(&mut section);
            let removable = section.boolean("removable", false, &mut self.out);
            let write_protected = section.boolean("write_protected", false, &mut self.out);
            let background_rate = self.background_rate(&mut section);
            let store_span = section.span_of("store");
            let mut store = match section.take("store") {
                Some(at) => self.store(at, block_size),
                None => {
                    let cure = "add store = { kind = \"file\", path = \"/srv/db1.img\", size = \"10GiB\" }";
                    self.out.error(section.span.clone(), &section.full("store"), "the volume has no `store`", cure);
                    None
                }
            };
            let provisioning = self.provisioning(&mut section, store.as_mut());
            let protection = self.protection(&mut section, store.as_ref());
            if let Some(path) = store.as_ref().and_then(Store::path) {
                let shown = name.as_ref().map_or(section_name.clone(), |at| format!("volume `{}`", at.value));
                if let Some(other) = paths.insert(path.to_owned(), shown) {
                    let cause = format!("{} is the store of {other} already", path.display());
                    self.out.error(store_span, &section.full("store"), cause, "give each volume its own file");
                }
            }
            let identity = self.identity(&mut section, &section_name, &mut naas);
            let export = section.has("export").then(|| section.boolean("export", true, &mut self.out));
            let max_sessions = section.integer("max_sessions", 1..65_537, 1, &mut self.out).map(|at| at.value as u32);
            let access = section.tables("access", ACCESS_KEYS, &mut self.out);
            section.finish(&mut self.out);
            let name = name.map(|at| at.value).unwrap_or_default();
            let volume = Volume {
                full_name: format!("{prefix}:{name}"),
                name,
                store: store.unwrap_or(Store::Null { size: 0 }),
                block_size,
                physical_block_size,
                rotation_rate,
                provisioning,
                removable,
                write_protected,
                protection,
                background_rate,
                identity,
                exported: export.unwrap_or(true),
            };
            drafts.push(Draft { volume, span, export, max_sessions, access });
        }
        drafts
    }

    /// The `name` of a volume or target: present, legal and not taken in `names`.
    pub(super) fn name(
        &mut self,
        section: &mut Section<'_>,
        prefix: &str,
        names: &mut HashMap<String, String>,
        what: &str,
        example: &str,
    ) -> Option<At<String>> {
        if !section.has("name") {
            let cure = format!("add name = \"{example}\"");
            self.out.error(section.span.clone(), &section.full("name"), format!("the {what} has no `name`"), cure);
            return None;
        }
        let At { value, key, span } = section.string("name", &format!("name = \"{example}\""), &mut self.out)?;
        if let Err((cause, cure)) = names::check_short(&value, prefix) {
            self.out.error(span, &key, cause, cure);
            return None;
        }
        if let Some(other) = names.insert(value.to_string(), section.name.clone()) {
            let cause = format!("there is a {what} `{value}` already, {other}");
            self.out.error(span, &key, cause, format!("give each {what} a name of its own"));
            return None;
        }
        Some(At { value: value.into_owned(), key, span })
    }

    fn block_size(&mut self, section: &mut Section<'_>) -> u32 {
        let Some(at) = section.integer("block_size", 0..u64::MAX, 512, &mut self.out) else {
            return 512;
        };
        match at.value {
            512 => 512,
            4096 => 4096,
            other => {
                let cure = "write block_size = 512 or block_size = 4096";
                self.out.error(at.span, &at.key, format!("a block size of {other} is not possible"), cure);
                512
            }
        }
    }

    fn physical_block_size(&mut self, section: &mut Section<'_>, block_size: u32) -> Option<u32> {
        let at = section.integer("physical_block_size", 0..u64::MAX, 4096, &mut self.out)?;
        // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT has four bits; more than a MiB is no medium.
        match u32::try_from(at.value) {
            Ok(size) if size.is_power_of_two() && (block_size..=1 << 20).contains(&size) => Some(size),
            _ => {
                let cause = format!("a physical block size of {} is not possible", at.value);
                self.out.error(at.span, &at.key, cause, format!("write a power of two from {block_size} to 1048576"));
                None
            }
        }
    }

    fn rotation_rate(&mut self, section: &mut Section<'_>) -> Option<u16> {
        let at = section.integer("rotation_rate", 0..u64::MAX, 1, &mut self.out)?;
        // SBC-3 table 197: other values are reserved.
        match at.value {
            rate @ (1 | 0x401..=0xFFFE) => Some(rate as u16),
            other => {
                let cause = format!("a rotation rate of {other} is not possible");
                let cure = "write 1 for a medium that doesn't rotate, or revolutions a minute (1025 to 65534)";
                self.out.error(at.span, &at.key, cause, cure);
                None
            }
        }
    }

    fn background_rate(&mut self, section: &mut Section<'_>) -> Option<u64> {
        let at = section.size("background_rate", "200MiB", &mut self.out)?;
        if at.value == 0 {
            self.out.error(at.span, &at.key, "at this rate nothing would end", "leave it out for no limit");
            return None;
        }
        Some(at.value)
    }

    /// Holds it against the store: what is zeroing has all of its space from the start.
    fn provisioning(&mut self, section: &mut Section<'_>, store: Option<&mut Store>) -> Option<Provisioning> {
        let at = section.string("provisioning", "provisioning = \"thin\"", &mut self.out)?;
        let Some(wanted) = Provisioning::ALL.into_iter().find(|kind| kind.name() == at.value) else {
            let names = Provisioning::ALL.map(Provisioning::name);
            unknown_word(at, "provisioning", &names, &mut self.out);
            return None;
        };
        let problem = match (wanted, store) {
            (
                Provisioning::Thin,
                Some(Store::File { preallocate: true, .. } | Store::Ram { preallocate: true, .. }),
            ) => Some(("what is preallocated is not thin".to_owned(), "take `preallocate` or `provisioning` away")),
            (Provisioning::Zeroing, Some(Store::File { preallocate, .. } | Store::Ram { preallocate, .. })) => {
                *preallocate = true;
                None
            }
            (Provisioning::Zeroing, Some(store)) => {
                let cause = format!("a store of kind \"{}\" can't be zeroing", store.kind());
                Some((cause, "use a store of kind \"file\" or \"ram\", or provisioning = \"full\""))
            }
            _ => None,
        };
        if let Some((cause, cure)) = problem {
            self.out.error(at.span, &at.key, cause, cure);
        }
        Some(wanted)
    }

    fn protection(&mut self, section: &mut Section<'_>, store: Option<&Store>) -> Option<u8> {
        let at = section.integer("protection", 0..u64::MAX, 1, &mut self.out)?;
        if let Some(Store::Null { .. }) = store {
            let cause = "a store of kind \"null\" keeps no protection information";
            self.out.error(at.span, &at.key, cause, "take `protection` away, or use a store of kind \"ram\"");
            return None;
        }
        if store.is_some_and(|store| store.pinned() > 0) {
            let cause = "blocks with protection information are never sent from the page cache";
            self.out.error(at.span, &at.key, cause, "take `protection` or `pinned` away");
            return None;
        }
        match at.value {
            kind @ 1..=3 => Some(kind as u8),
            other => {
                let cause = format!("there is no protection information of type {other}");
                self.out.error(at.span, &at.key, cause, "write protection = 1, 2 or 3");
                None
            }
        }
    }

    /// `naas`: those that are taken, and by whom; this one is added.
    fn identity(
        &mut self,
        section: &mut Section<'_>,
        volume: &str,
        naas: &mut HashMap<Naa, String>,
    ) -> IdentityOverride {
        let out = &mut self.out;
        let Some(at) = section.take("identity") else {
            return IdentityOverride::default();
        };
        let example = "identity = { vendor = \"ACME\", product = \"Disk\" }";
        let Some(mut section) = Section::of(at, IDENTITY_KEYS, example, out) else {
            return IdentityOverride::default();
        };
        let mut field = |key: &str, most: usize| {
            let at = section.string(key, &format!("{key} = \"A\""), out)?;
            if let Some(wrong) = at.value.chars().find(|c| !(' '..='~').contains(c)) {
                let cause = format!("INQUIRY fields are printable ASCII, and this has {wrong:?}");
                out.error(at.span, &at.key, cause, "use letters, digits and punctuation of ASCII");
                return None;
            }
            if at.value.len() > most || at.value.is_empty() {
                let cause = format!("`{key}` has {} characters", at.value.len());
                out.error(at.span, &at.key, cause, format!("use 1 to {most} characters"));
                return None;
            }
            Some(at.value.into_owned())
        };
        let identity = IdentityOverride {
            vendor: field("vendor", 8),
            product: field("product", 16),
            revision: field("revision", 4),
            serial: field("serial", 32),
            naa: section.string("naa", "naa = \"3123456789abcdef\"", out).and_then(|at| {
                let Some(naa) = naa(&at.value) else {
                    let cause = format!("`{}` is no NAA identifier", at.value);
                    let cure = "write 16 hexadecimal digits that begin with 2, 3 or 5, or 32 that begin with 6";
                    out.error(at.span, &at.key, cause, cure);
                    return None;
                };
                if let Some(other) = naas.insert(naa, volume.to_owned()) {
                    let cause = format!("{naa} is the NAA identifier of {other} already");
                    out.error(at.span, &at.key, cause, "give each volume its own, or leave it out");
                    return None;
                }
                Some(naa)
            }),
        };
        section.finish(out);
        identity
    }

    fn store(&mut self, at: At<DeValue<'_>>, block_size: u32) -> Option<Store> {
        let example = "store = { kind = \"ram\", size = \"1GiB\" }";
        let span = at.span.clone();
        let mut section = Section::of(at, STORE_KEYS, example, &mut self.out)?;
        if !section.has("kind") {
            let cure = format!("add kind = \"file\", \"block\", \"ram\" or \"null\", such as {example}");
            self.out.error(span, &section.full("kind"), "the store has no `kind`", cure);
            return None;
        }
        let kind = section.string("kind", "kind = \"file\"", &mut self.out)?;
        let store = match &*kind.value {
            "file" => self.file(&mut section, block_size),
            "block" => self.device(&mut section),
            "ram" => {
                let preallocate = section.boolean("preallocate", false, &mut self.out);
                self.sized(&mut section, block_size).map(|size| Store::Ram { size, preallocate })
            }
            "null" => self.sized(&mut section, block_size).map(|size| Store::Null { size }),
            _ => {
                unknown_word(kind, "store kind", KINDS, &mut self.out);
                return None;
            }
        };
        misplaced(&mut section, &kind.value, &mut self.out);
        section.finish(&mut self.out);
        store
    }

    fn path<'i>(&mut self, section: &mut Section<'i>, example: &str) -> Option<At<std::borrow::Cow<'i, str>>> {
        if !section.has("path") {
            self.out.error(
                section.span.clone(),
                &section.full("path"),
                "the store has no `path`",
                format!("add {example}"),
            );
            return None;
        }
        let at = section.string("path", example, &mut self.out)?;
        if at.value.is_empty() || at.value.contains('\0') {
            self.out.error(at.span, &at.key, "this is no path", format!("write {example}"));
            return None;
        }
        Some(at)
    }

    /// A size that is there, not zero and a multiple of the block size.
    fn checked_size(&mut self, section: &mut Section<'_>, block_size: u32) -> Option<At<u64>> {
        let At { value, key, span } = section.size("size", "10GiB", &mut self.out)?;
        let block = u64::from(block_size);
        if value == 0 {
            self.out.error(span, &key, "the size is zero", "give it one, such as size = \"10GiB\"");
            None
        } else if !value.is_multiple_of(block) {
            let (below, above) = (value / block * block, (value / block).saturating_add(1).saturating_mul(block));
            let cure =
                if below == 0 { format!("write size = {above}") } else { format!("write size = {below} or {above}") };
            let cause = format!("{value} bytes are no multiple of the block size of {block_size}");
            self.out.error(span, &key, cause, cure);
            None
        } else {
            Some(At { value, key, span })
        }
    }

    fn sized(&mut self, section: &mut Section<'_>, block_size: u32) -> Option<u64> {
        if !section.has("size") {
            let cure = "add size = \"1GiB\"";
            self.out.error(section.span.clone(), &section.full("size"), "the store has no `size`", cure);
            return None;
        }
        self.checked_size(section, block_size).map(|at| at.value)
    }

    fn file(&mut self, section: &mut Section<'_>, block_size: u32) -> Option<Store> {
        let direct = section.boolean("direct", false, &mut self.out);
        let poll = self.poll(section, direct);
        let preallocate = section.boolean("preallocate", false, &mut self.out);
        let pinned = self.pinned(section, direct);
        let read_only = section.boolean("read_only", false, &mut self.out);
        let size_given = section.has("size");
        let size = self.checked_size(section, block_size);
        let at = self.path(section, "path = \"/srv/db1.img\"")?;
        let path = self.resolve(&at.value);
        let found = self.host.path_state(&path, read_only);
        let size_is_bad = size_given && size.is_none();
        let shown = path.display();
        let problem = match found {
            _ if size_is_bad && matches!(found, PathState::File(_) | PathState::Creatable) => None,
            PathState::File(0) | PathState::Creatable if size.is_none() => {
                let state = if matches!(found, PathState::Creatable) { "does not exist" } else { "is empty" };
                Some((
                    format!("{shown} {state}, and no `size` is given"),
                    "add size = \"10GiB\" to make it so large".into(),
                ))
            }
            PathState::File(0) | PathState::Creatable if read_only => Some((
                format!("{shown} is to be created, and the store is `read_only`"),
                "take `read_only` away".to_owned(),
            )),
            PathState::File(0) | PathState::Creatable => None,
            PathState::File(length) => match &size {
                None if !length.is_multiple_of(u64::from(block_size)) => Some((
                    format!("{shown} has {length} bytes, no multiple of the block size of {block_size}"),
                    format!("give a `size`, or truncate -s %{block_size} {shown}"),
                )),
                Some(size) if length < size.value => Some((
                    format!("{shown} has {length} bytes and is smaller than `size`"),
                    format!("leave `size` out, or make the file larger: truncate -s {} {shown}", size.value),
                )),
                Some(size) if length > size.value => {
                    let cause = format!("{shown} has {}, and only {} are served", Size(length), Size(size.value));
                    self.out.warn(size.span.clone(), &size.key, cause, "leave `size` out to serve all of it");
                    None
                }
                _ => None,
            },
            PathState::Device => Some((format!("{shown} is a block device"), "write kind = \"block\"".to_owned())),
            other => Some(trouble(&path, other)),
        };
        if let Some((cause, cure)) = problem {
            self.out.error(at.span, &at.key, cause, cure);
        }
        Some(Store::File { path, size: size.map(|size| size.value), direct, poll, preallocate, pinned, read_only })
    }

    /// `poll` goes with direct I/O.
    fn poll(&mut self, section: &mut Section<'_>, direct: bool) -> bool {
        let (span, key) = (section.span_of("poll"), section.full("poll"));
        let poll = section.boolean("poll", false, &mut self.out);
        if poll && !direct {
            let cure = "write direct = true, or leave `poll` out";
            self.out.error(span, &key, "what goes through the page cache can't be polled", cure);
        }
        poll
    }

    /// `pinned` goes with the page cache.
    fn pinned(&mut self, section: &mut Section<'_>, direct: bool) -> u64 {
        let Some(at) = section.size("pinned", "2GiB", &mut self.out) else { return 0 };
        if direct {
            let cause = "direct I/O goes past the page cache: there is nothing to be pinned";
            self.out.error(at.span, &at.key, cause, "write direct = false, or leave `pinned` out");
        } else if at.value < LEAST_PINNED {
            let cause = "files are pinned in pieces of 2 MiB";
            self.out.error(at.span, &at.key, cause, "write at least pinned = \"2MiB\", or leave it out");
        }
        at.value
    }

    fn device(&mut self, section: &mut Section<'_>) -> Option<Store> {
        let direct = section.boolean("direct", true, &mut self.out);
        let poll = self.poll(section, direct);
        let pinned = self.pinned(section, direct);
        let read_only = section.boolean("read_only", false, &mut self.out);
        let at = self.path(section, "path = \"/dev/nvme0n1\"")?;
        let path = self.resolve(&at.value);
        let problem = match self.host.path_state(&path, read_only) {
            PathState::Device => None,
            PathState::File(_) => Some((format!("{} is a file", path.display()), "write kind = \"file\"".to_owned())),
            PathState::Creatable => {
                Some((format!("{} does not exist", path.display()), "name a block device; see lsblk".to_owned()))
            }
            other => Some(trouble(&path, other)),
        };
        if let Some((cause, cure)) = problem {
            self.out.error(at.span, &at.key, cause, cure);
        }
        Some(Store::Block { path, direct, poll, pinned, read_only })
    }
}

/// NAA types 2, 3 and 5 have eight bytes, type 6 has sixteen.
fn naa(text: &str) -> Option<Naa> {
    let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    match (text.len(), text.bytes().next()?) {
        (16, b'2' | b'3' | b'5') if digits => Some(Naa { value: number(text)?, extension: None }),
        (32, b'6') if digits => Some(Naa { value: number(&text[..16])?, extension: Some(number(&text[16..])?) }),
        _ => None,
    }
}

/// What is wrong with a path that neither kind of store can use.
fn trouble(path: &Path, state: PathState) -> (String, String) {
    let shown = path.display();
    match state {
        PathState::NoFolder => {
            let folder = path.parent().unwrap_or(path).display();
            (format!("the folder of {shown} is missing"), format!("mkdir -p {folder}, or mend the path"))
        }
        PathState::Folder(_) => (format!("{shown} is a folder"), "name a file in it".to_owned()),
        PathState::Refused(error) => {
            (format!("{shown} can't be opened: {error}"), "let this user read and write it, or name another".to_owned())
        }
        _ => (format!("{shown} is neither a file nor a block device"), "name a file or a device".to_owned()),
    }
}

/// Keys that exist, but not for this kind of store.
fn misplaced(section: &mut Section<'_>, kind: &str, out: &mut Findings) {
    let own: &[&str] = match kind {
        "file" => STORE_KEYS,
        "block" => &["kind", "path", "direct", "poll", "pinned", "read_only"],
        "ram" => &["kind", "size", "preallocate"],
        _ => &["kind", "size"],
    };
    for key in STORE_KEYS.iter().filter(|key| !own.contains(key)) {
        if let Some(at) = section.take(key) {
            let cause = format!("a store of kind \"{kind}\" has no `{key}`");
            out.error(at.span, &at.key, cause, format!("take it away; it has {}", listed(own)));
        }
    }
}
