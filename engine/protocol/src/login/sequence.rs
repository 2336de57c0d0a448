//! What stays the same through a login, and the numbers of its PDUs (RFC 7143 11.12, 11.13).

use super::LoginFailure;
use crate::Sink;
use wire::serial::sn_lte;
use wire::{BHS_LEN, Isid, LoginRequest, LoginResponse, LoginStatus, Stage, padding};

/// The only version there is (RFC 7143 11.12.4).
const VERSION: u8 = 0;

/// The fields that every Login Request of a connection repeats, and the next StatSN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub isid: Isid,
    pub tsih: u16,
    pub cid: u16,
    pub cmd_sn: u32,
    pub stat_sn: u32,
    initiator_task_tag: u32,
    version_max: u8,
    version_min: u8,
}

impl Sequence {
    /// Begins with the first request. StatSN starts at the request's ExpStatSN: any start is right, and this one suits
    /// initiators that expect to have named it.
    pub(super) fn begin(request: &LoginRequest) -> Sequence {
        Sequence {
            isid: request.isid,
            tsih: request.tsih,
            cid: request.cid,
            cmd_sn: request.cmd_sn,
            stat_sn: request.exp_stat_sn,
            initiator_task_tag: request.initiator_task_tag,
            version_max: request.version_max,
            version_min: request.version_min,
        }
    }

    /// Checks a further request, or the first one, against the first.
    pub(super) fn check(&self, request: &LoginRequest) -> Result<(), LoginFailure> {
        let changed = [
            ("ISID", request.isid != self.isid),
            ("TSIH", request.tsih != self.tsih),
            ("CID", request.cid != self.cid),
            ("Initiator Task Tag", request.initiator_task_tag != self.initiator_task_tag),
            ("CmdSN", request.cmd_sn != self.cmd_sn),
            ("Version", (request.version_max, request.version_min) != (self.version_max, self.version_min)),
        ];
        if let Some((field, _)) = changed.iter().find(|(_, changed)| *changed) {
            return Err(LoginFailure::Changed(field));
        }
        // Some initiators don't count it on in the login phase; one that is ahead has not understood us at all.
        if !sn_lte(request.exp_stat_sn, self.stat_sn) {
            return Err(LoginFailure::ExpStatSn);
        }
        if self.version_min > VERSION {
            return Err(LoginFailure::Version(self.version_min));
        }
        Ok(())
    }

    /// Writes a Login Response that goes on: `transit` is the stage that begins after it.
    pub(super) fn respond(&mut self, stage: Stage, transit: Option<Stage>, text: &[u8], out: &mut impl Sink) {
        let response = self.response(stage, transit, LoginStatus::Success, text);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        put(&response, text, out);
    }

    /// A Login Response with our StatSN.
    pub(super) fn response(
        &self,
        stage: Stage,
        transit: Option<Stage>,
        status: LoginStatus,
        text: &[u8],
    ) -> LoginResponse {
        LoginResponse {
            transit: transit.is_some(),
            continue_bit: false,
            current_stage: stage,
            next_stage: transit.unwrap_or(Stage::SecurityNegotiation),
            version_max: VERSION,
            version_active: VERSION,
            data_segment_length: text.len() as u32,
            isid: self.isid,
            tsih: self.tsih,
            initiator_task_tag: self.initiator_task_tag,
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.cmd_sn,
            max_cmd_sn: self.cmd_sn,
            status,
        }
    }
}

/// Writes a PDU without digests: header, text, padding.
pub(super) fn put(response: &LoginResponse, text: &[u8], out: &mut impl Sink) {
    let mut header = [0; BHS_LEN];
    response.emit(&mut header);
    out.put(&header);
    out.put(text);
    out.put(&[0; 3][..padding(text.len())]);
}
