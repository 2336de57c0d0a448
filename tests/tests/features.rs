//! Disks do the same whatever the kernel can do: with all its features, with what 5.19 has, and with none.

use ringlun_tests::{Setup, exercise};

/// Runs the exercise with these features masked.
fn all_disks(mask: &str) {
    all_disks_with(&format!("mask_features = [{mask}]"));
}

/// Runs the exercise on a memory disk and on files, both ways of opening them, 512 and 4096 bytes; gives the log.
fn all_disks_with(server: &str) -> String {
    let mut text = String::new();
    for (kind, options) in [("ram", ""), ("buffered", ", direct = false"), ("direct", ", direct = true")] {
        for block_size in [512, 4096] {
            let name = format!("{kind}{block_size}");
            let store = match kind {
                "ram" => "kind = \"ram\"".to_owned(),
                _ => format!("kind = \"file\", path = \"$DIR/{name}.img\"{options}"),
            };
            text += &format!(
                "[[volume]]\nname = \"{name}\"\nblock_size = {block_size}\nstore = {{ {store}, size = \"32MiB\" }}\n"
            );
        }
    }
    let target = Setup::new(&text).server(server).start();
    for kind in ["ram", "buffered", "direct"] {
        for block_size in [512, 4096] {
            exercise::disk(&target, &format!("{kind}{block_size}"));
        }
    }
    let log = target.log();
    target.end();
    log
}

#[test]
fn disks_work_with_every_feature_of_this_kernel() {
    all_disks("");
}

#[test]
fn disks_work_with_what_linux_5_19_has() {
    all_disks("\"5.19\"");
}

#[test]
fn disks_work_with_every_optional_feature_masked() {
    all_disks("\"all\"");
}

#[test]
fn disks_work_without_registered_memory_and_files() {
    all_disks("\"registered_buffers\", \"registered_files\"");
}

#[test]
fn disks_work_with_what_is_off_unless_asked_for() {
    let log = all_disks_with("busy_poll_us = 20\nzero_copy = \"4KiB\"\nmask_features = []\nlog = \"debug\"");
    // Kernels that lack one of them say so.
    for (name, lacks) in [("busy_poll", "can't be polled before a sleep"), ("zero_copy", "can't send without a copy")] {
        assert!(log.contains(&format!("{name} used")) != log.contains(lacks), "{name}:\n{log}");
    }
}
