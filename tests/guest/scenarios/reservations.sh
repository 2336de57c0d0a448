# Two initiators and a persistent reservation: who is fenced can't write, neither by tool nor by file system, until it is
# let in again. Erases the disk. Both are sessions of this guest, with a name each.
#   G_PORTAL (10.0.2.2:3260)
for i in a b; do
  must iscsiadm -m iface -I $i -o new
  must iscsiadm -m iface -I $i -o update -n iface.initiatorname -v "iqn.1993-08.org.debian:01:guest-$i"
  must iscsiadm -m iface -I $i -o update -n iface.transport_name -v tcp
done
# The target names itself 127.0.0.1.
host_loopback
must iscsiadm -m discovery -t sendtargets -p "$PORTAL" -I a -I b
must login
must wait_disks 2
a=/dev/$(disk_of disk a) b=/dev/$(disk_of disk b)
[ "$a" != "$b" ] && [ -b "$a" ] && [ -b "$b" ] || die "disks: $a $b"
writes() { dd if=/dev/zero of="$1" bs=4k count=1 seek="$2" oflag=direct status=none 2> /dev/null; }
reads() { dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none 2> /dev/null; }
persist() { local d=$1; shift; sg_persist "$@" "$d" > /run/out 2>&1; }

say "both register, $a reserves: write exclusive, registrants only"
must persist "$a" --out --register --param-sark=a
must persist "$b" --out --register --param-sark=b
must persist "$a" --out --reserve --param-rk=a --prout-type=5
must writes "$a" 1
must writes "$b" 2

say "$a fences $b"
must persist "$a" --out --preempt-abort --param-rk=a --param-sark=b --prout-type=5
fails writes "$b" 3
must reads "$b"
must writes "$a" 4
fails persist "$b" --out --reserve --param-rk=b --prout-type=5

say "exclusive access: $b can't even read"
must persist "$a" --out --release --param-rk=a --prout-type=5
must persist "$a" --out --reserve --param-rk=a --prout-type=3
fails reads "$b"
must reads "$a"

say "$b comes back and fences $a"
must persist "$b" --out --register-ignore --param-sark=b2
must persist "$b" --out --preempt --param-rk=b2 --param-sark=a --prout-type=1
must writes "$b" 5
fails writes "$a" 6
must reads "$a"

say "nobody holds it any more"
must persist "$b" --out --clear --param-rk=b2
must writes "$a" 7
must writes "$b" 8
must logout
must wait_nodisks
say "reservations: passed"
