//! The plan's targets and access lists, as the login phase asks for them.

use config::{Access as Rule, Denial, HashAlgorithm, Plan};
use negotiation::chap::{Algorithm, ChapError, Credentials, Mutual, Secret};
use protocol::login::{Access, Directory, TargetEntry};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};
use tracing::info;
use wire::names::TargetAddress;

/// Targets, portals and credentials.
pub struct Targets {
    plan: Plan,
    /// The file that the plan came from.
    source: Option<PathBuf>,
    /// Real addresses and groups.
    portals: Vec<(SocketAddr, u16)>,
    /// By the address of the rule in the plan: credentials are made once.
    credentials: HashMap<*const config::Chap, Arc<Credentials>>,
}

impl Targets {
    /// `portals`: the addresses that are really listened on.
    pub fn new(plan: Plan, source: Option<PathBuf>, portals: Vec<(SocketAddr, u16)>) -> Result<Targets, ChapError> {
        let mut targets = Targets { plan, source, portals, credentials: HashMap::new() };
        for rule in targets.plan.targets.iter().flat_map(|t| &t.access) {
            if let Some(chap) = &rule.chap {
                targets.credentials.insert(std::ptr::from_ref(chap), Arc::new(credentials(chap)?));
            }
        }
        Ok(targets)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The file that the plan came from.
    pub fn source(&self) -> Option<&PathBuf> {
        self.source.as_ref()
    }

    /// Addresses that are listened on, with their groups.
    pub fn portals(&self) -> &[(SocketAddr, u16)] {
        &self.portals
    }

    /// A target's entry for SendTargets, for a connection that came to `local`.
    pub fn entry(&self, name: &str, local: SocketAddr) -> TargetEntry {
        TargetEntry { name: name.to_owned(), addresses: self.addresses(local) }
    }

    /// Where all targets are reached. A portal on every address is named by the one that this connection came to.
    fn addresses(&self, local: SocketAddr) -> Vec<TargetAddress> {
        let local_ip = local.ip().to_canonical();
        let mut all: Vec<TargetAddress> = Vec::new();
        for &(address, group) in &self.portals {
            let ip = address.ip().to_canonical();
            let ip = match ip.is_unspecified() {
                true if ip.is_ipv4() == local_ip.is_ipv4() => local_ip,
                true => continue,
                false => ip,
            };
            let address = TargetAddress::new(SocketAddr::new(ip, address.port()), group);
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }
}

fn credentials(chap: &config::Chap) -> Result<Credentials, ChapError> {
    let algorithms: Vec<Algorithm> = chap.algorithms.iter().map(|&a| algorithm(a)).collect();
    let mutual = chap
        .target
        .as_ref()
        .map(|target| Mutual { user: target.user.clone(), secret: Secret::new(target.secret.expose()) });
    Credentials::new(chap.initiator.user.clone(), Secret::new(chap.initiator.secret.expose()), mutual, algorithms)
}

fn algorithm(hash: HashAlgorithm) -> Algorithm {
    match hash {
        HashAlgorithm::Md5 => Algorithm::Md5,
        HashAlgorithm::Sha1 => Algorithm::Sha1,
        HashAlgorithm::Sha256 => Algorithm::Sha256,
        HashAlgorithm::Sha3_256 => Algorithm::Sha3_256,
    }
}

/// The directory for one connection.
pub struct View<'a> {
    /// All targets.
    pub targets: &'a Targets,
    /// The address that the connection came to.
    pub local: SocketAddr,
}

impl Directory for View<'_> {
    fn access(&self, initiator_name: &str, target_name: Option<&str>, address: IpAddr) -> Access {
        // Discovery shows each initiator only what it may use: nothing has to be proved for that.
        let Some(target) = target_name else { return Access::Open };
        match self.targets.plan.access_for(target, initiator_name, address) {
            Rule::Open => Access::Open,
            Rule::Rule(rule) => match &rule.chap {
                None => Access::Open,
                Some(chap) => match self.targets.credentials.get(&std::ptr::from_ref(chap)) {
                    Some(credentials) => Access::Chap(credentials.clone()),
                    None => Access::Unavailable,
                },
            },
            Rule::Denied(Denial::NoSuchTarget) => Access::NotFound,
            Rule::Denied(denial) => {
                info!(initiator = initiator_name, target, %address, reason = %denial, "login refused");
                Access::Forbidden
            }
        }
    }

    fn targets(&self, initiator_name: &str, address: IpAddr) -> Vec<TargetEntry> {
        let visible = |t: &&config::Target| t.access_for(initiator_name, address).is_allowed();
        self.targets.plan.targets.iter().filter(visible).map(|t| self.targets.entry(&t.name, self.local)).collect()
    }
}
