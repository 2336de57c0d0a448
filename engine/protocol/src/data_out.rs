//! SCSI Data-Out, solicited and not (RFC 7143 11.7), and the R2T (11.8).

use crate::connection::Connection;
use crate::event::Advance;
use crate::segment::{CRC_ERROR, INCORRECT_AMOUNT, Part, UNEXPECTED_DATA};
use crate::session::Session;
use crate::sink::Sink;
use crate::task::{Burst, Task, TaskKey, Tasks, transfer_slot, transfer_tag};
use wire::{BHS_LEN, DataOut, RESERVED_TAG, ReadyToTransfer, RejectReason};

impl Connection {
    pub(crate) fn data_out<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        header: &[u8; BHS_LEN],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let data = match DataOut::parse(header) {
            Ok(data) => data,
            Err(error) => return self.refuse(session, header, error.reject_reason(), sink),
        };
        let tag = data.target_transfer_tag;
        let key = if tag == RESERVED_TAG {
            self.unsolicited_task(session, tasks, &data)
        } else {
            solicited_task(session, tasks, &data)
        };
        let Some((key, task)) = key.and_then(|key| tasks.get_mut(key).map(|task| (key, task))) else {
            // No such transfer. The task may have been aborted while this was on its way.
            if tag != RESERVED_TAG
                && session.find(tasks, data.initiator_task_tag).and_then(|key| tasks.get(key)).is_some_and(is_open)
            {
                return self.refuse(session, header, RejectReason::ProtocolError, sink);
            }
            self.discard(header);
            return None;
        };
        if !is_open(task) {
            self.discard(header);
            return None;
        }
        let (part, failure) = if tag == RESERVED_TAG {
            (Part::Unsolicited, take_unsolicited(session, task, &data))
        } else {
            (Part::Solicited(tag), take_solicited(task, &data))
        };
        if let Some(failure) = failure {
            task.fail(failure);
        }
        let accept = task.failure.is_none();
        if tag == RESERVED_TAG {
            self.unsolicited = key;
        }
        self.begin(header, part, 0);
        self.segment.task = key;
        self.segment.accept = accept;
        self.segment.final_bit = data.final_bit;
        self.segment.offset = data.buffer_offset;
        None
    }

    /// The task of unsolicited data: most often the one that was meant last time.
    fn unsolicited_task<T>(&self, session: &Session, tasks: &Tasks<T>, data: &DataOut) -> Option<TaskKey> {
        if let Some(task) = tasks.get(self.unsolicited)
            && task.initiator_task_tag == data.initiator_task_tag
            && task.session == session.index()
        {
            return Some(self.unsolicited);
        }
        session.find(tasks, data.initiator_task_tag)
    }

    /// Solicits `length` bytes at `offset` of the task's data: not 0, at most MaxBurstLength, inside the expected length.
    /// False, and nothing is sent, if that does not hold, if the key is stale, or if
    /// [`may_solicit`](Self::may_solicit) is false.
    pub fn ready_to_transfer<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        task: TaskKey,
        offset: u32,
        length: u32,
        sink: &mut impl Sink,
    ) -> bool {
        let key = task;
        let Some(task) = tasks.get_mut(key) else {
            return false;
        };
        let Some(end) = offset.checked_add(length) else {
            return false;
        };
        let most = session.max_outstanding_r2t;
        if !may_solicit(task, most) || length == 0 || length > session.max_burst_length || end > task.write_length {
            return false;
        }
        let tag = transfer_tag(key, task.r2t_sn);
        task.bursts[usize::from(task.outstanding)] = Burst { tag, next: offset, end, data_sn: 0 };
        task.outstanding += 1;
        let r2t = ReadyToTransfer {
            lun: task.lun,
            initiator_task_tag: task.initiator_task_tag,
            target_transfer_tag: tag,
            stat_sn: self.stat_sn,
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            r2t_sn: task.r2t_sn,
            buffer_offset: offset,
            desired_data_transfer_length: length,
        };
        task.r2t_sn = task.r2t_sn.wrapping_add(1);
        self.put_header(sink, |space| r2t.emit(space));
        true
    }

    /// Another R2T may be outstanding: the task's data has not failed, and fewer than MaxOutstandingR2T (at most
    /// [`MAX_OUTSTANDING_R2T`](crate::MAX_OUTSTANDING_R2T)) are open. Whether unsolicited data is still to come is not
    /// asked here.
    pub fn may_solicit<T>(&self, task: &Task<T>) -> bool {
        may_solicit(task, u32::from(self.parameters.max_outstanding_r2t).max(1))
    }
}

fn may_solicit<T>(task: &Task<T>, most: u32) -> bool {
    is_open(task)
        && task.failure.is_none()
        && u32::from(task.outstanding) < most
        && usize::from(task.outstanding) < task.bursts.len()
}

/// It still takes data.
fn is_open<T>(task: &Task<T>) -> bool {
    !task.finished && !task.failure_reported
}

/// The task whose R2T has this tag.
fn solicited_task<T>(session: &Session, tasks: &Tasks<T>, data: &DataOut) -> Option<TaskKey> {
    let slot = transfer_slot(data.target_transfer_tag);
    let task = tasks.at(slot)?;
    let known = task.session == session.index()
        && task.initiator_task_tag == data.initiator_task_tag
        && task.burst(data.target_transfer_tag).is_some();
    if known { tasks.key_at(slot) } else { None }
}

/// Takes an unsolicited PDU into account; what is wrong with it.
fn take_unsolicited<T>(session: &Session, task: &mut Task<T>, data: &DataOut) -> Option<(u8, u8)> {
    if !task.unsolicited_open {
        return Some(UNEXPECTED_DATA);
    }
    if task.failure.is_some() {
        return None;
    }
    if data.data_sn != task.unsolicited_data_sn || data.buffer_offset != task.unsolicited {
        return Some(CRC_ERROR);
    }
    let most = session.first_burst_length.min(task.write_length);
    let Some(end) = data.buffer_offset.checked_add(data.data_segment_length).filter(|&end| end <= most) else {
        return Some(INCORRECT_AMOUNT);
    };
    // RFC 7143 11.4.7.2: unsolicited data that is not immediate fills the first burst of a longer transfer.
    if data.final_bit && end < most && task.write_length > session.first_burst_length {
        return Some(INCORRECT_AMOUNT);
    }
    task.unsolicited = end;
    task.unsolicited_data_sn = data.data_sn.wrapping_add(1);
    None
}

/// Takes a solicited PDU into account; what is wrong with it.
fn take_solicited<T>(task: &mut Task<T>, data: &DataOut) -> Option<(u8, u8)> {
    if task.failure.is_some() {
        return None;
    }
    let position = task.burst(data.target_transfer_tag)?;
    let burst = &mut task.bursts[position];
    if data.data_sn != burst.data_sn || data.buffer_offset != burst.next {
        return Some(CRC_ERROR);
    }
    let Some(end) = burst.next.checked_add(data.data_segment_length).filter(|&end| end <= burst.end) else {
        return Some(INCORRECT_AMOUNT);
    };
    burst.next = end;
    burst.data_sn = data.data_sn.wrapping_add(1);
    // The F bit comes with the last byte, and only with it.
    if data.final_bit != (end == burst.end) { Some(INCORRECT_AMOUNT) } else { None }
}
