//! The PDUs as bytes: where each field is, that parse and emit are inverse, that hostile headers do no harm.

use proptest::prelude::*;
use wire::*;

/// What of a PDU's 48 bytes means something: (offset, mask) of its fields beside the opcode, and (offset, value) of the
/// bits that are always set. From the diagrams of RFC 7143 11 and RFC 7144, not from the code.
struct Layout {
    opcode: Opcode,
    immediate: bool,
    flags: u8,
    whole: &'static [std::ops::Range<usize>],
    partial: &'static [(usize, u8)],
    always: &'static [(usize, u8)],
}

const TAG_RESERVED: [(usize, u8); 5] = [(1, 0x80), (16, 0xff), (17, 0xff), (18, 0xff), (19, 0xff)];
const F: &[(usize, u8)] = &[(1, 0x80)];

#[rustfmt::skip]
// A list of ranges of bytes, often of one range.
#[allow(clippy::single_range_in_vec_init)]
const LAYOUTS: &[Layout] = &[
    Layout { opcode: Opcode::NopOut, immediate: true, flags: 0, whole: &[5..32], partial: &[], always: F },
    Layout { opcode: Opcode::ScsiCommand, immediate: true, flags: 0xe7, whole: &[4..48], partial: &[(2, 0xf0)], always: &[] },
    Layout { opcode: Opcode::TaskManagementRequest, immediate: true, flags: 0x7f, whole: &[5..40], partial: &[], always: F },
    Layout { opcode: Opcode::LoginRequest, immediate: false, flags: 0xcf, whole: &[2..22, 24..32], partial: &[], always: &[(0, 0x40)] },
    Layout { opcode: Opcode::TextRequest, immediate: true, flags: 0xc0, whole: &[5..32], partial: &[], always: &[] },
    Layout { opcode: Opcode::DataOut, immediate: false, flags: 0x80, whole: &[5..24, 28..32, 36..44], partial: &[], always: &[] },
    Layout { opcode: Opcode::LogoutRequest, immediate: true, flags: 0x7f, whole: &[5..8, 16..22, 24..32], partial: &[], always: F },
    Layout { opcode: Opcode::Snack, immediate: false, flags: 0x0f, whole: &[5..24, 28..32, 40..48], partial: &[], always: F },
    Layout { opcode: Opcode::NopIn, immediate: false, flags: 0, whole: &[5..36], partial: &[], always: F },
    Layout { opcode: Opcode::ScsiResponse, immediate: false, flags: 0x1e, whole: &[2..4, 5..10, 16..48], partial: &[], always: F },
    Layout { opcode: Opcode::TaskManagementResponse, immediate: false, flags: 0, whole: &[2..3, 5..11, 16..20, 24..36], partial: &[], always: F },
    Layout { opcode: Opcode::LoginResponse, immediate: false, flags: 0xcf, whole: &[2..4, 5..20, 24..38], partial: &[], always: &[] },
    Layout { opcode: Opcode::TextResponse, immediate: false, flags: 0xc0, whole: &[5..36], partial: &[], always: &[] },
    Layout { opcode: Opcode::DataIn, immediate: false, flags: 0xc7, whole: &[3..4, 5..48], partial: &[], always: &[] },
    Layout { opcode: Opcode::LogoutResponse, immediate: false, flags: 0, whole: &[2..3, 5..8, 16..20, 24..36, 40..44], partial: &[], always: F },
    Layout { opcode: Opcode::ReadyToTransfer, immediate: false, flags: 0, whole: &[8..48], partial: &[], always: F },
    Layout { opcode: Opcode::AsyncMessage, immediate: false, flags: 0, whole: &[5..16, 24..44], partial: &[], always: &TAG_RESERVED },
    Layout { opcode: Opcode::Reject, immediate: false, flags: 0, whole: &[2..3, 5..8, 24..40], partial: &[], always: &TAG_RESERVED },
];

impl Layout {
    /// The header that a sender of the same meaning would have written: reserved bits 0.
    fn canonical(&self, header: &[u8; BHS_LEN]) -> [u8; BHS_LEN] {
        let mut mask = [0; BHS_LEN];
        mask[0] = 0x3f | if self.immediate { 0x40 } else { 0 };
        mask[1] = self.flags;
        for at in self.whole.iter().cloned().flatten() {
            mask[at] = 0xff;
        }
        for (at, bits) in self.partial {
            mask[*at] = *bits;
        }
        let mut canonical = std::array::from_fn(|i| header[i] & mask[i]);
        for (at, bits) in self.always {
            canonical[*at] |= bits;
        }
        canonical
    }
}

#[test]
fn every_opcode_has_its_layout() {
    let of_layouts: Vec<_> = LAYOUTS.iter().map(|layout| layout.opcode).collect();
    assert_eq!(of_layouts, Opcode::ALL);
}

fn header() -> impl Strategy<Value = [u8; BHS_LEN]> {
    (any::<[u8; 16]>(), prop_oneof![1 => Just([0xff; 4]), 9 => any::<[u8; 4]>()], any::<[u8; 28]>()).prop_map(
        |(start, tag, end)| {
            let mut header = [0; BHS_LEN];
            header[..16].copy_from_slice(&start);
            header[16..20].copy_from_slice(&tag);
            header[20..].copy_from_slice(&end);
            header
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Emitting what was parsed gives every meaningful bit back at its place, whatever was in the buffer before;
    /// parsing that gives the same PDU; and reserved bits change nothing.
    #[test]
    fn parse_and_emit_are_inverse(which in 0..LAYOUTS.len(), mut header in header(), dirt: [u8; 16]) {
        let layout = &LAYOUTS[which];
        header[0] = header[0] & 0xc0 | layout.opcode.code();
        let canonical = layout.canonical(&header);
        match Pdu::parse(&header) {
            Ok(pdu) => {
                let mut emitted = [0; BHS_LEN];
                emitted.iter_mut().zip(dirt.iter().cycle()).for_each(|(to, from)| *to = *from);
                pdu.emit(&mut emitted);
                prop_assert_eq!(emitted, canonical);
                prop_assert_eq!(Pdu::parse(&emitted), Ok(pdu.clone()));
                prop_assert!(!pdu.to_string().contains('\n'));
            }
            Err(error) => {
                prop_assert_eq!(Pdu::parse(&canonical), Err(error));
                let is_forbidden = matches!(error, ParseError::Forbidden { pdu, .. } if pdu == layout.opcode);
                prop_assert!(is_forbidden);
            }
        }
    }

    #[test]
    fn any_header_is_parsed_without_panic(header in header()) {
        let bhs = Bhs::new(&header);
        prop_assert!(bhs.pdu_len(true, true) >= BHS_LEN + DIGEST_LEN);
        match Pdu::parse(&header) {
            Ok(pdu) => prop_assert!(!pdu.to_string().is_empty()),
            Err(ParseError::UnknownOpcode(opcode)) => prop_assert!(matches!(opcode, Opcode::Other(_))),
            Err(_) => {}
        }
    }

    #[test]
    fn a_parser_takes_its_own_opcode_alone(header in header()) {
        let found = opcode(&header);
        if found != Opcode::ScsiCommand {
            let error = ParseError::WrongOpcode { expected: Opcode::ScsiCommand, found };
            prop_assert_eq!(ScsiCommand::parse(&header), Err(error));
            prop_assert_eq!(error.reject_reason(), RejectReason::ProtocolError);
        }
        prop_assert!(RequestPdu::parse(&header).is_err() || ResponsePdu::parse(&header).is_err());
    }
}

fn from_hex(text: &str) -> [u8; BHS_LEN] {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().expect("48 bytes")
}

#[test]
fn a_read_command_reads_as_one() {
    // RFC 3720 B.4: an iSCSI SCSI Read (10) Command PDU.
    let header = from_hex(
        "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000",
    );
    let command = ScsiCommand::parse(&header).unwrap();
    assert!(command.final_bit && command.read && !command.write && !command.immediate);
    assert_eq!((command.initiator_task_tag, command.expected_data_transfer_length), (0x1400_0000, 1024));
    assert_eq!((command.cmd_sn, command.exp_stat_sn, command.cdb[0]), (20, 24, 0x28));
    assert_eq!(
        Pdu::parse(&header).unwrap().to_string(),
        "SCSI Command [F R] untagged lun=0 itt=0x14000000 edtl=1024 cmd_sn=20 exp_stat_sn=24 \
         cdb=28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 data=0"
    );
    assert_eq!(crc32c(&header), 0xd996_3a56);
}

#[test]
fn a_login_reads_as_one() {
    let request = LoginRequest {
        transit: true,
        continue_bit: false,
        current_stage: Stage::SecurityNegotiation,
        next_stage: Stage::LoginOperationalNegotiation,
        version_max: 0,
        version_min: 0,
        total_ahs_length: 0,
        data_segment_length: 200,
        isid: Isid([0, 2, 0x3d, 0, 0, 1]),
        tsih: 0,
        initiator_task_tag: 7,
        cid: 1,
        cmd_sn: 3,
        exp_stat_sn: 0,
    };
    let mut header = [0; BHS_LEN];
    request.emit(&mut header);
    let expected = from_hex(
        "43810000 000000c8 00023d00 00010000 00000007 00010000 00000003 00000000 00000000 00000000 00000000 00000000",
    );
    assert_eq!(header, expected);
    assert_eq!(
        request.to_string(),
        "Login Request [T] SecurityNegotiation -> LoginOperationalNegotiation version=0..0 isid=00023d000001 tsih=0 \
         cid=1 itt=0x7 cmd_sn=3 exp_stat_sn=0 data=200"
    );
    let status = LoginStatus::from_code(0x0201);
    assert_eq!((status, status.class(), status.detail()), (LoginStatus::AuthenticationFailure, 2, 1));
}

/// A header of this opcode with everything else zero but what `set` does.
#[test]
fn a_whole_data_in_brings_all_data_with_status_good() {
    let pdu = DataIn { stat_sn: 2, exp_cmd_sn: 3, max_cmd_sn: 4, ..DataIn::whole(1, 512) };
    let mut header = [0xff; BHS_LEN];
    pdu.emit(&mut header);
    let expected = from_hex(
        "25 81 00 00 00 00 02 00  00 00 00 00 00 00 00 00
         00 00 00 01 ff ff ff ff  00 00 00 02 00 00 00 03
         00 00 00 04 00 00 00 00  00 00 00 00 00 00 00 00",
    );
    assert_eq!(header, expected);
}

fn with(opcode: Opcode, set: impl Fn(&mut [u8; BHS_LEN])) -> Result<Pdu, ParseError> {
    let mut header = [0; BHS_LEN];
    header[0] = opcode.code();
    set(&mut header);
    Pdu::parse(&header)
}

#[test]
fn forbidden_combinations_are_refused() {
    type Change = fn(&mut [u8; BHS_LEN]);
    let broken: &[(Opcode, Change, Change)] = &[
        // 11.3.1: W and F both 0. Then cured by W.
        (Opcode::ScsiCommand, |h| h[1] = 0x40, |h| h[1] = 0x60),
        (Opcode::ScsiCommand, |h| (h[1] = 0x80, h[16..20].fill(0xff)).1, |h| h[1] = 0x80),
        (Opcode::TaskManagementRequest, |h| h[16..20].fill(0xff), |_| {}),
        (Opcode::LogoutRequest, |h| h[16..20].fill(0xff), |_| {}),
        (Opcode::TextRequest, |h| h[16..20].fill(0xff), |_| {}),
        (Opcode::TextRequest, |h| h[1] = 0xc0, |h| h[1] = 0x40),
        (Opcode::TextResponse, |h| h[1] = 0xc0, |h| h[1] = 0x80),
        (Opcode::LoginRequest, |h| h[1] = 0xc0, |h| h[1] = 0x80),
        (Opcode::LoginResponse, |h| h[1] = 0xc0, |h| h[1] = 0x40),
        (Opcode::NopOut, |h| h[16..20].fill(0xff), |h| (h[0] |= 0x40, h[16..20].fill(0xff)).1),
        (Opcode::ScsiResponse, |h| h[1] = 0x86, |h| h[1] = 0x8a),
        (Opcode::ScsiResponse, |h| h[1] = 0x98, |h| h[1] = 0x94),
        (Opcode::DataIn, |h| h[1] = 0x01, |h| h[1] = 0x81),
        (Opcode::DataIn, |h| h[1] = 0x87, |h| h[1] = 0x85),
        (Opcode::ReadyToTransfer, |_| {}, |h| h[47] = 1),
        (Opcode::ReadyToTransfer, |h| (h[47] = 1, h[20..24].fill(0xff)).1, |h| h[47] = 1),
    ];
    for (opcode, wrong, right) in broken {
        let error = with(*opcode, wrong).unwrap_err();
        assert!(matches!(error, ParseError::Forbidden { pdu, .. } if pdu == *opcode), "{opcode}: {error}");
        assert_eq!(error.reject_reason(), RejectReason::InvalidPduField);
        assert!(with(*opcode, right).is_ok(), "{opcode}");
    }
}

#[test]
fn opcodes_are_of_one_direction() {
    let mut header = [0; BHS_LEN];
    header[0] = Opcode::NopIn.code();
    assert_eq!(RequestPdu::parse(&header), Err(ParseError::UnknownOpcode(Opcode::NopIn)));
    header[0] = 0x1c;
    let error = Pdu::parse(&header).unwrap_err();
    assert_eq!(error.reject_reason(), RejectReason::CommandNotSupported);
    assert_eq!(error.to_string(), "no PDU has the opcode 0x1c in this direction");
}

#[test]
fn lengths_count_padding_and_digests() {
    let mut header = [0; BHS_LEN];
    let len = |header: &[u8; BHS_LEN], h, d| Bhs::new(header).pdu_len(h, d);
    // No data, no data digest.
    assert_eq!((len(&header, false, true), len(&header, true, true)), (48, 52));
    header[4] = 2;
    header[7] = 5;
    assert_eq!((len(&header, false, false), len(&header, true, true)), (48 + 8 + 8, 48 + 8 + 4 + 8 + 4));
    header[4..8].fill(0xff);
    assert_eq!(len(&header, true, true), 48 + 1020 + 4 + 0x0100_0000 + 4);
    assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    assert_eq!([0, 1, 2, 3, 4, 5].map(padded), [0, 4, 4, 4, 4, 8]);
}

#[test]
fn codes_without_a_name_are_kept() {
    for code in 0..=255 {
        assert_eq!(RejectReason::from_code(code).code(), code);
        assert_eq!(TaskManagementFunction::from_code(code).code(), code);
        assert_eq!(AsyncEvent::from_code(code).code(), code);
    }
    for function in TaskManagementFunction::ALL {
        assert_eq!(TaskManagementFunction::from_code(function.code()), *function);
    }
    assert_eq!(TaskManagementFunction::from_code(99).to_string(), "reserved 0x63");
}

#[test]
fn luns_print_as_numbers_where_they_are() {
    let lun = |lun| {
        let pdu = NopOut {
            immediate: true,
            data_segment_length: 0,
            lun,
            initiator_task_tag: RESERVED_TAG,
            target_transfer_tag: 9,
            cmd_sn: 0,
            exp_stat_sn: 0,
        };
        pdu.to_string().split(' ').find_map(|word| word.strip_prefix("lun=").map(str::to_owned)).unwrap()
    };
    assert_eq!(lun(0), "0");
    assert_eq!(lun(0x0005_0000_0000_0000), "5");
    assert_eq!(lun(0x4123_0000_0000_0000), "291");
    assert_eq!(lun(0xc101_0000_0000_0000), "0xc101000000000000");
    assert_eq!(lun(0x0005_0001_0000_0000), "0x0005000100000000");
}
