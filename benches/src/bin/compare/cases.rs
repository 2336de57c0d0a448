//! What is measured: loads, and who stands against whom under each.

use crate::contenders::{Contender, Contender::*};

/// What the client does.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub sessions: u32,
    pub depth: u32,
    pub block: u32,
    pub random: bool,
    /// Reads among a hundred operations.
    pub read_percent: u8,
    /// The client polls instead of sleeping: the server doesn't pay for waking it, nor wait for it.
    pub spin: bool,
    /// Operations per second at most.
    pub rate: Option<u32>,
}

impl Load {
    /// How the operations are called.
    pub fn kind(&self) -> &'static str {
        match self.read_percent {
            100 => "read",
            0 => "write",
            _ => "mix",
        }
    }
}

/// One load, under which its contenders are measured in turn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Such as `ram/4k-read/8x32`.
    pub name: String,
    pub load: Load,
    pub contenders: Vec<Contender>,
    /// It belongs to the short form.
    pub short: bool,
}

/// Steps of the curve over the depth.
pub const DEPTHS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Steps of the curve over sessions, and the depth of each session.
pub const SESSIONS: [u32; 10] = [1, 2, 4, 8, 16, 32, 100, 250, 500, 1000];
pub const DEPTH_OF_SESSIONS: u32 = 8;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
const READ: u8 = 100;
const WRITE: u8 = 0;
const MIX: u8 = 70;

/// All cases, in the order in which they are measured.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    small(&mut cases);
    latency(&mut cases);
    large(&mut cases);
    stores(&mut cases);
    curves(&mut cases);
    cases
}

fn load(sessions: u32, depth: u32, block: u32, read_percent: u8) -> Load {
    Load { sessions, depth, block, random: block == 4 * KIB, read_percent, spin: true, rate: None }
}

fn case(group: &str, load: Load, contenders: Vec<Contender>) -> Case {
    let size = if load.block >= MIB { format!("{}m", load.block / MIB) } else { format!("{}k", load.block / KIB) };
    let name = format!("{group}/{size}-{}/{}x{}", load.kind(), load.sessions, load.depth);
    Case { name, load, contenders, short: false }
}

/// 4 KiB at random on memory.
fn small(cases: &mut Vec<Case>) {
    for (sessions, depth) in [(8, 32), (1, 32), (8, 1), (64, 8)] {
        for percent in [READ, WRITE, MIX] {
            let mut contenders = vec![Ringlun, Tgt];
            if percent != MIX {
                contenders.push(Bare);
            }
            if percent == READ && depth == 32 {
                contenders.push(BareCold);
            }
            if percent != MIX && (sessions, depth) == (8, 32) {
                contenders.extend([RinglunNull, RinglunDigests, TgtDigests]);
            }
            let short = depth == 32 && percent != MIX && !(sessions == 1 && percent == WRITE);
            cases.push(Case { short, ..case("ram", load(sessions, depth, 4 * KIB, percent), contenders) });
        }
    }
}

/// One command at a time.
fn latency(cases: &mut Vec<Case>) {
    for spin in [true, false] {
        for percent in [READ, WRITE, MIX] {
            let mut contenders = vec![Ringlun, RinglunAsleep, Tgt];
            if percent != MIX {
                contenders.push(if spin { BareSpinning } else { Bare });
            }
            let mut case = case("ram", Load { spin, ..load(1, 1, 4 * KIB, percent) }, contenders);
            case.name += if spin { "-spin" } else { "-sleep" };
            case.short = percent == READ;
            cases.push(case);
        }
    }
}

/// 64 KiB and 1 MiB in sequence.
fn large(cases: &mut Vec<Case>) {
    for block in [64 * KIB, MIB] {
        for percent in [READ, WRITE] {
            let mut contenders = vec![Ringlun, Tgt, Bare];
            if percent == READ {
                contenders.push(BareCold);
            }
            if block < MIB {
                contenders.extend([RinglunDigests, TgtDigests]);
            }
            cases.push(Case { short: block == MIB, ..case("ram", load(1, 8, block, percent), contenders) });
        }
    }
}

/// Files and a loop device.
fn stores(cases: &mut Vec<Case>) {
    for percent in [READ, WRITE] {
        let load = load(1, 32, 4 * KIB, percent);
        let mut buffered = vec![RinglunBuffered, FioBuffered];
        if percent == READ {
            buffered.insert(1, RinglunPinned);
        }
        cases.push(case("buffered", load.clone(), buffered.clone()));
        if percent == READ {
            // fio has 32 in flight here, too: more sessions make ringlun's network cheaper, not fio's file.
            cases.push(case("buffered", Load { sessions: 8, ..load.clone() }, buffered));
        }
        cases.push(case("direct", load.clone(), vec![RinglunDirect, FioDirect]));
        cases.push(case("loop", load, vec![RinglunLoop, FioLoop]));
    }
}

/// What the plots draw.
fn curves(cases: &mut Vec<Case>) {
    for depth in DEPTHS {
        cases.push(case("depth", load(1, depth, 4 * KIB, READ), vec![Ringlun, Tgt, BareTimed]));
    }
    for sessions in SESSIONS {
        cases.push(case("sessions", load(sessions, DEPTH_OF_SESSIONS, 4 * KIB, READ), vec![RinglunMany, Tgt, Bare]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(names.contains(&"ram/4k-read/8x32".to_owned()) && names.contains(&"ram/1m-write/1x8".to_owned()));
    }
}
