//! Text requests in full feature phase (RFC 7143 11.10, 11.11): SendTargets, and the keys that may come there.

use crate::connection::Connection;
use crate::event::{Advance, Event, SendTargets};
use crate::session::Session;
use crate::sink::Sink;
use wire::{BHS_LEN, RESERVED_TAG, RejectReason, TextRequest, TextResponse};

/// Bytes of text that an initiator may send in one exchange.
pub const MAX_TEXT: usize = 16384;

/// Bytes of a key's name (RFC 7143 6.1).
const MAX_KEY: usize = 63;

/// The keys of RFC 7143 chapter 13 that may not be changed any more (initialise only, leading only).
const LOGIN_ONLY: [&str; 20] = [
    "AuthMethod",
    "HeaderDigest",
    "DataDigest",
    "MaxConnections",
    "TargetName",
    "InitiatorName",
    "TargetPortalGroupTag",
    "InitialR2T",
    "ImmediateData",
    "MaxBurstLength",
    "FirstBurstLength",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "ErrorRecoveryLevel",
    "SessionType",
    "TaskReporting",
    "iSCSIProtocolLevel",
];

/// An exchange in progress.
#[derive(Debug)]
pub(crate) struct Text {
    initiator_task_tag: u32,
    lun: u64,
    /// Of the last response.
    tag: u32,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    /// F bit of the last request.
    final_bit: bool,
    /// The server has to give a list.
    asked: bool,
}

#[cfg(test)]
impl Text {
    /// What is kept for it.
    pub(crate) fn held_bytes(&self) -> usize {
        self.request.capacity() + self.answer.capacity()
    }
}

impl Connection {
    pub(crate) fn text_request(
        &mut self,
        session: &mut Session,
        header: &[u8; BHS_LEN],
        data: Vec<u8>,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let Ok(request) = TextRequest::parse(header) else {
            self.reject(session, header, RejectReason::InvalidPduField, sink);
            return None;
        };
        let begins = request.target_transfer_tag == RESERVED_TAG;
        let mut text = match self.text.take() {
            // The server is still at the last one.
            Some(text) if text.asked => {
                self.text = Some(text);
                self.reject(session, header, RejectReason::ProtocolError, sink);
                return None;
            }
            // A new one resets what was there.
            _ if begins => Box::new(Text {
                initiator_task_tag: request.initiator_task_tag,
                lun: request.lun,
                tag: RESERVED_TAG,
                request: Vec::new(),
                answer: Vec::new(),
                sent: 0,
                final_bit: false,
                asked: false,
            }),
            Some(text)
                if text.tag == request.target_transfer_tag && text.initiator_task_tag == request.initiator_task_tag =>
            {
                text
            }
            _ => {
                self.reject(session, header, RejectReason::ProtocolError, sink);
                return None;
            }
        };
        text.final_bit = request.final_bit;
        // More of a long answer was asked for.
        if text.sent < text.answer.len() {
            if !data.is_empty() || request.continue_bit {
                self.reject(session, header, RejectReason::ProtocolError, sink);
                return None;
            }
            self.send_text(session, text, sink);
            return None;
        }
        if text.request.len() + data.len() > MAX_TEXT {
            self.reject(session, header, RejectReason::ProtocolError, sink);
            return None;
        }
        if text.request.is_empty() {
            text.request = data;
        } else {
            text.request.extend_from_slice(&data);
        }
        text.answer.clear();
        text.sent = 0;
        if request.continue_bit {
            self.put_text(session, text, 0, sink);
            return None;
        }
        let keys = std::mem::take(&mut text.request);
        let mut list = None;
        if !self.answer_keys(&keys, &mut text.answer, &mut list) {
            self.reject(session, header, RejectReason::ProtocolError, sink);
            return None;
        }
        if let Some(which) = list {
            text.asked = true;
            self.text = Some(text);
            return Some(Advance::Event(Event::SendTargets(which)));
        }
        self.send_text(session, text, sink);
        None
    }

    /// The server's answer to [`Event::SendTargets`]: key=value pairs, each ended by a NUL byte. It is sent in as many
    /// responses as it takes, each when the initiator asks for it. Nothing is done if no exchange waits for it.
    pub fn text_response(&mut self, session: &mut Session, text: &[u8], sink: &mut impl Sink) {
        if !self.text.as_ref().is_some_and(|text| text.asked) {
            return;
        }
        if let Some(mut exchange) = self.text.take() {
            exchange.asked = false;
            exchange.answer.extend_from_slice(text);
            self.send_text(session, exchange, sink);
        }
    }

    /// The next piece of an answer.
    fn send_text(&mut self, session: &Session, text: Box<Text>, sink: &mut impl Sink) {
        let most = self.parameters.peer_max_recv_data_segment_length as usize;
        let length = (text.answer.len() - text.sent).min(most);
        self.put_text(session, text, length, sink);
    }

    fn put_text(&mut self, session: &Session, mut text: Box<Text>, length: usize, sink: &mut impl Sink) {
        let from = text.sent;
        text.sent += length;
        let more = text.sent < text.answer.len();
        let final_bit = !more && text.final_bit;
        text.tag = if final_bit { RESERVED_TAG } else { self.new_tag() };
        let response = TextResponse {
            final_bit,
            continue_bit: more,
            data_segment_length: length as u32,
            lun: if final_bit { 0 } else { text.lun },
            initiator_task_tag: text.initiator_task_tag,
            target_transfer_tag: text.tag,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
        };
        self.put_header(sink, |space| response.emit(space));
        self.put_data(sink, &text.answer[from..text.sent], &[]);
        if !final_bit {
            self.text = Some(text);
        }
    }

    /// Answers the keys of a request. False: they can't be read.
    fn answer_keys(&mut self, keys: &[u8], answer: &mut Vec<u8>, list: &mut Option<SendTargets>) -> bool {
        for pair in keys.split(|&byte| byte == 0).filter(|pair| !pair.is_empty()) {
            let Ok(pair) = std::str::from_utf8(pair) else {
                return false;
            };
            let Some((key, value)) = pair.split_once('=') else {
                return false;
            };
            if key.is_empty() || key.len() > MAX_KEY {
                return false;
            }
            let refusal = match key {
                "SendTargets" if list.is_none() => {
                    *list = Some(match value {
                        "All" => SendTargets::All,
                        "" => SendTargets::This,
                        name => SendTargets::Named(name.into()),
                    });
                    continue;
                }
                "MaxRecvDataSegmentLength" => match declared_length(value) {
                    Some(length) => {
                        self.parameters.peer_max_recv_data_segment_length = length;
                        continue;
                    }
                    None => "Reject",
                },
                "InitiatorAlias" => continue,
                "SendTargets" => "Reject",
                _ if LOGIN_ONLY.contains(&key) => "Reject",
                // An answer, not an offer: nothing was asked.
                _ if matches!(value, "NotUnderstood" | "Irrelevant" | "Reject") => continue,
                _ => "NotUnderstood",
            };
            answer.extend_from_slice(key.as_bytes());
            answer.push(b'=');
            answer.extend_from_slice(refusal.as_bytes());
            answer.push(0);
        }
        true
    }
}

/// A numerical value of 512 to 2^24 - 1, decimal or hexadecimal (RFC 7143 6.1, 13.12).
fn declared_length(value: &str) -> Option<u32> {
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok().filter(|length| (512..=wire::MAX_DATA_SEGMENT_LENGTH).contains(length))
}
