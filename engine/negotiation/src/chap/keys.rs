//! The CHAP keys of one step, and what their values hold.

use super::{Algorithm, ChapError, MAX_CHALLENGE};
use crate::value;

/// The CHAP keys of one batch (all PDUs of a side up to one without the C bit), each at most once.
#[derive(Clone, Copy, Default)]
pub struct Keys<'a> {
    a: Option<&'a str>,
    i: Option<&'a str>,
    c: Option<&'a str>,
    n: Option<&'a str>,
    r: Option<&'a str>,
}

pub(super) const A: &str = "CHAP_A";
pub(super) const I: &str = "CHAP_I";
pub(super) const C: &str = "CHAP_C";
pub(super) const N: &str = "CHAP_N";
pub(super) const R: &str = "CHAP_R";

impl<'a> Keys<'a> {
    /// Takes a key; false when it is none of CHAP's.
    ///
    /// # Errors
    /// [`ChapError::Duplicate`].
    pub fn insert(&mut self, name: &str, text: &'a str) -> Result<bool, ChapError> {
        let (slot, name) = match name {
            A => (&mut self.a, A),
            I => (&mut self.i, I),
            C => (&mut self.c, C),
            N => (&mut self.n, N),
            R => (&mut self.r, R),
            _ => return Ok(false),
        };
        match slot.replace(text) {
            None => Ok(true),
            Some(_) => Err(ChapError::Duplicate(name)),
        }
    }

    /// True when no key of CHAP came.
    pub fn is_empty(&self) -> bool {
        [self.a, self.i, self.c, self.n, self.r].iter().all(Option::is_none)
    }

    /// Refuses the keys of other steps.
    pub(super) fn only(&self, expected: &[&str]) -> Result<(), ChapError> {
        let all = [(A, self.a), (I, self.i), (C, self.c), (N, self.n), (R, self.r)];
        match all.iter().find(|(name, text)| text.is_some() && !expected.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ChapError::Unexpected(name)),
        }
    }

    /// The algorithms of CHAP_A that we know, in the peer's order.
    pub(super) fn algorithms(&self) -> Result<impl Iterator<Item = Algorithm> + use<'a>, ChapError> {
        let text = self.a.ok_or(ChapError::Missing(A))?;
        Ok(wire::value::list(text).filter_map(value::number).filter_map(Algorithm::from_number))
    }

    /// The one algorithm of an answer.
    pub(super) fn algorithm(&self) -> Result<Algorithm, ChapError> {
        let text = self.a.ok_or(ChapError::Missing(A))?;
        value::number(text).and_then(Algorithm::from_number).ok_or(ChapError::NoCommonAlgorithm)
    }

    pub(super) fn identifier(&self) -> Result<u8, ChapError> {
        let text = self.i.ok_or(ChapError::Missing(I))?;
        value::number(text).and_then(|number| u8::try_from(number).ok()).ok_or(ChapError::Malformed(I))
    }

    pub(super) fn challenge(&self) -> Result<Vec<u8>, ChapError> {
        let text = self.c.ok_or(ChapError::Missing(C))?;
        wire::value::binary(text, MAX_CHALLENGE).ok().filter(|bytes| !bytes.is_empty()).ok_or(ChapError::Malformed(C))
    }

    pub(super) fn name(&self) -> Result<&'a str, ChapError> {
        self.n.ok_or(ChapError::Missing(N))
    }

    pub(super) fn response(&self, algorithm: Algorithm) -> Result<Vec<u8>, ChapError> {
        let text = self.r.ok_or(ChapError::Missing(R))?;
        let bytes = wire::value::binary(text, MAX_CHALLENGE).ok().ok_or(ChapError::Malformed(R))?;
        if bytes.len() == algorithm.length() { Ok(bytes) } else { Err(ChapError::ResponseLength) }
    }

    /// True when the peer asks for a proof itself.
    pub(super) fn has_challenge(&self) -> bool {
        self.i.is_some() || self.c.is_some()
    }
}
