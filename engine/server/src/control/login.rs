//! One connection before it reaches a data core: login, discovery, hand-over.

use super::{
    Control,
    directory::View,
    registry::{Applicant, Decision, Nexus, Refusal},
};
use crate::mail::{Handover, Installed, ToCore};
use negotiation::{SessionType, Settings};
use protocol::{
    CloseReason,
    login::{
        Admission, Authentication, DiscoverySession, DiscoveryStep, Login, LoginFailure, LoginStep, send_targets_text,
    },
};
use scsi::InitiatorPort;
use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_uring::net::TcpStream;
use tracing::{debug, info, warn};

/// How much is read at once before the login: a login request seldom has more.
const CHUNK: usize = 2048;
/// A discovery session may stay this long.
const DISCOVERY: Duration = Duration::from_secs(60);

/// Attends to a new connection until it is handed over or closed.
pub(super) async fn attend(control: Rc<Control>, stream: TcpStream, peer: SocketAddr, group: u16) {
    let local = match local_address(&stream) {
        Ok(local) => local,
        Err(error) => return debug!(%peer, %error, "the connection is gone already"),
    };
    let _ = stream.set_nodelay(true);
    let stream = Rc::new(stream);
    let cancelled = Rc::new(Notify::new());
    let id = control.enter(&stream, &cancelled, peer);
    let visitor = Visitor { control: &control, stream: &stream, cancelled: &cancelled, id, peer, local, group };
    visitor.log_in().await;
    control.leave(id);
}

/// What we agree to at most.
fn settings() -> Settings {
    Settings { max_outstanding_r2t: protocol::MAX_OUTSTANDING_R2T as u16, ..Settings::default() }
}

fn local_address(stream: &TcpStream) -> std::io::Result<SocketAddr> {
    let socket = reactor::descriptor::duplicate(stream)?;
    let address = rustix::net::getsockname(&socket)?;
    SocketAddr::try_from(address).map_err(|_| std::io::Error::other("not an IP socket"))
}

struct Visitor<'a> {
    control: &'a Rc<Control>,
    stream: &'a Rc<TcpStream>,
    cancelled: &'a Notify,
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    group: u16,
}

impl Visitor<'_> {
    async fn log_in(&self) {
        let mut login = Login::new(settings(), self.peer.ip(), self.group);
        let mut chunk = vec![0; CHUNK];
        loop {
            let (result, back) = self.stream.read(chunk).await;
            chunk = back;
            let n = match result {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            let mut input = &chunk[..n];
            let mut out = Vec::new();
            let step = {
                let targets = self.control.targets();
                let view = View { targets: &targets, local: self.local };
                login.receive(&mut input, &view, &mut rand::rng(), &mut out)
            };
            if !self.send(out).await {
                return;
            }
            match step {
                LoginStep::More => {}
                LoginStep::Close(failure) => {
                    let (initiator, target) = (login.initiator_name(), login.target_name());
                    match &failure {
                        LoginFailure::NotALogin(_) => debug!(peer = %self.peer, "{failure}"),
                        _ => warn!(peer = %self.peer, initiator, target, reason = %failure, "login failed"),
                    }
                    return;
                }
                LoginStep::Admit(admission) => {
                    let leftover = input.to_vec();
                    return match admission.session_type {
                        SessionType::Discovery => self.discover(*admission, leftover).await,
                        SessionType::Normal => self.hand_over(*admission, leftover).await,
                    };
                }
            }
        }
    }

    async fn send(&self, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let (result, _) = self.stream.write_all(bytes).await;
        result.is_ok()
    }

    async fn discover(&self, admission: Admission, leftover: Vec<u8>) {
        self.control.extend(self.id, DISCOVERY);
        let mut out = Vec::new();
        admission.accept(1, admission.cmd_sn, admission.cmd_sn.wrapping_add(1), &mut out);
        debug!(peer = %self.peer, initiator = admission.initiator_name, "discovery");
        let mut session = DiscoverySession::new(&admission, self.peer.ip());
        let mut bytes = leftover;
        let mut n = bytes.len();
        loop {
            let mut input = &bytes[..n];
            let step = {
                let targets = self.control.targets();
                let view = View { targets: &targets, local: self.local };
                session.receive(&mut input, &view, &mut out)
            };
            if !self.send(std::mem::take(&mut out)).await {
                return;
            }
            if let DiscoveryStep::Close(end) = step {
                debug!(peer = %self.peer, "discovery ended: {end}");
                return;
            }
            if bytes.len() < CHUNK {
                bytes = vec![0; CHUNK];
            }
            let (result, back) = self.stream.read(bytes).await;
            bytes = back;
            n = match result {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
        }
    }

    /// Asks the registry; waits for the end of an old session if there is one.
    async fn admit(&self, admission: &Admission, target: &str) -> Result<(u64, u16, u16), LoginFailure> {
        let max_sessions = self.control.targets().plan().target(target).ok_or(LoginFailure::NotFound)?.max_sessions;
        let nexus = Nexus {
            initiator: admission.initiator_name.as_str().into(),
            isid: admission.isid.0,
            target: target.into(),
            group: self.group,
        };
        let applicant = Applicant { nexus, tsih: admission.tsih, cid: admission.cid, max_sessions };
        self.control.registry.borrow_mut().note_rates(self.control.post.rates());
        let mut decision = self.control.registry.borrow_mut().apply(&applicant);
        loop {
            match decision {
                Decision::Accept { id, tsih, core } => return Ok((id, tsih, core)),
                Decision::Refuse(refusal) => {
                    return Err(match refusal {
                        Refusal::NoSession => LoginFailure::NoSession,
                        Refusal::TooManyConnections => LoginFailure::TooManyConnections,
                        Refusal::OutOfResources => LoginFailure::OutOfResources,
                    });
                }
                Decision::Reinstate { old, core, close } => {
                    let notify = self.control.ended.borrow_mut().entry(old).or_default().clone();
                    let ended = notify.notified();
                    if close {
                        info!(session = old, initiator = admission.initiator_name, "session is reinstated");
                        self.control.post.send(core, ToCore::Close(old, CloseReason::Reinstated));
                    }
                    tokio::select! {
                        () = ended => {}
                        () = self.cancelled.notified() => return Err(LoginFailure::Unavailable),
                    }
                    decision = self.control.registry.borrow_mut().apply_successor(&applicant);
                }
            }
        }
    }

    async fn hand_over(&self, admission: Admission, leftover: Vec<u8>) {
        let target = admission.target_name.clone().unwrap_or_default();
        let admitted = match self.control.draining.get() {
            true => Err(LoginFailure::Unavailable),
            false => self.admit(&admission, &target).await,
        };
        let admitted = admitted.and_then(|admitted| match self.control.port(&target, self.group) {
            Some(port) => Ok((admitted, port)),
            None => {
                self.control.registry.borrow_mut().withdraw(admitted.0);
                Err(LoginFailure::Removed)
            }
        });
        // From here to the core nothing is waited for: a LUN map that changes finds this session there.
        let ((id, tsih, core), port) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => {
                let initiator = &admission.initiator_name;
                warn!(peer = %self.peer, initiator, target, reason = %failure, "login refused");
                let mut out = Vec::new();
                admission.refuse(&failure, &mut out);
                self.send(out).await;
                return;
            }
        };
        // No read is outstanding: the duplicate is the core's, ours is closed when the last reference goes.
        let socket = match reactor::descriptor::duplicate(&**self.stream) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(peer = %self.peer, %error, "the socket can't be handed over");
                self.control.registry.borrow_mut().withdraw(id);
                return;
            }
        };
        let targets = self.control.targets();
        let window = targets.plan().limits.queue_depth;
        let mut response = Vec::new();
        admission.accept(tsih, admission.cmd_sn, admission.cmd_sn.wrapping_add(window - 1), &mut response);
        let chap = match &admission.authentication {
            Authentication::None => "none",
            Authentication::Chap { mutual: true, .. } => "mutual CHAP",
            Authentication::Chap { .. } => "CHAP",
        };
        info!(session = id, initiator = admission.initiator_name, target, peer = %self.peer, core, authentication = chap, "logged in");
        let entry = targets.entry(&target, self.local);
        let handover = Handover {
            identity: Installed {
                id,
                initiator: Arc::new(InitiatorPort {
                    name: admission.initiator_name.as_str().into(),
                    isid: admission.isid.0,
                }),
                target: target.as_str().into(),
                address: self.peer,
            },
            cid: admission.cid,
            parameters: admission.parameters,
            exp_cmd_sn: admission.cmd_sn,
            stat_sn: admission.stat_sn,
            port,
            response,
            addresses: send_targets_text(&[entry]).into(),
            leftover,
        };
        self.control.leave(self.id);
        self.control.post.send(core, ToCore::Install(socket, Box::new(handover)));
    }
}
