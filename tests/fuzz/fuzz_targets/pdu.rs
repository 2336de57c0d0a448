//! Headers: what is parsed is emitted and parsed again as the same PDU.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{BHS_LEN, Bhs, Pdu};

fuzz_target!(|header: [u8; BHS_LEN]| {
    let bhs = Bhs::new(&header);
    assert!(bhs.pdu_len(true, true) <= BHS_LEN + 1020 + 4 + (1 << 24) + 4);
    if let Ok(pdu) = Pdu::parse(&header) {
        assert!(!pdu.to_string().contains('\n'));
        let mut emitted = [0xa5; BHS_LEN];
        pdu.emit(&mut emitted);
        assert_eq!(Pdu::parse(&emitted), Ok(pdu));
    }
});
