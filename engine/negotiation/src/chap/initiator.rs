//! The initiator's half: it offers algorithms, answers the challenge, and may ask the target for a proof.

use super::keys::{A, C, I, N, R};
use super::target::fresh;
use super::{Algorithm, ChapError, Credentials, Keys};
use crate::value;
use rand::CryptoRng;
use subtle::ConstantTimeEq;

/// The initiator after it has offered its algorithms.
#[derive(Debug)]
pub struct InitiatorChap(());

/// The initiator after it has answered the target's challenge.
pub struct InitiatorResponded {
    /// Our own challenge, when the target is to prove itself.
    asked: Option<(Algorithm, u8, Vec<u8>)>,
}

impl InitiatorChap {
    /// Appends CHAP_A with the algorithms of the credentials, in their order.
    pub fn offer(credentials: &Credentials, out: &mut Vec<u8>) -> InitiatorChap {
        let numbers: Vec<String> = credentials.algorithms().iter().map(|&a| (a as u8).to_string()).collect();
        value::put(out, A, &numbers.join(","));
        InitiatorChap(())
    }

    /// Takes CHAP_A, CHAP_I and CHAP_C, and appends CHAP_N and CHAP_R; with mutual credentials also a challenge of our
    /// own in CHAP_I and CHAP_C.
    pub fn respond(
        self,
        credentials: &Credentials,
        keys: &Keys<'_>,
        rng: &mut dyn CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<InitiatorResponded, ChapError> {
        keys.only(&[A, I, C])?;
        let algorithm = keys.algorithm()?;
        if !credentials.algorithms().contains(&algorithm) {
            return Err(ChapError::NoCommonAlgorithm);
        }
        let (identifier, challenge) = (keys.identifier()?, keys.challenge()?);
        let response = algorithm.response(identifier, credentials.secret(), &challenge);
        value::put(out, N, credentials.user());
        value::put(out, R, &wire::value::to_hex(response.as_bytes()));
        let asked = credentials.mutual().map(|_| {
            let (identifier, challenge) = fresh(algorithm, rng);
            value::put(out, I, &identifier.to_string());
            value::put(out, C, &wire::value::to_hex(&challenge));
            (algorithm, identifier, challenge)
        });
        Ok(InitiatorResponded { asked })
    }
}

impl InitiatorResponded {
    /// True when the target still has to prove itself.
    pub fn expects_proof(&self) -> bool {
        self.asked.is_some()
    }

    /// Takes the target's CHAP_N and CHAP_R where we asked for them. To be called with the keys of the response that
    /// follows ours, before anything else of the target's is believed.
    pub fn verify(self, credentials: &Credentials, keys: &Keys<'_>) -> Result<(), ChapError> {
        let (Some((algorithm, identifier, challenge)), Some(mutual)) = (self.asked, credentials.mutual()) else {
            return keys.only(&[]);
        };
        keys.only(&[N, R])?;
        let name = keys.name()?;
        let response = keys.response(algorithm)?;
        let expected = algorithm.response(identifier, &mutual.secret, &challenge);
        let right_name = name.as_bytes().ct_eq(mutual.user.as_bytes());
        let right_response = response.ct_eq(expected.as_bytes());
        if !bool::from(right_name) {
            return Err(ChapError::WrongName);
        }
        if !bool::from(right_response) {
            return Err(ChapError::WrongResponse);
        }
        Ok(())
    }
}
