//! Headers in pieces, AHS, digests, lengths.

use super::harness::*;
use crate::{CloseReason, Event};
use wire::{Opcode, RejectReason};

#[test]
fn a_header_may_come_byte_by_byte() {
    let mut target = Target::new();
    let bytes = pdu(|h| plain(0).emit(h), &[], &target.parameters);
    for byte in &bytes[..47] {
        assert_eq!(target.feed(&[*byte]), []);
    }
    let log = target.feed(&bytes[47..]);
    assert!(matches!(log[..], [Log::Event(Event::Command { cdb, .. })] if cdb == [0; 16]));
}

#[test]
fn several_pdus_in_one_input_come_out_one_by_one() {
    let mut target = Target::new();
    let bytes: Vec<u8> = (0..5).flat_map(|n| pdu(|h| plain(n).emit(h), &[], &target.parameters)).collect();
    let log = target.feed(&bytes);
    assert_eq!(log.len(), 5);
    for (n, entry) in log.iter().enumerate() {
        assert!(matches!(entry, Log::Event(Event::Command { cdb, .. }) if cdb[0] == n as u8));
    }
}

#[test]
fn the_end_of_a_pdu_and_that_of_the_next_header_are_foreseen_from_the_last_one() {
    // With padding, and with digests or none.
    for digest in [false, true] {
        let mut target =
            Target::with(negotiation::Parameters { header_digest: digest, data_digest: digest, ..parameters() });
        assert_eq!(target.connection.whole_pdus(100), 96, "nothing is known yet");
        let length = pdu(|h| write(0, 701).emit(h), &pattern(0, 701), &target.parameters).len();
        for cut in 0..length {
            // The first tells how long they are.
            for n in 0..2 {
                let n = 2 * cut as u32 + n;
                let bytes = pdu(|h| write(n, 701).emit(h), &pattern(0, 701), &target.parameters);
                let begun = if n % 2 == 1 { cut } else { 0 };
                target.feed(&bytes[..begun]);
                let left = (length - begun) % length;
                let header = 48 + if digest { 4 } else { 0 };
                let expected = if begun < header { header - begun } else { left + header };
                assert_eq!(target.connection.to_header(), expected, "{begun} of {length}");
                assert_eq!(target.connection.data_segment_length(), if n > 0 || begun >= header { 701 } else { 0 });
                for most in [0, 1, left, length, left + length, left + 2 * length - 1, 10_000] {
                    let foreseen = target.connection.whole_pdus(most);
                    if n > 0 {
                        assert_eq!(foreseen % length, left, "{begun} of {length}");
                        assert!(foreseen >= left + length);
                        assert!(
                            foreseen <= most.max(left + length) && foreseen + length > most,
                            "{foreseen} of {most}"
                        );
                    }
                }
                target.feed(&bytes[begun..]);
                let task = target.session.find(&target.tasks, n).unwrap();
                target.respond(task, GOOD, 701, &[]);
            }
        }
    }
}

#[test]
fn an_extended_cdb_is_there_with_the_command() {
    let mut target = Target::new();
    let ahs = [0, 17, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let bytes = pdu_with_ahs(|h| plain(0).emit(h), &ahs, &[], &target.parameters);
    assert_eq!(target.feed(&bytes).len(), 1);
    assert_eq!(target.connection.extended_cdb(), &ahs[4..]);
    // The next command has none.
    target.command(plain(1), &[]);
    assert_eq!(target.connection.extended_cdb(), &[] as &[u8]);
}

#[test]
fn the_read_length_of_a_bidirectional_command_comes_from_its_ahs() {
    let mut target = Target::new();
    let mut command = write(0, 100);
    command.read = true;
    let ahs = [0, 5, 2, 0, 0, 0, 2, 0];
    let bytes = pdu_with_ahs(|h| command.emit(h), &ahs, &[], &target.parameters);
    target.feed(&bytes);
    let key = target.session.find(&target.tasks, 0).unwrap();
    let task = target.tasks.get(key).unwrap();
    assert_eq!((task.read_length, task.write_length), (512, 100));
}

#[test]
fn a_malformed_ahs_is_rejected() {
    let mut target = Target::new();
    let bytes = pdu_with_ahs(|h| plain(0).emit(h), &[0, 90, 1, 0], &[], &target.parameters);
    assert_eq!(target.feed(&bytes), []);
    assert_eq!(target.rejected(), RejectReason::InvalidPduField);
}

#[test]
fn too_much_ahs_ends_the_connection() {
    let mut target = Target::new();
    let bytes = pdu_with_ahs(|h| plain(0).emit(h), &[0; 260], &[], &target.parameters);
    assert!(matches!(target.feed(&bytes)[..], [Log::Close(CloseReason::Protocol(_))]));
}

#[test]
fn a_segment_longer_than_declared_ends_the_connection() {
    let mut target = Target::new();
    let command = write(0, 10_000);
    let log = target.send(|h| command.emit(h), &vec![0; 4097]);
    assert!(matches!(log[..], [Log::Close(CloseReason::Protocol(_))]));
    // And it stays closed.
    assert!(matches!(target.send(|h| plain(1).emit(h), &[])[..], [Log::Close(CloseReason::Protocol(_))]));
    assert!(target.tasks.is_empty());
}

#[test]
fn right_header_digests_pass_in_any_pieces() {
    for cut in [1, 47, 48, 50, 51] {
        let mut target = Target::with(negotiation::Parameters { header_digest: true, ..parameters() });
        let bytes = pdu(|h| plain(0).emit(h), &[], &target.parameters);
        assert_eq!(bytes.len(), 52);
        assert_eq!(target.feed(&bytes[..cut]), []);
        assert_eq!(target.feed(&bytes[cut..]).len(), 1, "cut at {cut}");
    }
}

#[test]
fn a_wrong_header_digest_ends_the_connection() {
    for whole in [true, false] {
        let mut target = Target::with(negotiation::Parameters { header_digest: true, ..parameters() });
        let mut bytes = pdu(|h| plain(0).emit(h), &[], &target.parameters);
        bytes[33] ^= 1;
        let cut = if whole { 0 } else { 20 };
        let mut log = target.feed(&bytes[..cut]);
        log.extend(target.feed(&bytes[cut..]));
        assert_eq!(log, [Log::Close(CloseReason::HeaderDigest)]);
    }
}

#[test]
fn a_header_digest_covers_the_ahs() {
    let mut target = Target::with(negotiation::Parameters { header_digest: true, ..parameters() });
    let mut bytes = pdu_with_ahs(|h| plain(0).emit(h), &[0, 5, 1, 0, 9, 9, 9, 9], &[], &target.parameters);
    assert_eq!(target.feed(&bytes).len(), 1);
    bytes[53] ^= 1;
    assert_eq!(target.feed(&bytes), [Log::Close(CloseReason::HeaderDigest)]);
}

#[test]
fn an_unknown_opcode_is_rejected_and_its_data_skipped() {
    for opcode in [0x07, 0x1c, 0x21, 0x3f] {
        let mut target = Target::new();
        let log = target.send(|h| h[0] = opcode, &pattern(0, 13));
        assert_eq!(log, [dropped(0, 13)], "{}", Opcode::from_code(opcode));
        assert_eq!(target.rejected(), RejectReason::CommandNotSupported);
        assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN);
        target.command(plain(0), &[]);
    }
}

#[test]
fn a_snack_is_rejected() {
    let mut target = Target::new();
    target.send(|h| h[0] = 0x10, &[]);
    assert_eq!(target.rejected(), RejectReason::SnackReject);
}

#[test]
fn a_login_request_ends_the_connection() {
    let mut target = Target::new();
    let log = target.send(|h| h[0] = 0x43, &[]);
    assert!(matches!(log[..], [Log::Close(CloseReason::Protocol(_))]));
}

#[test]
fn exp_stat_sn_is_noted_and_never_goes_back_or_ahead() {
    let mut target = Target::new();
    for n in 0..3 {
        let task = target.command(plain(n), &[]);
        target.respond(task, GOOD, 0, &[]);
    }
    for (n, (sent, noted)) in [(502, 502), (501, 502), (999, 502), (503, 503)].into_iter().enumerate() {
        let mut command = plain(3 + n as u32);
        command.exp_stat_sn = sent;
        target.command(command, &[]);
        assert_eq!(target.connection.exp_stat_sn(), noted);
    }
}
