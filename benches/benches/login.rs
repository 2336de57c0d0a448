//! A whole login, both ends stepped in one thread: what the control thread pays for one, without its sockets.

use criterion::{Criterion, criterion_group, criterion_main};
use initiator::LoginOptions;
use negotiation::Settings;
use negotiation::chap::{Algorithm, Credentials, Mutual, Secret};
use protocol::login::{Access, Directory, Login, LoginStep, TargetEntry};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

const INITIATOR: &str = "iqn.1994-05.com.redhat:8e89b27b5b8";
const TARGET: &str = "iqn.2026-01.io.ringlun:db1";

struct OneTarget(Option<Arc<Credentials>>);

impl Directory for OneTarget {
    fn access(&self, _: &str, _: Option<&str>, _: IpAddr) -> Access {
        match &self.0 {
            Some(credentials) => Access::Chap(credentials.clone()),
            None => Access::Open,
        }
    }
    fn targets(&self, _: &str, _: IpAddr) -> Vec<TargetEntry> {
        Vec::new()
    }
}

fn credentials(algorithm: Algorithm) -> Credentials {
    let mutual = Mutual { user: "ringlun".into(), secret: Secret::new(b"ringsecret01".to_vec()) };
    Credentials::new("alice", Secret::new(b"alicesecret1".to_vec()), Some(mutual), [algorithm]).unwrap()
}

/// Logs in, and gives the initiator's view of it.
fn log_in(directory: &OneTarget, options: &LoginOptions, rng: &mut StdRng) -> initiator::LoggedIn {
    let mut target = Login::new(Settings::default(), IpAddr::from([127, 0, 0, 1]), 1);
    let mut initiator = initiator::Login::new(options.clone());
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    initiator.start(&mut requests).unwrap();
    loop {
        match target.receive(&mut requests.as_slice(), directory, rng, &mut responses) {
            LoginStep::More => {}
            LoginStep::Admit(admission) => {
                admission.accept(1, admission.cmd_sn, admission.cmd_sn + 63, &mut responses);
            }
            LoginStep::Close(failure) => panic!("{failure}"),
        }
        requests.clear();
        if let Some(logged_in) = initiator.advance(&mut responses.as_slice(), rng, &mut requests).unwrap() {
            return logged_in;
        }
        responses.clear();
    }
}

fn login(c: &mut Criterion) {
    let mut group = c.benchmark_group("login");
    let mut rng = StdRng::seed_from_u64(1);
    let open = LoginOptions::normal(INITIATOR, TARGET);
    group.bench_function("open", |b| b.iter(|| black_box(log_in(&OneTarget(None), &open, &mut rng))));
    for algorithm in Algorithm::ALL {
        let credentials = credentials(algorithm);
        let options = LoginOptions { chap: Some(credentials.clone()), ..open.clone() };
        let directory = OneTarget(Some(Arc::new(credentials)));
        group.bench_function(format!("mutual CHAP {algorithm}"), |b| {
            b.iter(|| black_box(log_in(&directory, &options, &mut rng)))
        });
    }
    group.finish();
}

criterion_group!(benches, login);
criterion_main!(benches);
