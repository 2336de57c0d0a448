//! Fetching memory before it is used, several places at a time.

use crate::{Lease, Region};

/// Places that are fetched together.
const PLACES: usize = 4;
/// Bytes of a line of the cache.
pub(crate) const LINE: usize = 64;

/// Places in memory that will be read soon, but not next.
///
/// A random place of a large region is in no cache, and neither, it seems, is what translates its address: the first line
/// of each block cost most. Close together the processor waits for several at once, with a command between two of them
/// for each. So they are collected, and fetched in groups (figures are in `benches/README.md`).
#[derive(Default)]
pub struct Ahead {
    /// Address and length.
    places: [(usize, usize); PLACES],
    count: usize,
}

impl Ahead {
    /// Will ask the processor to fetch `length` bytes at `offset` into its second-level cache: now, or with some later
    /// ones. Without effect outside of the region, and for one that stays in the cache.
    #[inline]
    pub fn add(&mut self, region: &Region, offset: u64, length: usize) {
        if region.fits_cache() {
            return;
        }
        let Some(left) = region.len().checked_sub(offset) else { return };
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.place(region.as_ptr(offset, 0).addr(), length);
    }

    /// The same for pages of a file: a fetch doesn't read them, for all that a program could see.
    #[inline]
    pub fn add_pages(&mut self, lease: &Lease, offset: u64, length: u32) {
        self.place(lease.as_ptr(offset, length).addr(), length as usize);
    }

    #[inline]
    fn place(&mut self, address: usize, length: usize) {
        self.places[self.count] = (address, length);
        self.count += 1;
        if self.count == PLACES {
            self.fetch();
        }
    }

    /// Fetches all that was collected and not fetched yet.
    #[inline]
    pub fn fetch(&mut self) {
        let places = &self.places[..std::mem::take(&mut self.count)];
        // The translations first: they take the longest.
        for (address, _) in places {
            fetch_line::<SECOND_CACHE>(*address);
        }
        for (address, length) in places {
            for at in (LINE..*length).step_by(LINE) {
                fetch_line::<SECOND_CACHE>(address.wrapping_add(at));
            }
        }
    }
}

/// Asks the processor to fetch a value that is used soon into all of its caches.
#[inline]
pub fn fetch<T: ?Sized>(value: &T) {
    fetch_near(std::ptr::from_ref(value).addr(), size_of_val(value));
}

/// The same for a list that is filled soon: at most the first `bytes` of its memory, in use or not.
#[inline]
pub fn fetch_start<T>(list: &Vec<T>, bytes: usize) {
    fetch_near(list.as_ptr().addr(), bytes.min(list.capacity().saturating_mul(size_of::<T>())));
}

/// The same for any memory, whatever is there.
#[inline]
pub(crate) fn fetch_near(address: usize, length: usize) {
    for at in (address & !(LINE - 1)..address.saturating_add(length)).step_by(LINE) {
        fetch_line::<ALL_CACHES>(at);
    }
}

/// Into which caches a line is fetched: `_MM_HINT_T0` and `_MM_HINT_T1` of x86.
pub(crate) const ALL_CACHES: i32 = 3;
pub(crate) const SECOND_CACHE: i32 = 2;

#[inline(always)]
pub(crate) fn fetch_line<const HINT: i32>(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::_mm_prefetch;
        // SAFETY: a prefetch has no effect that a program could see, whatever the address: the region may be gone.
        unsafe { _mm_prefetch::<HINT>(std::ptr::without_provenance(address)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_a_group_and_no_more() {
        let region = Region::new(4 << 20).unwrap();
        let mut ahead = Ahead::default();
        for n in 0..100 {
            assert_eq!(ahead.count, n % PLACES);
            ahead.add(&region, n as u64, 4096);
        }
        ahead.fetch();
        assert_eq!(ahead.count, 0);
    }

    #[test]
    fn any_address_may_be_fetched() {
        for (address, length) in [(0, 0), (0, 4096), (usize::MAX - 100, 1000), (1, 1)] {
            fetch_near(address, length);
        }
        fetch_start(&Vec::<u64>::new(), 512);
        fetch_start(&vec![1u8; 3], 512);
        fetch("text");
    }

    #[test]
    fn stays_inside_of_the_region() {
        const END: u64 = 4 << 20;
        let region = Region::new(END).unwrap();
        let mut ahead = Ahead::default();
        for (offset, length, kept) in [(END - 96, 4096, 96), (END, 1, 0), (0, usize::MAX, END as usize)] {
            ahead.add(&region, offset, length);
            assert_eq!(ahead.places[ahead.count - 1], (region.as_ptr(offset, 0).addr(), kept));
        }
        for (offset, length) in [(END + 1, 1), (u64::MAX, usize::MAX)] {
            ahead.add(&region, offset, length);
        }
        ahead.add(&Region::new(4096).unwrap(), 0, 4096);
        assert_eq!(ahead.count, 3);
        drop(region);
        ahead.fetch();
    }
}
