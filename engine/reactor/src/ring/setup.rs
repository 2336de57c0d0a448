//! Making a ring with what the kernel has.

use super::{RingSettings, multishot, provided::Provided, slot::REPORT_USAGE};
use crate::features::{Feature, Features, Use};
use io_uring::{IoUring, Probe, cqueue, opcode, types};
use memory::Arena;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// A ring and what was registered with it.
pub(crate) struct Parts {
    pub(crate) ring: IoUring,
    pub(crate) features: Features,
    pub(crate) provided: Option<Provided>,
}

/// Features that are flags of the ring's creation. When the kernel refuses, they are given up in this order: the
/// newest first, and nothing before what needs it.
const FLAGS: [Feature; 4] = [Feature::NoSqArray, Feature::DeferTaskrun, Feature::SingleIssuer, Feature::CoopTaskrun];

pub(crate) fn set_up(settings: &RingSettings, arena: &Arena) -> io::Result<Parts> {
    let mut features = Features::new(settings.features);
    let mut ring = create(settings, &mut features)?;
    check_operations(&ring)?;
    register_files(&ring, settings, &mut features);
    if features.uses(Feature::RegisteredFiles) && features.wanted(Feature::PromptRelease) && settings.files >= 2 {
        match releases_promptly(&mut ring) {
            Ok(true) => features.set(Feature::PromptRelease, Use::Used),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the release of registered files could not be tried out"),
        }
    }
    register_buffers(&ring, arena, &mut features);
    let provided = provide_buffers(&ring, settings, &mut features);
    multishot::look_for(&ring, provided.as_ref(), &mut features);
    set_workers(&ring, settings, &mut features);
    poll_cards(&ring, settings, &mut features);
    if features.wanted(Feature::PolledDisks) {
        // Until a file is registered for it.
        features.set(Feature::PolledDisks, Use::Unasked);
    }
    try_zero_copy(&mut ring, settings, &mut features);
    Ok(Parts { ring, features, provided })
}

fn create(settings: &RingSettings, features: &mut Features) -> io::Result<IoUring> {
    for given_up in 0..=FLAGS.len() {
        let left = &FLAGS[given_up..];
        let has = |feature| {
            // Deferred work is the business of a single issuer only.
            let needed = feature != Feature::DeferTaskrun || features.wanted(Feature::SingleIssuer);
            left.contains(&feature) && features.wanted(feature) && needed
        };
        let on = FLAGS.map(|feature| (feature, has(feature)));
        let is_on = |feature| on.contains(&(feature, true));
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_submit_all().setup_cqsize(settings.completions());
        if is_on(Feature::NoSqArray) {
            builder.setup_no_sqarray();
        }
        if is_on(Feature::SingleIssuer) {
            builder.setup_single_issuer();
        }
        if is_on(Feature::DeferTaskrun) {
            builder.setup_defer_taskrun().setup_taskrun_flag();
        }
        if is_on(Feature::CoopTaskrun) {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        match builder.build(settings.entries.max(1)) {
            Ok(ring) => {
                for (feature, used) in on {
                    if used {
                        features.set(feature, Use::Used);
                    }
                }
                return Ok(ring);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && given_up < FLAGS.len() => {}
            Err(error) => return Err(explain(error)),
        }
    }
    unreachable!("the last attempt returns")
}

fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a sandbox hides it",
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is not allowed here: look at the sysctl kernel.io_uring_disabled and at seccomp profiles"
        }
        Some(libc::ENOMEM) => "not enough memory may be locked for a ring: raise the limit (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise the limit (ulimit -n)",
        _ => "the ring could not be made",
    };
    io::Error::new(error.kind(), format!("{why} ({error})"))
}

/// What has no fallback.
fn check_operations(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("READ", opcode::Read::CODE),
        ("WRITE", opcode::Write::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("FSYNC", opcode::Fsync::CODE),
        ("FALLOCATE", opcode::Fallocate::CODE),
        ("SHUTDOWN", opcode::Shutdown::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("this kernel's io_uring has no {name}: release 5.19 or later is needed"),
        )),
        None if ring.params().is_feature_nodrop() && ring.params().is_feature_ext_arg() => Ok(()),
        None => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel is too old: release 5.19 or later is needed"))
        }
    }
}

fn register_files(ring: &IoUring, settings: &RingSettings, features: &mut Features) {
    if !features.wanted(Feature::RegisteredFiles) || settings.files == 0 {
        return;
    }
    match ring.submitter().register_files_sparse(settings.files) {
        Ok(()) => features.set(Feature::RegisteredFiles, Use::Used),
        Err(error) => tracing::warn!(
            files = settings.files, %error,
            "the table of registered files could not be made, plain descriptors are used; raise the limit of open files (ulimit -n)"
        ),
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Tries it out: is a socket closed as soon as it leaves the table, although a receive waits on another one?
fn releases_promptly(ring: &mut IoUring) -> io::Result<bool> {
    let (waiting, waiting_peer) = socket_pair()?;
    let (leaving, leaving_peer) = socket_pair()?;
    ring.submitter().register_files_update(0, &[waiting.as_raw_fd(), leaving.as_raw_fd()])?;
    // Leaked for the case that its end can't be waited for: one byte.
    let byte = Box::into_raw(Box::new(0u8));
    let receive = opcode::Recv::new(types::Fixed(0), byte, 1).build();
    // SAFETY: the byte is freed below only after the completion; the queue is empty, so there is room.
    unsafe { ring.submission().push(&receive).map_err(io::Error::other)? };
    ring.submit()?;
    ring.submitter().register_files_update(1, &[-1])?;
    drop(leaving);
    let mut end = [0u8; 1];
    let seen = rustix::net::recv(&leaving_peer, &mut end, rustix::net::RecvFlags::DONTWAIT).map(|(count, _)| count);
    drop(waiting_peer);
    ring.submit_and_wait(1)?;
    if ring.completion().next().is_some() {
        // SAFETY: made by Box::into_raw above; the only operation on it has ended.
        drop(unsafe { Box::from_raw(byte) });
    }
    ring.submitter().register_files_update(0, &[-1])?;
    Ok(seen == Ok(0))
}

fn register_buffers(ring: &IoUring, arena: &Arena, features: &mut Features) {
    if !features.wanted(Feature::RegisteredBuffers) || arena.pieces().is_empty() {
        return;
    }
    let pieces: Vec<libc::iovec> = arena
        .pieces()
        .iter()
        .map(|piece| libc::iovec { iov_base: piece.address.cast(), iov_len: piece.length })
        .collect();
    // SAFETY: the pieces are mapped for as long as the arena's pool, of which the ring holds a clone until it is
    // closed (and the kernel has a pin of its own on the pages).
    match unsafe { ring.submitter().register_buffers(&pieces) } {
        Ok(()) => features.set(Feature::RegisteredBuffers, Use::Used),
        Err(error) => {
            let bytes: usize = arena.pieces().iter().map(|piece| piece.length).sum();
            tracing::warn!(
                bytes, %error,
                "the buffers could not be registered, disk I/O costs a little more; raise the limit of locked memory \
                 (ulimit -l, LimitMEMLOCK= in a systemd unit) to this many bytes or grant CAP_IPC_LOCK"
            );
        }
    }
}

fn provide_buffers(ring: &IoUring, settings: &RingSettings, features: &mut Features) -> Option<Provided> {
    if !features.wanted(Feature::ProvidedBuffers) || settings.receive_buffers == 0 {
        return None;
    }
    match Provided::new(ring, settings.receive_buffers) {
        Ok(provided) => {
            features.set(Feature::ProvidedBuffers, Use::Used);
            Some(provided)
        }
        Err(error) => {
            tracing::warn!(%error, "no ring of receive buffers: every waiting receive holds a buffer of its own");
            None
        }
    }
}

fn set_workers(ring: &IoUring, settings: &RingSettings, features: &mut Features) {
    if features.wanted(Feature::WorkerLimits) {
        // 0 leaves a bound as it is.
        let mut limits = [settings.iowq_bounded, settings.iowq_unbounded];
        match ring.submitter().register_iowq_max_workers(&mut limits) {
            Ok(()) => features.set(Feature::WorkerLimits, Use::Used),
            Err(error) => {
                tracing::warn!(%error, "the number of kernel workers could not be bounded")
            }
        }
    }
    if !features.wanted(Feature::WorkerAffinity) {
        return;
    }
    if settings.worker_cpus.is_empty() {
        features.set(Feature::WorkerAffinity, Use::Unasked);
        return;
    }
    // SAFETY: a set of bits, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in settings.worker_cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as u32) {
        // SAFETY: checked against the size of the set.
        unsafe { libc::CPU_SET(*cpu as usize, &mut set) };
    }
    match ring.submitter().register_iowq_aff(&set) {
        Ok(()) => features.set(Feature::WorkerAffinity, Use::Used),
        Err(error) => {
            tracing::warn!(cpus = ?settings.worker_cpus, %error, "kernel workers could not be confined")
        }
    }
}

/// Has the kernel poll the queues (NAPI) of the cards that the ring's sockets receive from, before each sleep. It learns
/// by itself which these are; loopback has none. The setting goes with the ring.
fn poll_cards(ring: &IoUring, settings: &RingSettings, features: &mut Features) {
    let time = u32::try_from(settings.busy_poll.as_micros()).unwrap_or(u32::MAX);
    if !features.wanted(Feature::BusyPoll) {
        return;
    }
    if time == 0 {
        features.set(Feature::BusyPoll, Use::Unasked);
        return;
    }
    // A card whose interrupts can be put off (napi_defer_hard_irqs, gro_flush_timeout) keeps them off while it is polled;
    // others are polled all the same.
    let mut polling = types::Napi::new().set_busy_poll_timeout(time).set_prefer_busy_poll(true);
    match ring.submitter().register_napi(&mut polling) {
        Ok(()) => features.set(Feature::BusyPoll, Use::Used),
        Err(error) => tracing::warn!(
            %error,
            "network cards can't be polled before a sleep, they interrupt as usual: that takes Linux 6.9 or newer, built with \
             CONFIG_NET_RX_BUSY_POLL; without `busy_poll_us` this is not asked for"
        ),
    }
}

/// Tries it out on a socket that can't do it: a kernel that knows such sends, and reports on them, says EOPNOTSUPP.
fn try_zero_copy(ring: &mut IoUring, settings: &RingSettings, features: &mut Features) {
    if !features.wanted(Feature::ZeroCopy) {
        return;
    }
    if settings.zero_copy == 0 {
        features.set(Feature::ZeroCopy, Use::Unasked);
        return;
    }
    let attempt = |ring: &mut IoUring| -> io::Result<i32> {
        let (ours, _theirs) = socket_pair()?;
        // SAFETY: integers and pointers, for which all zeroes is a value.
        let empty: libc::msghdr = unsafe { std::mem::zeroed() };
        let header = Box::into_raw(Box::new(empty));
        let fd = types::Fd(ours.as_raw_fd());
        let send = opcode::SendMsgZc::new(fd, header).ioprio(REPORT_USAGE).build();
        // SAFETY: the header is freed below only after the completion; the queue is empty, so there is room.
        unsafe { ring.submission().push(&send).map_err(io::Error::other)? };
        let (mut result, mut more) = (None, true);
        while more {
            ring.submit_and_wait(1)?;
            for entry in ring.completion() {
                result = result.or(Some(entry.result()));
                more = cqueue::more(entry.flags());
            }
        }
        // SAFETY: made by Box::into_raw above; the only operation on it has ended.
        drop(unsafe { Box::from_raw(header) });
        result.ok_or_else(|| io::Error::other("no answer"))
    };
    match attempt(ring) {
        Ok(result) if -result == libc::EOPNOTSUPP => features.set(Feature::ZeroCopy, Use::Used),
        other => tracing::warn!(
            ?other,
            "this kernel can't send without a copy and tell about it, ordinary sends stand in: that takes Linux 6.2 or newer; \
             without `zero_copy` this is not asked for"
        ),
    }
}
