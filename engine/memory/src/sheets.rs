//! Small memory that is given away to the kernel for a time that nobody tells.

use crate::mapping::{Mapping, PAGE};
use std::io;

/// Pages that are renewed together: that costs two system calls.
const PAGES: usize = 64;

/// Bytes for the kernel to refer to (vmsplice(2)), without a word from it when it is done: until a peer has read them,
/// which may be never.
///
/// So what was put here is never changed. Used pages are given up ([`renew`](Sheets::renew)): the system has new ones at
/// the same addresses, and frees the old ones when the kernel lets go of them.
pub struct Sheets {
    mapping: Mapping,
    /// Where the next bytes go.
    at: usize,
}

impl Sheets {
    /// # Errors
    /// What the system says: no memory.
    pub fn new() -> io::Result<Sheets> {
        let mapping = Mapping::of_pages(PAGES * PAGE)?;
        mapping.populate_range(0, PAGES * PAGE)?;
        Ok(Sheets { mapping, at: 0 })
    }

    /// Puts a copy of at most a page somewhere, inside of one page. `None`: there is no room, time to
    /// [`renew`](Sheets::renew).
    ///
    /// # Panics
    /// If it is more than a page.
    pub fn put(&mut self, bytes: &[u8]) -> Option<*const u8> {
        assert!(bytes.len() <= PAGE);
        let left_in_page = PAGE - self.at % PAGE;
        let at = if bytes.len() <= left_in_page { self.at } else { self.at + left_in_page };
        if at + bytes.len() > PAGES * PAGE {
            return None;
        }
        self.at = at + bytes.len();
        // SAFETY: at <= PAGES * PAGE: inside the mapping, or its end.
        let into = unsafe { self.mapping.address().as_ptr().add(at) };
        // SAFETY: bytes.len() bytes from there are inside the mapping, which only this value writes to; `bytes` is
        // not in it: no reference to it is ever given out.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len()) }
        Some(into)
    }

    /// New pages for all. Whatever the kernel was not given by now is lost.
    ///
    /// # Errors
    /// What the system says; there is no room then.
    pub fn renew(&mut self) -> io::Result<()> {
        self.at = PAGES * PAGE;
        if !self.mapping.release(0, PAGES * PAGE) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.mapping.populate_range(0, PAGES * PAGE)?;
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_inside_of_a_page_and_stay_until_all_is_renewed() {
        let mut sheets = Sheets::new().unwrap();
        for round in 0..3u8 {
            let mut put = Vec::new();
            for n in 0.. {
                let piece = vec![round.wrapping_add(n as u8); [48, 52, 4096, 1, 0, 1000][n % 6]];
                let Some(address) = sheets.put(&piece) else { break };
                assert!(piece.is_empty() || address.addr() / PAGE == (address.addr() + piece.len() - 1) / PAGE);
                put.push((address, piece));
            }
            assert!(put.len() > PAGES);
            for (address, piece) in put {
                // SAFETY: so many bytes were put there, and nothing was renewed since.
                assert_eq!(unsafe { std::slice::from_raw_parts(address, piece.len()) }, piece);
            }
            sheets.renew().unwrap();
        }
    }
}
