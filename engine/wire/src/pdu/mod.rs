//! The PDUs of RFC 7143 chapter 11, one file per PDU or pair, and the enums that choose among them by opcode.
//!
//! `parse` reads the 48 bytes of a basic header segment and checks what can be checked on them alone; `emit` writes all
//! 48 bytes, reserved ones as zero. Both are inverse to each other for every value that `parse` accepts.

mod async_message;
mod data;
mod login;
mod logout;
mod nop;
mod r2t;
mod reject;
mod scsi_command;
mod scsi_response;
mod snack;
mod task_management;
mod text;

pub use async_message::{AsyncEvent, AsyncMessage};
pub use data::{DataIn, DataOut};
pub use login::{Isid, LoginRequest, LoginResponse, LoginStatus, Stage};
pub use logout::{LogoutReason, LogoutRequest, LogoutResponse, LogoutResult};
pub use nop::{NopIn, NopOut};
pub use r2t::ReadyToTransfer;
pub use reject::{Reject, RejectReason};
pub use scsi_command::{ScsiCommand, TaskAttribute};
pub use scsi_response::{ScsiResponse, ScsiResponseCode};
pub use snack::{Snack, SnackType};
pub use task_management::{
    TaskManagementFunction, TaskManagementRequest, TaskManagementResponse, TaskManagementResult,
};
pub use text::{TextRequest, TextResponse};

use crate::{BHS_LEN, Opcode, ParseError, opcode};
use core::fmt;

macro_rules! pdu_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum $name {
            $(#[doc = concat!("[`", stringify!($variant), "`]")] $variant($variant),)*
        }

        impl $name {
            /// Parses the header by its opcode.
            pub fn parse(header: &[u8; BHS_LEN]) -> Result<$name, ParseError> {
                match opcode(header) {
                    $(Opcode::$variant => $variant::parse(header).map($name::$variant),)*
                    other => Err(ParseError::UnknownOpcode(other)),
                }
            }

            /// Writes all 48 bytes of the header.
            pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
                match self {
                    $($name::$variant(pdu) => pdu.emit(header),)*
                }
            }

            /// The PDU's opcode.
            pub fn opcode(&self) -> Opcode {
                match self {
                    $($name::$variant(_) => Opcode::$variant,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$variant(pdu) => pdu.fmt(f),)*
                }
            }
        }

        $(impl From<$variant> for $name {
            fn from(pdu: $variant) -> $name {
                $name::$variant(pdu)
            }
        })*
    };
}

pdu_enum! {
    /// A PDU from the initiator.
    pub enum RequestPdu {
        NopOut, ScsiCommand, TaskManagementRequest, LoginRequest, TextRequest, DataOut, LogoutRequest, Snack,
    }
}

pdu_enum! {
    /// A PDU from the target.
    pub enum ResponsePdu {
        NopIn, ScsiResponse, TaskManagementResponse, LoginResponse, TextResponse, DataIn, LogoutResponse,
        ReadyToTransfer, AsyncMessage, Reject,
    }
}

/// A PDU of either direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pdu {
    /// From the initiator.
    Request(RequestPdu),
    /// From the target.
    Response(ResponsePdu),
}

impl Pdu {
    /// Parses the header by its opcode.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<Pdu, ParseError> {
        if opcode(header).is_request() {
            RequestPdu::parse(header).map(Pdu::Request)
        } else {
            ResponsePdu::parse(header).map(Pdu::Response)
        }
    }

    /// Writes all 48 bytes of the header.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        match self {
            Pdu::Request(pdu) => pdu.emit(header),
            Pdu::Response(pdu) => pdu.emit(header),
        }
    }
}

impl fmt::Display for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pdu::Request(pdu) => pdu.fmt(f),
            Pdu::Response(pdu) => pdu.fmt(f),
        }
    }
}
