# One disk over two portals and two networks, dm-multipath with ALUA over them: the loss of each in turn under load that
# is verified. Erases the disk. GUEST_NICS=2
#   G_PORTAL G_PORTAL2  the portals (10.0.2.2 and 10.0.3.2 with their ports)
[ -e /sys/class/net/eth1 ] || die "run with GUEST_NICS=2"
cat > /etc/multipath.conf <<'END'
defaults {
  find_multipaths no
  user_friendly_names yes
  path_grouping_policy group_by_prio
  prio alua
  failback immediate
  polling_interval 1
  no_path_retry queue
}
END
must iscsiadm -m discovery -t sendtargets -p "$PORTAL"
t=$(iscsiadm -m node | awk 'NR == 1 { print $2 }')
must iscsiadm -m node -o delete
for p in "$G_PORTAL" "$G_PORTAL2"; do must iscsiadm -m node -T "$t" -p "$p" -o new; done
must setting node.conn[0].timeo.noop_out_interval 1
must setting node.conn[0].timeo.noop_out_timeout 2
must setting node.session.timeo.replacement_timeout 3
must modprobe -a scsi_dh_alua dm-multipath dm-service-time
say "udev and multipathd"
must start_udev
multipathd -d > /run/multipathd.log 2>&1 &
daemon=$!
must login
must wait_disks 2
udevadm settle -t 20
map() { multipath -ll 2>/dev/null | sed -n 's/^\(mpath[a-z]*\) .*/\1/p' | head -1; }
_map() { [ -n "$(map)" ]; }
paths() { dmsetup status "$(map)" | grep -oE '[0-9]+:[0-9]+ [AF]' | grep -c " $1"; }
_active() { [ "$(paths A)" = "$1" ]; }
within 20 _map || { cat /run/multipathd.log; die "no map"; }
within 20 _active 2 || { multipath -ll; die "two paths wanted"; }
multipath -ll | cat
multipath -ll | grep -q "hwhandler='1 alua'" || die "no ALUA"
dev=/dev/mapper/$(map)
dm=$(basename "$(readlink -f "$dev")")
_written() { [ "$(awk '{ print $7 }' "/sys/block/$dm/stat")" -gt $before ]; }

round=0
for lost in eth1 eth0; do
  round=$((round + 1))
  say "writes; $lost goes down meanwhile"
  must dd if=/dev/urandom of=/root/data bs=1M count=32 status=none
  # Until the link is down: it goes in the midst of writes.
  rm -f /run/lost
  before=$(awk '{ print $7 }' "/sys/block/$dm/stat")
  (until [ -e /run/lost ]; do dd if=/root/data of="$dev" bs=256k oflag=direct status=none || exit; done) & writes=$!
  within 20 _written || die "nothing is written"
  must ip link set $lost down
  touch /run/lost
  must wait $writes
  within 30 _active 1 || { multipath -ll; die "one path wanted"; }
  must cmp -n $((32 << 20)) /root/data "$dev"
  say "$lost comes back"
  must ip link set $lost up
  [ $lost = eth1 ] || ip route add default via 10.0.2.2 2> /dev/null
  within 60 _active 2 || { multipath -ll; die "two paths wanted"; }
  blockdev --flushbufs "$dev"
  must cmp -n $((32 << 20)) /root/data "$dev"
done
must multipath -f "$(map)"
kill $daemon
must logout
say "multipath: passed"
