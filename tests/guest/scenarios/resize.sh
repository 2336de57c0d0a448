# The target makes two disks larger while they are mounted: a rescan shows it, and ext4 and xfs grow into it. Erases them.
#   G_PORTAL (10.0.2.2:3260)  targets `ext4`, `xfs`, and `ready`: the login there says that they may grow
#   G_SIZE   bytes that they have in the end
must discover
ready=$(targets | awk '/:ready$/ { print $2 }')
for target in $(targets | awk '!/:ready$/ { print $2 }'); do must iscsiadm -m node -T "$target" --login; done
must wait_disks 2
must modprobe -a ext4 xfs
for kind in ext4 xfs; do
  dev=/dev/$(disk_of $kind) at=/mnt/$kind
  say "$kind on $dev"
  case $kind in
    ext4) must mkfs.ext4 -q -F "$dev" ;;
    xfs)  must mkfs.xfs -q -f "$dev" ;;
  esac
  must mkdir -p $at
  must mount -t $kind "$dev" $at
  must dd if=/dev/urandom of=$at/before bs=1M count=4 status=none
  # More than there is.
  fails fallocate -l 360M $at/large
  must rm -f $at/large
  must sync
  must sha256sum $at/before >> /root/sum
done

say "waiting for $G_SIZE bytes"
must iscsiadm -m node -T "$ready" --login
_larger() {
  iscsiadm -m session --rescan > /dev/null
  for kind in ext4 xfs; do [ "$(blockdev --getsize64 "/dev/$(disk_of $kind)")" = "$G_SIZE" ] || return; done
}
within 60 _larger || die "they are not larger"
kib() { df -k "$1" | awk 'NR == 2 { print $2 }'; }
for kind in ext4 xfs; do
  dev=/dev/$(disk_of $kind) at=/mnt/$kind
  before=$(kib $at)
  case $kind in
    ext4) must resize2fs "$dev" ;;
    xfs)  must xfs_growfs $at ;;
  esac
  [ "$(kib $at)" -gt $((before * 3 / 2)) ] || die "the file system has $(kib $at) KiB after $before"
  must fallocate -l 360M $at/large
  must dd if=/dev/urandom of=$at/large bs=1M count=8 seek=352 conv=notrunc status=none
  must sha256sum $at/large >> /root/sum
  must umount $at
  case $kind in
    ext4) must e2fsck -fn "$dev" ;;
    xfs)  must xfs_repair -n "$dev" ;;
  esac
  must mount -t $kind -o ro "$dev" $at
done
must sha256sum --quiet -c /root/sum
must umount /mnt/ext4
must umount /mnt/xfs
must logout
must wait_nodisks
say "resize: passed"
