//! The target's half: it challenges, verifies, and proves itself when asked to.

use super::keys::{A, C, I, N, R};
use super::{Algorithm, ChapError, Credentials, Keys};
use crate::value;
use rand::CryptoRng;
use subtle::ConstantTimeEq;

/// The target after it has sent its challenge. It serves one response: [`verify`](Self::verify) consumes it.
pub struct TargetChap {
    algorithm: Algorithm,
    identifier: u8,
    challenge: Vec<u8>,
}

/// The initiator has proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// And the target has proved itself to it.
    pub mutual: bool,
}

impl TargetChap {
    /// Takes CHAP_A, chooses the first algorithm of the initiator's list that is allowed, and appends CHAP_A, CHAP_I and
    /// CHAP_C with fresh randomness.
    pub fn challenge(
        credentials: &Credentials,
        keys: &Keys<'_>,
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<TargetChap, ChapError> {
        keys.only(&[A])?;
        let algorithm = keys
            .algorithms()?
            .find(|algorithm| credentials.algorithms().contains(algorithm))
            .ok_or(ChapError::NoCommonAlgorithm)?;
        let (identifier, challenge) = fresh(algorithm, rng);
        value::put(out, A, &(algorithm as u8).to_string());
        value::put(out, I, &identifier.to_string());
        value::put(out, C, &wire::value::to_hex(&challenge));
        Ok(TargetChap { algorithm, identifier, challenge })
    }

    /// The algorithm in use.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Takes CHAP_N and CHAP_R, and with CHAP_I and CHAP_C a challenge of the initiator's, which is answered with CHAP_N
    /// and CHAP_R once the initiator has proved itself. On an error nothing is appended.
    pub fn verify(
        self,
        credentials: &Credentials,
        keys: &Keys<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Authenticated, ChapError> {
        keys.only(&[N, R, I, C])?;
        let name = keys.name()?;
        let response = keys.response(self.algorithm)?;
        let asked = match keys.has_challenge() {
            true => Some((keys.identifier()?, keys.challenge()?)),
            false => None,
        };
        if asked.as_ref().is_some_and(|(_, challenge)| *challenge == self.challenge) {
            return Err(ChapError::Reflected);
        }
        let expected = self.algorithm.response(self.identifier, credentials.secret(), &self.challenge);
        // Both are looked at in any case: the time says nothing of which was wrong.
        let right_name = name.as_bytes().ct_eq(credentials.user().as_bytes());
        let right_response = response.ct_eq(expected.as_bytes());
        if !bool::from(right_name) {
            return Err(ChapError::WrongName);
        }
        if !bool::from(right_response) {
            return Err(ChapError::WrongResponse);
        }
        let Some((identifier, challenge)) = asked else {
            return Ok(Authenticated { mutual: false });
        };
        let mutual = credentials.mutual().ok_or(ChapError::NoMutualCredentials)?;
        let proof = self.algorithm.response(identifier, &mutual.secret, &challenge);
        value::put(out, N, &mutual.user);
        value::put(out, R, &wire::value::to_hex(proof.as_bytes()));
        Ok(Authenticated { mutual: true })
    }
}

/// A fresh identifier, and a challenge as long as the algorithm's response.
pub(super) fn fresh(algorithm: Algorithm, rng: &mut dyn CryptoRng) -> (u8, Vec<u8>) {
    let mut identifier = [0];
    rng.fill_bytes(&mut identifier);
    let mut challenge = vec![0; algorithm.length()];
    rng.fill_bytes(&mut challenge);
    (identifier[0], challenge)
}
