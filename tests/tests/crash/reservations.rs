//! PERSISTENT RESERVE OUT with APTPL (SPC-4 6.16): the registrations and the reservation before it, or after it.

use crate::{KILLS, kill_soon};
use initiator::{Command, LoginOptions, cdb};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use ringlun_tests::{
    Client, Done, End, Target,
    client::INITIATOR,
    reservations::{Order, Reservations, Verdict},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

const INITIATORS: usize = 3;

fn name(nexus: usize) -> String {
    format!("{INITIATOR}-{nexus}")
}

/// A session of the same I_T nexus each time.
fn nexus(target: &Target, number: usize) -> Client {
    let options = LoginOptions::normal(name(number), target.name("disk"));
    let mut client = target.log_in(options).unwrap_or_else(|error| panic!("login: {error}"));
    client.settle();
    client
}

/// Runs a command until nothing else has to be said first.
fn run(client: &mut Client, command: &Command<'_>, data: &[u8]) -> Result<Done, End> {
    loop {
        let done = client.try_run(command, data)?;
        if !matches!(done.sense(), Some((0x06, ..))) {
            return Ok(done);
        }
    }
}

/// Reservations, and whether they outlive the program (APTPL of the last registration).
#[derive(Clone, Debug, Default)]
struct Kept {
    reservations: Reservations,
    persistent: bool,
}

impl Kept {
    /// After the loss of power.
    fn after_power_loss(&self) -> Reservations {
        if self.persistent { self.reservations.clone() } else { Reservations::default() }
    }
}

/// Keys by initiator, and the reservation's key and type, as the target shows them.
fn shown(target: &Target) -> (BTreeMap<usize, u64>, Option<(u64, u8)>) {
    let mut client = target.client("disk");
    let mut read = |action: u8| client.fetch(cdb::persistent_reserve_in(action, 4096), 4096).good();
    let full = read(3);
    let mut keys = BTreeMap::new();
    let mut rest = &full[8..];
    while !rest.is_empty() {
        let key = u64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(rest[20..24].try_into().expect("four bytes")) as usize;
        let transport = String::from_utf8_lossy(&rest[28..24 + length]).into_owned();
        let of = (0..INITIATORS).find(|nexus| transport.starts_with(&format!("{},", name(*nexus))));
        keys.insert(of.unwrap_or_else(|| panic!("a registration of {transport}")), key);
        rest = &rest[24 + length..];
    }
    let reservation = read(1);
    let held = (reservation.len() > 8)
        .then(|| (u64::from_be_bytes(reservation[8..16].try_into().expect("eight bytes")), reservation[21]));
    (keys, held)
}

/// Gives orders until the connection ends. Gives what holds, and what may hold instead.
fn order(clients: &mut [Client], kept: Kept, seed: u64, progress: &AtomicU64) -> (Kept, Kept) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut kept = kept;
    loop {
        let nexus = dice.random_range(0..clients.len());
        let order = kept.reservations.likely_order(nexus, clients.len(), &mut |below| dice.random_range(0..below));
        let mut after = kept.clone();
        let (verdict, _) = after.reservations.order(nexus, order);
        let mut parameters = order.parameters();
        if let Order::Register { new, .. } = order {
            // Who isn't registered and brings no key does nothing (SPC-4 table 69), not even to APTPL.
            let nothing = new == 0 && kept.reservations.key_of(nexus).is_none();
            let persistent = !dice.random_ratio(1, 8);
            parameters[20] = u8::from(persistent);
            if verdict == Verdict::Good && !nothing {
                after.persistent = persistent;
            }
        }
        let command = Command::write(order.cdb(), parameters.len() as u32);
        let done = match run(&mut clients[nexus], &command, &parameters) {
            Ok(done) => done,
            Err(End::Closed | End::Reason(_)) => return (kept, after),
            Err(end) => panic!("{end:?}"),
        };
        let expected = match verdict {
            Verdict::Good => 0,
            Verdict::Conflict => 0x18,
            Verdict::Illegal(_) => 0x02,
        };
        assert_eq!(done.status, expected, "{order:x?} of {nexus} with {kept:x?}: {:x?}", done.sense());
        kept = after;
        progress.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_kill_amid_persistent_reserve_out_leaves_the_state_before_or_after() {
    let mut target = Target::start("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"1MiB\" }\n");
    let mut dice = SmallRng::seed_from_u64(5);
    let mut kept = Kept::default();
    let (mut orders, mut held) = (0, 0);
    for round in 0..KILLS {
        let mut clients: Vec<Client> = (0..INITIATORS).map(|number| nexus(&target, number)).collect();
        let progress = AtomicU64::new(0);
        let (before, after) = std::thread::scope(|scope| {
            let ordering = scope.spawn(|| order(&mut clients, kept.clone(), round, &progress));
            kill_soon(&mut target, &mut dice, 60_000, &progress);
            ordering.join().expect("the orders")
        });
        orders += progress.load(Ordering::Relaxed);
        target.restart();
        let is = shown(&target);
        let find = |state: &Kept| {
            let left = state.after_power_loss();
            let keys = (0..INITIATORS).filter_map(|nexus| Some((nexus, left.key_of(nexus)?))).collect();
            ((keys, left.shown()) == is).then_some(Kept { reservations: left, persistent: state.persistent })
        };
        let found = [&before, &after].into_iter().find_map(find);
        kept = found.unwrap_or_else(|| panic!("kill {round}: {is:x?} after {before:x?}, or {after:x?}"));
        held += u64::from(is.1.is_some());
    }
    println!("{orders} orders were answered, {held} times a reservation was kept");
    assert!(orders > KILLS, "hardly anything was tried");
    target.end();
}
