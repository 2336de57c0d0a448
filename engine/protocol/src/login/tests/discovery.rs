//! Discovery sessions after their login.

use super::super::*;
use super::script::*;
use proptest::prelude::*;
use wire::{
    LogoutReason, LogoutRequest, LogoutResponse, LogoutResult, NopIn, NopOut, Opcode, RESERVED_TAG, Reject,
    RejectReason, TextRequest, TextResponse, padding,
};

/// Header and data of a PDU.
type Pdu = ([u8; BHS_LEN], Vec<u8>);

struct Discovery {
    session: DiscoverySession,
    targets: Targets,
    cmd_sn: u32,
    stat_sn: u32,
}

fn discovery(targets: Targets, segment: u32) -> Discovery {
    let mut script = Script::new();
    let lines = format!("InitiatorName={INITIATOR} SessionType=Discovery MaxRecvDataSegmentLength={segment}");
    script.transit(OPERATIONAL, FULL, &lines);
    let admission = script.admitted();
    let session = DiscoverySession::new(&admission, "127.0.0.1".parse().unwrap());
    Discovery { session, targets, cmd_sn: admission.cmd_sn, stat_sn: admission.stat_sn }
}

impl Discovery {
    fn raw(&mut self, bytes: &[u8]) -> (DiscoveryStep, Vec<Pdu>) {
        let (mut input, mut out) = (bytes, Vec::new());
        let step = self.session.receive(&mut input, &self.targets, &mut out);
        let (mut rest, mut pdus) = (out.as_slice(), Vec::new());
        while let Some(header) = rest.first_chunk::<BHS_LEN>() {
            let length = wire::Bhs::new(header).data_segment_length() as usize;
            pdus.push((*header, rest[BHS_LEN..BHS_LEN + length].to_vec()));
            rest = &rest[BHS_LEN + length + padding(length)..];
            assert_eq!(u32::from_be_bytes(header[24..28].try_into().unwrap()), self.stat_sn, "StatSN");
            self.stat_sn += 1;
        }
        (step, pdus)
    }

    /// A Text Request, and its one response.
    fn text(&mut self, tag: u32, flags: (bool, bool), data: &[u8]) -> (TextResponse, Vec<u8>) {
        let request = TextRequest {
            immediate: false,
            final_bit: flags.0,
            continue_bit: flags.1,
            data_segment_length: data.len() as u32,
            lun: 0,
            initiator_task_tag: 5,
            target_transfer_tag: tag,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.stat_sn,
        };
        self.cmd_sn += 1;
        let (step, pdus) = self.raw(&pdu(|header| request.emit(header), data));
        assert_eq!((step, pdus.len()), (DiscoveryStep::More, 1));
        let response = TextResponse::parse(&pdus[0].0).unwrap();
        assert_eq!(response.exp_cmd_sn, self.cmd_sn);
        (response, pdus[0].1.clone())
    }

    /// Asks until all of the answer is there.
    fn ask(&mut self, which: &str) -> (Vec<u8>, usize) {
        let (mut response, mut all) = self.text(RESERVED_TAG, (true, false), &text(&format!("SendTargets={which}")));
        let mut pieces = 1;
        while !response.final_bit {
            assert!(response.continue_bit && response.target_transfer_tag != RESERVED_TAG);
            let (next, piece) = self.text(response.target_transfer_tag, (true, false), b"");
            all.extend_from_slice(&piece);
            response = next;
            pieces += 1;
        }
        assert_eq!(response.target_transfer_tag, RESERVED_TAG);
        (all, pieces)
    }
}

fn logout(cmd_sn: u32, reason: LogoutReason, cid: u16) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason,
        data_segment_length: 0,
        initiator_task_tag: 8,
        cid,
        cmd_sn,
        exp_stat_sn: 0,
    }
}

#[test]
fn all_targets_or_one_are_listed() {
    let mut discovery = discovery(Targets::default(), 8192);
    let (all, _) = discovery.ask("All");
    let one = format!("TargetName={OPEN}\0TargetAddress=127.0.0.1:3260,1\0");
    assert_eq!(all, format!("{one}TargetName={LOCKED}\0TargetAddress=127.0.0.1:3260,1\0").into_bytes());
    assert_eq!(discovery.ask(OPEN).0, one.clone().into_bytes());
    assert_eq!(discovery.ask(&OPEN.to_uppercase()).0, one.into_bytes());
    assert_eq!(discovery.ask("iqn.2026-01.io.ringlun:none").0, b"");
    assert_eq!(discovery.ask("").0, b"SendTargets=Reject\0");
}

#[test]
fn a_long_list_is_cut_to_what_the_initiator_takes() {
    let targets = Targets { many: 100, ..Targets::default() };
    let whole = send_targets_text(&targets.targets(INITIATOR, "127.0.0.1".parse().unwrap()));
    let mut discovery = discovery(targets, 512);
    let (all, pieces) = discovery.ask("All");
    assert_eq!(all, whole);
    assert_eq!(pieces, whole.len().div_ceil(512));
}

#[test]
fn a_request_may_come_in_pieces_too() {
    let mut discovery = discovery(Targets::default(), 8192);
    let (response, nothing) = discovery.text(RESERVED_TAG, (false, true), b"SendTar");
    assert!(!response.final_bit && nothing.is_empty() && response.target_transfer_tag != RESERVED_TAG);
    let (response, list) = discovery.text(response.target_transfer_tag, (true, false), b"gets=All\0");
    assert!(response.final_bit && list.starts_with(b"TargetName="));
}

#[test]
fn a_new_segment_length_holds_at_once() {
    let mut discovery = discovery(Targets { many: 50, ..Targets::default() }, 8192);
    let lines = text("MaxRecvDataSegmentLength=512 SendTargets=All");
    let (response, piece) = discovery.text(RESERVED_TAG, (true, false), &lines);
    assert!(response.continue_bit && piece.len() == 512);
}

#[test]
fn wrong_tags_and_broken_text_are_rejected() {
    let good = text("SendTargets=All");
    for (tag, data) in [
        (0x77, good.as_slice()),
        (RESERVED_TAG, b"SendTargets=All"),
        (RESERVED_TAG, b"MaxBurstLength=512\0"),
        (RESERVED_TAG, b"SendTargets=All\0SendTargets=All\0"),
    ] {
        let mut discovery = discovery(Targets::default(), 8192);
        let request = TextRequest {
            immediate: true,
            final_bit: true,
            continue_bit: false,
            data_segment_length: data.len() as u32,
            lun: 0,
            initiator_task_tag: 5,
            target_transfer_tag: tag,
            cmd_sn: 0,
            exp_stat_sn: 0,
        };
        let bytes = pdu(|header| request.emit(header), data);
        let (step, pdus) = discovery.raw(&bytes);
        assert_eq!(step, DiscoveryStep::More);
        assert_eq!(Reject::parse(&pdus[0].0).unwrap().reason, RejectReason::ProtocolError);
        assert_eq!(pdus[0].1, bytes[..BHS_LEN]);
    }
}

#[test]
fn pings_are_echoed() {
    let mut discovery = discovery(Targets::default(), 512);
    let ping = |tag, cmd_sn| NopOut {
        immediate: true,
        data_segment_length: 600,
        lun: 3,
        initiator_task_tag: tag,
        target_transfer_tag: RESERVED_TAG,
        cmd_sn,
        exp_stat_sn: 0,
    };
    let (step, pdus) = discovery.raw(&pdu(|header| ping(4, 77).emit(header), &[7; 600]));
    assert_eq!((step, pdus.len()), (DiscoveryStep::More, 1));
    let pong = NopIn::parse(&pdus[0].0).unwrap();
    assert_eq!((pong.initiator_task_tag, pong.target_transfer_tag), (4, RESERVED_TAG));
    assert_eq!(pdus[0].1, [7; 512], "cut to what the initiator takes");
    let (step, pdus) = discovery.raw(&pdu(|header| ping(RESERVED_TAG, 77).emit(header), &[7; 600]));
    assert_eq!((step, pdus.len()), (DiscoveryStep::More, 0));
}

#[test]
fn logout_ends_the_session() {
    for (reason, cid, result) in [
        (LogoutReason::CloseSession, 0, LogoutResult::Success),
        (LogoutReason::CloseConnection, 9, LogoutResult::Success),
        (LogoutReason::CloseConnection, 8, LogoutResult::CidNotFound),
        (LogoutReason::RemoveForRecovery, 9, LogoutResult::RecoveryNotSupported),
    ] {
        let mut discovery = discovery(Targets::default(), 8192);
        let request = logout(77, reason, cid);
        let (step, pdus) = discovery.raw(&pdu(|header| request.emit(header), &[]));
        assert_eq!(LogoutResponse::parse(&pdus[0].0).unwrap().response, result);
        let over = result == LogoutResult::Success;
        assert_eq!(step == DiscoveryStep::Close(DiscoveryEnd::Logout), over);
    }
}

#[test]
fn scsi_commands_are_rejected_and_not_for_ever() {
    let mut discovery = discovery(Targets::default(), 8192);
    let mut command = [0; BHS_LEN];
    command[0] = Opcode::ScsiCommand.code();
    let (step, pdus) = discovery.raw(&command);
    assert_eq!(step, DiscoveryStep::More);
    assert_eq!(Reject::parse(&pdus[0].0).unwrap().reason, RejectReason::CommandNotSupported);
    let mut rejects = 1;
    while discovery.raw(&command).0 == DiscoveryStep::More {
        rejects += 1;
        assert!(rejects < 100);
    }
}

#[test]
fn a_command_number_out_of_order_ends_the_session() {
    let mut discovery = discovery(Targets::default(), 8192);
    let mut request = logout(78, LogoutReason::CloseSession, 0);
    request.immediate = false;
    let (step, _) = discovery.raw(&pdu(|header| request.emit(header), &[]));
    assert!(matches!(step, DiscoveryStep::Close(DiscoveryEnd::Protocol(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_pdus_never_panic_and_end(
        pdus in prop::collection::vec(
            (prop_oneof![Just(0x40u8), Just(0x44), Just(0x04), Just(0x46), any::<u8>()], any::<u8>(), any::<[u8; 20]>(),
             prop_oneof![Just(text("SendTargets=All")), Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..64)]),
            0..40,
        ),
    ) {
        let mut discovery = discovery(Targets { many: 40, ..Targets::default() }, 512);
        for (opcode, flags, fields, data) in pdus {
            let mut header = [0; BHS_LEN];
            (header[0], header[1], header[7]) = (opcode, flags, data.len() as u8);
            header[16..36].copy_from_slice(&fields);
            if opcode & 1 == 0 {
                // The tag of a new negotiation, or the first that was given.
                header[20..24].copy_from_slice(&if flags & 1 == 0 { [0xff; 4] } else { [0, 0, 0, 1] });
                header[16..20].copy_from_slice(&[0, 0, 0, 5]);
            }
            let (step, out) = discovery.raw(&pdu(|bytes| *bytes = header, &data));
            prop_assert!(out.len() <= 1);
            prop_assert!(out.iter().all(|(_, data)| data.len() <= 512));
            if step != DiscoveryStep::More {
                break;
            }
        }
    }
}
