//! The control thread: portals, logins, discovery, the registry of sessions, signals, shutdown.
//!
//! It runs on tokio-uring. What is decided here is decided by state machines without I/O ([`half_open`], [`registry`],
//! [`protocol::login`]); this module carries their decisions out.

mod apply;
pub mod directory;
pub mod half_open;
mod login;
pub mod registry;
pub mod reload;

use crate::{
    Ready,
    boot::{House, Running, ServeError},
    mail::{Post, SessionId, ToControl, ToCore},
};
use directory::Targets;
use half_open::{HalfOpen, LoginId};
use reactor::RingWaker;
use registry::Registry;
use scsi::TargetPort;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener as StdListener},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_uring::net::{TcpListener, TcpStream};
use tracing::{debug, info, warn};

/// What the tasks of the control thread share.
pub(crate) struct Control {
    targets: RefCell<Rc<Targets>>,
    house: RefCell<House>,
    /// What the cores have yet to say of units that come and go.
    roll: apply::Roll,
    pub post: Arc<Post<RingWaker>>,
    pub registry: RefCell<Registry>,
    half_open: RefCell<HalfOpen>,
    /// Half-open connections that can be cut.
    open_logins: RefCell<HashMap<LoginId, OpenLogin>>,
    /// Logins that wait for the end of a session.
    pub ended: RefCell<HashMap<SessionId, Rc<Notify>>>,
    started: Instant,
    pub draining: Cell<bool>,
    drained: RefCell<Vec<(u16, u32, Vec<String>)>>,
    drained_bell: Notify,
}

/// How to cut a half-open connection.
struct OpenLogin {
    stream: Rc<TcpStream>,
    cancelled: Rc<Notify>,
}

/// A portal that is listened on.
pub(crate) struct Open {
    pub listener: StdListener,
    pub address: SocketAddr,
    pub group: u16,
}

/// Opens the portals. Blocks.
pub(crate) fn open_portals(plan: &config::Plan) -> Result<Vec<Open>, ServeError> {
    let mut open = Vec::new();
    for portal in &plan.portals {
        match listen(portal.address) {
            Ok(listener) => {
                let fail = |source| ServeError::Portal { address: portal.address, source };
                let address = listener.local_addr().map_err(fail)?;
                open.push(Open { listener, address, group: portal.group });
            }
            Err(error) if !portal.required => {
                debug!(address = %portal.address, %error, "this default portal can't be opened");
            }
            Err(source) => return Err(ServeError::Portal { address: portal.address, source }),
        }
    }
    match open.is_empty() {
        false => Ok(open),
        true => Err(ServeError::Portal {
            address: plan.portals[0].address,
            source: io::Error::other("no portal could be opened"),
        }),
    }
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Runs the control thread until everything is drained.
pub(crate) fn run(
    targets: Targets,
    house: House,
    post: Arc<Post<RingWaker>>,
    bell: Arc<Notify>,
    portals: Vec<Open>,
    cores: Vec<Running>,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let limits = targets.plan().limits.clone();
    let pools = targets.plan().pools();
    let control = Rc::new(Control {
        registry: RefCell::new(Registry::new(post.cores(), limits.max_connections, pools.connections)),
        half_open: RefCell::new(HalfOpen::new(limits.max_half_open_logins, limits.half_open_per_address)),
        open_logins: RefCell::default(),
        ended: RefCell::default(),
        started: Instant::now(),
        draining: Cell::new(false),
        drained: RefCell::default(),
        drained_bell: Notify::new(),
        roll: apply::Roll::new(post.cores()),
        targets: RefCell::new(Rc::new(targets)),
        house: RefCell::new(house),
        post,
    });
    let outcome = tokio_uring::start(serve(control, bell, portals, ready));
    let mut problems: Vec<String> = Vec::new();
    let hung = match &outcome {
        Ok(hung) => *hung,
        Err(_) => true,
    };
    if !hung {
        for running in cores {
            match running.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => problems.push(format!("data core {}: {error}", running.core)),
                Err(_) => problems.push(format!("data core {} panicked", running.core)),
            }
        }
    }
    outcome?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(ServeError::Shutdown(problems.join("; "))),
    }
}

async fn serve(
    control: Rc<Control>,
    bell: Arc<Notify>,
    portals: Vec<Open>,
    ready: impl FnOnce(&Ready),
) -> Result<bool, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Control)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Control)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Control)?;
    let mut doors: Vec<OwnedFd> = Vec::new();
    let mut addresses = Vec::new();
    for portal in portals {
        doors.push(portal.listener.try_clone().map_err(ServeError::Control)?.into());
        addresses.push(portal.address);
        info!(address = %portal.address, group = portal.group, "portal is open");
        tokio_uring::spawn(accept(control.clone(), TcpListener::from_std(portal.listener), portal.group));
    }
    tokio_uring::spawn(hear_cores(control.clone(), bell));
    tokio_uring::spawn(sweep(control.clone()));
    let reload_bell = Rc::new(Notify::new());
    if control.targets().source().is_some() {
        tokio_uring::spawn(apply::reload_when_told(control.clone(), reload_bell.clone()));
    }
    // From here on a signal means what it is to mean.
    control.house.borrow().state.announce()?;
    let names = control.targets().plan().targets.iter().map(|t| t.name.clone()).collect();
    ready(&Ready { portals: addresses, targets: names });

    loop {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("SIGINT: draining"),
            _ = hangup.recv() => {
                if control.targets().source().is_some() {
                    reload_bell.notify_one();
                    continue;
                }
                info!("SIGHUP, and no configuration file to read again: draining");
            }
            // Before any drain only a core that has failed says so.
            () = control.drained_bell.notified() => warn!("a data core has failed: draining"),
        }
        break;
    }
    control.draining.set(true);
    let limits = control.targets().plan().limits.clone();
    for door in &doors {
        // Ends the accept that waits on it: nobody comes in any more.
        let _ = rustix::net::shutdown(door, rustix::net::Shutdown::Both);
    }
    let logins: Vec<LoginId> = control.open_logins.borrow().keys().copied().collect();
    for id in logins {
        control.cut_login(id);
    }
    let seconds = limits.drain_timeout.as_secs().min(u64::from(u16::MAX)) as u16;
    for core in 0..control.post.cores() {
        control.post.send(core, ToCore::Drain { seconds });
    }
    // The cores cut what is left after the drain's time; flushing gets as much again.
    let most = limits.drain_timeout * 2 + Duration::from_secs(5);
    let all = async {
        while control.drained.borrow().len() < usize::from(control.post.cores()) {
            control.drained_bell.notified().await;
        }
    };
    tokio::pin!(all);
    let deadline = tokio::time::sleep(most);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut all => break,
            () = &mut deadline => {
                return Err(ServeError::Shutdown(format!(
                    "a store did not answer within {} seconds; what it had not confirmed was not acknowledged as flushed",
                    most.as_secs()
                )));
            }
            _ = terminate.recv() => hurry(&control),
            _ = interrupt.recv() => hurry(&control),
        }
    }
    let drained = control.drained.borrow();
    let cut: u32 = drained.iter().map(|(_, cut, _)| cut).sum();
    if cut > 0 {
        warn!("{cut} sessions did not log out in time and were closed");
    }
    let failures: Vec<String> = drained.iter().flat_map(|(_, _, failures)| failures.clone()).collect();
    match failures.is_empty() {
        true => {
            info!("drained");
            Ok(false)
        }
        false => Err(ServeError::Shutdown(failures.join("; "))),
    }
}

/// A second signal: initiators get no more time.
fn hurry(control: &Control) {
    for core in 0..control.post.cores() {
        control.post.send(core, ToCore::Stop);
    }
}

async fn accept(control: Rc<Control>, listener: TcpListener, group: u16) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if control.draining.get() {
                    return;
                }
                tokio_uring::spawn(login::attend(control.clone(), stream, peer, group));
            }
            Err(_) if control.draining.get() => return,
            Err(error) => {
                // Out of descriptors or memory: those that are open go on, new ones wait in the backlog.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn hear_cores(control: Rc<Control>, bell: Arc<Notify>) {
    loop {
        while let Some(message) = control.post.reported() {
            match message {
                ToControl::Ended { ended, .. } => {
                    control.registry.borrow_mut().ended(ended.id, ended.late);
                    if let Some(notify) = control.ended.borrow_mut().remove(&ended.id) {
                        notify.notify_waiters();
                    }
                }
                ToControl::Added { slot, result, .. } => control.roll.added(slot, result),
                ToControl::Removed { slot, failure, .. } => control.removed(slot, failure),
                ToControl::Drained { core, cut, failures } => {
                    control.drained.borrow_mut().push((core, cut, failures));
                    control.drained_bell.notify_one();
                }
            }
        }
        bell.notified().await;
    }
}

/// Cuts half-open connections whose time is up.
async fn sweep(control: Rc<Control>) {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let late = control.half_open.borrow_mut().overdue(control.now());
        for id in late {
            debug!("a connection did not log in in time");
            control.cut_login(id);
        }
    }
}

impl Control {
    /// Targets and access rules as they are now.
    pub fn targets(&self) -> Rc<Targets> {
        self.targets.borrow().clone()
    }

    /// A target's port in a portal group.
    pub fn port(&self, target: &str, group: u16) -> Option<Arc<TargetPort>> {
        let name = self.targets().plan().target(target)?.name.clone();
        self.house.borrow().ports.get(&(name, group)).cloned()
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a half-open connection, and cuts the one that has to go for it.
    pub fn enter(&self, stream: &Rc<TcpStream>, cancelled: &Rc<Notify>, peer: SocketAddr) -> LoginId {
        let deadline = self.now() + self.targets().plan().limits.login_timeout;
        let (id, evicted) = self.half_open.borrow_mut().enter(peer.ip().to_canonical(), deadline);
        if let Some(evicted) = evicted {
            self.cut_login(evicted);
        }
        let login = OpenLogin { stream: stream.clone(), cancelled: cancelled.clone() };
        self.open_logins.borrow_mut().insert(id, login);
        id
    }

    /// A connection is no longer half-open.
    pub fn leave(&self, id: LoginId) {
        self.half_open.borrow_mut().leave(id);
        self.open_logins.borrow_mut().remove(&id);
    }

    /// A discovery session may take this much longer.
    pub fn extend(&self, id: LoginId, by: Duration) {
        self.half_open.borrow_mut().extend(id, self.now() + by);
    }

    fn cut_login(&self, id: LoginId) {
        if let Some(login) = self.open_logins.borrow_mut().remove(&id) {
            // A read of tokio-uring is not cancelled by dropping it: the shutdown ends it.
            let _ = login.stream.shutdown(Shutdown::Both);
            login.cancelled.notify_one();
        }
    }
}
