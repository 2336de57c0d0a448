//! What one side of a login wants and can do.

use crate::TaskReporting;

/// Whether one side wants a digest. The order of an initiator's list decides between two that would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestChoice {
    /// No digest.
    Never,
    /// `None,CRC32C` when offering; takes either.
    #[default]
    Allow,
    /// `CRC32C,None` when offering; takes either.
    Prefer,
    /// CRC32C, or the login fails.
    Require,
}

impl DigestChoice {
    /// The values in the order in which they are offered.
    pub(crate) fn offer(self) -> &'static str {
        match self {
            DigestChoice::Never => "None",
            DigestChoice::Allow => "None,CRC32C",
            DigestChoice::Prefer => "CRC32C,None",
            DigestChoice::Require => "CRC32C",
        }
    }
    /// True when the digest may be on (`true`) or off.
    pub(crate) fn takes(self, on: bool) -> bool {
        match self {
            DigestChoice::Never => !on,
            DigestChoice::Require => on,
            DigestChoice::Allow | DigestChoice::Prefer => true,
        }
    }
}

/// What one side of a login offers, or agrees to at most. Fields mean what those of [`Parameters`](crate::Parameters)
/// of the same name mean; the result functions of RFC 7143 chapter 13 join two sides' settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Header digests.
    pub header_digest: DigestChoice,
    /// Data digests.
    pub data_digest: DigestChoice,
    /// Most connections of a session.
    pub max_connections: u16,
    /// True: insist on an R2T before data.
    pub initial_r2t: bool,
    /// True: allow immediate data.
    pub immediate_data: bool,
    /// Declared: longest data segment that we take.
    pub max_recv_data_segment_length: u32,
    /// Longest burst.
    pub max_burst_length: u32,
    /// Most unsolicited data; at most `max_burst_length`.
    pub first_burst_length: u32,
    /// Shortest wait before a reconnection, seconds.
    pub default_time2wait: u16,
    /// Longest time in which tasks are kept, seconds.
    pub default_time2retain: u16,
    /// Most open R2Ts of a task.
    pub max_outstanding_r2t: u16,
    /// True: insist on data PDUs in order.
    pub data_pdu_in_order: bool,
    /// True: insist on data sequences in order.
    pub data_sequence_in_order: bool,
    /// Highest error recovery level.
    pub error_recovery_level: u8,
    /// The most that we know of TaskReporting; `Rfc3720` is always taken as well.
    pub task_reporting: TaskReporting,
    /// Highest protocol level: 1 is RFC 7143, 2 adds RFC 7144.
    pub iscsi_protocol_level: u8,
}

impl Default for Settings {
    /// Large bursts, immediate data, no R2T needed for the first burst; error recovery level 0, one connection, data in
    /// order.
    fn default() -> Self {
        Settings {
            header_digest: DigestChoice::Allow,
            data_digest: DigestChoice::Allow,
            max_connections: 1,
            initial_r2t: false,
            immediate_data: true,
            max_recv_data_segment_length: 262_144,
            max_burst_length: 1_048_576,
            first_burst_length: 262_144,
            default_time2wait: 2,
            default_time2retain: 20,
            max_outstanding_r2t: 1,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            task_reporting: TaskReporting::Rfc3720,
            iscsi_protocol_level: 1,
        }
    }
}
