//! `[server]` and `[[portal]]`.
use super::{
    Reader,
    section::{self, At, Findings, Section, listed, nearest},
};
use crate::{
    DEFAULT_PORT, FEATURES, Limits, LogFormat, LogSettings, PathState, Portal, Server, names,
    plan::{DEFAULT_PREFIX, DEFAULT_SPIN, DEFAULT_SPLICE, MAX_VOLUMES, default_cores},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    time::Duration,
};

pub(super) const KEYS: &[&str] = &[
    "cores",
    "state_dir",
    "iqn_prefix",
    "explicit_alua",
    "mask_features",
    "spin_us",
    "busy_poll_us",
    "zero_copy",
    "splice",
    "max_connections",
    "max_half_open_logins",
    "half_open_per_address",
    "login_timeout_s",
    "sessions_per_target",
    "queue_depth",
    "buffer_memory",
    "store_depth",
    "max_volumes",
    "drain_timeout_s",
    "nop_interval_s",
    "nop_timeout_s",
    "log",
    "log_format",
];
pub(super) const PORTAL_KEYS: &[&str] = &["address", "group"];

const DEFAULT_STATE: &str = "/var/lib/ringlun";

/// All of `[server]`.
pub(super) struct General {
    pub server: Server,
    pub limits: Limits,
    pub log: LogSettings,
    /// Where `buffer_memory` is, if the file gives it.
    pub memory_span: Option<Range<usize>>,
    /// Where `max_volumes` is, if the file gives it.
    pub volumes_span: Option<Range<usize>>,
}

impl Reader<'_> {
    pub(super) fn server(&mut self, section: Option<Section<'_>>) -> General {
        let mut section =
            section.unwrap_or_else(|| Section::new("server".to_owned(), 0..0, toml::map::Map::new(), KEYS));
        let server = Server {
            cores: self.cores(&mut section),
            state_dir: self.state_dir(&mut section),
            iqn_prefix: self.prefix(&mut section),
            explicit_alua: section.boolean("explicit_alua", true, &mut self.out),
            mask_features: self.mask_features(&mut section),
            spin: self.microseconds(&mut section, "spin_us", DEFAULT_SPIN),
            busy_poll: self.microseconds(&mut section, "busy_poll_us", Duration::ZERO),
            zero_copy: self.sent_uncopied(&mut section, "zero_copy", "64KiB", 0),
            splice: self.sent_uncopied(&mut section, "splice", "4KiB", DEFAULT_SPLICE),
        };
        let volumes_span = section.has("max_volumes").then(|| section.span_of("max_volumes"));
        let (limits, memory_span) = self.limits(&mut section);
        let log = self.log(&mut section);
        section.finish(&mut self.out);
        General { server, limits, log, memory_span, volumes_span }
    }

    fn cores(&mut self, section: &mut Section<'_>) -> Vec<usize> {
        let allowed = self.host.allowed_cores();
        let default = default_cores(&allowed);
        if !section.has("cores") {
            return default;
        }
        let (span, key) = (section.span_of("cores"), section.full("cores"));
        let before = self.out.errors.len();
        let mut cores: Vec<usize> = Vec::new();
        for at in section.array("cores", "cores = [1]", &mut self.out) {
            let Some(At { value, key, span }) = section::integer(at, 0..1 << 16, "cores = [1]", &mut self.out) else {
                continue;
            };
            let core = value as usize; // below 65536
            if !allowed.is_empty() && !allowed.contains(&core) {
                let cause = format!("this process may not use core {core}");
                self.out.error(span, &key, cause, format!("the cores that it may use are {}", ranges(&allowed)));
            } else if cores.contains(&core) {
                self.out.error(span, &key, format!("core {core} is named twice"), "name each core once");
            } else {
                cores.push(core);
            }
        }
        if cores.is_empty() {
            if self.out.errors.len() == before {
                let cure = "name at least one, such as cores = [1], or leave the key out";
                self.out.error(span, &key, "no core is named", cure);
            }
            return default;
        }
        cores
    }

    fn state_dir(&mut self, section: &mut Section<'_>) -> PathBuf {
        let found = section.string("state_dir", "state_dir = \"/var/lib/ringlun\"", &mut self.out);
        let (path, given) = match &found {
            Some(at) => (self.resolve(&at.value), true),
            None => (PathBuf::from(DEFAULT_STATE), false),
        };
        let shown = path.display();
        let (cause, cure) = match self.host.path_state(&path, false) {
            PathState::Folder(true) | PathState::Creatable => return path,
            PathState::Folder(false) => {
                (format!("nothing can be written to {shown}"), "let this user write to it".into())
            }
            PathState::NoFolder => {
                let parent = path.parent().unwrap_or(&path).display();
                (format!("the folder of {shown} is missing"), format!("mkdir -p {parent}"))
            }
            PathState::Refused(error) => {
                (format!("{shown} can't be used: {error}"), "let this user write to it".into())
            }
            PathState::File(_) | PathState::Device | PathState::Other => {
                (format!("{shown} is not a folder"), "name a folder, or something that doesn't exist yet".to_owned())
            }
        };
        match found {
            Some(At { key, span, .. }) => self.out.error(span, &key, cause, cure),
            None if !given => {
                let cure = format!("set `state_dir` in [server], or {cure}");
                self.out.warn(section.span.clone(), "server.state_dir", cause, cure);
            }
            None => {}
        }
        path
    }

    fn prefix(&mut self, section: &mut Section<'_>) -> String {
        let example = format!("iqn_prefix = \"{DEFAULT_PREFIX}\"");
        let Some(at) = section.string("iqn_prefix", &example, &mut self.out) else {
            return DEFAULT_PREFIX.to_owned();
        };
        if let Err(cause) = names::check_prefix(&at.value) {
            let cure = format!("write `iqn.`, year and month, and a domain of yours in reverse: {example}");
            self.out.error(at.span, &at.key, format!("this is no prefix of a target name: {cause}"), cure);
        }
        at.value.into_owned()
    }

    fn mask_features(&mut self, section: &mut Section<'_>) -> Vec<String> {
        let mut features = Vec::new();
        for at in section.array("mask_features", "mask_features = [\"defer_taskrun\"]", &mut self.out) {
            let Some(at) = section::string(at, "\"defer_taskrun\"", &mut self.out) else {
                continue;
            };
            if FEATURES.contains(&&*at.value) || is_release(&at.value) {
                features.push(at.value.into_owned());
            } else {
                unknown_word(at, "kernel feature", FEATURES, &mut self.out);
            }
        }
        features
    }

    /// A time that a core is kept awake: at most a millisecond.
    fn microseconds(&mut self, section: &mut Section<'_>, key: &str, default: Duration) -> Duration {
        let default = default.as_micros() as u32; // a constant far below 2^32
        Duration::from_micros(u64::from(section.limit(key, 0, 1000, default, &mut self.out)))
    }

    /// Off, or from a block on: below that it costs more than the copy.
    fn sent_uncopied(&mut self, section: &mut Section<'_>, key: &str, example: &str, default: u32) -> u32 {
        let Some(At { value, key, span }) = section.size(key, example, &mut self.out) else { return default };
        if value == 0 || (4096..=1 << 24).contains(&value) {
            return value as u32; // at most 2^24
        }
        let cause = format!("{value} bytes are no size from which on sends go without a copy");
        let help = format!("write 0 for none, or 4KiB to 16MiB, such as {key} = \"{example}\"");
        self.out.error(span, &key, cause, help);
        default
    }

    fn limits(&mut self, section: &mut Section<'_>) -> (Limits, Option<Range<usize>>) {
        let default = Limits::default();
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let out = &mut self.out;
        let max_half_open_logins = section.limit("max_half_open_logins", 1, 65_536, default.max_half_open_logins, out);
        let memory = section.size("buffer_memory", "256MiB", out);
        let mut time = |section: &mut Section<'_>, key: &str, low: u32, high: u32, default: Duration| {
            Duration::from_secs(u64::from(section.limit(key, low, high, seconds(default), out)))
        };
        let login_timeout = time(section, "login_timeout_s", 1, 600, default.login_timeout);
        let drain_timeout = time(section, "drain_timeout_s", 0, 3600, default.drain_timeout);
        let nop_interval = time(section, "nop_interval_s", 0, 3600, default.nop_interval);
        let nop_timeout = time(section, "nop_timeout_s", 1, 3600, default.nop_timeout);
        let limits = Limits {
            max_connections: section.limit("max_connections", 1, 65_536, default.max_connections, out),
            max_half_open_logins,
            half_open_per_address: section.limit(
                "half_open_per_address",
                1,
                max_half_open_logins,
                default.half_open_per_address.min(max_half_open_logins),
                out,
            ),
            login_timeout,
            sessions_per_target: section.limit("sessions_per_target", 1, 65_536, default.sessions_per_target, out),
            queue_depth: section.limit("queue_depth", 1, 4096, default.queue_depth, out),
            buffer_memory: memory.as_ref().map_or(default.buffer_memory, |at| at.value),
            store_depth: section.limit("store_depth", 1, 4096, default.store_depth, out),
            // 0: what follows from the number of volumes.
            max_volumes: section.limit("max_volumes", 1, MAX_VOLUMES, 0, out),
            drain_timeout,
            nop_interval,
            nop_timeout,
        };
        (limits, memory.map(|at| at.span))
    }

    fn log(&mut self, section: &mut Section<'_>) -> LogSettings {
        let level = section.string("log", "log = \"info\"", &mut self.out).and_then(|at| {
            if let Err((cause, cure)) = crate::log_filter(&at.value) {
                self.out.error(at.span, &at.key, cause, cure);
                return None;
            }
            Some(at.value.into_owned())
        });
        let format = section.string("log_format", "log_format = \"text\"", &mut self.out);
        let format = format.and_then(|at| match &*at.value {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => {
                unknown_word(at, "log format", &["text", "json"], &mut self.out);
                None
            }
        });
        LogSettings { level, format }
    }

    pub(super) fn portals(&mut self, sections: Vec<Section<'_>>) -> Vec<Portal> {
        if sections.is_empty() {
            let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
            let portal = |ip| Portal { address: SocketAddr::new(ip, DEFAULT_PORT), group: 1, required: false };
            return any.map(portal).to_vec();
        }
        let mut portals: Vec<Portal> = Vec::new();
        for mut section in sections {
            let span = section.span_of("address");
            let key = section.full("address");
            let text = section.string("address", "address = \"0.0.0.0:3260\"", &mut self.out);
            let address = match text {
                None => Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT))),
                Some(at) => match address(&at.value) {
                    Ok(address) => Some(address),
                    Err((cause, cure)) => {
                        self.out.error(at.span, &at.key, cause, cure);
                        None
                    }
                },
            };
            let group = section.limit("group", 1, 65_535, 1, &mut self.out) as u16; // at most 65535
            section.finish(&mut self.out);
            let Some(address) = address else { continue };
            if let Some(other) = portals.iter().find(|other| collide(other.address, address)) {
                let (cause, cure) = if other.address == address {
                    (format!("portal {address} is named twice"), "name each portal once")
                } else {
                    (
                        format!("{address} and {} take the same port", other.address),
                        "keep one of them, or change a port",
                    )
                };
                self.out.error(span, &key, cause, cure);
            }
            portals.push(Portal { address, group, required: true });
        }
        portals
    }
}

/// Whether both can't be bound. Port 0 never collides; an unspecified address takes all of its family.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// `IP:port`, `[IPv6]:port`, or an address alone, which gets the default port.
fn address(text: &str) -> Result<SocketAddr, (String, String)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT));
    }
    let form = "write an IP address and a port, such as \"0.0.0.0:3260\" or \"[::]:3260\"".to_owned();
    if let Some((host, port)) = text.rsplit_once(':') {
        let is_ip = host.parse::<Ipv4Addr>().is_ok() || (host.starts_with('[') && host.ends_with(']'));
        if is_ip && !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_err() {
            return Err((format!("port {port} is above 65535"), "a port is from 0 (any free one) to 65535".to_owned()));
        }
        if is_ip {
            return Err((format!("`{port}` is no port"), form));
        }
        if host.chars().any(char::is_alphabetic) && !host.contains(':') {
            return Err((format!("`{host}` is a name, and portals are addresses"), form));
        }
    }
    Err((format!("`{text}` is no address"), form))
}

/// A kernel release, `5.19`.
fn is_release(text: &str) -> bool {
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// `0-3, 8`
fn ranges(cores: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => parts.push((*core, *core)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { format!("{first}") } else { format!("{first}-{last}") }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A word out of a list that isn't in it.
pub(super) fn unknown_word(at: At<std::borrow::Cow<'_, str>>, what: &str, known: &[&str], out: &mut Findings) {
    let cure = match nearest(&at.value, known) {
        Some(near) => format!("is \"{near}\" meant? There are {}", listed(known)),
        None => format!("there are {}", listed(known)),
    };
    out.error(at.span, &at.key, format!("unknown {what} `{}`", at.value), cure);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_the_port() {
        for (text, address_text) in [
            ("127.0.0.1", "127.0.0.1:3260"),
            ("::1", "[::1]:3260"),
            ("[::1]", "[::1]:3260"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("[fe80::1]:99", "[fe80::1]:99"),
        ] {
            assert_eq!(address(text), Ok(address_text.parse().unwrap()), "{text}");
        }
        assert!(address("0.0.0.0:70000").unwrap_err().0.contains("above 65535"));
        assert!(address("[::]:70000").unwrap_err().0.contains("above 65535"));
        assert!(address("storage:3260").unwrap_err().0.contains("is a name"));
        for bad in ["", ":", "1.2.3:1", "1.2.3.4:", "1.2.3.4:x", "[::1"] {
            let _ = address(bad);
        }
    }

    #[test]
    fn cores_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }
}
