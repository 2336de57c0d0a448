# The target inside the guest, on the guest's kernel: serve, log in over the guest's loopback, and do what disk.sh does.
#   GUEST_FILES has ringlun and disk.sh   G_MIB (64)
say "ringlun on Linux $(uname -r)"
cat > /run/ringlun.toml <<'TOML'
[server]
state_dir = "/run/ringlun-state"
drain_timeout_s = 5
[[portal]]
address = "127.0.0.1:3260"
[[volume]]
name = "file"
store = { kind = "file", path = "/root/disk.img", size = "128MiB" }
TOML
/guest/files/ringlun serve --config /run/ringlun.toml --log info > /run/ready 2> /run/ringlun.log &
server=$!
within 60 grep -q '^ringlun ready' /run/ready || { cat /run/ringlun.log; die "not ready"; }
cat /run/ready

# In a shell of its own: it ends with exit.
(PORTAL=127.0.0.1:3260; . /guest/files/disk.sh) || { cat /run/ringlun.log; die "the disk"; }

kill -TERM $server
wait $server || { rc=$?; cat /run/ringlun.log; die "exit status $rc after SIGTERM"; }
cat /run/ringlun.log
say "inside: passed"
