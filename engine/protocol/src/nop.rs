//! NOP-Out and its answers (RFC 7143 11.18, 11.19).

use crate::connection::Connection;
use crate::event::Advance;
use crate::session::Session;
use crate::sink::Sink;
use wire::{BHS_LEN, NopIn, NopOut, RESERVED_TAG, RejectReason};

impl Connection {
    /// A ping is answered with its own data; an answer to our ping is noted.
    pub(crate) fn nop_out(
        &mut self,
        session: &Session,
        header: &[u8; BHS_LEN],
        data: Vec<u8>,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let Ok(nop_out) = NopOut::parse(header) else {
            self.reject(session, header, RejectReason::InvalidPduField, sink);
            return None;
        };
        if nop_out.target_transfer_tag != RESERVED_TAG {
            self.liveness.answered(nop_out.target_transfer_tag);
        }
        if nop_out.initiator_task_tag == RESERVED_TAG {
            return None;
        }
        let most = self.parameters.peer_max_recv_data_segment_length as usize;
        let data = &data[..data.len().min(most)];
        let nop_in = NopIn {
            data_segment_length: data.len() as u32,
            lun: 0,
            initiator_task_tag: nop_out.initiator_task_tag,
            target_transfer_tag: RESERVED_TAG,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
        };
        self.put_header(sink, |space| nop_in.emit(space));
        self.put_data(sink, data, &[]);
        None
    }

    /// Has the initiator say which responses it has: its answer to a ping carries ExpStatSN (RFC 7143 11.18). Whether it
    /// answers is not looked at.
    pub fn ask_what_came(&mut self, session: &mut Session, sink: &mut impl Sink) {
        let tag = self.new_tag();
        self.ping(session, tag, sink);
    }

    /// Our own ping; StatSN is shown, not used up.
    pub(crate) fn ping(&mut self, session: &Session, tag: u32, sink: &mut impl Sink) {
        let nop_in = NopIn {
            data_segment_length: 0,
            lun: 0,
            initiator_task_tag: RESERVED_TAG,
            target_transfer_tag: tag,
            stat_sn: self.stat_sn,
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
        };
        self.put_header(sink, |space| nop_in.emit(space));
    }
}
