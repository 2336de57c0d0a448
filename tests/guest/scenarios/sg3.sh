# sg3-utils against a disk, and what each tool has done there. Erases it.
#   G_PORTAL (10.0.2.2:3260)
#   G_PARTS  which of the parts below, in this order   G_TARGET  short name of a target with LUNs 0 and 1 (disks)
name=${G_TARGET:-disks}

say "login"
must discover
must login
must wait_disks 2
dev=/dev/$(disk_of "$name" "" 0) other=/dev/$(disk_of "$name" "" 1)
[ -b "$dev" ] && [ -b "$other" ] || die "no disks of $name"

# Small ranges of 512-byte blocks, past the page cache.
fill() {   # fill LBA COUNT CHARACTER
  letter "$2" "$3" > /run/fill
  must dd if=/run/fill of="$dev" bs=512 seek="$1" oflag=direct status=none
}
letter() { head -c $(($1 * 512)) /dev/zero | tr '\0' "$2"; }
shows() {  # shows LBA COUNT CHARACTER [DISK]
  dd if="${4:-$dev}" bs=512 skip="$1" count="$2" iflag=direct status=none > /run/shown || return
  letter "$2" "$3" | cmp -s - /run/shown
}
# ends STATUS CMD...: it has to end with that status
ends() {
  local want=$1 rc=0; shift
  "$@" > /run/out 2> /run/err || rc=$?
  [ $rc = "$want" ] || { cat /run/out /run/err; die "status $rc instead of $want from: $*"; }
}
# decoded CMD...: it succeeds and complains of nothing
decoded() {
  ends 0 "$@"
  if [ -s /run/err ]; then cat /run/err; die "complaints of: $*"; fi
  if grep -iE 'malformed|truncated|too short|unexpected|unable to|not decoded|unknown page|bad |failed' /run/out; then
    die "complaints in the output of: $*"
  fi
}
has() { grep -qiE "$1" /run/out || { cat /run/out; die "no '$1' in the output"; }; }
miscompare=14 conflict=24 illegal=5

part_vpd() {
  must sg_inq --vpd --page=0 --raw "$dev" > /run/pages
  local codes code
  codes=$(tail -c +5 /run/pages | od -An -v -tx1)
  for code in 80 83 86 87 88 8f b0 b1 b2; do case " $codes " in *" $code "*) ;; *) die "no page $code among $codes" ;; esac; done
  for code in $codes; do
    echo "page $code"
    decoded sg_vpd --page=0x$code "$dev"
    decoded sg_vpd --page=0x$code --long "$dev"
  done
  decoded sg_inq "$dev"
  decoded sg_readcap --long "$dev"
}

part_opcodes() {
  decoded sg_opcodes "$dev"
  local name
  for name in 'Inquiry' 'Read\(16\)' 'Write\(16\)' 'Compare and write' 'Unmap' 'Write same\(16\)' 'Get LBA status'; do
    has "$name"
  done
  decoded sg_opcodes --rctd "$dev"
  decoded sg_opcodes --opcode=0x89 "$dev"
  decoded sg_opcodes --opcode=0x9e,0x12 "$dev"
  decoded sg_opcodes --tmf "$dev"
  has 'Logical unit reset'
}

part_unmap() {
  fill 2048 512 A
  ends 0 sg_unmap --lba=2176 --num=128 "$dev"
  must shows 2048 128 A
  must shows 2176 128 '\0'
  must shows 2304 256 A
}

part_lba_status() {
  fill 4096 256 A
  ends 0 sg_unmap --lba=4096 --num=128 "$dev"
  # First block, number of blocks, state: 0 mapped, 1 deallocated.
  ends 0 sg_get_lba_status --brief --lba=4096 "$dev"
  has '^0x0*1000 +0x80 +1 '
  ends 0 sg_get_lba_status --brief --lba=4224 "$dev"
  has '^0x0*1080 +0x[0-9a-f]+ +0 '
}

part_write_same() {
  fill 8192 256 A
  letter 1 B > /run/block
  ends 0 sg_write_same --10 --lba=8200 --num=100 --in=/run/block --xferlen=512 "$dev"
  must shows 8192 8 A; must shows 8200 100 B; must shows 8300 148 A
  ends 0 sg_write_same --16 --lba=8200 --num=8 --ndob "$dev"
  must shows 8200 8 '\0'; must shows 8208 92 B
  ends 0 sg_write_same --16 --unmap --lba=8208 --num=92 "$dev"
  must shows 8208 92 '\0'; must shows 8300 148 A
}

part_compare_and_write() {
  fill 10 3 A
  { letter 2 A; letter 2 B; } > /run/swap
  ends 0 sg_compare_and_write --in=/run/swap --lba=10 --num=2 --xferlen=2048 "$dev"
  must shows 10 2 B; must shows 12 1 A
  ends $miscompare sg_compare_and_write --in=/run/swap --lba=10 --num=2 --xferlen=2048 "$dev"
  must shows 10 2 B
}

part_verify() {
  fill 20 2 A
  letter 1 A > /run/same; letter 1 B > /run/different
  ends 0 sg_verify --lba=0 --count=2048 "$dev"
  ends 0 sg_verify --16 --lba=20 --count=1 --bytchk=512 --in=/run/same "$dev"
  ends $miscompare sg_verify --16 --lba=20 --count=1 --bytchk=512 --in=/run/different "$dev"
  ends 0 sg_verify --16 --lba=20 --count=2 --ebytchk=3 --bytchk=512 --in=/run/same "$dev"
}

part_persist() {
  ends 0 sg_persist --out --register --param-sark=abc1 "$dev"
  ends 0 sg_persist --in --read-keys "$dev"; has '0xabc1'
  ends 0 sg_persist --out --reserve --param-rk=abc1 --prout-type=5 "$dev"
  ends 0 sg_persist --in --read-reservation "$dev"; has 'Key=0xabc1'; has 'Write Exclusive, registrants only'
  ends 0 sg_persist --in --read-full-status "$dev"; has 'iqn.1993-08.org.debian:01:guest'
  ends 0 sg_persist --in --report-capabilities "$dev"; has 'Persist Through Power Loss Capable.*: 1'
  ends $conflict sg_persist --out --release --param-rk=bad --prout-type=5 "$dev"
  ends 0 sg_persist --out --release --param-rk=abc1 --prout-type=5 "$dev"
  ends 0 sg_persist --in --read-reservation "$dev"; has 'no reservation held'
  ends 0 sg_persist --out --clear --param-rk=abc1 "$dev"
  ends 0 sg_persist --in --read-keys "$dev"; has 'no registered reservation keys'
}

part_xcopy() {
  # It opens disks by their numbers.
  must mkdir -p /dev/block
  local disk
  for disk in "$dev" "$other"; do must ln -sf "$disk" "/dev/block/$(lsblk -dno MAJ:MIN "$disk" | tr -d ' ')"; done
  fill 12288 256 C
  fill 16384 256 D
  # Within the disk, and to another one.
  ends 0 sg_xcopy if="$dev" skip=12288 of="$dev" seek=16400 count=128 bs=512
  must shows 16384 16 D; must shows 16400 128 C; must shows 16528 112 D
  ends 0 sg_xcopy if="$dev" skip=12288 of="$other" seek=64 count=256 bs=512
  must shows 64 256 C "$other"
  ends 0 sg_copy_results --params "$dev"
}

# A number, in so many bytes.
bytes() {
  local i out=
  for ((i = $1 - 1; i >= 0; i--)); do out+=$(printf '\\x%02x' $(($2 >> 8 * i & 255))); done
  printf "$out"
}

# Block device range descriptors of (address, blocks) pairs, behind their length.
ranges() {
  bytes 2 $(($# * 8))
  while [ $# -gt 0 ]; do bytes 8 "$1"; bytes 4 "$2"; bytes 4 0; shift 2; done
}

# A third-party copy command with the list in /run/list: status, disk, service action, list identifier.
copy_out() {
  local length=$(stat -c %s /run/list)
  ends "$1" sg_raw --send="$length" --infile=/run/list "$2" 83 "$3" 00 00 00 00 00 00 00 "$4" \
    00 00 $(printf '%02x %02x' $((length >> 8)) $((length & 255))) 00 00
}

# The token of (address, blocks) pairs of the disk, in /run/token.
populate() {
  { bytes 2 $((14 + $# * 8)); bytes 12 0; ranges "$@"; } > /run/list
  copy_out 0 "$dev" 10 01
  ends 0 sg_raw --request=550 --outfile=/run/told "$dev" 84 07 00 00 00 01 00 00 00 00 00 00 02 26 00 00
  tail -c 512 /run/told > /run/token
}

# Writes what a token stands for: status, disk, flags, token, then (address, blocks) pairs.
write_using() {
  local status=$1 disk=$2 flags=$3 token=$4; shift 4
  { bytes 2 $((534 + $# * 8)); bytes 1 "$flags"; bytes 13 0; cat "$token"; bytes 6 0; ranges "$@"; } > /run/list
  copy_out "$status" "$disk" 11 02
}

# By hand: ddpt 0.97 puts each range one byte too early.
part_token() {
  fill 12288 256 E
  fill 16384 64 F
  populate 12288 256 16384 64
  write_using 0 "$other" 0 /run/token 1024 300 2048 20
  must shows 1024 256 E "$other"; must shows 1280 44 F "$other"; must shows 2048 20 F "$other"
  # Answered before it is done.
  write_using 0 "$dev" 1 /run/token 20480 320
  udevadm settle; sleep 1
  must shows 20480 256 E; must shows 20736 64 F
  # The token for zeroes.
  { printf '\377\377\0\1\0\0\1\370'; bytes 504 0; } > /run/zero
  write_using 0 "$other" 0 /run/zero 1100 100
  must shows 1024 76 E "$other"; must shows 1100 100 '\0' "$other"; must shows 1200 80 E "$other"
  # A token that somebody has made up, and one whose blocks have changed.
  { head -c 500 /run/token; bytes 12 0; } > /run/forged
  printf X | dd of=/run/forged bs=1 seek=260 conv=notrunc status=none
  write_using 5 "$other" 0 /run/forged 1024 8
  fill 16384 1 G
  write_using 5 "$other" 0 /run/token 1024 8
  must shows 1024 76 E "$other"
}

part_logs() {
  ends 0 sg_logs --list "$dev"; has '0x0'
  decoded sg_logs --all "$dev"
}

part_rtpg() {
  decoded sg_rtpg --decode "$dev"
  has 'active/optimized'
  decoded sg_rtpg --decode --extended "$dev"
}

part_stpg() {
  local group
  group=$(sg_rtpg --decode "$dev" | sed -n 's/.*target port group id : \(0x[0-9a-f]*\) .*/\1/p' | head -1)
  ends 0 sg_stpg --tp="$group" --state=an "$dev"
  ends 0 sg_rtpg --decode "$dev"; has 'active/non optimized'
  ends 0 sg_stpg --tp="$group" --state=ao "$dev"
  ends 0 sg_rtpg --decode "$dev"; has 'active/optimized'
}

part_identifying() {
  printf 'in rack four' > /run/id
  ends 0 sg_ident --set "$dev" < /run/id
  ends 0 sg_ident --ascii "$dev"; has 'in rack four'
}

part_buffers() {
  letter 1 Z > /run/echo
  ends 0 sg_write_buffer --mode=echo --length=512 --in=/run/echo "$dev"
  # sg_read_buffer asks for no bytes at all.
  ends 0 sg_raw --request=512 --outfile=/run/echoed "$dev" 3c 0a 00 00 00 00 00 02 00 00
  must cmp /run/echo /run/echoed
}

part_sanitize() {
  fill 20480 64 A
  ends 0 sg_sanitize --block --quick --wait "$dev"
  must shows 20480 64 '\0'
  fill 20480 64 A
  letter 1 F > /run/pattern
  ends 0 sg_sanitize --overwrite --pattern=/run/pattern --quick --wait "$dev"
  must shows 20480 64 F; must shows 0 64 F
}

part_format() {
  local before
  before=$(blockdev --getsize64 "$dev")
  fill 20480 64 A
  # Without --wait it looks once a minute.
  ends 0 sg_format --format --quick --wait "$dev"
  must shows 20480 64 '\0'
  ends 0 sg_get_lba_status --brief --lba=0 "$dev"; has '^0x0+ +0x0*20000 +1 '
  ends 0 sg_readcap --long "$dev"; has 'Logical block length=512 bytes'
  [ "$(blockdev --getsize64 "$dev")" = "$before" ] || die "another size after the format"
  fill 20480 64 B
  must shows 20480 64 B
}

for part in ${G_PARTS:?}; do
  say "$part"
  "part_$part"
done
must logout
must wait_nodisks
say "sg3: passed"
