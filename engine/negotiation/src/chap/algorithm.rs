//! The hash functions of CHAP_A, and the response that each gives.

use super::Secret;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use std::fmt;

/// A CHAP algorithm (IANA "PPP Authentication Algorithms": 5, 6, 7 and 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// MD5, 16 bytes.
    Md5 = 5,
    /// SHA1, 20 bytes.
    Sha1 = 6,
    /// SHA-256, 32 bytes.
    Sha256 = 7,
    /// SHA3-256, 32 bytes.
    Sha3_256 = 8,
}

impl Algorithm {
    /// All, the strongest first: the order in which an initiator offers them.
    pub const ALL: [Algorithm; 4] = [Algorithm::Sha3_256, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];

    /// The algorithm of this number in CHAP_A.
    pub fn from_number(number: u32) -> Option<Algorithm> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u32 == number)
    }

    /// Bytes of a response. Our challenges are as long: a shorter one would be the weakest link.
    pub fn length(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 | Algorithm::Sha3_256 => 32,
        }
    }

    /// The response to a challenge: the hash of identifier, secret and challenge (RFC 1994 4.1).
    pub(super) fn response(self, identifier: u8, secret: &Secret, challenge: &[u8]) -> Response {
        match self {
            Algorithm::Md5 => hash::<Md5>(identifier, secret, challenge),
            Algorithm::Sha1 => hash::<Sha1>(identifier, secret, challenge),
            Algorithm::Sha256 => hash::<Sha256>(identifier, secret, challenge),
            Algorithm::Sha3_256 => hash::<Sha3_256>(identifier, secret, challenge),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha3_256 => "SHA3-256",
        })
    }
}

/// A response's bytes.
pub(super) struct Response {
    bytes: [u8; 32],
    length: usize,
}

impl Response {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn hash<D: Digest>(identifier: u8, secret: &Secret, challenge: &[u8]) -> Response {
    let digest = D::new().chain_update([identifier]).chain_update(secret.as_bytes()).chain_update(challenge).finalize();
    let mut response = Response { bytes: [0; 32], length: digest.len() };
    response.bytes[..digest.len()].copy_from_slice(&digest);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // The message is the identifier `a` (61h), the secret `bcdbcdecdefdefg...` and the challenge: together the two-block
    // message of FIPS 180, whose digests are published.
    #[test]
    fn responses_are_the_published_digests_of_the_joined_message() {
        let message = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let secret = Secret::new(message[1..20].to_vec());
        let of = |algorithm: Algorithm| hex(algorithm.response(message[0], &secret, &message[20..]).as_bytes());
        assert_eq!(of(Algorithm::Sha1), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(of(Algorithm::Sha256), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_eq!(of(Algorithm::Sha3_256), "41c0dba2a9d6240849100376a8235e2c82e1b9998a999e21db32dd97496d3376");
        // RFC 1321 A.5.
        let secret = Secret::new(b"essage".to_vec());
        let md5 = Algorithm::Md5.response(b'm', &secret, b" digest");
        assert_eq!(hex(md5.as_bytes()), "f96b697d7cb7938d525a2f31aaf161d0");
    }

    #[test]
    fn a_response_is_as_long_as_the_algorithm_says() {
        let secret = Secret::new(b"secret".to_vec());
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.response(1, &secret, b"c").as_bytes().len(), algorithm.length());
            assert_eq!(Algorithm::from_number(algorithm as u32), Some(algorithm));
        }
        assert_eq!(Algorithm::from_number(4), None);
    }
}
