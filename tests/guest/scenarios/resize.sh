# The target makes the disk larger while it is in use: a rescan shows it, and the file system grows into it. Erases it.
#   G_PORTAL (10.0.2.2:3260)  G_SIZE  bytes that it has in the end
must discover
must login
must wait_disks
must modprobe ext4
dev=/dev/$(disk_of disk)
must mkfs.ext4 -q -F "$dev"
must mount -t ext4 "$dev" /mnt
must dd if=/dev/urandom of=/mnt/before bs=1M count=8 status=none
must sync
(cd /mnt && must sha256sum before > /root/sum) || exit 1
say "waiting for $G_SIZE bytes"
_larger() { iscsiadm -m session --rescan > /dev/null; [ "$(blockdev --getsize64 "$dev")" = "$G_SIZE" ]; }
within 60 _larger || die "it has $(blockdev --getsize64 "$dev") bytes"
before=$(df -k /mnt | awk 'NR == 2 { print $2 }')
must resize2fs "$dev"
after=$(df -k /mnt | awk 'NR == 2 { print $2 }')
[ "$after" -gt $((before * 3 / 2)) ] || die "the file system has $after KiB after $before"
must dd if=/dev/urandom of=/mnt/after bs=1M count=64 status=none
(cd /mnt && must sha256sum after >> /root/sum) || exit 1
must umount /mnt
must e2fsck -fn "$dev"
must mount -t ext4 -o ro "$dev" /mnt
(cd /mnt && must sha256sum --quiet -c /root/sum) || exit 1
must umount /mnt
must logout
must wait_nodisks
say "resize: passed"
