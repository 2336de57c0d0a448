//! From what the directory says to how the login goes on.

use super::{Access, LoginFailure};
use negotiation::chap::Credentials;
use negotiation::value;
use std::sync::Arc;
use wire::names::TargetAddress;

/// The credentials that the initiator has to prove, None when it need not, or why it may not log in.
pub(super) fn grant(access: Access) -> Result<Option<Arc<Credentials>>, LoginFailure> {
    match access {
        Access::Open => Ok(None),
        Access::Chap(credentials) => Ok(Some(credentials)),
        Access::NotFound => Err(LoginFailure::NotFound),
        Access::Removed => Err(LoginFailure::Removed),
        Access::Forbidden => Err(LoginFailure::Forbidden),
        Access::Moved { to, permanently } => Err(LoginFailure::Moved { to, permanently }),
        Access::Unavailable => Err(LoginFailure::Unavailable),
    }
}

/// The text of a response that refuses: a redirection says where to go (RFC 7143 11.13.5).
pub(super) fn failure_text(failure: &LoginFailure) -> Vec<u8> {
    let mut text = Vec::new();
    if let LoginFailure::Moved { to, .. } = failure {
        let to = TargetAddress { portal_group: None, ..*to };
        value::put(&mut text, "TargetAddress", &to.to_string());
    }
    text
}
