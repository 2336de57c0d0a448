//! What a login has agreed on, as plain values.

/// The operational parameters of one connection, and of its session: the defaults of RFC 7143 chapter 13 until a
/// login has agreed on something else. Lengths are bytes, times are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// CRC32C over headers and AHS in both directions (RFC 7143 13.1).
    pub header_digest: bool,
    /// CRC32C over data segments in both directions (RFC 7143 13.1).
    pub data_digest: bool,
    /// Most connections that the session may have, 1 to 65535 (RFC 7143 13.2).
    pub max_connections: u16,
    /// The initiator waits for an R2T before it sends data other than immediate data (RFC 7143 13.10).
    pub initial_r2t: bool,
    /// Command PDUs may carry data (RFC 7143 13.11).
    pub immediate_data: bool,
    /// Longest data segment that we take, as we declared it, 512 to 2^24 - 1 (RFC 7143 13.12).
    pub max_recv_data_segment_length: u32,
    /// Longest data segment that the peer takes, as it declared it, 512 to 2^24 - 1 (RFC 7143 13.12).
    pub peer_max_recv_data_segment_length: u32,
    /// Longest Data-In sequence or solicited Data-Out sequence, 512 to 2^24 - 1 (RFC 7143 13.13).
    pub max_burst_length: u32,
    /// Most unsolicited data of a command, immediate data included; never above `max_burst_length` (RFC 7143 13.14).
    pub first_burst_length: u32,
    /// Seconds to wait before a reconnection or task reassignment is tried, 0 to 3600 (RFC 7143 13.15).
    pub default_time2wait: u16,
    /// Seconds after that wait in which tasks may be reassigned, 0 to 3600 (RFC 7143 13.16).
    pub default_time2retain: u16,
    /// Most R2Ts of a task that are open at a time, 1 to 65535 (RFC 7143 13.17).
    pub max_outstanding_r2t: u16,
    /// Data PDUs of a sequence come at rising, gapless offsets (RFC 7143 13.18).
    pub data_pdu_in_order: bool,
    /// Data sequences of a command come at rising offsets (RFC 7143 13.19).
    pub data_sequence_in_order: bool,
    /// 0 to 2 (RFC 7143 13.20).
    pub error_recovery_level: u8,
    /// How the target reports tasks that a task management function ended (RFC 7143 13.23).
    pub task_reporting: TaskReporting,
    /// 1: RFC 7143. 2: RFC 7144 as well (RFC 7143 13.24, RFC 7144 7.1).
    pub iscsi_protocol_level: u8,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            header_digest: false,
            data_digest: false,
            max_connections: 1,
            initial_r2t: true,
            immediate_data: true,
            max_recv_data_segment_length: 8192,
            peer_max_recv_data_segment_length: 8192,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
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

/// Values of the TaskReporting key (RFC 7143 13.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskReporting {
    /// `RFC3720`: the semantics of RFC 7143 4.2.3.3.
    #[default]
    Rfc3720,
    /// `ResponseFence`: RFC 7143 4.2.2.3.3.
    ResponseFence,
    /// `FastAbort`: RFC 7143 4.2.3.4.
    FastAbort,
}

impl TaskReporting {
    /// The value as it stands in the key.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskReporting::Rfc3720 => "RFC3720",
            TaskReporting::ResponseFence => "ResponseFence",
            TaskReporting::FastAbort => "FastAbort",
        }
    }
}
