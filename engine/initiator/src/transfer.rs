//! The simple way to use a connection: every command has its buffers with it.

use crate::connection::{Connection, Handle, Step};
use crate::data_out::DataOut;
use crate::event::{CloseReason, Event};

/// The data of a command, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// What is sent.
    pub data_out: Vec<u8>,
    /// What has come; grows as data come.
    pub data_in: Vec<u8>,
}

impl Transfer {
    /// Data to send.
    pub fn sending(data_out: Vec<u8>) -> Transfer {
        Transfer { data_out, data_in: Vec::new() }
    }

    fn put(&mut self, offset: u32, bytes: &[u8]) {
        let start = offset as usize;
        let end = start + bytes.len();
        if self.data_in.len() < end {
            self.data_in.resize(end, 0);
        }
        self.data_in[start..end].copy_from_slice(bytes);
    }
}

impl DataOut for Transfer {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        self.data_out.append(offset, length, out);
    }
}

impl Connection<Transfer> {
    /// Like [`advance`](Self::advance), with the payload put into the commands' [`Transfer::data_in`]. `None`: all
    /// input is used up.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'_, Transfer>>, CloseReason> {
        loop {
            match self.next_step(input, out)? {
                Step::Idle => return Ok(None),
                Step::Event(event, range) => return Ok(Some(self.said(event, range))),
                Step::Payload { .. } if input.is_empty() => return Ok(None),
                Step::Payload { tag, offset, .. } => {
                    let bytes = self.take_payload(input);
                    if let Some(transfer) = self.user_mut(Handle(tag)) {
                        transfer.put(offset, bytes);
                    }
                }
            }
        }
    }
}
