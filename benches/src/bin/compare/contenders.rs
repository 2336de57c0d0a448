//! Who is measured, and on what.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One that answers the load. Its name is its key in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    Ringlun,
    /// Its spinning switched off.
    RinglunAsleep,
    RinglunNull,
    /// CRC32C on headers and data.
    RinglunDigests,
    /// Set up for more sessions than it takes as it comes.
    RinglunMany,
    RinglunBuffered,
    /// As much of the file as there is may be locked in memory.
    RinglunPinned,
    RinglunDirect,
    RinglunLoop,
    /// The other program of `--against`.
    Before,
    BeforeAsleep,
    Tgt,
    TgtDigests,
    Bare,
    /// Answers from random places of 1 GiB.
    BareCold,
    /// Both ends poll.
    BareSpinning,
    /// With the latency of each reply, at any depth.
    BareTimed,
    FioBuffered,
    FioDirect,
    FioLoop,
}

/// What holds the blocks of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    Ram,
    Null,
    Buffered,
    Pinned,
    Direct,
    Loop,
}

/// A server that has to run for a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Ringlun { before: bool, store: Store, spins: bool, many: bool },
    Tgt,
}

/// How a contender is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the iSCSI client against a server.
    Client {
        server: Server,
        digests: bool,
    },
    Bare {
        cold: bool,
        spins: bool,
        timed: bool,
    },
    Fio(Store),
}

impl Contender {
    /// How it is measured.
    pub fn way(self) -> Way {
        let ringlun = |store| Server::Ringlun { before: false, store, spins: true, many: false };
        let client = |server| Way::Client { server, digests: false };
        let bare = Way::Bare { cold: false, spins: false, timed: false };
        match self {
            Contender::Ringlun => client(ringlun(Store::Ram)),
            Contender::RinglunAsleep => {
                client(Server::Ringlun { before: false, store: Store::Ram, spins: false, many: false })
            }
            Contender::RinglunNull => client(ringlun(Store::Null)),
            Contender::RinglunDigests => Way::Client { server: ringlun(Store::Ram), digests: true },
            Contender::RinglunMany => {
                client(Server::Ringlun { before: false, store: Store::Ram, spins: true, many: true })
            }
            Contender::RinglunBuffered => client(ringlun(Store::Buffered)),
            Contender::RinglunPinned => client(ringlun(Store::Pinned)),
            Contender::RinglunDirect => client(ringlun(Store::Direct)),
            Contender::RinglunLoop => client(ringlun(Store::Loop)),
            Contender::Before => client(Server::Ringlun { before: true, store: Store::Ram, spins: true, many: false }),
            Contender::BeforeAsleep => {
                client(Server::Ringlun { before: true, store: Store::Ram, spins: false, many: false })
            }
            Contender::Tgt => client(Server::Tgt),
            Contender::TgtDigests => Way::Client { server: Server::Tgt, digests: true },
            Contender::Bare => bare,
            Contender::BareCold => Way::Bare { cold: true, spins: false, timed: false },
            Contender::BareSpinning => Way::Bare { cold: false, spins: true, timed: true },
            Contender::BareTimed => Way::Bare { cold: false, spins: false, timed: true },
            Contender::FioBuffered => Way::Fio(Store::Buffered),
            Contender::FioDirect => Way::Fio(Store::Direct),
            Contender::FioLoop => Way::Fio(Store::Loop),
        }
    }

    /// As tables and plots call it.
    pub fn label(self) -> &'static str {
        match self {
            Contender::Ringlun | Contender::RinglunMany => "ringlun",
            Contender::RinglunAsleep => "ringlun, no spinning",
            Contender::RinglunNull => "ringlun, null volume",
            Contender::RinglunDigests => "ringlun, digests",
            Contender::RinglunBuffered => "ringlun, buffered file",
            Contender::RinglunPinned => "ringlun, buffered file, pinned",
            Contender::RinglunDirect => "ringlun, direct file",
            Contender::RinglunLoop => "ringlun, loop device",
            Contender::Before => "before",
            Contender::BeforeAsleep => "before, no spinning",
            Contender::Tgt => "tgt",
            Contender::TgtDigests => "tgt, digests",
            Contender::Bare | Contender::BareTimed => "bare loopback",
            Contender::BareCold => "bare loopback, cold",
            Contender::BareSpinning => "bare loopback, both ends spin",
            Contender::FioBuffered => "fio, buffered file",
            Contender::FioDirect => "fio, direct file",
            Contender::FioLoop => "fio, loop device",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
