//! Everything an initiator asks beside SCSI commands: pings, task management, text, logout, and raw PDUs.

use crate::connection::{Connection, Handle, Pending};
use crate::frame::append;
use crate::output::Output;
use crate::submit::SubmitError;
use wire::{
    BHS_LEN, LogoutReason, LogoutRequest, NopOut, RESERVED_TAG, TaskManagementFunction, TaskManagementRequest,
    TextRequest,
};

impl<T> Connection<T> {
    fn request(&mut self, immediate: bool, pending: Pending<T>) -> Result<(u32, u32), SubmitError> {
        self.check(immediate)?;
        let tag = self.tags.insert(pending).ok_or(SubmitError::NoTag)?;
        Ok((tag, self.window.take(immediate)))
    }

    /// Appends a PDU with the agreed digests.
    pub(crate) fn send(&self, header: &[u8; BHS_LEN], data: &[u8], out: &mut impl Output) {
        append(out, header, &[], data, self.parameters.header_digest, self.parameters.data_digest);
    }

    fn fits(&self, data: &[u8]) -> Result<u32, SubmitError> {
        u32::try_from(data.len())
            .ok()
            .filter(|length| *length <= self.parameters.peer_max_recv_data_segment_length)
            .ok_or(SubmitError::TooLong)
    }

    /// Sends an immediate NOP-Out that wants an answer ([`Event::Pong`](crate::Event::Pong)).
    pub fn ping(&mut self, data: &[u8], out: &mut impl Output) -> Result<Handle, SubmitError> {
        self.nop_out(true, data, out)
    }

    /// Sends a NOP-Out that takes its place in the order of commands.
    pub fn ping_in_order(&mut self, data: &[u8], out: &mut impl Output) -> Result<Handle, SubmitError> {
        self.nop_out(false, data, out)
    }

    fn nop_out(&mut self, immediate: bool, data: &[u8], out: &mut impl Output) -> Result<Handle, SubmitError> {
        let data_segment_length = self.fits(data)?;
        let (tag, cmd_sn) = self.request(immediate, Pending::Ping)?;
        let mut header = [0; BHS_LEN];
        NopOut {
            immediate,
            data_segment_length,
            lun: 0,
            initiator_task_tag: tag,
            target_transfer_tag: RESERVED_TAG,
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
        }
        .emit(&mut header);
        self.send(&header, data, out);
        Ok(Handle(tag))
    }

    /// Answers a NOP-In (RFC 7143 11.18).
    pub(crate) fn answer_ping(&mut self, lun: u64, target_transfer_tag: u32, out: &mut impl Output) {
        let mut header = [0; BHS_LEN];
        NopOut {
            immediate: true,
            data_segment_length: 0,
            lun,
            initiator_task_tag: RESERVED_TAG,
            target_transfer_tag,
            cmd_sn: self.window.cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
        }
        .emit(&mut header);
        self.send(&header, &[], out);
    }

    /// Sends an immediate task management request about `referenced` (ABORT TASK) or `lun`. The tasks that it ends stay
    /// known until [`forget`](Self::forget).
    pub fn task_management(
        &mut self,
        function: TaskManagementFunction,
        lun: u64,
        referenced: Option<Handle>,
        out: &mut impl Output,
    ) -> Result<Handle, SubmitError> {
        let ref_cmd_sn = referenced.and_then(|task| self.cmd_sn_of(task)).unwrap_or(self.window.cmd_sn);
        let (tag, cmd_sn) = self.request(true, Pending::TaskManagement)?;
        let mut header = [0; BHS_LEN];
        TaskManagementRequest {
            immediate: true,
            function,
            data_segment_length: 0,
            lun,
            initiator_task_tag: tag,
            referenced_task_tag: referenced.map_or(RESERVED_TAG, |task| task.0),
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
            ref_cmd_sn: if referenced.is_some() { ref_cmd_sn } else { 0 },
            exp_data_sn: 0,
        }
        .emit(&mut header);
        self.send(&header, &[], out);
        Ok(Handle(tag))
    }

    /// Sends text (`key=value` and a zero byte, each) in one PDU; the answer is an [`Event::Text`](crate::Event::Text).
    /// One text request at a time ([`SubmitError::NoTag`]).
    pub fn text(&mut self, text: &[u8], out: &mut impl Output) -> Result<Handle, SubmitError> {
        let data_segment_length = self.fits(text)?;
        if self.text_tag.is_some() {
            return Err(SubmitError::NoTag);
        }
        let (tag, cmd_sn) = self.request(false, Pending::Text)?;
        self.text_tag = Some(tag);
        self.text.clear();
        let mut header = [0; BHS_LEN];
        TextRequest {
            immediate: false,
            final_bit: true,
            continue_bit: false,
            data_segment_length,
            lun: 0,
            initiator_task_tag: tag,
            target_transfer_tag: RESERVED_TAG,
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
        }
        .emit(&mut header);
        self.send(&header, text, out);
        Ok(Handle(tag))
    }

    /// Asks for targets: `All` in a discovery session, a name, or nothing for the session's own (RFC 7143 Appendix C).
    /// [`parse_targets`](crate::parse_targets) reads the answer.
    pub fn send_targets(&mut self, which: &str, out: &mut impl Output) -> Result<Handle, SubmitError> {
        self.text(format!("SendTargets={which}\0").as_bytes(), out)
    }

    /// Asks for the rest of a long text answer with an empty request. When the window is closed it goes as an immediate
    /// one: the target waits for it.
    pub(crate) fn continue_text(&mut self, tag: u32, lun: u64, target_transfer_tag: u32, out: &mut impl Output) {
        let immediate = !self.window.is_open();
        let cmd_sn = self.window.take(immediate);
        let mut header = [0; BHS_LEN];
        TextRequest {
            immediate,
            final_bit: true,
            continue_bit: false,
            data_segment_length: 0,
            lun,
            initiator_task_tag: tag,
            target_transfer_tag,
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
        }
        .emit(&mut header);
        self.send(&header, &[], out);
    }

    /// Sends an immediate logout for this connection or its session.
    pub fn logout(&mut self, reason: LogoutReason, out: &mut impl Output) -> Result<Handle, SubmitError> {
        let (tag, cmd_sn) = self.request(true, Pending::Logout { reason })?;
        let mut header = [0; BHS_LEN];
        LogoutRequest {
            immediate: true,
            reason,
            data_segment_length: 0,
            initiator_task_tag: tag,
            cid: self.connection_id,
            cmd_sn,
            exp_stat_sn: self.window.exp_stat_sn,
        }
        .emit(&mut header);
        self.send(&header, &[], out);
        Ok(Handle(tag))
    }

    /// Sends any PDU as it stands: no state is checked or changed, no field filled in, and DataSegmentLength and
    /// TotalAHSLength are the header's own. Pad and the agreed digests are added. Answers with a tag that is unknown
    /// here come as [`Event::Stray`](crate::Event::Stray).
    pub fn raw(&self, header: &[u8; BHS_LEN], ahs: &[u8], data: &[u8], out: &mut impl Output) {
        append(out, header, ahs, data, self.parameters.header_digest, self.parameters.data_digest);
    }
}
