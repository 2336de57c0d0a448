//! Logout (RFC 7143 11.14, 11.15) and the Asynchronous Message (11.9).

use crate::connection::Connection;
use crate::event::{Advance, Event};
use crate::session::Session;
use crate::sink::Sink;
use wire::{
    AsyncEvent, AsyncMessage, BHS_LEN, LogoutReason, LogoutRequest, LogoutResponse, LogoutResult, RejectReason,
};

/// A logout that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logout {
    initiator_task_tag: u32,
    pub answered: bool,
}

impl Connection {
    pub(crate) fn logout_request(
        &mut self,
        session: &Session,
        header: &[u8; BHS_LEN],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let Ok(request) = LogoutRequest::parse(header) else {
            self.reject(session, header, RejectReason::InvalidPduField, sink);
            return None;
        };
        let other = self.cid.is_some_and(|cid| cid != request.cid);
        match request.reason {
            LogoutReason::CloseSession => {}
            LogoutReason::CloseConnection if !other => {}
            LogoutReason::CloseConnection => {
                self.put_logout(session, request.initiator_task_tag, LogoutResult::CidNotFound, sink);
                return None;
            }
            LogoutReason::RemoveForRecovery => {
                self.put_logout(session, request.initiator_task_tag, LogoutResult::RecoveryNotSupported, sink);
                return None;
            }
            LogoutReason::Other(_) => {
                self.reject(session, header, RejectReason::InvalidPduField, sink);
                return None;
            }
        }
        self.logout = Some(Logout { initiator_task_tag: request.initiator_task_tag, answered: false });
        self.text = None;
        Some(Advance::Event(Event::Logout { reason: request.reason.code() }))
    }

    /// Answers the logout; the next [`advance`](Self::advance) gives `Close(Logout)`. Nothing is written if no logout waits
    /// for an answer.
    pub fn logout_response(&mut self, session: &mut Session, sink: &mut impl Sink) {
        let Some(logout) = self.logout.as_mut().filter(|logout| !logout.answered) else {
            return;
        };
        logout.answered = true;
        let tag = logout.initiator_task_tag;
        self.put_logout(session, tag, LogoutResult::Success, sink);
    }

    /// A logout waits for its answer.
    pub fn logout_waits(&self) -> bool {
        self.logout.is_some_and(|logout| !logout.answered)
    }

    fn put_logout(&mut self, session: &Session, tag: u32, response: LogoutResult, sink: &mut impl Sink) {
        let response = LogoutResponse {
            response,
            data_segment_length: 0,
            initiator_task_tag: tag,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            time2wait: session.default_time2wait,
            time2retain: session.default_time2retain,
        };
        self.put_header(sink, |space| response.emit(space));
    }

    /// Asynchronous message (RFC 7143 11.9) without data: 1 asks for a logout within `parameters[2]` seconds; 2 and 3 announce
    /// that the connection (CID in `parameters[0]`), the session is dropped, with Time2Wait and Time2Retain in
    /// `parameters[1]` and `[2]`; 4 asks for a negotiation within `parameters[2]` seconds.
    pub fn asynchronous(&mut self, session: &mut Session, event: u8, parameters: [u16; 3], sink: &mut impl Sink) {
        let message = AsyncMessage {
            data_segment_length: 0,
            lun: 0,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            async_event: AsyncEvent::from_code(event),
            async_vcode: 0,
            parameter1: parameters[0],
            parameter2: parameters[1],
            parameter3: parameters[2],
        };
        self.put_header(sink, |space| message.emit(space));
    }
}
