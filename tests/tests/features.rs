//! Disks do the same whatever the kernel can do: with all its features, with what 5.19 has, and with none.

use ringlun_tests::{Setup, exercise};

/// Runs the exercise on a memory disk and on files, both ways of opening them, 512 and 4096 bytes.
fn all_disks(mask: &str) {
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
    let target = Setup::new(&text).server(&format!("mask_features = [{mask}]")).start();
    for kind in ["ram", "buffered", "direct"] {
        for block_size in [512, 4096] {
            exercise::disk(&target, &format!("{kind}{block_size}"));
        }
    }
    target.end();
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
