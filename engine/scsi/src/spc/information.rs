//! REPORT and SET IDENTIFYING INFORMATION (SPC-4 6.32, 6.43): what application clients write down about the unit.

use crate::{
    attention::Attention,
    command::{Command, Context, Step, answer, fail, good},
    sense::Sense,
    spc::mode_pages::who,
    table::{Entry, Traits},
    unit::LogicalUnit,
};

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

/// Identifying information of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    let is_text = |data: &[u8]| data.is_empty() || (data.last() == Some(&0) && std::str::from_utf8(data).is_ok());
    if kind == TEXT && !is_text(data) {
        return fail(Sense::field_in_parameters(0, None));
    }
    unit.information(|information| {
        if let Some(held) = information.of(kind) {
            *held = data.to_vec();
        }
    });
    unit.attention(Attention::IdentifierChanged, who(context));
    good()
}
