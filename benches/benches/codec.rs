//! PDUs and text keys: bytes to structs and back.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::text::{TextWriter, pairs};
use wire::{BHS_LEN, DataIn, RequestPdu, ScsiCommand};

fn read_command() -> ScsiCommand {
    let mut cdb = [0; 16];
    cdb[0] = 0x28;
    cdb[8] = 8;
    let simple = ScsiCommand::simple(0x1234, 77, cdb);
    ScsiCommand { read: true, expected_data_transfer_length: 4096, exp_stat_sn: 78, ..simple }
}

fn last_data_in() -> DataIn {
    DataIn { stat_sn: 78, exp_cmd_sn: 78, max_cmd_sn: 205, ..DataIn::whole(0x1234, 4096) }
}

fn pdus(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let mut header = [0; BHS_LEN];

    let command = read_command();
    group.bench_function("emit SCSI Command", |b| b.iter(|| black_box(&command).emit(black_box(&mut header))));
    command.emit(&mut header);
    group.bench_function("parse SCSI Command", |b| b.iter(|| ScsiCommand::parse(black_box(&header))));
    group.bench_function("parse by opcode", |b| b.iter(|| RequestPdu::parse(black_box(&header))));

    let data = last_data_in();
    group.bench_function("emit Data-In", |b| b.iter(|| black_box(&data).emit(black_box(&mut header))));
    data.emit(&mut header);
    group.bench_function("parse Data-In", |b| b.iter(|| DataIn::parse(black_box(&header))));
    group.finish();
}

/// What open-iscsi offers in its operational stage.
const OFFER: [(&str, &str); 14] = [
    ("InitiatorName", "iqn.1994-05.com.redhat:8e89b27b5b8"),
    ("TargetName", "iqn.2026-01.io.ringlun:demo"),
    ("SessionType", "Normal"),
    ("HeaderDigest", "None,CRC32C"),
    ("DataDigest", "None"),
    ("DefaultTime2Wait", "2"),
    ("DefaultTime2Retain", "0"),
    ("ErrorRecoveryLevel", "0"),
    ("InitialR2T", "No"),
    ("ImmediateData", "Yes"),
    ("MaxBurstLength", "16776192"),
    ("FirstBurstLength", "262144"),
    ("MaxOutstandingR2T", "1"),
    ("MaxRecvDataSegmentLength", "262144"),
];

fn text(c: &mut Criterion) {
    let mut offer = Vec::new();
    let mut writer = TextWriter::new(&mut offer);
    for (key, value) in OFFER {
        writer.pair(key, value).expect("a valid pair");
    }
    let mut group = c.benchmark_group("text");
    group.throughput(Throughput::Bytes(offer.len() as u64));
    group.bench_function("read a login's keys", |b| {
        b.iter(|| pairs(black_box(&offer)).filter(|pair| pair.is_ok()).count());
    });
    let mut out = Vec::with_capacity(offer.len());
    group.bench_function("write a login's keys", |b| {
        b.iter(|| {
            out.clear();
            let mut writer = TextWriter::new(&mut out);
            for (key, value) in black_box(OFFER) {
                writer.pair(key, value).expect("a valid pair");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, pdus, text);
criterion_main!(benches);
