//! Who proves what to whom.

use super::{Algorithm, ChapError, Secret};

/// The names and secrets of both directions, and which algorithms may carry them. The target holds one per initiator
/// and target; the initiator holds its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    secret: Secret,
    mutual: Option<Mutual>,
    algorithms: Vec<Algorithm>,
}

/// How the target proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutual {
    /// CHAP_N of the target.
    pub user: String,
    /// Its secret.
    pub secret: Secret,
}

impl Credentials {
    /// `user` and `secret` prove the initiator, `mutual` the target. `algorithms` is what is allowed, an initiator's in
    /// the order in which it offers them ([`Algorithm::ALL`] if in doubt).
    ///
    /// # Errors
    /// [`ChapError::EqualSecrets`]; [`ChapError::NoCommonAlgorithm`] when `algorithms` is empty.
    pub fn new(
        user: impl Into<String>,
        secret: Secret,
        mutual: Option<Mutual>,
        algorithms: impl Into<Vec<Algorithm>>,
    ) -> Result<Credentials, ChapError> {
        let algorithms = algorithms.into();
        if mutual.as_ref().is_some_and(|mutual| mutual.secret == secret) {
            return Err(ChapError::EqualSecrets);
        }
        if algorithms.is_empty() {
            return Err(ChapError::NoCommonAlgorithm);
        }
        Ok(Credentials { user: user.into(), secret, mutual, algorithms })
    }

    /// CHAP_N of the initiator.
    pub fn user(&self) -> &str {
        &self.user
    }
    /// The initiator's secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
    /// The target's name and secret.
    pub fn mutual(&self) -> Option<&Mutual> {
        self.mutual.as_ref()
    }
    /// What is allowed.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }
}
