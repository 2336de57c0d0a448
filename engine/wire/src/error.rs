//! Why a header was refused.

use crate::{Opcode, RejectReason};

/// A header that breaks a rule which can be checked on its 48 bytes alone.
///
/// Reserved bits are never an error: RFC 7143 11 has the receiver ignore them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// The header is of another PDU than the one that was to be parsed.
    #[error("a {found} PDU where {expected} was expected")]
    WrongOpcode {
        /// What the parser is for.
        expected: Opcode,
        /// What the header says.
        found: Opcode,
    },
    /// No PDU of this direction has this opcode.
    #[error("no PDU has the opcode {:#04x} in this direction", .0.code())]
    UnknownOpcode(Opcode),
    /// A field, or a combination of fields, that the RFC forbids.
    #[error("{pdu}: {rule}")]
    Forbidden {
        /// The PDU.
        pdu: Opcode,
        /// The rule that it breaks, as a sentence.
        rule: &'static str,
    },
}

impl ParseError {
    /// The reason to put into a Reject PDU (RFC 7143 11.17.1).
    pub const fn reject_reason(&self) -> RejectReason {
        match self {
            ParseError::WrongOpcode { .. } => RejectReason::ProtocolError,
            ParseError::UnknownOpcode(_) => RejectReason::CommandNotSupported,
            ParseError::Forbidden { .. } => RejectReason::InvalidPduField,
        }
    }
}
