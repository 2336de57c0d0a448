# The integration tests inside the guest, on the guest's kernel.
#   GUEST_FILES has ringlun and the tests' programs   G_TESTS  their names, each with `:` and
#   a part of the names of those to run, or alone
#   GUEST_ARGS  adds a disk, which is erased
say "tests on Linux $(uname -r)"
# A file system on something that knows direct I/O: the root is memory.
must modprobe virtio_blk
within 10 test -b /dev/vda || die "no /dev/vda"
must mkfs.ext4 -q -F /dev/vda
mkdir -p /scratch
must mount -t ext4 /dev/vda /scratch
export RINGLUN_BIN=/guest/files/ringlun RINGLUN_SCRATCH=/scratch
for t in ${G_TESTS:?}; do
  say "$t"
  only=; case $t in *:*) only=${t#*:} ;; esac
  # Ten thousand connections are a matter of this machine's memory, not of its kernel.
  /guest/files/${t%%:*} --test-threads 2 --skip ten_thousand $only || die "$t"
done
say "tests: passed"
