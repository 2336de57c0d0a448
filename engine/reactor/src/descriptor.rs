//! Handles of open files.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Another handle of the same open file, closed on exec. Works for types that lend a raw descriptor only; the
/// original stays as it is.
///
/// # Errors
/// EMFILE when the process has no descriptors left, EBADF when `from` names none.
pub fn duplicate(from: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory; a bad descriptor is answered with EBADF.
    let fd = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor in non-blocking mode answers EAGAIN to the ring instead of being waited for.
pub(crate) fn make_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(rustix::fs::OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(fd, flags - rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_duplicate_outlives_its_original() {
        let (a, mut b) = std::os::unix::net::UnixStream::pair().unwrap();
        let copy = duplicate(&a).unwrap();
        drop(a);
        b.write_all(b"x").unwrap();
        let mut byte = [0];
        std::os::unix::net::UnixStream::from(copy).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn no_descriptor_is_an_error() {
        struct None;
        impl AsRawFd for None {
            fn as_raw_fd(&self) -> i32 {
                -1
            }
        }
        assert_eq!(duplicate(&None).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
