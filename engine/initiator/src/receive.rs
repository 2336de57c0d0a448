//! What a connection does with the PDUs that it receives. The target is not trusted: every tag, number, offset and
//! length is checked against what was asked for.

use crate::connection::{Connection, End, Handle, Pending, Phase, Step, Task};
use crate::data_out::{Burst, DataOut};
use crate::event::{Asynchronous, CloseReason, Event, Residual, Response};
use crate::frame::Segment;
use crate::output::Output;
use std::ops::Range;
use wire::{
    AsyncEvent, AsyncMessage, BHS_LEN, Bhs, DataIn, LogoutReason, LogoutResponse, LogoutResult, NopIn, Opcode,
    ParseError, RESERVED_TAG, ReadyToTransfer, Reject, ScsiResponse, ScsiResponseCode, TaskManagementResponse,
    TextResponse,
};

type Header = [u8; BHS_LEN];
type Said<T> = Result<Option<(Event<'static, T>, Range<usize>)>, CloseReason>;

fn broken<V>(rule: &'static str) -> Result<V, CloseReason> {
    Err(CloseReason::Protocol(rule))
}

fn malformed(error: ParseError) -> CloseReason {
    CloseReason::Protocol(match error {
        ParseError::Forbidden { rule, .. } => rule,
        ParseError::WrongOpcode { .. } | ParseError::UnknownOpcode(_) => "no such PDU from a target",
    })
}

impl<T: DataOut> Connection<T> {
    pub(crate) fn step(&mut self, input: &mut &[u8], out: &mut impl Output) -> Result<Step<T>, CloseReason> {
        loop {
            match &mut self.phase {
                Phase::Header => match self.headers.next(input, self.parameters.header_digest)? {
                    Some(header) => self.begin(&header)?,
                    None => return Ok(Step::Idle),
                },
                Phase::DataIn { tag, offset, segment, end } => {
                    if segment.remaining != 0 {
                        return Ok(Step::Payload { tag: *tag, offset: *offset, length: segment.remaining });
                    }
                    if !segment.trailer(input)? {
                        return Ok(Step::Idle);
                    }
                    let (tag, end) = (*tag, *end);
                    self.phase = Phase::Header;
                    if let Some(end) = end
                        && let Some(event) = self.end_with_data(tag, end)
                    {
                        return Ok(Step::Event(event, 0..0));
                    }
                }
                Phase::Gather { header, segment } => {
                    let (bytes, rest) = input.split_at(input.len().min(segment.remaining as usize));
                    segment.payload(bytes);
                    self.gathered.extend_from_slice(bytes);
                    *input = rest;
                    if segment.remaining != 0 || !segment.trailer(input)? {
                        return Ok(Step::Idle);
                    }
                    let header = *header;
                    self.phase = Phase::Header;
                    if let Some((event, range)) = self.interpret(&header, out)? {
                        return Ok(Step::Event(event, range));
                    }
                }
            }
        }
    }

    /// A header has come.
    #[inline]
    fn begin(&mut self, header: &Header) -> Result<(), CloseReason> {
        self.heard = true;
        let length = Bhs(header).data_segment_length();
        if length > self.parameters.max_recv_data_segment_length {
            return broken("a data segment is longer than our MaxRecvDataSegmentLength");
        }
        let segment = Segment::new(length, self.parameters.data_digest);
        if Bhs(header).opcode() == Opcode::DataIn {
            let pdu = DataIn::parse(header).map_err(malformed)?;
            if let Some(Pending::Command(task)) = self.tags.get_mut(pdu.initiator_task_tag) {
                let end = data_in(task, &pdu, &self.parameters, self.limits.lenient)?;
                if end.is_some() {
                    self.window.check_stat_sn(pdu.stat_sn)?;
                }
                self.window.update(pdu.exp_cmd_sn, pdu.max_cmd_sn);
                self.phase = Phase::DataIn { tag: pdu.initiator_task_tag, offset: pdu.buffer_offset, segment, end };
                return Ok(());
            }
        }
        self.gathered.clear();
        self.phase = Phase::Gather { header: *header, segment };
        Ok(())
    }

    /// The last Data-In with status is complete. `None` when the caller has forgotten the task meanwhile.
    fn end_with_data(&mut self, tag: u32, end: End) -> Option<Event<'static, T>> {
        self.window.exp_stat_sn = self.window.exp_stat_sn.wrapping_add(1);
        let task = self.take_command(tag)?;
        Some(Event::Response(Response {
            task: Handle(tag),
            user: task.user,
            response: ScsiResponseCode::CommandCompleted,
            status: end.status,
            residual: end.residual,
            bidirectional_residual: Residual::None,
            sense: &[],
            received: task.received,
            with_data: true,
        }))
    }

    fn take_command(&mut self, tag: u32) -> Option<Task<T>> {
        match self.tags.get(tag) {
            Some(Pending::Command(_)) => {}
            _ => return None,
        }
        match self.tags.remove(tag) {
            Some(Pending::Command(task)) => {
                self.commands -= 1;
                Some(task)
            }
            _ => None,
        }
    }

    /// A PDU with a gathered data segment is complete.
    fn interpret(&mut self, header: &Header, out: &mut impl Output) -> Said<T> {
        match Bhs(header).opcode() {
            Opcode::ScsiResponse => self.scsi_response(header),
            Opcode::ReadyToTransfer => self.ready_to_transfer(header, out),
            Opcode::NopIn => self.nop_in(header, out),
            Opcode::DataIn => {
                let pdu = DataIn::parse(header).map_err(malformed)?;
                if pdu.status_present {
                    self.window.take_stat_sn(pdu.stat_sn)?;
                }
                self.window.update(pdu.exp_cmd_sn, pdu.max_cmd_sn);
                self.stray(header)
            }
            Opcode::TaskManagementResponse => {
                let pdu = TaskManagementResponse::parse(header).map_err(malformed)?;
                self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
                let tag = pdu.initiator_task_tag;
                let Some(Pending::TaskManagement) = self.tags.get(tag) else {
                    return self.stray(header);
                };
                self.tags.remove(tag);
                Ok(Some((Event::TaskManagement { task: Handle(tag), response: pdu.response }, 0..0)))
            }
            Opcode::TextResponse => self.text_response(header, out),
            Opcode::LogoutResponse => self.logout_response(header),
            Opcode::AsyncMessage => self.async_message(header),
            Opcode::Reject => {
                let pdu = Reject::parse(header).map_err(malformed)?;
                self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
                let header = self.gathered.first_chunk::<BHS_LEN>().copied();
                Ok(Some((Event::Reject { reason: pdu.reason, header }, 0..0)))
            }
            Opcode::LoginResponse => broken("a Login Response in full feature phase"),
            _ => broken("no such PDU from a target"),
        }
    }

    /// StatSN and the command window of a PDU that carries status.
    fn numbers(&mut self, stat_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) -> Result<(), CloseReason> {
        self.window.take_stat_sn(stat_sn)?;
        self.window.update(exp_cmd_sn, max_cmd_sn);
        Ok(())
    }

    fn stray(&mut self, header: &Header) -> Said<T> {
        Ok(Some((Event::Stray { header: *header, data: &[] }, 0..self.gathered.len())))
    }

    fn scsi_response(&mut self, header: &Header) -> Said<T> {
        let pdu = ScsiResponse::parse(header).map_err(malformed)?;
        self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
        let tag = pdu.initiator_task_tag;
        let Some(Pending::Command(task)) = self.tags.get(tag) else {
            return self.stray(header);
        };
        if pdu.response == ScsiResponseCode::CommandCompleted && !self.limits.lenient {
            // Whether R2Ts count where there was no Data-In is read both ways (RFC 7143 11.4.8).
            let expected = if task.read_length == 0 { pdu.exp_data_sn.min(task.data_sn) } else { task.data_sn };
            if pdu.exp_data_sn != expected {
                return broken("ExpDataSN of a SCSI Response is not the number of its Data-In PDUs");
            }
        }
        let sense = match self.gathered.first_chunk::<2>() {
            Some(length) => {
                let length = usize::from(u16::from_be_bytes(*length));
                if length > self.gathered.len() - 2 {
                    return broken("SenseLength is longer than the data segment");
                }
                2..2 + length
            }
            None if self.gathered.is_empty() => 0..0,
            None => return broken("a data segment without a SenseLength"),
        };
        let Some(task) = self.take_command(tag) else {
            return self.stray(header);
        };
        let response = Response {
            task: Handle(tag),
            user: task.user,
            response: pdu.response,
            status: pdu.status,
            residual: Residual::from_flags(pdu.residual_overflow, pdu.residual_underflow, pdu.residual_count),
            bidirectional_residual: Residual::from_flags(
                pdu.bidi_read_overflow,
                pdu.bidi_read_underflow,
                pdu.bidi_read_residual_count,
            ),
            sense: &[],
            received: task.received,
            with_data: false,
        };
        Ok(Some((Event::Response(response), sense)))
    }

    fn ready_to_transfer(&mut self, header: &Header, out: &mut impl Output) -> Said<T> {
        let pdu = ReadyToTransfer::parse(header).map_err(malformed)?;
        if !self.limits.lenient {
            self.window.check_stat_sn(pdu.stat_sn)?;
        }
        self.window.update(pdu.exp_cmd_sn, pdu.max_cmd_sn);
        let tag = pdu.initiator_task_tag;
        let Some(Pending::Command(task)) = self.tags.get_mut(tag) else {
            return self.stray(header);
        };
        let length = pdu.desired_data_transfer_length;
        let in_order = self.parameters.data_sequence_in_order;
        if !self.gathered.is_empty() {
            return broken("an R2T with a data segment");
        }
        if pdu.r2t_sn != task.data_sn {
            return broken("R2TSN out of order");
        }
        if length > self.parameters.max_burst_length {
            return broken("an R2T for more than MaxBurstLength");
        }
        if task.r2t_open >= u32::from(self.parameters.max_outstanding_r2t) {
            return broken("more R2Ts than MaxOutstandingR2T");
        }
        // Nothing is asked for twice at error recovery level 0.
        if length > task.write_length - task.solicited || length > task.write_length.saturating_sub(pdu.buffer_offset) {
            return broken("an R2T for more than the command's data");
        }
        if in_order && pdu.buffer_offset != task.solicited {
            return broken("an R2T out of order");
        }
        task.data_sn = task.data_sn.wrapping_add(1);
        task.r2t_open += 1;
        task.solicited += length;
        self.bursts.push_back(Burst {
            tag,
            target_transfer_tag: pdu.target_transfer_tag,
            offset: pdu.buffer_offset,
            end: pdu.buffer_offset + length,
            data_sn: 0,
        });
        self.pump(out);
        Ok(None)
    }

    fn nop_in(&mut self, header: &Header, out: &mut impl Output) -> Said<T> {
        let pdu = NopIn::parse(header).map_err(malformed)?;
        let tag = pdu.initiator_task_tag;
        if tag == RESERVED_TAG {
            if !self.limits.lenient {
                self.window.check_stat_sn(pdu.stat_sn)?;
            }
            self.window.update(pdu.exp_cmd_sn, pdu.max_cmd_sn);
            if pdu.target_transfer_tag != RESERVED_TAG {
                self.answer_ping(pdu.lun, pdu.target_transfer_tag, out);
            }
            return Ok(None);
        }
        self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
        let Some(Pending::Ping) = self.tags.get(tag) else {
            return self.stray(header);
        };
        self.tags.remove(tag);
        if self.own_ping == Some(tag) {
            self.own_ping = None;
            return Ok(None);
        }
        Ok(Some((Event::Pong { task: Handle(tag), data: &[] }, 0..self.gathered.len())))
    }

    fn text_response(&mut self, header: &Header, out: &mut impl Output) -> Said<T> {
        let pdu = TextResponse::parse(header).map_err(malformed)?;
        self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
        let tag = pdu.initiator_task_tag;
        let Some(Pending::Text) = self.tags.get(tag) else {
            return self.stray(header);
        };
        if self.gathered.len() > self.limits.text_length.saturating_sub(self.text.len()) {
            return broken("a text answer is longer than we take");
        }
        self.text.extend_from_slice(&self.gathered);
        if pdu.target_transfer_tag != RESERVED_TAG {
            if pdu.final_bit {
                return broken("a Text Response with F and a Target Transfer Tag");
            }
            // An answer without end and without progress would keep us busy for ever.
            if self.gathered.is_empty() {
                return broken("an empty Text Response that is not the last");
            }
            self.continue_text(tag, pdu.lun, pdu.target_transfer_tag, out);
            return Ok(None);
        }
        if !pdu.final_bit {
            return broken("a Text Response without F and without a Target Transfer Tag");
        }
        self.tags.remove(tag);
        self.text_tag = None;
        std::mem::swap(&mut self.text, &mut self.gathered);
        self.text.clear();
        Ok(Some((Event::Text { task: Handle(tag), text: &[] }, 0..self.gathered.len())))
    }

    fn logout_response(&mut self, header: &Header) -> Said<T> {
        let pdu = LogoutResponse::parse(header).map_err(malformed)?;
        self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
        let tag = pdu.initiator_task_tag;
        let Some(Pending::Logout { reason }) = self.tags.get(tag) else {
            return self.stray(header);
        };
        if pdu.response == LogoutResult::Success && *reason != LogoutReason::RemoveForRecovery {
            self.closed = Some(CloseReason::Logout);
        }
        self.tags.remove(tag);
        let event = Event::Logout {
            task: Handle(tag),
            response: pdu.response,
            time2wait: pdu.time2wait,
            time2retain: pdu.time2retain,
        };
        Ok(Some((event, 0..0)))
    }

    fn async_message(&mut self, header: &Header) -> Said<T> {
        let pdu = AsyncMessage::parse(header).map_err(malformed)?;
        self.numbers(pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn)?;
        let ours = pdu.async_event == AsyncEvent::ConnectionDrop && pdu.parameter1 == self.connection_id;
        if ours || pdu.async_event == AsyncEvent::SessionDrop {
            self.closed = Some(CloseReason::Dropped);
        }
        let mut range = 0..self.gathered.len();
        if pdu.async_event == AsyncEvent::ScsiEvent
            && let Some(length) = self.gathered.first_chunk::<2>()
        {
            let end = usize::from(u16::from_be_bytes(*length)) + 2;
            if end > self.gathered.len() {
                return broken("SenseLength is longer than the data segment");
            }
            range = 2..end;
        }
        let message = Asynchronous {
            event: pdu.async_event,
            vcode: pdu.async_vcode,
            parameters: [pdu.parameter1, pdu.parameter2, pdu.parameter3],
            lun: pdu.lun,
            data: &[],
        };
        Ok(Some((Event::Asynchronous(message), range)))
    }
}

/// Checks a Data-In against its task, and takes it into account.
#[inline]
fn data_in<T>(
    task: &mut Task<T>,
    pdu: &DataIn,
    parameters: &negotiation::Parameters,
    lenient: bool,
) -> Result<Option<End>, CloseReason> {
    let length = pdu.data_segment_length;
    if pdu.data_sn != task.data_sn {
        return broken("DataSN out of order");
    }
    if length > task.read_length - task.received || length > task.read_length.saturating_sub(pdu.buffer_offset) {
        return broken("more Data-In than the command expects");
    }
    if pdu.buffer_offset != task.received && parameters.data_pdu_in_order && parameters.data_sequence_in_order {
        return broken("Data-In out of order");
    }
    if length > parameters.max_burst_length.saturating_sub(task.sequence) && !lenient {
        return broken("a Data-In sequence longer than MaxBurstLength");
    }
    if pdu.acknowledge && parameters.error_recovery_level == 0 {
        return broken("Data-In with A at error recovery level 0");
    }
    task.data_sn = task.data_sn.wrapping_add(1);
    task.received += length;
    task.sequence = if pdu.final_bit { 0 } else { task.sequence + length };
    if !pdu.status_present {
        return Ok(None);
    }
    if pdu.status == CHECK_CONDITION {
        return broken("Data-In with CHECK CONDITION");
    }
    let residual = Residual::from_flags(pdu.residual_overflow, pdu.residual_underflow, pdu.residual_count);
    Ok(Some(End { status: pdu.status, residual }))
}

/// Comes with sense data, hence in a SCSI Response (RFC 7143 11.7.3).
const CHECK_CONDITION: u8 = 0x02;
