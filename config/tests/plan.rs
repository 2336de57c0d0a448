//! Good configurations and what they mean; and what holds for every text.
use config::{Access, Denial, HashAlgorithm, Host, Loaded, PathState, Plan, Report, Store};
use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use std::{io, net::IpAddr, path::Path, time::Duration};
use zeroize::Zeroizing;

/// A machine with cores 0 to 3 on which every path can be created, and every secret file says the same.
struct Machine;

impl Host for Machine {
    fn allowed_cores(&self) -> Vec<usize> {
        vec![0, 1, 2, 3]
    }
    fn path_state(&self, path: &Path, _read_only: bool) -> PathState {
        match path.to_str() {
            Some("/dev/sdx") => PathState::Device,
            Some("/srv/existing.img") => PathState::File(10 << 20),
            Some("/srv/odd.img") => PathState::File(1000),
            Some("/srv/private.img") => PathState::Refused(io::Error::from_raw_os_error(13)),
            _ => PathState::Creatable,
        }
    }
    fn read_secret(&self, path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
        match path.to_str() {
            Some("/etc/ringlun/short") => Ok((Zeroizing::new(b"short-file\n".to_vec()), false)),
            _ => Ok((Zeroizing::new(b"secret-of-a-file\n".to_vec()), true)),
        }
    }
    fn memory(&self) -> Option<u64> {
        Some(4 << 30)
    }
}

fn parse(text: &str) -> Result<Loaded, Report> {
    config::parse(Path::new("/etc/ringlun/ringlun.toml"), text.to_owned(), &Machine)
}
fn plan(text: &str) -> Plan {
    parse(text).unwrap_or_else(|report| panic!("{report:?}")).plan
}
fn warnings(text: &str) -> Vec<String> {
    parse(text).unwrap_or_else(|report| panic!("{report:?}")).warnings.iter().map(ToString::to_string).collect()
}
fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

const WHOLE: &str = r#"
[server]
cores = [1]
state_dir = "/var/lib/ringlun"
iqn_prefix = "iqn.2026-01.io.ringlun"

[[portal]]
address = "0.0.0.0:3260"
group = 1

[[volume]]
name = "db1"
store = { kind = "file", path = "/srv/db1.img", size = "10GiB", direct = true }
block_size = 512

[[volume]]
name = "scratch"
store = { kind = "ram", size = "1GiB", preallocate = true }
[[volume.access]]
initiator = "iqn.1994-05.com.redhat:8e89b27b5b8"
addresses = ["10.0.0.0/8"]
chap = { user = "alice", secret = "alicesecret1", mutual_user = "ringlun", mutual_secret = "ringsecret01" }

[[volume]]
name = "bench"
store = { kind = "null", size = "1TiB" }

[[target]]
name = "group"
luns = [{ lun = 0, volume = "db1" }, { lun = 1, volume = "bench" }]
[[target.access]]
initiator = "iqn.1998-01.com.vmware:*"
"#;

#[test]
fn the_whole_form_is_read() {
    let plan = plan(WHOLE);
    assert_eq!(plan.server.cores, [1]);
    assert_eq!(plan.portals.len(), 1);
    assert_eq!(
        plan.volumes[0].store,
        Store::File {
            path: "/srv/db1.img".into(),
            size: Some(10 << 30),
            direct: true,
            poll: false,
            preallocate: false,
            pinned: 0,
            read_only: false
        }
    );
    assert_eq!(plan.volumes[1].store, Store::Ram { size: 1 << 30, preallocate: true });
    let names: Vec<&str> = plan.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(
        names,
        ["iqn.2026-01.io.ringlun:scratch", "iqn.2026-01.io.ringlun:group"],
        "a volume that a target names has no target of its own"
    );
    assert_eq!(plan.targets[0].luns.iter().collect::<Vec<_>>(), [(&0, &1)]);
    assert_eq!(plan.targets[1].luns.iter().collect::<Vec<_>>(), [(&0, &0), (&1, &2)]);
    let chap = plan.targets[0].access[0].chap.as_ref().unwrap();
    assert_eq!((chap.initiator.user.as_str(), chap.initiator.secret.expose()), ("alice", &b"alicesecret1"[..]));
    let mutual = chap.target.as_ref().unwrap();
    assert_eq!((mutual.user.as_str(), mutual.secret.expose()), ("ringlun", &b"ringsecret01"[..]));
    assert_eq!(chap.algorithms, HashAlgorithm::ALL);
}

#[test]
fn access_follows_the_entries_of_the_target() {
    let plan = plan(WHOLE);
    let scratch = "iqn.2026-01.io.ringlun:scratch";
    let redhat = "iqn.1994-05.com.redhat:8e89b27b5b8";
    assert!(plan.access_for(scratch, redhat, at("10.1.1.1")).chap().is_some());
    assert_eq!(plan.access_for(scratch, redhat, at("11.1.1.1")), Access::Denied(Denial::Address));
    assert_eq!(plan.access_for(scratch, "iqn.1998-01.com.vmware:a", at("10.1.1.1")), Access::Denied(Denial::Initiator));
    let group = plan.access_for("IQN.2026-01.io.ringlun:Group", "iqn.1998-01.com.vmware:a", at("10.1.1.1"));
    assert!(group.is_allowed() && group.chap().is_none());
    assert_eq!(plan.access_for("iqn.2026-01.io.ringlun:db1", redhat, at("::1")), Access::Denied(Denial::NoSuchTarget));
}

#[test]
fn an_empty_file_has_defaults_for_everything() {
    let plan = plan("");
    assert_eq!(plan.server.cores, [1, 2, 3], "every allowed core but the first");
    let addresses: Vec<String> = plan.portals.iter().map(|portal| portal.address.to_string()).collect();
    assert_eq!(addresses, ["0.0.0.0:3260", "[::]:3260"]);
    assert!(plan.portals.iter().all(|portal| portal.group == 1 && !portal.required));
    assert_eq!(plan.limits.queue_depth, 128);
    assert!(plan.targets.is_empty());
}

#[test]
fn a_volume_needs_a_name_and_a_store_alone() {
    let plan = plan("[[volume]]\nname = 'a'\nstore = { kind = 'ram', size = '1MiB' }\n[[volume.access]]\n[[portal]]\n");
    assert_eq!(plan.volumes[0].block_size, 512);
    assert_eq!(plan.targets[0].access[0].initiator.as_str(), "*");
    assert_eq!(plan.portals[0].address.to_string(), "0.0.0.0:3260");
}

#[test]
fn export_gives_a_volume_a_target_beside_the_group() {
    let text = |export: &str| {
        format!(
            "[[volume]]\nname = 'a'\nstore = {{ kind = 'null', size = 4096 }}\n{export}\n\
             [[target]]\nname = 'g'\nluns = [{{ volume = 'a' }}]\n"
        )
    };
    assert_eq!(plan(&text("")).targets.len(), 1);
    assert_eq!(plan(&text("export = false")).targets.len(), 1);
    let both = plan(&text("export = true"));
    assert_eq!(both.targets.len(), 2);
    assert_eq!(both.targets[1].luns.get(&0), Some(&0), "a LUN without a number has that of its place");
}

#[test]
fn limits_are_taken_from_the_file() {
    let plan = plan(
        "[server]\nmax_connections = 64\nmax_half_open_logins = 10\nlogin_timeout_s = 3\nqueue_depth = 32\n\
         buffer_memory = '64MiB'\nspin_us = 7\nbusy_poll_us = 9\nzero_copy = '64KiB'\nsplice = '8KiB'\nmask_features = ['all']\nlog_format = 'json'\n\
         [[volume]]\nname = 'a'\nmax_sessions = 1\nstore = { kind = 'block', path = '/dev/sdx', poll = true }\n",
    );
    assert_eq!((plan.limits.max_connections, plan.limits.max_half_open_logins), (64, 10));
    assert_eq!(plan.limits.half_open_per_address, 10, "never above the sum");
    assert_eq!(plan.limits.login_timeout, Duration::from_secs(3));
    assert_eq!(plan.limits.buffer_memory, 64 << 20);
    assert_eq!(plan.server.spin, Duration::from_micros(7));
    assert_eq!(plan.server.busy_poll, Duration::from_micros(9));
    assert_eq!(plan.server.zero_copy, 65536);
    assert_eq!(plan.server.splice, 8192);
    assert_eq!(plan.targets[0].max_sessions, 1);
    assert_eq!(
        plan.volumes[0].store,
        Store::Block { path: "/dev/sdx".into(), direct: true, poll: true, pinned: 0, read_only: false }
    );
    assert!(plan.pools().buffer_bytes <= 64 << 20);
}

#[test]
fn pinned_pages_are_added_up() {
    let volumes = "[[volume]]\nname = 'a'\nstore = { kind = 'file', path = '/srv/a', size = '4GiB', pinned = '1GiB' }\n\
                   [[volume]]\nname = 'b'\nstore = { kind = 'block', path = '/dev/sdx', direct = false, pinned = '512MiB' }\n\
                   [[volume]]\nname = 'c'\nstore = { kind = 'ram', size = '1MiB' }\n";
    let plan = plan(volumes);
    let pinned: Vec<u64> = plan.volumes.iter().map(|volume| volume.store.pinned()).collect();
    assert_eq!(pinned, [1 << 30, 512 << 20, 0]);
    assert_eq!(plan.pools().pinned_bytes, 1536 << 20);
    let text = plan.to_string();
    assert!(text.contains("up to 1 GiB pinned") && text.contains("locked file pages            1536 MiB"), "{text}");
}

#[test]
fn a_secret_may_come_from_a_file_beside_the_configuration() {
    let text = "[[volume]]\nname = 'a'\nstore = { kind = 'null', size = 4096 }\n[[volume.access]]\n\
                initiator = 'iqn.2000-01.com.x:a'\nchap = { secret_file = 'alice', mutual_secret = 'another-secret' }\n";
    let loaded = parse(text).unwrap();
    let chap = loaded.plan.targets[0].access[0].chap.clone().unwrap();
    assert_eq!(chap.initiator.secret.expose(), b"secret-of-a-file", "without the end of its line");
    assert_eq!(chap.initiator.user, "iqn.2000-01.com.x:a", "a user without a name is the initiator");
    assert_eq!(chap.target.unwrap().user, "iqn.2026-01.io.ringlun:a", "and the target is the target");
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.iter().any(|w| w.contains("others can read /etc/ringlun/alice")), "{warnings:?}");
    let report = parse(&text.replace("'alice'", "'short'")).unwrap_err();
    assert!(report.problems()[0].cause().contains("shorter than 12 bytes"));
    assert!(!format!("{report:?}").contains("short-file"));
    let both = parse(&text.replace("secret_file = 'alice'", "secret_file = 'alice', secret = 'yet-another-secret'"));
    assert!(both.unwrap_err().problems()[0].cause().contains("both `secret` and `secret_file`"));
}

#[test]
fn existing_files_are_compared_with_the_size() {
    let volume = |store: &str| format!("[[volume]]\nname = 'a'\nstore = {{ kind = 'file', {store} }}\n");
    let cause = |store: &str| parse(&volume(store)).unwrap_err().problems()[0].cause().to_owned();
    assert_eq!(plan(&volume("path = '/srv/existing.img'")).volumes[0].store.size(), None);
    assert!(cause("path = '/srv/existing.img', size = '20MiB'").contains("is smaller than `size`"));
    assert!(
        warnings(&volume("path = '/srv/existing.img', size = '5MiB'"))
            .iter()
            .any(|w| w.contains("has 10 MiB, and only 5 MiB are served"))
    );
    assert!(cause("path = '/srv/odd.img'").contains("no multiple of the block size"));
    assert!(cause("path = '/srv/new.img'").contains("does not exist, and no `size` is given"));
    assert!(cause("path = '/srv/private.img', size = '1MiB'").contains("can't be opened: Permission denied"));
    assert!(cause("path = '/srv/new.img', size = '1MiB', read_only = true").contains("`read_only`"));
    assert!(cause("path = '/dev/sdx', size = '1MiB'").contains("is a block device"));
}

#[test]
fn open_access_gets_a_warning_unless_all_portals_are_loopback() {
    let volume = "[[volume]]\nname = 'a'\nstore = { kind = 'null', size = 4096 }\n";
    let open = |text: &str| warnings(text).iter().filter(|w| w.contains("anyone who reaches")).count();
    assert_eq!(open(volume), 1);
    assert_eq!(open(&format!("{volume}[[volume.access]]\ninitiator = 'iqn.2000-01.com.x:a'\n")), 0);
    assert_eq!(open(&format!("{volume}[[portal]]\naddress = '127.0.0.1:0'\n[[portal]]\naddress = '[::1]'\n")), 0);
    assert_eq!(open(&format!("{volume}[[portal]]\naddress = '127.0.0.1:0'\n[[portal]]\naddress = '10.0.0.1'\n")), 1);
}

#[test]
fn memory_that_is_no_disk_gets_a_warning() {
    let text = "[[volume]]\nname = 'a'\nstore = { kind = 'ram', size = '8GiB' }\n[[portal]]\naddress = '127.0.0.1'\n";
    let found = warnings(text);
    assert!(found.iter().any(|w| w.contains("is gone when the process ends")), "{found:?}");
    assert!(found.iter().any(|w| w.contains("have 8 GiB and the machine has 4 GiB")), "{found:?}");
}

#[test]
fn a_file_that_others_can_read_and_that_holds_secrets_gets_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringlun.toml");
    let text = "[[volume]]\nname = 'a'\nstore = { kind = 'null', size = 4096 }\n[[volume.access]]\n\
                chap = { user = 'alice', secret = 'alicesecret1' }\n";
    let told = |text: &str, mode: u32| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = config::load(&file).unwrap();
        loaded.warnings.iter().any(|w| w.cause().contains("others can read this file"))
    };
    assert!(told(text, 0o644));
    assert!(!told(text, 0o640));
    assert!(!told("", 0o644));
}

#[test]
fn a_report_has_an_end() {
    let text: String = (0..5000).map(|n| format!("key{n} = 1\n")).collect();
    let report = parse(&text).unwrap_err();
    assert_eq!(report.problems().len(), 100);
    assert!(report.to_string().starts_with("5000 mistakes in "), "{report}");
}

#[test]
fn a_plan_can_be_serialized_and_holds_no_secret_then() {
    let text = serde_json::to_string(&plan(WHOLE)).unwrap();
    assert!(text.contains("\"alice\"") && text.contains("\"kind\":\"file\""), "{text}");
    assert!(!text.contains("alicesecret1") && !text.contains("ringsecret01"), "{text}");
}

#[test]
fn features_of_the_kernel_can_be_masked_by_name_and_by_release() {
    let plan = plan("[server]\nmask_features = ['defer_taskrun', '5.19']\n");
    assert_eq!(plan.server.mask_features, ["defer_taskrun", "5.19"]);
    assert!(parse("[server]\nmask_features = ['5.x']\n").is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let report = config::load(Path::new("/nonexistent-ringlun.toml")).unwrap_err();
    let text = report.problems()[0].to_string();
    assert!(text.starts_with("/nonexistent-ringlun.toml: the file can't be read: No such file"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin1.toml");
    std::fs::write(&file, b"[server]\nlog = \"\xe9\"\n").unwrap();
    assert!(config::load(&file).unwrap_err().problems()[0].cause().contains("line 2 has bytes that are no UTF-8"));
}

/// Everything that may be printed of what a text led to.
fn shown(result: &Result<Loaded, Report>) -> String {
    let mut out = format!("{result:?}");
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    match result {
        Ok(loaded) => {
            out += &loaded.plan.to_string();
            for warning in &loaded.warnings {
                handler.render_report(&mut out, warning).unwrap();
            }
        }
        Err(report) => handler.render_report(&mut out, report).unwrap(),
    }
    out
}

/// Lines out of which texts are made that come far.
fn line() -> impl Strategy<Value = String> {
    let keys = prop_oneof![
        Just("name"),
        Just("store"),
        Just("size"),
        Just("chap"),
        Just("secret"),
        Just("luns"),
        Just("address"),
        Just("cores"),
        Just("initiator"),
        Just("addresses"),
        Just("block_size"),
        Just("export"),
        Just("group"),
        Just("queue_depth"),
        Just("iqn_prefix"),
        Just("identity"),
        Just("buffer_memory"),
        Just("max_connections"),
        Just("mask_features"),
        Just("spin_us"),
        Just("zero_copy"),
        Just("splice"),
    ];
    let values = prop_oneof![
        Just("'a'".to_owned()),
        Just("{ kind = 'ram', size = '1MiB' }".to_owned()),
        Just("{ kind = 'file', path = 'é', size = 9223372036854775807 }".to_owned()),
        Just("{ user = 'é', secret = 'ééééééééé', x = 1979-05-27 }".to_owned()),
        Just("[{ lun = 0, volume = 'a' }, { volume = 'b' }]".to_owned()),
        Just("[[], {}, 'iqn.2000-01.a:*', '10.0.0.0/8', '::/0', 1, -1]".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "\\PC{0,12}".prop_map(|s| format!("{s:?}")),
        "[a-z0-9.:*/\\[\\]-]{0,20}".prop_map(|s| format!("'{s}'")),
        "\\PC{0,12}",
    ];
    let header = prop_oneof![
        Just("[server]"),
        Just("[[portal]]"),
        Just("[[volume]]"),
        Just("[[volume.access]]"),
        Just("[[target]]"),
        Just("[[target.access]]"),
        Just("[volume]"),
        Just("[x.é]"),
    ];
    prop_oneof![
        2 => header.prop_map(str::to_owned),
        5 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_text_makes_it_panic(lines in prop::collection::vec(line(), 0..14)) {
        shown(&parse(&lines.join("\n")));
    }

    #[test]
    fn no_characters_make_it_panic(text in "\\PC{0,80}|[\\[\\]{}='\"#a-z0-9\\n\\\\,. ]{0,120}") {
        shown(&parse(&text));
    }

    /// A whole configuration with a secret, damaged anywhere: whatever comes out, the secret does not.
    #[test]
    fn no_damage_brings_a_secret_to_light(
        at in 0usize..WHOLE.len(), removed in 0usize..4, inserted in "[\\[\\]{}='\"#x\\n\\\\, ]{0,3}", quote in 0usize..3,
    ) {
        let text = WHOLE.replace("\"alicesecret1\"", ["\"alicesecret1\"", "'alicesecret1'", "\"\"\"alicesecret1\"\"\""][quote]);
        let end = (at + removed).min(text.len());
        // The secrets themselves and the keys that make them known stay whole.
        for whole in ["alicesecret1", "ringsecret01", "secret =", "chap ="] {
            for (start, _) in text.match_indices(whole) {
                prop_assume!(end <= start || at >= start + whole.len());
            }
        }
        let damaged = format!("{}{inserted}{}", &text[..at.min(text.len())], &text[end..]);
        let out = shown(&parse(&damaged));
        prop_assert!(!out.contains("alicesecret1") && !out.contains("ringsecret01"), "{}\n{}", damaged, out);
    }
}
