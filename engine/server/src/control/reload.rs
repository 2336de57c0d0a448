//! What a new plan means for what runs: what comes, goes and changes, and what has to wait for a restart. Sans-IO.
//!
//! A volume is known by where its data is (a file's or device's path; memory has its name), whatever the volume is called:
//! one that is there in both plans goes on, with its state and its sessions. Of it only the size can change; everything else
//! of a volume is settled when it is opened.

use config::{Limits, Plan, Server, Store, Target, Volume};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What is to be done. Positions are those in the volumes and targets of a plan.
#[derive(Debug, PartialEq)]
pub struct Changes {
    /// The plan that holds when all is done: the new one, but for what can't change now.
    pub plan: Plan,
    /// Volumes of the new plan that are in the running one: new position to running one.
    pub kept: BTreeMap<usize, usize>,
    /// Kept volumes (new positions) that are to be measured: their size is another one, or not said.
    pub measured: Vec<usize>,
    /// Volumes of the new plan that come.
    pub added: Vec<usize>,
    /// Volumes of the running plan that go.
    pub removed: Vec<usize>,
    /// Targets of the new plan that come.
    pub new_targets: Vec<usize>,
    /// Targets of the new plan whose LUNs have changed.
    pub remapped: Vec<usize>,
    /// Targets of the new plan whose access rules or bounds of sessions have changed.
    pub regulated: Vec<usize>,
    /// Keys of `[server]` that hold from now on.
    pub general: Vec<String>,
    /// Names of targets that go.
    pub old_targets: Vec<String>,
    /// What waits for a restart.
    pub later: Vec<String>,
}

/// Where a volume's data is.
fn place(volume: &Volume) -> (&'static str, String) {
    let kind = volume.store.kind();
    match volume.store.path() {
        Some(path) => (kind, path.display().to_string()),
        None => (kind, volume.full_name.clone()),
    }
}

/// Compares the plan that runs with a new one that has been checked.
pub fn compare(running: &Plan, mut new: Plan) -> Changes {
    let mut later = Vec::new();
    let own = |plan: &Plan, target: &Target| {
        Some(target.max_sessions).filter(|most| *most != plan.limits.sessions_per_target)
    };
    let bounds: HashMap<String, Option<u32>> =
        new.targets.iter().map(|target| (target.name.clone(), own(&new, target))).collect();
    keep_general(running, &mut new, &mut later);
    let general = differences(&running.limits, &new.limits).iter().map(|name| key_of(name)).collect();
    let places: HashMap<_, usize> = running.volumes.iter().enumerate().map(|(at, v)| (place(v), at)).collect();
    let (mut kept, mut measured, mut added) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (at, volume) in new.volumes.iter_mut().enumerate() {
        let Some(&before) = places.get(&place(volume)) else {
            added.push(at);
            continue;
        };
        kept.insert(at, before);
        let old = &running.volumes[before];
        keep_settled(old, volume, &mut later);
        let may_change = volume.protection.is_none();
        if may_change && (volume.store.size() != old.store.size() || takes_size_of_store(&volume.store)) {
            measured.push(at);
        }
    }
    let removed = (0..running.volumes.len()).filter(|at| !kept.values().any(|before| before == at)).collect();
    let (mut new_targets, mut remapped, mut regulated) = (Vec::new(), Vec::new(), Vec::new());
    for (at, target) in new.targets.iter().enumerate() {
        let Some(old) = running.target(&target.name) else {
            new_targets.push(at);
            continue;
        };
        if !has_same_luns(old, target, &kept) {
            remapped.push(at);
        }
        if old.access != target.access || bounds.get(&target.name) != Some(&own(running, old)) {
            regulated.push(at);
        }
    }
    let gone = running.targets.iter().filter(|target| new.target(&target.name).is_none());
    let old_targets = gone.map(|target| target.name.clone()).collect();
    Changes { kept, measured, added, removed, new_targets, remapped, regulated, general, old_targets, later, plan: new }
}

impl Changes {
    /// Whether nothing is to be done now. Sizes that are to be measured may still turn out to be others.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.new_targets.is_empty()
            && self.remapped.is_empty()
            && self.regulated.is_empty()
            && self.general.is_empty()
            && self.old_targets.is_empty()
    }
}

/// The size is what the file or device has, and may have changed without a word in the configuration.
fn takes_size_of_store(store: &Store) -> bool {
    store.path().is_some() && store.size().is_none()
}

fn has_same_luns(old: &Target, new: &Target, kept: &BTreeMap<usize, usize>) -> bool {
    let translated = new.luns.iter().map(|(lun, volume)| (*lun, kept.get(volume).copied()));
    old.luns.iter().map(|(lun, volume)| (*lun, Some(*volume))).eq(translated)
}

/// Takes over from the running plan what is settled at start, and names what the new one wants otherwise.
fn keep_general(running: &Plan, new: &mut Plan, later: &mut Vec<String>) {
    // The prefix is in the names of targets, and has no effect of its own.
    let server = Server { iqn_prefix: new.server.iqn_prefix.clone(), ..running.server.clone() };
    let mut names = differences(&server, &new.server);
    // Defaults that follow from the number of volumes don't count.
    let wants_memory = new.limits.buffer_memory != new.default_buffer_memory();
    let wants_volumes = new.limits.max_volumes != new.default_max_volumes();
    let now = &running.limits;
    let limits = Limits {
        login_timeout: new.limits.login_timeout,
        drain_timeout: new.limits.drain_timeout,
        sessions_per_target: new.limits.sessions_per_target,
        ..now.clone()
    };
    names.extend(differences(&limits, &new.limits).into_iter().filter(|name| match name.as_str() {
        "buffer_memory" => wants_memory,
        "max_volumes" => wants_volumes,
        _ => true,
    }));
    names.extend(differences(&running.log, &new.log).into_iter().map(|name| match name.as_str() {
        "level" => "log".to_owned(),
        _ => format!("log_{name}"),
    }));
    for name in names {
        later.push(format!("`{}` in [server] takes effect after a restart", key_of(&name)));
    }
    if running.portals != new.portals {
        later.push("the [[portal]] sections take effect after a restart".to_owned());
    }
    if running.portal_groups != new.portal_groups {
        later.push("the [[portal_group]] sections take effect after a restart".to_owned());
    }
    new.portal_groups = running.portal_groups.clone();
    new.server = server;
    new.limits = limits;
    new.log = running.log.clone();
    new.portals = running.portals.clone();
}

/// Takes over from a running volume what was settled when it was opened.
fn keep_settled(old: &Volume, new: &mut Volume, later: &mut Vec<String>) {
    let mut settled = Volume {
        name: new.name.clone(),
        full_name: new.full_name.clone(),
        exported: new.exported,
        store: with_size(&old.store, new.store.size()),
        ..old.clone()
    };
    let name = &new.name;
    for key in differences(&settled, new) {
        later.push(format!("volume `{name}`: `{}` takes effect after a restart", key_of(&key)));
    }
    if old.protection.is_some() && old.store.size() != new.store.size() {
        later.push(match old.store {
            Store::Ram { .. } | Store::Null { .. } => {
                format!("volume `{name}`: with `protection` its `size` takes effect after a restart")
            }
            _ => format!(
                "volume `{name}`: with `protection` its `size` can't change, now or at a restart: the information lies behind \
                 the last block; make a new volume and copy"
            ),
        });
        settled.store = old.store.clone();
    }
    *new = settled;
}

fn with_size(store: &Store, wanted: Option<u64>) -> Store {
    let mut store = store.clone();
    match &mut store {
        Store::File { size, .. } => *size = wanted,
        Store::Ram { size, .. } | Store::Null { size } => *size = wanted.unwrap_or(*size),
        Store::Block { .. } => {}
    }
    store
}

/// Names of fields that differ; those of inner structures by their own names.
fn differences(old: &impl Serialize, new: &impl Serialize) -> Vec<String> {
    let mut names = Vec::new();
    if let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (serde_json::to_value(old), serde_json::to_value(new)) {
        for (name, was) in &old {
            match (was, new.get(name)) {
                (was, Some(is)) if was == is => {}
                // A duration is one, too; it has no field by the name of a key.
                (Value::Object(was), Some(Value::Object(is))) if !was.contains_key("nanos") => {
                    names.extend(differences(was, is));
                }
                _ => names.push(name.clone()),
            }
        }
    }
    names
}

/// The key that a field is written as.
fn key_of(field: &str) -> String {
    match field {
        "spin" | "busy_poll" => format!("{field}_us"),
        "nop_interval" | "nop_timeout" | "login_timeout" | "drain_timeout" => format!("{field}_s"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Host, PathState};
    use std::{io, path::Path, time::Duration};

    struct Anywhere;

    impl Host for Anywhere {
        fn allowed_cores(&self) -> Vec<usize> {
            vec![0, 1]
        }
        fn path_state(&self, path: &Path, _: bool) -> PathState {
            match path.extension() {
                None => PathState::Folder(true),
                Some(_) if path.starts_with("/dev") => PathState::Device,
                Some(_) => PathState::File(1 << 30),
            }
        }
        fn read_secret(&self, _: &Path) -> io::Result<(zeroize::Zeroizing<Vec<u8>>, bool)> {
            Err(io::Error::other("none"))
        }
        fn memory(&self) -> Option<u64> {
            None
        }
    }

    fn plan(text: &str) -> Plan {
        config::parse(Path::new("/etc/t.toml"), text.to_owned(), &Anywhere).unwrap().plan
    }

    fn volume(name: &str, store: &str) -> String {
        format!("[[volume]]\nname = \"{name}\"\nstore = {{ {store} }}\n")
    }

    fn file(name: &str, more: &str) -> String {
        volume(name, &format!("kind = \"file\", path = \"/srv/{name}.img\"{more}"))
    }

    fn target(name: &str, luns: &[(u16, &str)]) -> String {
        let lun = |(lun, volume): &(u16, &str)| format!("{{ lun = {lun}, volume = \"{volume}\" }}");
        let luns: Vec<String> = luns.iter().map(lun).collect();
        format!("[[target]]\nname = \"{name}\"\nluns = [{}]\n", luns.join(", "))
    }

    #[test]
    fn the_same_plan_changes_nothing() {
        let text = file("a", "") + &file("b", ", size = \"1MiB\"") + &target("t", &[(0, "a"), (3, "b")]);
        let changes = compare(&plan(&text), plan(&text));
        assert!(changes.is_empty() && changes.later.is_empty(), "{changes:?}");
        assert_eq!(changes.measured, [0], "a file that gives its own size may have another");
        assert_eq!(changes.plan, plan(&text));
    }

    #[test]
    fn volumes_and_their_targets_come_and_go() {
        let before = file("a", ", size = \"1MiB\"") + &file("b", ", size = \"1MiB\"");
        let after = file("c", ", size = \"1MiB\"") + &file("b", ", size = \"1MiB\"");
        let changes = compare(&plan(&before), plan(&after));
        assert_eq!((&changes.added[..], &changes.removed[..]), (&[0][..], &[0][..]));
        assert_eq!(changes.kept, BTreeMap::from([(1, 1)]));
        assert_eq!(changes.old_targets, ["iqn.2026-01.io.ringlun:a"]);
        assert_eq!(changes.plan.targets[changes.new_targets[0]].name, "iqn.2026-01.io.ringlun:c");
        assert!(changes.remapped.is_empty(), "b is at another position, and the same");
    }

    #[test]
    fn a_volume_is_known_by_its_data_and_not_by_its_name() {
        let before = file("a", ", size = \"1MiB\"") + &target("t", &[(0, "a")]);
        let renamed = before.replace("\"a\"", "\"new\"");
        let changes = compare(&plan(&before), plan(&renamed));
        assert_eq!(changes.kept, BTreeMap::from([(0, 0)]));
        assert!(changes.added.is_empty() && changes.removed.is_empty() && changes.remapped.is_empty());
        let moved = before.replace("/srv/a.img", "/srv/other.img");
        let changes = compare(&plan(&before), plan(&moved));
        assert_eq!((changes.added.len(), changes.removed.len()), (1, 1));
        assert_eq!(changes.remapped.len(), 1, "the target that shows it");
        let memory = volume("m", "kind = \"ram\", size = \"1MiB\"");
        let changes = compare(&plan(&memory), plan(&memory.replace("\"m\"", "\"n\"")));
        assert_eq!((changes.added.len(), changes.removed.len()), (1, 1), "memory has nothing but its name");
    }

    #[test]
    fn another_size_is_measured() {
        let before = file("a", ", size = \"1MiB\"") + &volume("m", "kind = \"ram\", size = \"4MiB\"");
        for (size, bytes) in [("3MiB", 3 << 20), ("5MiB", 5 << 20)] {
            let after = before.replace("1MiB", "2MiB").replace("4MiB", size);
            let changes = compare(&plan(&before), plan(&after));
            assert_eq!(changes.measured, [0, 1]);
            assert!(changes.is_empty() && changes.later.is_empty(), "{changes:?}");
            assert_eq!(changes.plan.volumes[1].store.size(), Some(bytes));
        }
    }

    #[test]
    fn changed_maps_and_rules_are_told_apart() {
        let volumes = file("a", ", size = \"1MiB\"") + &file("b", ", size = \"1MiB\"");
        let before = volumes.clone() + &target("t", &[(0, "a")]) + &target("u", &[(0, "b")]);
        let rule = "[[target.access]]\ninitiator = \"iqn.2026-01.io.ringlun:i\"\n";
        let after = volumes.clone() + &target("t", &[(0, "a"), (1, "b")]) + &target("u", &[(0, "b")]) + rule;
        let changes = compare(&plan(&before), plan(&after));
        let name = |at: &usize| changes.plan.targets[*at].name.rsplit(':').next().unwrap().to_owned();
        assert_eq!(changes.remapped.iter().map(name).collect::<Vec<_>>(), ["t"]);
        assert_eq!(changes.regulated.iter().map(name).collect::<Vec<_>>(), ["u"]);
        let swapped = volumes + &target("t", &[(0, "b")]) + &target("u", &[(0, "b")]);
        assert_eq!(compare(&plan(&before), plan(&swapped)).remapped.len(), 1);
    }

    #[test]
    fn what_is_settled_at_start_stays_and_is_named() {
        let general = "[server]\nqueue_depth = 64\nspin_us = 10\nlogin_timeout_s = 5\nlog = \"warn\"\n";
        let before = general.to_owned() + "[[portal]]\naddress = \"127.0.0.1:1\"\n" + &file("a", ", size = \"1MiB\"");
        let after = before
            .replace("= 64", "= 32")
            .replace("spin_us = 10", "spin_us = 20")
            .replace("timeout_s = 5", "timeout_s = 6")
            .replace("\"warn\"", "\"info\"")
            .replace(":1\"", ":2\"")
            .replace("\"1MiB\"", "\"1MiB\", direct = true");
        let changes = compare(&plan(&before), plan(&after));
        let said = changes.later.join("\n");
        for word in ["`queue_depth`", "`spin_us`", "`log`", "[[portal]]", "volume `a`: `direct`"] {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert_eq!(changes.later.len(), 5, "{said}");
        let now = plan(&before);
        assert_eq!((&changes.plan.server, &changes.plan.portals), (&now.server, &now.portals));
        assert_eq!(changes.plan.limits.queue_depth, 64);
        assert_eq!(changes.plan.limits.login_timeout, Duration::from_secs(6), "this can change");
        assert_eq!(changes.general, ["login_timeout_s"]);
        assert_eq!(changes.plan.volumes, now.volumes);
    }

    #[test]
    fn a_bound_of_sessions_is_told_where_it_is_set() {
        let one = |name: &str, most: &str| file(name, ", size = \"1MiB\"") + most;
        let two = |most: &str| one("a", most) + &one("b", "");
        let general = |most: u32| format!("[server]\nsessions_per_target = {most}\n");
        let changes = compare(&plan(&(general(8) + &two(""))), plan(&(general(9) + &two("max_sessions = 2\n"))));
        assert_eq!(changes.general, ["sessions_per_target"]);
        assert_eq!(changes.regulated, [0], "b has the bound of all");
        assert_eq!(changes.plan.targets.iter().map(|t| t.max_sessions).collect::<Vec<_>>(), [2, 9]);
    }

    #[test]
    fn limits_that_follow_from_the_number_of_volumes_are_no_change() {
        let few = file("a", ", size = \"1MiB\"");
        let many: String = (0..200).map(|n| file(&format!("v{n}"), ", size = \"1MiB\"")).collect();
        assert_ne!(plan(&few).limits, plan(&many).limits);
        let changes = compare(&plan(&few), plan(&many));
        assert!(changes.later.is_empty(), "{:?}", changes.later);
        assert_eq!(changes.plan.limits, plan(&few).limits);
    }
}
