//! Task Management Function Request and Response (RFC 7143 11.5 and 11.6, RFC 7144).

use crate::field::*;
use crate::{BHS_LEN, Opcode, ParseError, RESERVED_TAG};
use core::fmt;

code_enum! {
    /// Task management functions (RFC 7143 11.5.1; 9 and above RFC 7144).
    pub enum TaskManagementFunction: u8 {
        /// Aborts the referenced task.
        AbortTask = 1 => "ABORT TASK",
        /// Aborts all tasks of this session on the LUN.
        AbortTaskSet = 2 => "ABORT TASK SET",
        /// Clears the ACA condition.
        ClearAca = 3 => "CLEAR ACA",
        /// Aborts all tasks of all sessions in the task set of the LUN.
        ClearTaskSet = 4 => "CLEAR TASK SET",
        /// Resets the logical unit.
        LogicalUnitReset = 5 => "LOGICAL UNIT RESET",
        /// Resets all logical units of the target.
        TargetWarmReset = 6 => "TARGET WARM RESET",
        /// The same, and ends all sessions.
        TargetColdReset = 7 => "TARGET COLD RESET",
        /// Moves a task to this connection.
        TaskReassign = 8 => "TASK REASSIGN",
        /// Asks whether the referenced task is there.
        QueryTask = 9 => "QUERY TASK",
        /// Asks whether this session has a task on the LUN.
        QueryTaskSet = 10 => "QUERY TASK SET",
        /// Does what the loss of this nexus does.
        ItNexusReset = 11 => "I_T NEXUS RESET",
        /// Asks for a pending unit attention or deferred error.
        QueryAsynchronousEvent = 12 => "QUERY ASYNCHRONOUS EVENT",
    }
}

code_enum! {
    /// Task management responses (RFC 7143 11.6.1; 7 RFC 7144).
    pub enum TaskManagementResult: u8 {
        /// Function complete.
        Complete = 0 => "function complete",
        /// Task does not exist.
        TaskDoesNotExist = 1 => "task does not exist",
        /// LUN does not exist.
        LunDoesNotExist = 2 => "LUN does not exist",
        /// Task still allegiant.
        TaskStillAllegiant = 3 => "task still allegiant",
        /// Task allegiance reassignment not supported.
        ReassignmentNotSupported = 4 => "task allegiance reassignment not supported",
        /// Task management function not supported.
        NotSupported = 5 => "task management function not supported",
        /// Function authorization failed.
        AuthorizationFailed = 6 => "function authorization failed",
        /// Function succeeded: a QUERY function's yes.
        Succeeded = 7 => "function succeeded",
        /// Function rejected.
        Rejected = 255 => "function rejected",
    }
}

/// Task Management Function Request (RFC 7143 11.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskManagementRequest {
    /// I: for immediate delivery.
    pub immediate: bool,
    /// Function, 0..=127.
    pub function: TaskManagementFunction,
    /// 0 by the RFC.
    pub data_segment_length: u32,
    /// Logical unit, for the functions that have one.
    pub lun: u64,
    /// Never the reserved tag.
    pub initiator_task_tag: u32,
    /// The task that ABORT TASK, TASK REASSIGN or QUERY TASK is about; else [`RESERVED_TAG`].
    pub referenced_task_tag: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// CmdSN of the referenced task, for ABORT TASK.
    pub ref_cmd_sn: u32,
    /// For TASK REASSIGN.
    pub exp_data_sn: u32,
}

impl TaskManagementRequest {
    /// Parses the header. Refuses the reserved Initiator Task Tag; an unknown function is a value.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<TaskManagementRequest, ParseError> {
        expect(header, Opcode::TaskManagementRequest)?;
        let initiator_task_tag = u32_at(header, 16);
        forbid(
            initiator_task_tag == RESERVED_TAG,
            Opcode::TaskManagementRequest,
            "the Initiator Task Tag is the reserved one",
        )?;
        Ok(TaskManagementRequest {
            immediate: header[0] & IMMEDIATE != 0,
            function: TaskManagementFunction::from_code(header[1] & 0x7f),
            data_segment_length: u24_at(header, 5),
            lun: u64_at(header, 8),
            initiator_task_tag,
            referenced_task_tag: u32_at(header, 20),
            cmd_sn: u32_at(header, 24),
            exp_stat_sn: u32_at(header, 28),
            ref_cmd_sn: u32_at(header, 32),
            exp_data_sn: u32_at(header, 36),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::TaskManagementRequest.code() | bit(self.immediate, IMMEDIATE);
        header[1] = FINAL | (self.function.code() & 0x7f);
        put_u24(header, 5, self.data_segment_length);
        put_u64(header, 8, self.lun);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 20, self.referenced_task_tag);
        put_u32(header, 24, self.cmd_sn);
        put_u32(header, 28, self.exp_stat_sn);
        put_u32(header, 32, self.ref_cmd_sn);
        put_u32(header, 36, self.exp_data_sn);
    }
}

impl fmt::Display for TaskManagementRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Task Management Request{} {} lun={} itt={} referenced={} ref_cmd_sn={} cmd_sn={} exp_stat_sn={} exp_data_sn={}",
            Flags([("I", self.immediate)]),
            self.function,
            Lun(self.lun),
            Tag(self.initiator_task_tag),
            Tag(self.referenced_task_tag),
            self.ref_cmd_sn,
            self.cmd_sn,
            self.exp_stat_sn,
            self.exp_data_sn,
        )
    }
}

/// Task Management Function Response (RFC 7143 11.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskManagementResponse {
    /// Response.
    pub response: TaskManagementResult,
    /// 0 by the RFC.
    pub data_segment_length: u32,
    /// Additional response information of RFC 7144, 24 bits (QUERY ASYNCHRONOUS EVENT); else 0.
    pub additional_information: u32,
    /// Initiator Task Tag.
    pub initiator_task_tag: u32,
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
}

impl TaskManagementResponse {
    /// Parses the header.
    pub fn parse(header: &[u8; BHS_LEN]) -> Result<TaskManagementResponse, ParseError> {
        expect(header, Opcode::TaskManagementResponse)?;
        Ok(TaskManagementResponse {
            response: TaskManagementResult::from_code(header[2]),
            data_segment_length: u24_at(header, 5),
            additional_information: u24_at(header, 8),
            initiator_task_tag: u32_at(header, 16),
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, header: &mut [u8; BHS_LEN]) {
        *header = [0; BHS_LEN];
        header[0] = Opcode::TaskManagementResponse.code();
        header[1] = FINAL;
        header[2] = self.response.code();
        put_u24(header, 5, self.data_segment_length);
        put_u24(header, 8, self.additional_information);
        put_u32(header, 16, self.initiator_task_tag);
        put_u32(header, 24, self.stat_sn);
        put_u32(header, 28, self.exp_cmd_sn);
        put_u32(header, 32, self.max_cmd_sn);
    }
}

impl fmt::Display for TaskManagementResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Task Management Response {} itt={} stat_sn={} exp_cmd_sn={} max_cmd_sn={}",
            self.response,
            Tag(self.initiator_task_tag),
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn
        )
    }
}
