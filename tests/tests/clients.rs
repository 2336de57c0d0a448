//! libiscsi's small tools see what the configuration says.

use ringlun_tests::{Setup, Target, programs::run};

const DISKS: [(&str, u32); 4] = [("ram512", 512), ("ram4096", 4096), ("file512", 512), ("file4096", 4096)];

fn target() -> Target {
    let mut text = String::new();
    for (name, block_size) in DISKS {
        let store = match name.starts_with("ram") {
            true => "kind = \"ram\"".to_owned(),
            false => format!("kind = \"file\", path = \"$DIR/{name}.img\""),
        };
        text += &format!(
            "[[volume]]\nname = \"{name}\"\nblock_size = {block_size}\nstore = {{ {store}, size = \"64MiB\" }}\n"
        );
    }
    Setup::new(&text).start()
}

#[test]
fn iscsi_ls_lists_every_disk_with_its_size() {
    let target = target();
    let out = run("iscsi-ls", ["-s", &format!("iscsi://{}", target.portal())]).success();
    for (name, _) in DISKS {
        let heading = format!("Target:{} Portal:{},1", target.name(name), target.portal());
        let mut lines = out.lines().skip_while(|line| *line != heading);
        assert!(lines.next().is_some(), "no line {heading:?} in\n{out}");
        let lun = lines.next().unwrap_or_default();
        // It multiplies the last address, not the number of blocks: 64 MiB less one block are "63M".
        assert!(lun.starts_with("Lun:0 ") && lun.contains("DIRECT_ACCESS (Size:63M)"), "{lun:?} in\n{out}");
    }
    assert_eq!(out.matches("Target:").count(), DISKS.len(), "{out}");
    target.end();
}

#[test]
fn iscsi_inq_sees_the_identity_and_the_vital_product_data() {
    let target = target();
    for (name, _) in DISKS {
        let uri = target.uri(name, 0);
        let out = run("iscsi-inq", [&uri]).success();
        assert!(out.contains("Peripheral Device Type:DIRECT_ACCESS") && out.contains("Removable:0"), "{out}");
        assert!(out.contains("CmdQue:1") && out.contains("Vendor:"), "{out}");
        // Supported pages; serial number, identification, block limits and provisioning in a form that it can read.
        for page in [0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2] {
            run("iscsi-inq", ["-e", "1", "-c", &page.to_string(), &uri]).success();
        }
    }
    let serials: Vec<String> = DISKS
        .iter()
        .map(|(name, _)| run("iscsi-inq", ["-e", "1", "-c", "128", &target.uri(name, 0)]).success())
        .collect();
    for (i, serial) in serials.iter().enumerate() {
        assert!(!serials[..i].contains(serial), "two disks say {serial}");
    }
    target.end();
}

#[test]
fn iscsi_readcapacity16_sees_the_size_and_the_block_size() {
    let target = target();
    for (name, block_size) in DISKS {
        let out = run("iscsi-readcapacity16", [&target.uri(name, 0)]).success();
        let last = (64 << 20) / block_size - 1;
        for line in [
            format!("RETURNED LOGICAL BLOCK ADDRESS:{last}"),
            format!("LOGICAL BLOCK LENGTH IN BYTES:{block_size}"),
            "LBPME:1".to_owned(),
        ] {
            assert!(out.contains(&line), "no {line:?} in\n{out}");
        }
        assert!(out.contains("Total size:67108864"), "{out}");
    }
    target.end();
}
