# fstrim gives the space of removed files back: on ext4 and on xfs, each on a disk of its own. Erases them.
#   G_PORTAL (10.0.2.2:3260)  targets `ext4` and `xfs`  G_MIB (48)
mib=${G_MIB:-48}
must discover
must login
must wait_disks 2
must modprobe -a ext4 xfs
for kind in ext4 xfs; do
  dev=/dev/$(disk_of $kind)
  say "$kind on $dev"
  case $kind in
    ext4) must mkfs.ext4 -q -F "$dev" ;;
    xfs)  must mkfs.xfs -q -f "$dev" ;;
  esac
  must mount -t $kind "$dev" /mnt
  must dd if=/dev/urandom of=/mnt/large bs=1M count="$mib" status=none
  must dd if=/dev/urandom of=/mnt/kept bs=1M count=2 status=none
  must sync
  (cd /mnt && must sha256sum kept > /root/sum) || exit 1
  must rm /mnt/large
  must sync
  must fstrim -v /mnt
  must umount /mnt
  must mount -t $kind "$dev" /mnt
  (cd /mnt && must sha256sum --quiet -c /root/sum) || exit 1
  must umount /mnt
  case $kind in
    ext4) must e2fsck -fn "$dev" ;;
    xfs)  must xfs_repair -n "$dev" ;;
  esac
done
must logout
must wait_nodisks
say "trim: passed"
