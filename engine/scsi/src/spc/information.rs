//! REPORT and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43): what application clients write down about the unit.

use crate::{
    attention::Attention,
    command::{Command, Context, Step, answer, fail},
    lasting::KEPT,
    sense::Sense,
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};
use serde::{Deserialize, Serialize};

pub(crate) const TABLE: &[Entry] = &[
    Entry::action(
        0x05,
        &[0xA3, 0x05, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0x00],
        Traits::NONE,
        report_information,
    ),
    Entry::action(
        0x06,
        &[0xA4, 0x06, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0x00],
        Traits::NONE,
        set_information,
    ),
];

/// IDENTIFYING INFORMATION TYPE: of the device, any bytes.
const DEVICE: u8 = 0b000_0000;
/// Text in UTF-8 that ends with a NUL.
const TEXT: u8 = 0b000_0010;
/// Which types there are.
const SUPPORTED: u8 = 0b111_1111;

/// Identifying information of a unit. It lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Information {
    device: Vec<u8>,
    text: Vec<u8>,
}

impl Information {
    fn of(&mut self, kind: u8) -> Option<&mut Vec<u8>> {
        match kind {
            DEVICE => Some(&mut self.device),
            TEXT => Some(&mut self.text),
            _ => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.device.is_empty() && self.text.is_empty()
    }

    /// What was recorded may be damaged.
    pub fn checked(self) -> Result<Information, String> {
        let fits = |kind, held: &[u8]| held.len() <= most(kind).unwrap_or(0).into();
        match fits(DEVICE, &self.device) && fits(TEXT, &self.text) && is_text(&self.text) {
            true => Ok(self),
            false => Err("the identifying information is too long, or no text".into()),
        }
    }
}

fn is_text(data: &[u8]) -> bool {
    data.is_empty() || (data.last() == Some(&0) && std::str::from_utf8(data).is_ok())
}

/// MAXIMUM IDENTIFYING INFORMATION LENGTH.
fn most(kind: u8) -> Option<u16> {
    match kind {
        DEVICE => Some(64),
        TEXT => Some(256),
        _ => None,
    }
}

fn report_information(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let kind = command.cdb.byte(10) >> 1;
    let out = &mut *context.scratch;
    out.clear();
    out.extend([0; 4]);
    if kind == SUPPORTED {
        for kind in [DEVICE, TEXT] {
            let [high, low] = most(kind).unwrap_or(0).to_be_bytes();
            out.extend([kind << 1, 0, high, low]);
        }
    } else {
        let found = unit.information(|information| match information.of(kind) {
            Some(held) => {
                out.extend_from_slice(held);
                true
            }
            None => false,
        });
        if !found {
            return fail(Sense::field_in_cdb(10, Some(7)));
        }
    }
    let length = (out.len() - 4) as u16; // at most 256
    out[2..4].copy_from_slice(&length.to_be_bytes());
    answer(context, command.cdb.u32(6))
}

fn set_information(command: &mut Command, unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let (kind, length) = (command.cdb.byte(10) >> 1, command.cdb.u32(6));
    match most(kind) {
        None => fail(Sense::field_in_cdb(10, Some(7))),
        Some(most) if length > u32::from(most) => fail(Sense::field_in_cdb(6, None)),
        Some(_) if length == 0 => take(command, &[], unit, context),
        Some(_) => command.receive(length, take),
    }
}

fn take(command: &mut Command, data: &[u8], unit: &LogicalUnit, context: &mut Context<'_>) -> Step {
    let kind = command.cdb.byte(10) >> 1;
    if kind == TEXT && !is_text(data) {
        return fail(Sense::field_in_parameters(0, None));
    }
    let number = unit.set_information(kind, data, who(context));
    command.save(number, KEPT)
}

impl LogicalUnit {
    /// Gives the number of the lasting state, which is to be saved.
    fn set_information(&self, kind: u8, data: &[u8], except: Option<u64>) -> u64 {
        let mut state = self.lock();
        let before = state.information.clone();
        if let Some(held) = state.information.of(kind) {
            *held = data.to_vec();
        }
        state.attention(Attention::IdentifierChanged, except);
        self.changed();
        state.changed_for_good(Box::new(move |_, state| {
            state.information = before;
            state.attention(Attention::IdentifierChanged, except);
        }))
    }
}
