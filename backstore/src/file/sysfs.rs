//! What the kernel says about a block device, in /sys/dev/block.

use std::{fs, path::Path};

/// Where the kernel keeps it.
pub(crate) const ROOT: &str = "/sys/dev/block";

/// A number of a device's request queue, or of its disk's when the device is a partition.
pub(crate) fn queue(root: &Path, device: u64, name: &str) -> Option<u64> {
    let own = root.join(numbers(device));
    [own.join("queue"), own.join("../queue")].iter().find_map(|folder| number(&folder.join(name)))
}

/// The device refuses writes.
pub(crate) fn read_only(root: &Path, device: u64) -> bool {
    number(&root.join(numbers(device)).join("ro")) == Some(1)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn numbers(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_answers_with_its_disks_queue() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("disk/queue")).unwrap();
        fs::create_dir_all(root.path().join("disk/part")).unwrap();
        fs::write(root.path().join("disk/queue/logical_block_size"), "4096\n").unwrap();
        fs::write(root.path().join("disk/part/ro"), "1\n").unwrap();
        std::os::unix::fs::symlink("disk", root.path().join("8:0")).unwrap();
        std::os::unix::fs::symlink("disk/part", root.path().join("8:1")).unwrap();
        let (disk, part) = (rustix::fs::makedev(8, 0), rustix::fs::makedev(8, 1));
        assert_eq!(queue(root.path(), disk, "logical_block_size"), Some(4096));
        assert_eq!(queue(root.path(), part, "logical_block_size"), Some(4096));
        assert_eq!(queue(root.path(), part, "no_such_attribute"), None);
        assert!(read_only(root.path(), part));
        assert!(!read_only(root.path(), disk));
    }
}
