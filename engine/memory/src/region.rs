//! Memory behind a RAM volume, shared by all cores.

use crate::{
    mapping::{Mapping, PAGE},
    owner::Owner,
    racing,
};
use std::{
    fmt, io,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a processor's caches keep of a region among others.
const CACHED: u64 = 2 << 20;

/// Anonymous zeroed memory with huge pages asked for; pages are allocated on first touch.
///
/// Several cores read and write it at once: all access is by raw copies, so that racing initiators get mixed bytes
/// but never undefined behaviour. A slice over it is lent only while one thread alone writes, and doesn't
/// ([`hold`](Region::hold)). Access outside of it panics.
pub struct Region {
    mapping: Mapping,
    /// Grows, and is a whole number for the processor: an access pays one plain load.
    bytes: AtomicU64,
    room: u64,
    owner: Owner,
}

impl Region {
    /// Maps `bytes` zeroes.
    ///
    /// # Errors
    /// What mmap says (more than the machine's memory is refused by most systems); the message names the bytes.
    pub fn new(bytes: u64) -> io::Result<Arc<Region>> {
        Ok(Region::over(Mapping::new(address(bytes)?)?, bytes, bytes))
    }

    /// The same with addresses for `room` bytes, to [`grow`](Region::grow) into: they take no memory. Where the system
    /// doesn't give so many, there is room for `bytes`.
    ///
    /// # Errors
    /// As [`new`](Region::new).
    pub fn with_room(bytes: u64, room: u64) -> io::Result<Arc<Region>> {
        let (length, room) = (address(bytes)?, room.max(bytes));
        let reserved = address(room).and_then(Mapping::reserve);
        let Ok(mapping) = reserved else { return Region::new(bytes) };
        mapping.open(length)?;
        Ok(Region::over(mapping, bytes, room))
    }

    fn over(mapping: Mapping, bytes: u64, room: u64) -> Arc<Region> {
        Arc::new(Region { mapping, bytes: AtomicU64::new(bytes), room, owner: Owner::nobody() })
    }

    /// Has so many bytes from now on, if it has had fewer: zeroes behind the old ones. Other threads may use them once
    /// they know of it from this one.
    ///
    /// # Errors
    /// What the system says. A size beyond [`room`](Region::room) is `InvalidInput`.
    pub fn grow(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.room {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.mapping.open(address(bytes)?.max(address(self.len())?))?;
        self.bytes.fetch_max(bytes, Ordering::Release);
        Ok(())
    }

    /// How far it can grow.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Allocates all its pages now, so that no later write waits for that. Blocks for a while; what was written stays.
    ///
    /// # Errors
    /// When there is not as much memory; part of it is allocated then.
    pub fn populate(&self) -> io::Result<()> {
        self.mapping.populate(address(self.len())?)
    }

    /// The same for a part of it, by this thread alone.
    ///
    /// # Errors
    /// As [`populate`](Region::populate); when the kernel doesn't know how, EINVAL.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn populate_range(&self, offset: u64, length: u64) -> io::Result<()> {
        self.at(offset, length);
        // It fits: the region is mapped.
        let (start, end) = (offset as usize / PAGE * PAGE, ((offset + length) as usize).next_multiple_of(PAGE));
        self.mapping.populate_range(start, end - start)
    }

    /// Its size in bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// It is so small that it stays in the cache once it is used.
    #[inline]
    pub fn fits_cache(&self) -> bool {
        self.len() <= CACHED
    }

    /// It has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of a range.
    ///
    /// # Panics
    /// If it isn't inside the region.
    pub(crate) fn at(&self, offset: u64, length: u64) -> *mut u8 {
        let end = offset.checked_add(length).expect("a range of a region overflows");
        assert!(end <= self.len(), "bytes {offset}..{end} are outside of a region of {} bytes", self.len());
        // SAFETY: offset <= bytes, what is open of the mapping before rounding, so it fits usize too.
        unsafe { self.mapping.address().as_ptr().add(offset as usize) }
    }

    /// The same, to be written to. No slice over the region exists from now on until this thread holds it.
    fn at_to_write(&self, offset: u64, length: u64) -> *mut u8 {
        let address = self.at(offset, length);
        if length > 0 {
            self.owner.writes();
        }
        address
    }

    /// Copies from `offset` on into all of `into`.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let from = self.at(offset, into.len() as u64);
        // SAFETY: `from` is into.len() bytes of the mapping; `into` is exclusive, hence not a part of it.
        unsafe { racing::read(from, into.as_mut_ptr(), into.len()) }
    }

    /// Appends `length` bytes from `offset` on.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn append_to(&self, offset: u64, length: usize, into: &mut Vec<u8>) {
        let from = self.at(offset, length as u64);
        into.reserve(length);
        // SAFETY: `from` is `length` bytes of the mapping; as many are spare behind the vector's, which is exclusive,
        // and all of them are written before they are counted.
        unsafe {
            racing::read(from, into.spare_capacity_mut().as_mut_ptr().cast(), length);
            into.set_len(into.len() + length);
        }
    }

    /// Copies all of `from` to `offset` on.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn write(&self, offset: u64, from: &[u8]) {
        let into = self.at_to_write(offset, from.len() as u64);
        // SAFETY: `into` is from.len() bytes of the mapping, of which no slice exists.
        unsafe { racing::write(from.as_ptr(), into, from.len()) }
    }

    /// Copies all of `from` to `offset` on, past the cache if it is a block. Other threads may see it only after
    /// [`settle`](crate::settle) was called by the thread that wrote: for many blocks in a row.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn stream(&self, offset: u64, from: &[u8]) {
        let into = self.at_to_write(offset, from.len() as u64);
        // SAFETY: `into` is from.len() bytes of the mapping, of which no slice exists.
        unsafe { racing::stream(from.as_ptr(), into, from.len()) }
    }

    /// Zeroes a range. With `release` the whole pages inside are given back to the system.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn zero(&self, offset: u64, length: u64, release: bool) {
        let start = self.at_to_write(offset, length);
        let (offset, length) = (offset as usize, length as usize);
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(PAGE), end / PAGE * PAGE);
        if release && first < last && self.mapping.release(first, last - first) {
            // SAFETY: offset <= first < last <= end: both rests are inside the checked range.
            unsafe {
                racing::zero(start, first - offset);
                racing::zero(start.add(last - offset), end - last);
            }
        } else {
            // SAFETY: the checked range.
            unsafe { racing::zero(start, length) }
        }
    }

    /// First byte of a range. Other cores may write to it at any time: for the kernel's eyes, never to make a slice of.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn as_ptr(&self, offset: u64, length: u32) -> *const u8 {
        self.at(offset, u64::from(length))
    }

    /// Has all bytes stand still as long as what it gives lives. That can be had by the only thread that has written to the
    /// region since it was made, or since another thread [`let_go`](Region::let_go) of it; not by a thread that does so already.
    /// Writes of other threads wait, so it must be short.
    pub fn hold(self: &Arc<Self>) -> Option<Held<'_>> {
        self.owner.hold().then(|| Held { region: self, of_this_thread: PhantomData })
    }

    /// Whether [`hold`](Region::hold) would do it now.
    #[inline]
    pub fn may_hold(&self) -> bool {
        self.owner.may_hold()
    }

    /// Whether this thread may write as far as the loans of another one go ([`Held::lend`]). If not, that one makes no more of
    /// them, and it is worth asking again when it has said that they are over.
    #[inline]
    pub fn may_write(&self) -> bool {
        self.owner.may_write()
    }

    /// If this thread is the only one that has written, another one may become that. Not while something is lent.
    pub fn let_go(&self) {
        self.owner.let_go();
    }

    /// A counted reference to a range, for sends straight from the region.
    ///
    /// # Panics
    /// If the range isn't inside the region.
    pub fn slice(self: &Arc<Self>, offset: u64, length: u32) -> RegionSlice {
        self.at(offset, u64::from(length));
        RegionSlice { region: self.clone(), offset, length }
    }
}

/// A region whose bytes stand still: see [`Region::hold`].
pub struct Held<'a> {
    region: &'a Arc<Region>,
    of_this_thread: PhantomData<*const ()>,
}

impl Held<'_> {
    /// A range of the region.
    ///
    /// # Panics
    /// If it isn't inside the region.
    pub fn bytes(&self, offset: u64, length: u32) -> &[u8] {
        let start = self.region.at(offset, u64::from(length));
        // SAFETY: the range was checked, and is mapped for reading as long as the region lives. Nobody writes to it as long as
        // `self` lives: other threads wait, and this one panics, before any write (`at_to_write`).
        unsafe { std::slice::from_raw_parts(start, length as usize) }
    }

    /// Bytes of the region are to stand still beyond the hold, as long as what it gives lives. Which ones, this thread
    /// remembers: it doesn't write to them. Threads that ask ([`Region::may_write`]) write to nothing meanwhile.
    ///
    /// It is a promise among those who write, not one to the compiler: there is no slice of such bytes.
    pub fn lend(&self) -> Loan {
        self.region.owner.lend();
        Loan { region: self.region.clone() }
    }
}

/// Bytes of a region stand still: see [`Held::lend`].
#[derive(Debug)]
pub struct Loan {
    region: Arc<Region>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.region.owner.take_back();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.region.owner.release();
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes)", self.len())
    }
}

/// A number of bytes as addresses count them.
fn address(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// So many words of zeroes, to be shared; memory is used when they are written.
pub fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    // SAFETY: an AtomicU64 of zero bytes is zero.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

/// A counted range of a region: the region lives as long as it does.
#[derive(Clone)]
pub struct RegionSlice {
    region: Arc<Region>,
    offset: u64,
    length: u32,
}

impl RegionSlice {
    /// Bytes of the range.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// It has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whose range it is.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where in the region it begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Debug for RegionSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionSlice({} bytes at {})", self.length, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs::File, os::unix::fs::FileExt, sync::atomic::AtomicBool};

    #[test]
    fn is_zeroes_at_first_and_after_a_release() {
        let region = Region::new(3 * 4096 + 100).unwrap();
        let mut all = vec![1; region.len() as usize];
        region.read(0, &mut all);
        assert!(all.iter().all(|byte| *byte == 0));
        region.write(0, &vec![5; all.len()]);
        region.zero(50, 2 * 4096 + 100, true);
        region.read(0, &mut all);
        for (at, byte) in all.iter().enumerate() {
            assert_eq!(*byte, if (50..50 + 2 * 4096 + 100).contains(&at) { 0 } else { 5 }, "byte {at}");
        }
    }

    /// Bytes of its pages that are allocated (proc(5): bit 63 of a page's entry in pagemap).
    fn resident(region: &Region) -> u64 {
        let mut entries = vec![0; region.len().div_ceil(4096) as usize * 8];
        let first = region.as_ptr(0, 1) as u64 / 4096 * 8;
        File::open("/proc/self/pagemap").unwrap().read_exact_at(&mut entries, first).unwrap();
        entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64 * 4096
    }

    #[test]
    fn is_allocated_on_first_touch_unless_it_was_populated() {
        for bytes in [4096, 5 << 20, 33 << 20] {
            let region = Region::new(bytes).unwrap();
            assert_eq!(resident(&region), 0);
            region.write(1000, b"kept");
            region.populate().unwrap();
            assert_eq!(resident(&region), bytes);
            let mut all = vec![1; bytes as usize];
            region.read(0, &mut all);
            assert_eq!(&all[1000..1004], b"kept");
            assert!(all[..1000].iter().chain(&all[1004..]).all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_part_of_it_may_be_populated() {
        const HUGE: u64 = 2 << 20;
        let region = Region::new(3 * HUGE + 4096).unwrap();
        region.read(HUGE, &mut [0; 1]);
        region.populate_range(HUGE, HUGE).unwrap();
        assert_eq!(resident(&region), HUGE);
        region.populate_range(3 * HUGE + 512, 1024).unwrap();
        assert_eq!(resident(&region), HUGE + 4096);
        let mut all = vec![1; region.len() as usize];
        region.read(0, &mut all);
        assert!(all.iter().all(|byte| *byte == 0));
        assert!(std::panic::catch_unwind(|| region.populate_range(3 * HUGE, HUGE)).is_err(), "more than it has");
    }

    #[test]
    fn grows_into_its_room_and_no_further() {
        let region = Region::with_room(5000, 8 << 20).unwrap();
        let write = |at: u64| region.write(at, b"x");
        write(4999);
        assert!(std::panic::catch_unwind(|| write(5000)).is_err());
        for bytes in [9000, 7000, 8 << 20] {
            region.grow(bytes).unwrap();
            assert_eq!(region.len(), bytes.max(9000));
            write(region.len() - 1);
        }
        let mut all = vec![0; region.len() as usize];
        region.read(0, &mut all);
        let written: Vec<usize> = all.iter().enumerate().filter(|(_, byte)| **byte == b'x').map(|(at, _)| at).collect();
        assert_eq!(written, [4999, 8999, (8 << 20) - 1]);
        assert!(region.grow((8 << 20) + 1).is_err());
        assert_eq!(resident(&Region::with_room(4096, 1 << 30).unwrap()), 0);
        // More than there are addresses: as many as are needed.
        let region = Region::with_room(4096, 1 << 60).unwrap();
        assert_eq!((region.len(), region.room()), (4096, 4096));
        assert!(zeroed_words(1 << 20).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_slice_keeps_its_region() {
        let region = Region::new(8192).unwrap();
        region.write(4000, b"abcdefgh");
        let slice = region.slice(4002, 4);
        drop(region);
        let mut bytes = [0; 4];
        slice.region().read(slice.offset(), &mut bytes);
        assert_eq!(&bytes, b"cdef");
        slice.region().read(slice.offset() + 1, &mut bytes[..2]);
        assert_eq!(&bytes[..2], b"de");
        // SAFETY: nobody else has the region here.
        assert_eq!(unsafe { slice.region().as_ptr(slice.offset(), 4).read() }, b'c');
    }

    #[test]
    fn stands_still_while_it_is_held() {
        let region = Region::new(8192).unwrap();
        let writer = std::thread::scope(|scope| {
            let held = region.hold().unwrap();
            assert!(region.hold().is_none());
            let writer = scope.spawn(|| {
                for byte in 1..200 {
                    region.stream(0, &[byte; 8192]);
                }
            });
            for _ in 0..200 {
                assert!(held.bytes(100, 8000).iter().all(|byte| *byte == 0));
            }
            assert!(!writer.is_finished());
            drop(held);
            writer.join()
        });
        writer.unwrap();
        assert!(region.hold().is_none(), "two threads write");
        let mut end = [0];
        region.read(8191, &mut end);
        assert_eq!(end, [199]);
    }

    #[test]
    fn what_is_lent_holds_up_those_who_ask() {
        let region = Region::new(8192).unwrap();
        let loan = region.hold().unwrap().lend();
        region.let_go();
        region.write(4096, b"its own");
        let ask = || std::thread::scope(|scope| scope.spawn(|| region.may_write()).join().unwrap());
        assert!(!ask());
        assert!(region.hold().is_none());
        drop(loan);
        assert!(ask() && region.may_write());
    }

    #[test]
    fn whoever_holds_it_may_not_write() {
        type Write = fn(&Region);
        let ways: [Write; 3] = [|r| r.write(0, &[1]), |r| r.stream(0, &[1]), |r| r.zero(0, 4096, true)];
        for write in ways {
            let region = Region::new(4096).unwrap();
            let refused = std::panic::catch_unwind(|| {
                let _held = region.hold().unwrap();
                write(&region);
            });
            assert!(refused.is_err());
            write(&region);
            assert!(region.may_hold());
        }
    }

    #[test]
    fn access_outside_panics() {
        let region = Region::new(4096).unwrap();
        for (offset, length) in [(4096, 1), (4090, 7), (u64::MAX, 1), (u64::MAX - 3, 4), (1 << 40, 0)] {
            for case in 0..6 {
                let region = region.clone();
                let refused = std::panic::catch_unwind(move || match case {
                    5 => assert_eq!(region.hold().unwrap().bytes(offset, length as u32), []),
                    0 => region.read(offset, &mut vec![0; length]),
                    1 => region.write(offset, &vec![0; length]),
                    2 => region.zero(offset, length as u64, false),
                    3 => region.append_to(offset, length, &mut Vec::new()),
                    _ => drop(region.slice(offset, length as u32)),
                });
                assert!(refused.is_err(), "{offset}+{length} case {case}");
            }
        }
        region.read(4096, &mut []);
    }

    #[test]
    fn racing_threads_mix_bytes_and_nothing_else() {
        let region = Region::new(1 << 20).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (writer, zeroer, done) = (region.clone(), region.clone(), &done);
            scope.spawn(move || {
                for round in 0..200u32 {
                    let value = if round % 2 == 0 { 0x11 } else { 0x22 };
                    writer.write(u64::from(round % 7) * 4096, &[value; 3 * 4096 + 13]);
                }
                done.store(true, Ordering::Relaxed);
            });
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    zeroer.zero(4096, 8192, true);
                }
            });
            let mut bytes = vec![0; 10 * 4096];
            while !done.load(Ordering::Relaxed) {
                region.read(0, &mut bytes);
                assert!(bytes.iter().all(|byte| matches!(byte, 0 | 0x11 | 0x22)));
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec((0u8..4, 0usize..20_000, 0usize..9_000, any::<u8>()), 1..24)) {
            const SIZE: usize = 20_000;
            let region = Region::new(SIZE as u64).unwrap();
            let mut model = vec![0u8; SIZE];
            for (what, offset, length, seed) in steps {
                let length = length.min(SIZE - offset);
                let range = offset..offset + length;
                match what {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..length).map(|at| seed.wrapping_add(at as u8)).collect();
                        region.write(offset as u64, &bytes);
                        model[range].copy_from_slice(&bytes);
                    }
                    2 => {
                        region.zero(offset as u64, length as u64, seed & 1 == 0);
                        model[range].fill(0);
                    }
                    _ => {
                        let mut bytes = vec![seed; length];
                        region.read(offset as u64, &mut bytes);
                        prop_assert_eq!(&bytes[..], &model[range.clone()]);
                        let mut behind = vec![seed; 3];
                        region.append_to(offset as u64, length, &mut behind);
                        prop_assert_eq!(&behind[..3], &[seed; 3]);
                        prop_assert_eq!(&behind[3..], &model[range]);
                    }
                }
            }
            let mut all = vec![0; SIZE];
            region.read(0, &mut all);
            prop_assert_eq!(all, model);
        }
    }
}
