# The integration tests inside the guest, on the guest's kernel.
#   GUEST_FILES has ringlun and the tests' programs   G_TESTS  their names
say "tests on Linux $(uname -r)"
# A file system on something that knows direct I/O: the root is memory.
must truncate -s 1500M /root/scratch.img
must mkfs.ext4 -q -F /root/scratch.img
mkdir -p /scratch
must mount -o loop /root/scratch.img /scratch
export RINGLUN_BIN=/guest/files/ringlun RINGLUN_SCRATCH=/scratch
for t in ${G_TESTS:?}; do
  say "$t"
  # Ten thousand connections are a matter of this machine's memory, not of its kernel.
  /guest/files/$t --test-threads 2 --skip ten_thousand || die "$t"
done
say "tests: passed"
