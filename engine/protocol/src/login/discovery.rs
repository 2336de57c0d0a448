//! A discovery session after its login (RFC 7143 4.3, 11.10, appendix C): SendTargets, NOP-Out, Logout.

use super::frame::{Frame, Framer, MAX_DATA};
use super::{Admission, Directory, TargetEntry, send_targets_text};
use crate::Sink;
use negotiation::{Key, Parameters, Role, receive_in_full_feature_phase};
use std::net::IpAddr;
use wire::text::{TextAccumulator, TextWriter};
use wire::{
    BHS_LEN, Bhs, LogoutRequest, LogoutResponse, LogoutResult, NopIn, NopOut, Opcode, RESERVED_TAG, Reject,
    RejectReason, TextRequest, TextResponse, padding,
};

/// Most PDUs that a discovery session may send: with `MAX_ANSWER` in pieces of 512 bytes there is room to spare.
const MAX_REQUESTS: u32 = 16_384;
/// Most Rejects before the connection is closed.
const MAX_REJECTS: u32 = 16;
/// Longest answer to SendTargets, bytes. A longer list is cut after a whole target.
const MAX_ANSWER: usize = 4 << 20;

/// What input led to.
#[derive(Debug, PartialEq, Eq)]
pub enum DiscoveryStep {
    /// All input is used up: send what is in the sink, read more.
    More,
    /// Send what is in the sink, and close.
    Close(DiscoveryEnd),
}

/// Why a discovery session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryEnd {
    /// The initiator logged out.
    #[error("logged out")]
    Logout,
    /// It broke a rule.
    #[error("{0}")]
    Protocol(&'static str),
}

/// A discovery session in its full feature phase. It lives on the control thread, and holds one PDU, at most 8 KiB of a
/// request's text, and the answer that is being sent.
pub struct DiscoverySession {
    framer: Framer,
    parameters: Parameters,
    initiator_name: String,
    address: IpAddr,
    cid: u16,
    exp_cmd_sn: u32,
    stat_sn: u32,
    requests: u32,
    rejects: u32,
    text: Option<TextExchange>,
    next_tag: u32,
}

/// A text negotiation that goes over several PDUs.
struct TextExchange {
    initiator_task_tag: u32,
    target_transfer_tag: u32,
    request: TextAccumulator,
    /// The answer, once the request is whole.
    answer: Option<Vec<u8>>,
    sent: usize,
}

impl DiscoverySession {
    /// The session that an [`Admission`] with `SessionType::Discovery` became after [`Admission::accept`].
    pub fn new(admission: &Admission, address: IpAddr) -> DiscoverySession {
        DiscoverySession {
            framer: Framer::new(),
            parameters: admission.parameters,
            initiator_name: admission.initiator_name.clone(),
            address: address.to_canonical(),
            cid: admission.cid,
            exp_cmd_sn: admission.cmd_sn,
            stat_sn: admission.stat_sn,
            requests: 0,
            rejects: 0,
            text: None,
            next_tag: 1,
        }
    }

    /// Takes input; answers go to `out`, which is to be sent in any case.
    pub fn receive(&mut self, input: &mut &[u8], directory: &dyn Directory, out: &mut impl Sink) -> DiscoveryStep {
        loop {
            let mut framer = std::mem::replace(&mut self.framer, Framer::new());
            let step = match framer.next(input) {
                Ok(None) => {
                    self.framer = framer;
                    return DiscoveryStep::More;
                }
                Ok(Some(frame)) => self.handle(&frame, directory, out),
                Err(bad) => Err(DiscoveryEnd::Protocol(bad.why)),
            };
            self.framer = framer;
            if let Err(end) = step {
                return DiscoveryStep::Close(end);
            }
        }
    }

    fn handle(
        &mut self,
        frame: &Frame<'_>,
        directory: &dyn Directory,
        out: &mut impl Sink,
    ) -> Result<(), DiscoveryEnd> {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(DiscoveryEnd::Protocol("more PDUs than a discovery session needs"));
        }
        let header = &frame.header;
        let bhs = Bhs::new(header);
        let answered = match bhs.opcode() {
            Opcode::NopOut => NopOut::parse(header).map(Request::Nop),
            Opcode::TextRequest => TextRequest::parse(header).map(Request::Text),
            Opcode::LogoutRequest => LogoutRequest::parse(header).map(Request::Logout),
            _ => return self.reject(header, RejectReason::CommandNotSupported, out),
        };
        let request = match answered {
            Ok(request) => request,
            Err(error) => return self.reject(header, error.reject_reason(), out),
        };
        self.count(&request)?;
        match request {
            Request::Nop(nop) => self.nop(&nop, frame.data, out),
            Request::Text(text) => return self.text_request(&text, frame, directory, out),
            Request::Logout(logout) => return self.logout(&logout, out),
        }
        Ok(())
    }

    /// There is one connection, so commands come in order.
    fn count(&mut self, request: &Request) -> Result<(), DiscoveryEnd> {
        let (immediate, cmd_sn) = match request {
            Request::Nop(nop) => (nop.immediate, nop.cmd_sn),
            Request::Text(text) => (text.immediate, text.cmd_sn),
            Request::Logout(logout) => (logout.immediate, logout.cmd_sn),
        };
        if immediate {
            return Ok(());
        }
        if cmd_sn != self.exp_cmd_sn {
            return Err(DiscoveryEnd::Protocol("CmdSN is out of order"));
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        Ok(())
    }

    fn take_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        stat_sn
    }

    /// One command ahead is enough: each is answered before the next is read.
    fn max_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn.wrapping_add(1)
    }

    /// Longest data segment that the initiator takes.
    fn segment(&self) -> usize {
        self.parameters.peer_max_recv_data_segment_length as usize
    }

    fn nop(&mut self, request: &NopOut, data: &[u8], out: &mut impl Sink) {
        if request.initiator_task_tag == RESERVED_TAG {
            return;
        }
        let data = &data[..data.len().min(self.segment())];
        let response = NopIn {
            data_segment_length: data.len() as u32,
            lun: request.lun,
            initiator_task_tag: request.initiator_task_tag,
            target_transfer_tag: RESERVED_TAG,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn(),
        };
        emit(out, |header| response.emit(header), data);
    }

    fn logout(&mut self, request: &LogoutRequest, out: &mut impl Sink) -> Result<(), DiscoveryEnd> {
        // RFC 7143 11.14.1: 0 closes the session, 1 the connection `cid`; here both are the same.
        let result = match request.reason.code() {
            0 => LogoutResult::Success,
            1 if request.cid == self.cid => LogoutResult::Success,
            1 => LogoutResult::CidNotFound,
            _ => LogoutResult::RecoveryNotSupported,
        };
        let response = LogoutResponse {
            response: result,
            data_segment_length: 0,
            initiator_task_tag: request.initiator_task_tag,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn(),
            time2wait: 0,
            time2retain: 0,
        };
        emit(out, |header| response.emit(header), &[]);
        match result {
            LogoutResult::Success => Err(DiscoveryEnd::Logout),
            _ => Ok(()),
        }
    }

    fn reject(
        &mut self,
        header: &[u8; BHS_LEN],
        reason: RejectReason,
        out: &mut impl Sink,
    ) -> Result<(), DiscoveryEnd> {
        self.rejects += 1;
        let reject = Reject {
            reason,
            data_segment_length: BHS_LEN as u32,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn(),
            data_sn: 0,
        };
        emit(out, |bytes| reject.emit(bytes), header);
        if self.rejects >= MAX_REJECTS {
            return Err(DiscoveryEnd::Protocol("too many PDUs that a discovery session doesn't take"));
        }
        Ok(())
    }

    fn text_request(
        &mut self,
        request: &TextRequest,
        frame: &Frame<'_>,
        directory: &dyn Directory,
        out: &mut impl Sink,
    ) -> Result<(), DiscoveryEnd> {
        let mut exchange = match (self.text.take(), request.target_transfer_tag) {
            // RFC 7143 11.10.4: without a tag it is a new negotiation, and ends one that went on.
            (_, RESERVED_TAG) => self.begin(request),
            (Some(exchange), tag)
                if tag == exchange.target_transfer_tag && request.initiator_task_tag == exchange.initiator_task_tag =>
            {
                exchange
            }
            _ => return self.reject(&frame.header, RejectReason::ProtocolError, out),
        };
        if exchange.answer.is_some() {
            // The initiator asks for the next piece; it has nothing to say itself.
            if !frame.data.is_empty() {
                return self.reject(&frame.header, RejectReason::ProtocolError, out);
            }
        } else {
            if exchange.request.push(frame.data).is_err() {
                return self.reject(&frame.header, RejectReason::ProtocolError, out);
            }
            if !request.continue_bit {
                match self.answer(exchange.request.bytes(), directory) {
                    Some(answer) => exchange.answer = Some(answer),
                    None => return self.reject(&frame.header, RejectReason::ProtocolError, out),
                }
            }
        }
        self.send_piece(exchange, request.final_bit, out);
        Ok(())
    }

    fn begin(&mut self, request: &TextRequest) -> TextExchange {
        let tag = self.next_tag;
        self.next_tag = if tag == RESERVED_TAG - 1 { 1 } else { tag + 1 };
        TextExchange {
            initiator_task_tag: request.initiator_task_tag,
            target_transfer_tag: tag,
            request: TextAccumulator::new(MAX_DATA),
            answer: None,
            sent: 0,
        }
    }

    /// Sends the next piece of an answer, or asks for the rest of the request with an empty one. The negotiation stays
    /// open until all is sent and the initiator has set F.
    fn send_piece(&mut self, mut exchange: TextExchange, initiator_final: bool, out: &mut impl Sink) {
        let answer = exchange.answer.as_deref().unwrap_or_default();
        let rest = &answer[exchange.sent..];
        let piece = &rest[..rest.len().min(self.segment())];
        let last = exchange.answer.is_some() && piece.len() == rest.len();
        let over = last && initiator_final;
        let response = TextResponse {
            final_bit: over,
            continue_bit: exchange.answer.is_some() && !last,
            data_segment_length: piece.len() as u32,
            lun: 0,
            initiator_task_tag: exchange.initiator_task_tag,
            target_transfer_tag: if over { RESERVED_TAG } else { exchange.target_transfer_tag },
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn(),
        };
        emit(out, |header| response.emit(header), piece);
        if over {
            return;
        }
        exchange.sent += piece.len();
        if last {
            // All is said; the initiator goes on with new keys under the same tag.
            exchange.request.clear();
            exchange.answer = None;
            exchange.sent = 0;
        }
        self.text = Some(exchange);
    }

    /// The answer to a whole request; None when it breaks a rule.
    fn answer(&mut self, text: &[u8], directory: &dyn Directory) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        let mut asked = false;
        for pair in wire::text::pairs(text) {
            let (name, value) = pair.ok()?;
            let key = receive_in_full_feature_phase(Role::Target, &mut self.parameters, name, value, &mut answer);
            if key.ok()? == Some(Key::SendTargets) {
                if std::mem::replace(&mut asked, true) {
                    return None;
                }
                self.send_targets(value, directory, &mut answer)?;
            }
        }
        Some(answer)
    }

    /// RFC 7143 appendix C: `All`, or a target's name. An empty value means the session's own target, of which a
    /// discovery session has none: Reject.
    fn send_targets(&self, which: &str, directory: &dyn Directory, answer: &mut Vec<u8>) -> Option<()> {
        if which.is_empty() {
            return TextWriter::new(answer).pair("SendTargets", "Reject").ok();
        }
        let mut entries: Vec<TargetEntry> = directory.targets(&self.initiator_name, self.address);
        if which != "All" {
            let which = wire::names::normalize(which);
            entries.retain(|entry| entry.name == which);
        }
        let list = send_targets_text(&entries);
        let end = if list.len() <= MAX_ANSWER { list.len() } else { whole_targets(&list[..MAX_ANSWER]) };
        answer.extend_from_slice(&list[..end]);
        Some(())
    }
}

/// Where the last TargetName begins: what is before it is whole.
fn whole_targets(list: &[u8]) -> usize {
    const NAME: &[u8] = b"\0TargetName=";
    list.windows(NAME.len()).rposition(|window| window == NAME).map_or(0, |at| at + 1)
}

enum Request {
    Nop(NopOut),
    Text(TextRequest),
    Logout(LogoutRequest),
}

/// Writes a PDU without digests.
fn emit(out: &mut impl Sink, header: impl FnOnce(&mut [u8; BHS_LEN]), data: &[u8]) {
    let mut bytes = [0; BHS_LEN];
    header(&mut bytes);
    out.put(&bytes);
    out.put(data);
    out.put(&[0; 3][..padding(data.len())]);
}
