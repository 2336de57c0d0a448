//! Login Request and Login Response (RFC 7143 11.12 and 11.13).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError};
use core::fmt;

code_enum! {
    /// Login stages, the values of CSG and NSG (RFC 7143 11.12.3). 2 is reserved.
    pub enum Stage: u8 {
        /// SecurityNegotiation.
        SecurityNegotiation = 0 => "SecurityNegotiation",
        /// LoginOperationalNegotiation.
        LoginOperationalNegotiation = 1 => "LoginOperationalNegotiation",
        /// FullFeaturePhase; NSG only.
        FullFeaturePhase = 3 => "FullFeaturePhase",
    }
}

code_enum! {
    /// Status-Class (high byte) and Status-Detail (low byte) of a Login Response (RFC 7143 11.13.5).
    pub enum LoginStatus: u16 {
        /// Login goes on, or is done.
        Success = 0x0000 => "success",
        /// The target has moved temporarily; TargetAddress says where to.
        TargetMovedTemporarily = 0x0101 => "target moved temporarily",
        /// The target has moved for good.
        TargetMovedPermanently = 0x0102 => "target moved permanently",
        /// Some other error of the initiator.
        InitiatorError = 0x0200 => "initiator error",
        /// Wrong credentials.
        AuthenticationFailure = 0x0201 => "authentication failure",
        /// This initiator may not use this target.
        AuthorizationFailure = 0x0202 => "authorization failure",
        /// No such target here.
        NotFound = 0x0203 => "target not found",
        /// The target was here, and gives no address to go to.
        TargetRemoved = 0x0204 => "target removed",
        /// No common version.
        UnsupportedVersion = 0x0205 => "unsupported version",
        /// Too many connections on this session.
        TooManyConnections = 0x0206 => "too many connections",
        /// InitiatorName or TargetName is missing.
        MissingParameter = 0x0207 => "missing parameter",
        /// The target can't bring this connection into the session.
        CannotIncludeInSession = 0x0208 => "can't include in session",
        /// Session type not supported.
        SessionTypeNotSupported = 0x0209 => "session type not supported",
        /// The TSIH names no session.
        SessionDoesNotExist = 0x020a => "session does not exist",
        /// Not a login request, or one that is out of place.
        InvalidDuringLogin = 0x020b => "invalid request during login",
        /// Some error of the target.
        TargetError = 0x0300 => "target error",
        /// The target is not operational for now.
        ServiceUnavailable = 0x0301 => "service unavailable",
        /// Out of resources.
        OutOfResources = 0x0302 => "out of resources",
    }
}

impl LoginStatus {
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub const fn class(self) -> u8 {
        (self.code() >> 8) as u8
    }

    /// Status-Detail.
    pub const fn detail(self) -> u8 {
        self.code() as u8
    }
}

/// Initiator part of the session identifier: type and naming authority, and the qualifier (RFC 7143 11.12.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Isid(pub [u8; 6]);

impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const TRANSIT: u8 = FINAL;

fn isid_at(header: &[u8; BHS_LEN]) -> Isid {
    let mut isid = [0; 6];
    isid.copy_from_slice(&header[8..14]);
    Isid(isid)
}

/// Login Request (RFC 7143 11.12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginRequest {
    /// T: ready to go from CSG to NSG.
    pub transit: bool,
    /// C: the text goes on in the next PDU.
    pub continue_bit: bool,
    /// CSG.
    pub current_stage: Stage,
    /// NSG, valid with `transit`.
    pub next_stage: Stage,
    /// Highest version that the initiator supports; 0 is RFC 7143's.
    pub version_max: u8,
    /// Lowest version.
    pub version_min: u8,
    /// In words of four bytes; 0 by the RFC.
    pub total_ahs_length: u8,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// ISID.
    pub isid: Isid,
    /// 0 for a new session.
    pub tsih: u16,
    /// Initiator Task Tag, the same in the whole login.
    pub initiator_task_tag: u32,
    /// Connection identifier.
    pub cid: u16,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN; valid but in the first request of a new connection.
    pub exp_stat_sn: u32,
}

impl LoginRequest {
    /// Parses the header. Refuses T and C at once (11.12.2). Stages and versions are the target's to judge, since the
    /// answer is a Login Response and not a Reject.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<LoginRequest, ParseError> {
        expect(header, Opcode::LoginRequest)?;
        let flags = header[1];
        forbid(flags & (TRANSIT | CONTINUE) == TRANSIT | CONTINUE, Opcode::LoginRequest, "T and C are both set")?;
        Ok(LoginRequest {
            transit: flags & TRANSIT != 0,
            continue_bit: flags & CONTINUE != 0,
            current_stage: Stage::from_code(flags >> 2 & 3),
            next_stage: Stage::from_code(flags & 3),
            version_max: header[2],
            version_min: header[3],
            total_ahs_length: header[4],
            data_segment_length: u24_at(header, 5),
            isid: isid_at(header),
            tsih: u16_at(header, 14),
            initiator_task_tag: u32_at(header, 16),
            cid: u16_at(header, 20),
            cmd_sn: u32_at(header, 24),
            exp_stat_sn: u32_at(header, 28),
        })
    }

    /// Writes all 48 bytes. The immediate bit is always set.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::LoginRequest.code() | IMMEDIATE;
        header[1] = bit(self.transit, TRANSIT)
            | bit(self.continue_bit, CONTINUE)
            | (self.current_stage.code() & 3) << 2
            | (self.next_stage.code() & 3);
        header[2] = self.version_max;
        header[3] = self.version_min;
        header[4] = self.total_ahs_length;
        put_u24(header, 5, self.data_segment_length);
        header[8..14].copy_from_slice(&self.isid.0);
        put_u16(header, 14, self.tsih);
        put_u32(header, 16, self.initiator_task_tag);
        put_u16(header, 20, self.cid);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
    }
}

impl fmt::Display for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login Request{} {}", Flags([("T", self.transit), ("C", self.continue_bit)]), self.current_stage)?;
        if self.transit {
            write!(f, " -> {}", self.next_stage)?;
        }
        write!(
            f,
            " version={}..{} isid={} tsih={} cid={} itt={} cmd_sn={} exp_stat_sn={} data={}",
            self.version_min,
            self.version_max,
            self.isid,
            self.tsih,
            self.cid,
            Tag(self.initiator_task_tag),
            self.cmd_sn,
            self.exp_stat_sn,
            self.data_segment_length
        )
    }
}

/// Login Response (RFC 7143 11.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginResponse {
    /// T: the target goes along from CSG to NSG.
    pub transit: bool,
    /// C: the text goes on in the next PDU.
    pub continue_bit: bool,
    /// CSG.
    pub current_stage: Stage,
    /// NSG, valid with `transit`.
    pub next_stage: Stage,
    /// Highest version that the target supports.
    pub version_max: u8,
    /// The version of this session.
    pub version_active: u8,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// ISID, copied from the request.
    pub isid: Isid,
    /// Not 0 in the last response of a successful login.
    pub tsih: u16,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// StatSN; valid with status class 0.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// Status-Class and Status-Detail.
    pub status: LoginStatus,
}

impl LoginResponse {
    /// Parses the header. Refuses T and C at once.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<LoginResponse, ParseError> {
        expect(header, Opcode::LoginResponse)?;
        let flags = header[1];
        forbid(flags & (TRANSIT | CONTINUE) == TRANSIT | CONTINUE, Opcode::LoginResponse, "T and C are both set")?;
        Ok(LoginResponse {
            transit: flags & TRANSIT != 0,
            continue_bit: flags & CONTINUE != 0,
            current_stage: Stage::from_code(flags >> 2 & 3),
            next_stage: Stage::from_code(flags & 3),
            version_max: header[2],
            version_active: header[3],
            data_segment_length: u24_at(header, 5),
            isid: isid_at(header),
            tsih: u16_at(header, 14),
            initiator_task_tag: u32_at(header, 16),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
            status: LoginStatus::from_code(u16_at(header, 36)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::LoginResponse.code();
        header[1] = bit(self.transit, TRANSIT)
            | bit(self.continue_bit, CONTINUE)
            | (self.current_stage.code() & 3) << 2
            | (self.next_stage.code() & 3);
        header[2] = self.version_max;
        header[3] = self.version_active;
        put_u24(header, 5, self.data_segment_length);
        header[8..14].copy_from_slice(&self.isid.0);
        put_u16(header, 14, self.tsih);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
        put_u16(header, 36, self.status.code());
    }
}

impl fmt::Display for LoginResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Login Response{} {} {}",
            Flags([("T", self.transit), ("C", self.continue_bit)]),
            self.status,
            self.current_stage
        )?;
        if self.transit {
            write!(f, " -> {}", self.next_stage)?;
        }
        write!(
            f,
            " version={}/{} isid={} tsih={} itt={} stat_sn={} exp_cmd_sn={} max_cmd_sn={} data={}",
            self.version_active,
            self.version_max,
            self.isid,
            self.tsih,
            Tag(self.initiator_task_tag),
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.data_segment_length
        )
    }
}
