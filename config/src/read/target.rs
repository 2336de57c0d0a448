//! `[[target]]`, and how volumes and targets come together.
use super::{
    Reader,
    access::ACCESS_KEYS,
    section::{At, Section, nearest},
    volume::Draft,
};
use crate::{Target, Volume};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

pub(super) const KEYS: &[&str] = &["name", "luns", "max_sessions", "access"];
const LUN_KEYS: &[&str] = &["lun", "volume"];

/// Highest LUN in the flat addressing of SAM-5 4.7.7.2.
const MAX_LUN: u64 = 16_383;

/// A `[[target]]` before its volumes are looked up.
pub(super) struct Group<'i> {
    name: Option<String>,
    full_name: String,
    span: Range<usize>,
    /// LUN and name of a volume.
    luns: Vec<(u16, At<String>)>,
    max_sessions: Option<u32>,
    access: Vec<Section<'i>>,
}

/// Where each volume and each target of the plan is in the text.
pub(super) struct Spans {
    pub volumes: Vec<Range<usize>>,
    pub targets: Vec<Range<usize>>,
}

impl Reader<'_> {
    pub(super) fn groups<'i>(&mut self, sections: Vec<Section<'i>>, prefix: &str) -> Vec<Group<'i>> {
        let mut names = HashMap::new();
        let mut groups = Vec::new();
        for mut section in sections {
            let name = self.name(&mut section, prefix, &mut names, "target", "group");
            let span = name.as_ref().map_or(section.span.clone(), |at| at.span.clone());
            let luns = self.luns(&mut section);
            if luns.is_empty() {
                let cure = "add luns = [{ lun = 0, volume = \"db1\" }]";
                self.out.warn(span.clone(), &section.full("luns"), "the target has no LUN", cure);
            }
            let max_sessions = section.integer("max_sessions", 1..65_537, 1, &mut self.out).map(|at| at.value as u32);
            let access = section.tables("access", ACCESS_KEYS, &mut self.out);
            section.finish(&mut self.out);
            let name = name.map(|at| at.value);
            let full_name = format!("{prefix}:{}", name.as_deref().unwrap_or_default());
            groups.push(Group { name, full_name, span, luns, max_sessions, access });
        }
        groups
    }

    fn luns(&mut self, section: &mut Section<'_>) -> Vec<(u16, At<String>)> {
        let example = "luns = [{ lun = 0, volume = \"db1\" }]";
        let mut luns: Vec<(u16, At<String>)> = Vec::new();
        for (position, at) in section.array("luns", example, &mut self.out).into_iter().enumerate() {
            let Some(mut item) = Section::of(at, LUN_KEYS, "{ lun = 0, volume = \"db1\" }", &mut self.out) else {
                continue;
            };
            let (span, key) = (item.span_of("lun"), item.full("lun"));
            let given = item.has("lun");
            let lun = item.integer("lun", 0..MAX_LUN + 1, 0, &mut self.out).map(|at| at.value);
            let lun = lun.or_else(|| (!given).then_some(position as u64)).filter(|lun| *lun <= MAX_LUN);
            let volume = if item.has("volume") {
                item.string("volume", "volume = \"db1\"", &mut self.out)
            } else {
                let cause = "the LUN has no `volume`";
                self.out.error(item.span.clone(), &item.full("volume"), cause, "add volume = \"db1\"");
                None
            };
            item.finish(&mut self.out);
            let (Some(lun), Some(volume)) = (lun, volume) else {
                continue;
            };
            let lun = lun as u16; // at most 16383
            if luns.iter().any(|(other, _)| *other == lun) {
                self.out.error(span, &key, format!("LUN {lun} is given twice"), "give each LUN of a target once");
                continue;
            }
            luns.push((lun, At { value: volume.value.into_owned(), key: volume.key, span: volume.span }));
        }
        luns
    }

    /// Looks volumes up, and makes the list of targets.
    pub(super) fn join(
        &mut self,
        drafts: Vec<Draft<'_>>,
        groups: Vec<Group<'_>>,
        default_sessions: u32,
    ) -> (Vec<Volume>, Vec<Target>, Spans) {
        let index: HashMap<String, usize> =
            drafts.iter().enumerate().filter_map(|(at, draft)| Some((draft.name()?.to_owned(), at))).collect();
        let known: Vec<&str> = drafts.iter().filter_map(Draft::name).collect();
        let mut named = vec![false; drafts.len()];
        let mut resolved = Vec::new();
        for group in &groups {
            let mut luns = BTreeMap::new();
            for (lun, at) in &group.luns {
                match index.get(&at.value) {
                    Some(volume) => {
                        named[*volume] = true;
                        luns.insert(*lun, *volume);
                    }
                    None => {
                        let cure = match nearest(&at.value, &known) {
                            Some(near) => format!("is `{near}` meant?"),
                            None => "name a [[volume]] of this file".to_owned(),
                        };
                        self.out.error(at.span.clone(), &at.key, format!("there is no volume `{}`", at.value), cure);
                    }
                }
            }
            resolved.push(luns);
        }

        let (mut volumes, mut targets) = (Vec::new(), Vec::new());
        let mut spans = Spans { volumes: Vec::new(), targets: Vec::new() };
        for (at, draft) in drafts.into_iter().enumerate() {
            let exported = draft.export.unwrap_or(!named[at]);
            if exported {
                let access = self.rules(draft.access, &draft.volume.full_name);
                let max_sessions = draft.max_sessions.unwrap_or(default_sessions);
                let luns = BTreeMap::from([(0, at)]);
                targets.push(Target { name: draft.volume.full_name.clone(), luns, access, max_sessions });
                spans.targets.push(draft.span.clone());
            } else {
                let name = &draft.volume.name;
                if let Some(entry) = draft.access.first() {
                    let cause = format!("volume `{name}` has no target of its own, so this entry would guard nothing");
                    let cure = "move it to [[target.access]] of the target that names the volume, or add export = true";
                    self.out.error(entry.span.clone(), &entry.name, cause, cure);
                }
                // What is in the entries is checked all the same.
                self.rules(draft.access, &draft.volume.full_name);
                if !named[at] {
                    let cause = format!("volume `{name}` is in no target: nobody reaches it");
                    self.out.warn(
                        draft.span.clone(),
                        "",
                        cause,
                        "take `export = false` away, or name it in a [[target]]",
                    );
                }
            }
            spans.volumes.push(draft.span);
            volumes.push(Volume { exported, ..draft.volume });
        }
        for (group, luns) in groups.into_iter().zip(resolved) {
            if group.name.is_some()
                && let Some(volume) = volumes.iter().find(|v| v.exported && v.full_name == group.full_name)
            {
                let cause = format!("volume `{}` has a target of this name already: {}", volume.name, volume.full_name);
                let cure = "name the target differently, or give the volume export = false";
                self.out.error(group.span.clone(), "", cause, cure);
            }
            let access = self.rules(group.access, &group.full_name);
            let max_sessions = group.max_sessions.unwrap_or(default_sessions);
            targets.push(Target { name: group.full_name, luns, access, max_sessions });
            spans.targets.push(group.span);
        }
        (volumes, targets, spans)
    }
}
