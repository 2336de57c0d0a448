//! A CHAP secret that doesn't show itself.
use serde::{Serialize, Serializer};
use std::fmt;
use zeroize::Zeroizing;

/// What is written wherever a secret would stand.
const HIDDEN: &str = "(hidden)";

/// The bytes of a CHAP secret. Wiped when dropped; `Debug`, `Display` and `Serialize` show nothing of it, not even its
/// length. Two secrets are compared only while a configuration is read, never with what a peer sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes; nothing is checked here.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes, for the digest.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_neither_content_nor_length() {
        let secret = Secret::new(b"alicesecret1".to_vec());
        assert_eq!(format!("{secret:?} {secret}"), "(hidden) (hidden)");
        assert_eq!(secret.expose(), b"alicesecret1");
    }
}
