//! From errno to what the initiator may know.

use backstore_api::StoreError;
use reactor::Errno;
use rustix::io::Errno as Os;

pub(crate) const EINVAL: StoreError = StoreError::Other(Os::INVAL.raw_os_error());

/// The meaning of an errno for an operation that touched the medium at `offset`.
pub(crate) fn store_error(errno: Errno, offset: u64) -> StoreError {
    match Os::from_raw_os_error(errno.0) {
        Os::IO | Os::ILSEQ | Os::TIMEDOUT | Os::NOLINK | Os::REMOTEIO | Os::BADMSG => StoreError::Medium { offset },
        Os::NOSPC | Os::DQUOT => StoreError::NoSpace,
        Os::NODEV | Os::NXIO | Os::STALE | Os::BADF | Os::NOMEDIUM => StoreError::Gone,
        Os::ROFS | Os::PERM => StoreError::ReadOnly,
        other => StoreError::Other(other.raw_os_error()),
    }
}

/// The same for memory that could not be had for a volume in it.
pub(crate) fn no_memory(errno: Errno) -> StoreError {
    if errno.0 == Os::NOMEM.raw_os_error() { StoreError::NoSpace } else { StoreError::Other(errno.0) }
}

/// The operation isn't known to this file system or device: use another one from now on.
pub(crate) fn is_unsupported(errno: Errno) -> bool {
    matches!(Os::from_raw_os_error(errno.0), Os::OPNOTSUPP | Os::NOSYS | Os::NOTTY)
}

/// Try the same again.
pub(crate) fn is_transient(errno: Errno) -> bool {
    matches!(Os::from_raw_os_error(errno.0), Os::INTR | Os::AGAIN)
}

/// Perhaps the first sign that the file or device is no longer there.
pub(crate) fn is_medium(errno: Errno) -> bool {
    matches!(store_error(errno, 0), StoreError::Medium { .. })
}
