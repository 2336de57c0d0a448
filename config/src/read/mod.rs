//! From text to a plan. One file per section; what concerns several of them is checked here.
mod access;
mod portal_group;
mod section;
mod server;
mod target;
mod volume;

use crate::{
    Host, Plan, Problem, Report, Store, System, mask, names,
    plan::DEFAULT_PREFIX,
    report::{Finding, place},
};
use miette::Severity;
use section::{Findings, Section};
use std::{
    io::Read,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use toml::de::DeTable;
use zeroize::Zeroizing;

/// Longest configuration that is read, bytes.
const MAX_TEXT: u64 = 16 << 20;

/// A plan, and what is worth knowing about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file says.
    pub plan: Plan,
    /// What is legal but perhaps not meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file. Relative paths in it are relative to its folder. Err: every mistake in it.
pub fn load(file: &Path) -> Result<Loaded, Report> {
    let shown = file.display().to_string();
    let fail = |cause: String, cure: &str| Report::of_file(&shown, cause, cure);
    let (text, mode) = read_text(file).map_err(|error| {
        fail(format!("the file can't be read: {error}"), "name a TOML file that this user may read")
    })?;
    match std::str::from_utf8(&text) {
        Ok(text) => read(&Source { file, text, readable_by_others: mode & 0o004 != 0 }, &System),
        Err(error) => {
            let before = &text[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(fail(format!("line {line} has bytes that are no UTF-8 text"), "save the file as UTF-8"))
        }
    }
}

fn read_text(file: &Path) -> std::io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let handle = std::fs::File::open(file)?;
    let metadata = handle.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::Error::other("it is a folder"));
    }
    if metadata.len() > MAX_TEXT {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    // Room for all of it beforehand: a vector that grows leaves copies of secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 64));
    handle.take(MAX_TEXT).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.mode()))
}

/// Checks a text. `file` is the name that messages show, and its folder is what relative paths are relative to. The text is
/// wiped afterwards.
pub fn parse(file: &Path, text: String, host: &dyn Host) -> Result<Loaded, Report> {
    let text = Zeroizing::new(text);
    read(&Source { file, text: &text, readable_by_others: false }, host)
}

/// What a plan is made from.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    readable_by_others: bool,
}

/// What all sections need while they are read.
struct Reader<'a> {
    host: &'a dyn Host,
    /// Folder of the file; empty: the working directory.
    folder: &'a Path,
    out: Findings,
    /// The first secret that stands in the file itself.
    secret_in_file: Option<Range<usize>>,
}

impl Reader<'_> {
    fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}

fn read(source: &Source<'_>, host: &dyn Host) -> Result<Loaded, Report> {
    let shown = source.file.display().to_string();
    let (table, syntax) = DeTable::parse_recoverable(source.text);
    if !syntax.is_empty() {
        // One mistake of form makes others up: the first is the one to mend.
        let first = syntax.into_iter().min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
        let finding = first.map(|error| Finding {
            severity: Severity::Error,
            span: error.span().unwrap_or(source.text.len()..source.text.len()),
            key: String::new(),
            cause: format!("this is not TOML: {}", error.message()),
            cure: "mend this first; the rest of the file has not been checked".to_owned(),
        });
        let findings = finding.into_iter().collect();
        return Err(Report::new(&shown, source.text, &mask::lexical(source.text), findings));
    }
    let secrets = mask::values(table.get_ref(), source.text);
    let folder = source.file.parent().unwrap_or(Path::new(""));
    let mut reader = Reader { host, folder, out: Findings::default(), secret_in_file: None };
    let span = 0..0;
    let root = Section::new(
        String::new(),
        span,
        table.into_inner(),
        &["server", "portal", "portal_group", "volume", "target"],
    );
    let plan = reader.plan(root);
    if let Some(span) = reader.secret_in_file.clone().filter(|_| source.readable_by_others) {
        let cure = format!("chmod o-r {shown}, or use `secret_file`");
        reader.out.warn(span, "", "others can read this file, and it holds secrets", cure);
    }
    let Findings { errors, warnings } = reader.out;
    if errors.is_empty() {
        Ok(Loaded { plan, warnings: place(&shown, source.text, &secrets, warnings) })
    } else {
        Err(Report::new(&shown, source.text, &secrets, errors))
    }
}

impl Reader<'_> {
    /// Goes on after a mistake with a default, so that every mistake is found; the plan is good if none was.
    fn plan(&mut self, mut root: Section<'_>) -> Plan {
        let general = root.take("server").and_then(|at| Section::of(at, server::KEYS, "[server]", &mut self.out));
        let mut general = self.server(general);
        let portals = root.tables("portal", server::PORTAL_KEYS, &mut self.out);
        let portals = self.portals(portals);
        let portal_groups = root.tables("portal_group", portal_group::KEYS, &mut self.out);
        let portal_groups = self.portal_groups(portal_groups, &portals);
        let prefix = match names::check_prefix(&general.server.iqn_prefix) {
            Ok(()) => general.server.iqn_prefix.clone(),
            Err(_) => DEFAULT_PREFIX.to_owned(),
        };
        let volumes = root.tables("volume", volume::KEYS, &mut self.out);
        let drafts = self.volumes(volumes, &prefix);
        let groups = root.tables("target", target::KEYS, &mut self.out);
        let groups = self.groups(groups, &prefix);
        root.finish(&mut self.out);
        let default_sessions = general.limits.sessions_per_target;
        let (volumes, targets, spans) = self.join(drafts, groups, default_sessions);
        let memory_span = general.memory_span.take();
        let mut plan = Plan {
            server: general.server,
            limits: general.limits,
            log: general.log,
            portals,
            portal_groups,
            volumes,
            targets,
            demo: false,
        };
        self.room(&mut plan, general.volumes_span);
        self.memory(&mut plan, memory_span);
        self.warnings(&plan, &spans);
        plan
    }

    /// `max_volumes` is the number that there are at least.
    fn room(&mut self, plan: &mut Plan, given: Option<Range<usize>>) {
        let there = u32::try_from(plan.volumes.len()).unwrap_or(u32::MAX);
        match given {
            None => plan.limits.max_volumes = plan.default_max_volumes(),
            Some(span) if plan.limits.max_volumes < there => {
                let cause = format!("there are {there} volumes");
                self.out.error(
                    span,
                    "server.max_volumes",
                    cause,
                    format!("write {there} or more, or leave the key out"),
                );
            }
            Some(_) => {}
        }
    }

    /// `buffer_memory` has to hold the least that the pools need; its default grows with that.
    fn memory(&mut self, plan: &mut Plan, given: Option<Range<usize>>) {
        let least = crate::Pools::least_memory(plan);
        match given {
            None => plan.limits.buffer_memory = plan.default_buffer_memory(),
            Some(span) if plan.limits.buffer_memory < least => {
                let cause = format!(
                    "{} connections and {} volumes on {} cores need at least {} for each core",
                    plan.limits.max_connections,
                    plan.volumes.len(),
                    plan.server.cores.len(),
                    crate::Size(least.div_ceil(1 << 20) << 20)
                );
                let cure = "give more, leave the key out, or lower `max_connections`";
                self.out.error(span, "server.buffer_memory", cause, cure);
            }
            Some(_) => {}
        }
    }

    fn warnings(&mut self, plan: &Plan, spans: &target::Spans) {
        if plan.volumes.is_empty() {
            self.out.warn(
                0..0,
                "",
                "there is no [[volume]]: nothing is served",
                "add a [[volume]] with a name and a store",
            );
        }
        if !plan.loopback_only() {
            for (target, span) in plan.targets.iter().zip(&spans.targets).filter(|(target, _)| target.access.is_empty())
            {
                let cause = format!("anyone who reaches a portal can read and write {}", target.name);
                let cure = "add an access entry with `initiator`, `addresses` or `chap`, or listen on 127.0.0.1 only";
                self.out.warn(span.clone(), "", cause, cure);
            }
        }
        let ram = |(volume, _): &(&crate::Volume, _)| matches!(volume.store, Store::Ram { .. });
        for (volume, span) in plan.volumes.iter().zip(&spans.volumes).filter(ram) {
            let cause = format!("volume `{}` is memory: what is written is gone when the process ends", volume.name);
            self.out.warn(span.clone(), "", cause, "use a store of kind \"file\" or \"block\" for data that matters");
        }
        let wanted = plan.ram_volumes().bytes();
        if let (Some(memory), Some(span)) = (self.host.memory(), spans.volumes.first())
            && wanted > memory
        {
            let cause = format!(
                "the RAM volumes have {} and the machine has {}",
                crate::Size(wanted),
                crate::Size(memory >> 20 << 20)
            );
            self.out.warn(span.clone(), "", cause, "make them smaller, or use files");
        }
    }
}
