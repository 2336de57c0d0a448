//! `[[portal_group]]`: how the units behind the portals of a group may be reached.
use super::{Reader, section::Section, server::unknown_word};
use crate::{AccessState, Portal, PortalGroup};
use std::collections::BTreeSet;

pub(super) const KEYS: &[&str] = &["group", "access_state", "preferred"];
const STATES: &[&str] = &["active/optimized", "active/non-optimized", "standby", "unavailable"];

impl Reader<'_> {
    /// Every group of a portal, in order: those without a section are active/optimized.
    pub(super) fn portal_groups(&mut self, sections: Vec<Section<'_>>, portals: &[Portal]) -> Vec<PortalGroup> {
        let tags: BTreeSet<u16> = portals.iter().map(|portal| portal.group).collect();
        let mut groups: Vec<PortalGroup> = Vec::new();
        for mut section in sections {
            let (span, key) = (section.span_of("group"), section.full("group"));
            let group = section.limit("group", 1, 65_535, 1, &mut self.out) as u16; // at most 65535
            let state = self.access_state(&mut section);
            let preferred = section.boolean("preferred", false, &mut self.out);
            section.finish(&mut self.out);
            if groups.iter().any(|other| other.group == group) {
                let cause = format!("there is a section for group {group} already");
                self.out.error(span, &key, cause, "say all of a group in one section");
                continue;
            }
            if !tags.contains(&group) {
                let cause = format!("no [[portal]] is in group {group}");
                let known: Vec<String> = tags.iter().map(u16::to_string).collect();
                let cure = format!("give a portal group = {group}, or name one of {}", known.join(", "));
                self.out.error(span, &key, cause, cure);
                continue;
            }
            groups.push(PortalGroup { group, state, preferred });
        }
        let given: BTreeSet<u16> = groups.iter().map(|group| group.group).collect();
        let plain = |group: &u16| PortalGroup { group: *group, state: AccessState::Optimized, preferred: false };
        groups.extend(tags.difference(&given).map(plain));
        groups.sort_by_key(|group| group.group);
        groups
    }

    fn access_state(&mut self, section: &mut Section<'_>) -> AccessState {
        let found = section.string("access_state", "access_state = \"standby\"", &mut self.out);
        let Some(at) = found else { return AccessState::Optimized };
        match &*at.value {
            "active/optimized" => AccessState::Optimized,
            "active/non-optimized" => AccessState::NonOptimized,
            "standby" => AccessState::Standby,
            "unavailable" => AccessState::Unavailable,
            _ => {
                unknown_word(at, "access state", STATES, &mut self.out);
                AccessState::Optimized
            }
        }
    }
}
