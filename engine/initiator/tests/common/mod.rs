//! The target's side of a test, written by hand: PDUs out of structs, and what the initiator has sent as structs.
#![allow(dead_code)] // Not every test file uses all of it.

use initiator::{Connection, Event, Limits, LoggedIn, Transfer};
use negotiation::Parameters;
use wire::{BHS_LEN, Bhs, RequestPdu, ResponsePdu};

/// A connection with a script for its other end.
pub struct Scripted {
    pub connection: Connection<Transfer>,
    /// What the initiator has sent since the last [`sent`](Self::sent).
    pub out: Vec<u8>,
    pub parameters: Parameters,
}

impl Scripted {
    pub fn new(parameters: Parameters) -> Scripted {
        Scripted::with_limits(parameters, 8, Limits { tasks: 16, ..Limits::default() })
    }

    /// First CmdSN and StatSN are 100 and 500.
    pub fn with_limits(parameters: Parameters, commands: u32, limits: Limits) -> Scripted {
        let login = LoggedIn::assumed(parameters, 100, commands, 500);
        Scripted { connection: Connection::new(&login, limits), out: Vec::new(), parameters }
    }

    /// The PDUs that the initiator has sent; pads and digests are checked.
    pub fn sent(&mut self) -> Vec<(RequestPdu, Vec<u8>)> {
        let bytes = std::mem::take(&mut self.out);
        split(&bytes, &self.parameters)
    }

    /// The only PDU that it has sent.
    pub fn sent_one(&mut self) -> (RequestPdu, Vec<u8>) {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A PDU for it.
    pub fn pdu(&self, pdu: impl Into<ResponsePdu>, data: &[u8]) -> Vec<u8> {
        encode(pdu, data, &self.parameters)
    }

    /// Gives it bytes, and calls `see` with every event.
    pub fn give(
        &mut self,
        mut input: &[u8],
        mut see: impl FnMut(Event<'_, Transfer>),
    ) -> Result<(), initiator::CloseReason> {
        while let Some(event) = self.connection.receive(&mut input, &mut self.out)? {
            see(event);
        }
        assert!(input.is_empty());
        Ok(())
    }

    /// Gives it a PDU from which nothing follows for the caller.
    pub fn give_quietly(&mut self, pdu: impl Into<ResponsePdu>, data: &[u8]) {
        let bytes = self.pdu(pdu, data);
        self.give(&bytes, |event| panic!("unexpected {event:?}")).unwrap();
    }

    /// Why a PDU closes the connection.
    pub fn refusal(&mut self, pdu: impl Into<ResponsePdu>, data: &[u8]) -> String {
        let bytes = self.pdu(pdu, data);
        self.give(&bytes, |event| panic!("unexpected {event:?}")).unwrap_err().to_string()
    }
}

/// Header with its DataSegmentLength set, digests, data, pad.
pub fn encode(pdu: impl Into<ResponsePdu>, data: &[u8], parameters: &Parameters) -> Vec<u8> {
    let mut header = [0; BHS_LEN];
    pdu.into().emit(&mut header);
    header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    let mut bytes = header.to_vec();
    if parameters.header_digest {
        bytes.extend(wire::digest::to_wire(wire::crc32c(&header)));
    }
    let start = bytes.len();
    bytes.extend(data);
    bytes.resize(start + wire::padded(data.len()), 0);
    if parameters.data_digest && !data.is_empty() {
        let sum = wire::digest::to_wire(wire::crc32c(&bytes[start..]));
        bytes.extend(sum);
    }
    bytes
}

/// Cuts what an initiator has sent into PDUs.
pub fn split(mut bytes: &[u8], parameters: &Parameters) -> Vec<(RequestPdu, Vec<u8>)> {
    let mut pdus = Vec::new();
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<BHS_LEN>().expect("a whole header");
        let view = Bhs(header);
        let header_length = view.header_len(parameters.header_digest);
        if parameters.header_digest {
            let (covered, sum) = bytes[..header_length].split_at(header_length - 4);
            assert_eq!(wire::digest::to_wire(wire::crc32c(covered)), *sum);
        }
        let data = &bytes[header_length..][..view.padded_data_len()];
        if parameters.data_digest && !data.is_empty() {
            let sum = &bytes[header_length + data.len()..][..4];
            assert_eq!(wire::digest::to_wire(wire::crc32c(data)), *sum);
        }
        let length = view.data_segment_length() as usize;
        pdus.push((RequestPdu::parse(header).expect("a legal request"), data[..length].to_vec()));
        bytes = &bytes[view.pdu_len(parameters.header_digest, parameters.data_digest)..];
    }
    pdus
}

/// Takes a variant out of a PDU enum.
#[macro_export]
macro_rules! expect {
    ($value:expr, $variant:path) => {
        match $value {
            $variant(inner) => inner,
            other => panic!("{} expected, not {other:?}", stringify!($variant)),
        }
    };
}
