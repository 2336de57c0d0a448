//! SCSI Command PDUs (RFC 7143 11.3).

use crate::connection::Connection;
use crate::data_in::Finish;
use crate::event::{Advance, Event};
use crate::hold::Held;
use crate::segment::{INCORRECT_AMOUNT, Part, UNEXPECTED_DATA};
use crate::session::{Order, Session};
use crate::sink::Sink;
use crate::task::{Burst, MAX_OUTSTANDING_R2T, Task, Tasks};
use wire::ahs::CommandSegments;
use wire::{BHS_LEN, RejectReason, ScsiCommand};

/// SCSI status TASK SET FULL.
const TASK_SET_FULL: u8 = 0x28;

impl Connection {
    #[inline]
    pub(crate) fn scsi_command<T: Default>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        header: &[u8; BHS_LEN],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let command = match ScsiCommand::parse(header) {
            Ok(command) => command,
            Err(error) => return self.refuse(session, header, error.reject_reason(), sink),
        };
        let order = session.order(command.cmd_sn, command.immediate);
        if order == Order::Ignore {
            self.discard(header);
            return None;
        }
        if let Some(reason) = self.refusal(session, tasks, &command) {
            return self.refuse(session, header, reason, sink);
        }
        let length = command.data_segment_length;
        let expected = command.expected_data_transfer_length;
        let write_length = if command.write { expected } else { 0 };
        let read_length = match (command.read, command.write) {
            (true, false) => expected,
            (true, true) => self.segments().bidirectional_read_length.unwrap_or(0),
            (false, _) => 0,
        };
        // Without W, F means nothing.
        let unsolicited = command.write && !command.final_bit;
        let held = order == Order::Ahead;
        let (index, failure) = (session.index(), unsolicited_failure(session, &command));
        let accept = failure.is_none();
        let queued = !held && !command.immediate;
        let admitted = session.admit(tasks, command.initiator_task_tag, |chain| Task {
            session: index,
            initiator_task_tag: command.initiator_task_tag,
            lun: command.lun,
            attribute: command.attribute.code(),
            read_length,
            write_length,
            cmd_sn: command.cmd_sn,
            chain,
            immediate: command.immediate,
            held,
            queued,
            finished: false,
            unsolicited_open: unsolicited,
            failure_reported: false,
            outstanding: 0,
            failure,
            read_offset: 0,
            sequence: 0,
            data_sn: 0,
            r2t_sn: 0,
            unsolicited: length,
            unsolicited_data_sn: 0,
            bursts: [Burst::default(); MAX_OUTSTANDING_R2T],
            work: T::default(),
        });
        if admitted.is_some() {
            session.count(command.immediate, queued);
        }
        if !command.immediate {
            match (order, admitted) {
                (Order::Ahead, Some(key)) => session.hold(command.cmd_sn, Held::Task(key)),
                (Order::Ahead, None) => session.hold(command.cmd_sn, Held::Gone),
                _ => session.consume(),
            }
        }
        let Some(key) = admitted else {
            self.task_set_full(session, &command, read_length, write_length, sink);
            self.discard(header);
            return None;
        };
        if unsolicited {
            self.unsolicited = key;
        }
        if length != 0 {
            self.begin(header, Part::Immediate, 0);
            self.segment.task = key;
            self.segment.accept = accept;
            self.segment.final_bit = command.final_bit;
        }
        Some(Advance::Event(Event::Command {
            task: key,
            cdb: command.cdb,
            immediate: if accept { length } else { 0 },
            held,
            unsolicited: unsolicited && accept,
        }))
    }

    /// What came behind the last header; nothing if it can't be read.
    pub(crate) fn segments(&self) -> CommandSegments<'_> {
        CommandSegments::parse(self.ahs_bytes()).unwrap_or_default()
    }

    /// Why a command gets a Reject and no task.
    #[inline]
    fn refusal<T>(&self, session: &Session, tasks: &Tasks<T>, command: &ScsiCommand) -> Option<RejectReason> {
        if let Some(key) = session.find(tasks, command.initiator_task_tag)
            && tasks.get(key).is_some_and(|task| !task.finished)
        {
            return Some(RejectReason::TaskInProgress);
        }
        if command.immediate && !session.may_admit_immediate() {
            return Some(RejectReason::ImmediateCommandReject);
        }
        if !command.write && command.data_segment_length != 0 {
            return Some(RejectReason::ProtocolError);
        }
        if self.ahs != 0 && CommandSegments::parse(self.ahs_bytes()).is_err() {
            return Some(RejectReason::InvalidPduField);
        }
        None
    }

    /// There is no slot for the task: the initiator shall try again later.
    #[cold]
    fn task_set_full(
        &mut self,
        session: &Session,
        command: &ScsiCommand,
        read_length: u32,
        write_length: u32,
        sink: &mut impl Sink,
    ) {
        let finish = Finish { status: TASK_SET_FULL, transfer: 0 };
        let tag = command.initiator_task_tag;
        let response = self.plain_response(session, tag, read_length, write_length, finish);
        self.put_header(sink, |space| response.emit(space));
    }
}

/// What is wrong with the unsolicited data that a command brings or announces.
#[inline]
fn unsolicited_failure(session: &Session, command: &ScsiCommand) -> Option<(u8, u8)> {
    let length = command.data_segment_length;
    if !command.write || (command.final_bit && length == 0) {
        return None;
    }
    if (length != 0 && !session.immediate_data) || (!command.final_bit && session.initial_r2t) {
        return Some(UNEXPECTED_DATA);
    }
    if length > session.first_burst_length.min(command.expected_data_transfer_length) {
        return Some(INCORRECT_AMOUNT);
    }
    None
}
