//! An anonymous private mapping, or a file's, aligned for huge pages; unmapped when dropped.

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::{io, os::fd::BorrowedFd, ptr::NonNull};

/// Size of a page that everything here is rounded to. Larger system pages only make the rounding finer than needed.
pub(crate) const PAGE: usize = 4096;
/// Size of a huge page on the platforms that we know.
const HUGE: usize = 2 << 20;
/// Threads that populate a mapping, at most.
const POPULATORS: usize = 16;

/// Zeroed memory of the process. Pages are allocated by the kernel on first touch.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    /// With the addresses behind it that it may grow into.
    length: usize,
}

// SAFETY: a mapping is plain memory of the process, owned by this value alone; nothing in it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives out an address and a length only; who dereferences it answers for races.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes (rounded up to pages, at least one), with an address that is a multiple of 2 MiB.
    ///
    /// # Errors
    /// What mmap says; the message names the number of bytes.
    pub(crate) fn new(length: usize) -> io::Result<Mapping> {
        Mapping::map(length, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Keeps addresses for `length` bytes, without memory behind them: [`open`](Mapping::open) gives it.
    ///
    /// # Errors
    /// As [`new`](Mapping::new).
    pub(crate) fn reserve(length: usize) -> io::Result<Mapping> {
        Mapping::map(length, ProtFlags::empty())
    }

    /// Maps `length` bytes of a file, which may be shorter, to be read. What is there is what the file has at the moment of
    /// an access.
    ///
    /// # Errors
    /// As [`new`](Mapping::new), and what the file says.
    pub(crate) fn of_file(file: BorrowedFd<'_>, length: usize) -> io::Result<Mapping> {
        let mapping = Mapping::reserve(length)?;
        let address = mapping.address.as_ptr().cast();
        // SAFETY: it replaces all of the mapping made above, which nobody has seen yet.
        unsafe {
            rustix::mm::mmap(address, mapping.length, ProtFlags::READ, MapFlags::SHARED | MapFlags::FIXED, file, 0)?;
        }
        // SAFETY: as in `map`.
        unsafe {
            let _ = rustix::mm::madvise(address, mapping.length, Advice::LinuxHugepage);
        }
        Ok(mapping)
    }

    /// Reads a range into memory and keeps it there. Blocks.
    ///
    /// # Errors
    /// What mlock(2) says; a part of it may be locked.
    pub(crate) fn lock(&self, offset: usize, length: usize) -> io::Result<()> {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: the range is inside the mapping, and locking doesn't change what it holds.
        unsafe { rustix::mm::mlock(self.address.as_ptr().add(offset).cast(), length)? };
        Ok(())
    }

    /// The range need not stay in memory any more.
    pub(crate) fn unlock(&self, offset: usize, length: usize) {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: the range is inside the mapping, and unlocking doesn't change what it holds.
        unsafe {
            let _ = rustix::mm::munlock(self.address.as_ptr().add(offset).cast(), length);
        }
    }

    /// Puts zeroed memory behind the first `length` bytes; those that have some keep it.
    ///
    /// # Errors
    /// What the system says: it doesn't promise so much.
    pub(crate) fn open(&self, length: usize) -> io::Result<()> {
        let length = length.next_multiple_of(PAGE);
        assert!(length <= self.length);
        // SAFETY: the range is inside this private anonymous mapping, and what is open already stays as it is.
        let opened = unsafe {
            rustix::mm::mprotect(self.address.as_ptr().cast(), length, MprotectFlags::READ | MprotectFlags::WRITE)
        };
        opened.map_err(|errno| {
            let cause = io::Error::from(errno);
            io::Error::new(cause.kind(), format!("{length} bytes of memory could not be mapped: {cause}"))
        })
    }

    /// Maps `length` bytes of ordinary pages.
    ///
    /// # Errors
    /// As [`new`](Mapping::new).
    pub(crate) fn of_pages(length: usize) -> io::Result<Mapping> {
        assert!(length > 0 && length.is_multiple_of(PAGE));
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let raw = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE) }?;
        let address = NonNull::new(raw.cast()).expect("mmap never answers with null");
        Ok(Mapping { address, length })
    }

    fn map(length: usize, protection: ProtFlags) -> io::Result<Mapping> {
        let refused = |cause: io::Error| {
            io::Error::new(cause.kind(), format!("{length} bytes of memory could not be mapped: {cause}"))
        };
        let too_large = || refused(io::Error::from(io::ErrorKind::OutOfMemory));
        let wanted = length.max(1).checked_next_multiple_of(PAGE).ok_or_else(too_large)?;
        // Mapped with room to spare, so that the part that is kept can begin on a huge page.
        let spare = wanted.checked_add(HUGE).filter(|n| *n <= isize::MAX as usize).ok_or_else(too_large)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let raw = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), spare, protection, MapFlags::PRIVATE) }
            .map_err(|errno| refused(errno.into()))?
            .cast::<u8>();
        let head = raw.align_offset(HUGE);
        assert!(head <= HUGE, "an alignment of a byte pointer is always reachable");
        let tail = HUGE - head;
        // SAFETY: head <= HUGE < spare: inside the mapping.
        let address = unsafe { raw.add(head) };
        // SAFETY: both ranges are whole pages of the mapping made above that nobody has seen yet; address + wanted is
        // at most its end.
        unsafe {
            if head > 0 {
                let _ = rustix::mm::munmap(raw.cast(), head);
            }
            if tail > 0 {
                let _ = rustix::mm::munmap(address.add(wanted).cast(), tail);
            }
        }
        // Huge pages are wished for, never needed.
        // SAFETY: the range is the mapping that is kept; this advice does not change what it holds.
        unsafe {
            let _ = rustix::mm::madvise(address.cast(), wanted, Advice::LinuxHugepage);
        }
        let address = NonNull::new(address).expect("mmap never answers with null");
        Ok(Mapping { address, length: wanted })
    }

    /// First byte.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Has the kernel allocate all pages of the first `length` bytes now, by several threads: zeroing is slow, and on a
    /// virtual machine its host may have to find the memory first.
    ///
    /// # Errors
    /// What the kernel says: there is not as much memory.
    pub(crate) fn populate(&self, length: usize) -> io::Result<()> {
        let length = length.next_multiple_of(PAGE);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(POPULATORS);
        let piece = (length / threads).next_multiple_of(HUGE);
        std::thread::scope(|scope| {
            let begin = |start| scope.spawn(move || self.populate_range(start, piece.min(length - start)));
            let running: Vec<_> = (0..length).step_by(piece).map(begin).collect();
            running.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
        })
    }

    pub(crate) fn populate_range(&self, offset: usize, length: usize) -> io::Result<()> {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        loop {
            // SAFETY: the range is inside the mapping, and the advice does not change what it holds.
            let done = unsafe {
                let address = self.address.as_ptr().add(offset).cast();
                rustix::mm::madvise(address, length, Advice::LinuxPopulateWrite)
            };
            match done {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                done => return done.map_err(io::Error::from),
            }
        }
    }

    /// Gives the whole pages of `offset..offset + length` back to the system; they read as zeroes from then on.
    /// Both must be multiples of a page. False when the system refused and nothing changed.
    pub(crate) fn release(&self, offset: usize, length: usize) -> bool {
        assert!(offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: the range is inside this private anonymous mapping, where the advice means "zeroes from now on".
        // It acts page by page: a racing access sees old bytes or zeroes, and a racing write may be lost, as with any
        // write that races with a zeroing one.
        unsafe { rustix::mm::madvise(self.address.as_ptr().add(offset).cast(), length, Advice::LinuxDontNeed).is_ok() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with exactly this address and length, and nobody borrows from it any more.
        unsafe {
            let _ = rustix::mm::munmap(self.address.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_on_a_huge_page() {
        for length in [1, PAGE, HUGE, HUGE + 1] {
            let mapping = Mapping::new(length).unwrap();
            assert_eq!(mapping.address().as_ptr() as usize % HUGE, 0);
            assert_eq!(mapping.length, length.next_multiple_of(PAGE));
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error_that_names_the_size() {
        for length in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let error = Mapping::new(length).err().expect("no machine has that much");
            assert!(error.to_string().contains(&length.to_string()), "{error}");
        }
    }
}
