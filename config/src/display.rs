//! The plan as `ringlun check` prints it: everything that follows from the file, and no secret.
use crate::{AccessRule, Plan, Size, Store, Target, Volume};
use std::{fmt, time::Duration};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server(f)?;
        self.pool_lines(f)?;
        writeln!(f, "portals")?;
        for portal in &self.portals {
            writeln!(f, "  {:<28} group {}", portal.address.to_string(), portal.group)?;
        }
        for group in &self.portal_groups {
            let preferred = if group.preferred { ", preferred" } else { "" };
            writeln!(f, "  group {:<22} {}{preferred}", group.group, group.state.name())?;
        }
        writeln!(f, "volumes")?;
        for volume in &self.volumes {
            writeln!(f, "  {:<28} {}", volume.name, VolumeLine(volume))?;
        }
        writeln!(f, "targets")?;
        for target in &self.targets {
            self.target_lines(target, f)?;
        }
        Ok(())
    }
}

impl Plan {
    fn server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        let cores: Vec<String> = self.server.cores.iter().map(usize::to_string).collect();
        writeln!(f, "server")?;
        writeln!(f, "  data cores                   {}", cores.join(", "))?;
        writeln!(f, "  state folder                 {}", self.server.state_dir.display())?;
        match self.server.spin.as_micros() {
            0 => writeln!(f, "  a core without work          sleeps at once")?,
            us => writeln!(f, "  a core without work          looks for some up to {us} us, then sleeps")?,
        }
        if !self.server.busy_poll.is_zero() {
            writeln!(
                f,
                "  before it sleeps             network cards are polled, {} us",
                self.server.busy_poll.as_micros()
            )?;
        }
        if self.server.zero_copy > 0 {
            writeln!(f, "  sent without a copy          from {} on", Size(u64::from(self.server.zero_copy)))?;
        }
        if self.server.splice > 0 {
            writeln!(
                f,
                "  sent by the page             reads of {} or more of RAM volumes",
                Size(u64::from(self.server.splice))
            )?;
        }
        if !self.server.mask_features.is_empty() {
            writeln!(f, "  kernel features left unused  {}", self.server.mask_features.join(", "))?;
        }
        writeln!(f, "limits")?;
        writeln!(f, "  connections                  {}", limits.max_connections)?;
        writeln!(
            f,
            "  half-open logins             {}, {} from one address, {} each",
            limits.max_half_open_logins,
            limits.half_open_per_address,
            Time(limits.login_timeout)
        )?;
        writeln!(f, "  commands per session         {}", limits.queue_depth)?;
        writeln!(f, "  requests per volume and core {}", limits.store_depth)?;
        writeln!(f, "  volumes at a time            {}", limits.max_volumes)?;
        if limits.nop_interval.is_zero() {
            writeln!(f, "  silent connections           are not asked")?;
        } else {
            writeln!(
                f,
                "  silent connections           asked after {}, closed after {} more",
                Time(limits.nop_interval),
                Time(limits.nop_timeout)
            )?;
        }
        writeln!(f, "  drain at shutdown            {} at most", Time(limits.drain_timeout))
    }

    fn pool_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools = self.pools();
        let cores = self.server.cores.len();
        let kib = |count: u32, payload: u64| Size(u64::from(count) * payload);
        writeln!(f, "pools of each of {cores} data core{}", if cores == 1 { "" } else { "s" })?;
        writeln!(f, "  small buffers, 4 KiB         {:<8} {}", pools.small, kib(pools.small, 4 << 10))?;
        writeln!(
            f,
            "  medium buffers, 64 KiB       {:<8} {}, {} of them to receive into",
            pools.medium,
            kib(pools.medium, 64 << 10),
            pools.receive_buffers
        )?;
        writeln!(f, "  large buffers, 256 KiB       {:<8} {}", pools.large, kib(pools.large, 256 << 10))?;
        writeln!(f, "  all of them with headroom    {}", pools.buffer_size())?;
        writeln!(f, "  connections                  {}", pools.connections)?;
        writeln!(f, "  commands                     {}", pools.commands)?;
        writeln!(f, "  ring operations              {}", pools.operations)?;
        writeln!(f, "  ring entries                 {}, completions {}", pools.ring_entries, pools.completion_entries)?;
        writeln!(f, "  registered files             {}", pools.files)?;
        writeln!(f, "  kernel workers               {} at most", pools.kernel_workers)?;
        writeln!(f, "memory in all")?;
        writeln!(f, "  buffers                      {}", Size(pools.buffer_bytes.saturating_mul(cores as u64)))?;
        writeln!(f, "  RAM volumes                  {}", self.ram_volumes())?;
        if pools.pinned_bytes > 0 {
            writeln!(f, "  locked file pages            {} at most", Size(pools.pinned_bytes))?;
        }
        writeln!(f, "  descriptors                  {}", pools.descriptors)
    }

    fn target_lines(&self, target: &Target, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}, {} sessions at most", target.name, target.max_sessions)?;
        for (lun, volume) in &target.luns {
            match self.volumes.get(*volume) {
                Some(volume) => writeln!(f, "    LUN {lun:<5} {:<16} {}", volume.name, VolumeLine(volume))?,
                None => writeln!(f, "    LUN {lun:<5} (none)")?,
            }
        }
        if target.access.is_empty() {
            writeln!(f, "    access    anyone")?;
        }
        for rule in &target.access {
            writeln!(f, "    access    {}", RuleLine(rule))?;
        }
        Ok(())
    }
}

/// One line about a volume, without its name.
struct VolumeLine<'a>(&'a Volume);

impl fmt::Display for VolumeLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Volume { store, block_size, .. } = self.0;
        match store.size() {
            Some(size) => write!(f, "{}, ", Size(size))?,
            None => write!(f, "size of its store, ")?,
        }
        write!(f, "blocks of {block_size}, {}", store.kind())?;
        if let Some(path) = store.path() {
            write!(f, " {}", path.display())?;
        }
        let Volume { provisioning, removable, write_protected, protection, .. } = self.0;
        if let Some(provisioning) = provisioning {
            flag(f, true, provisioning.name())?;
        }
        flag(f, *removable, "removable")?;
        flag(f, *write_protected, "write-protected")?;
        if let Some(kind) = protection {
            flag(f, true, &format!("protection information of type {kind}"))?;
        }
        match store {
            Store::File { direct, poll, preallocate, pinned, read_only, .. } => {
                flag(f, *direct, "direct")?;
                flag(f, *poll, "polled")?;
                flag(f, *preallocate, "preallocated")?;
                flag(f, *pinned > 0, &format!("up to {} pinned", Size(*pinned)))?;
                flag(f, *read_only, "read-only")
            }
            Store::Block { direct, poll, pinned, read_only, .. } => {
                flag(f, *direct, "direct")?;
                flag(f, *poll, "polled")?;
                flag(f, *pinned > 0, &format!("up to {} pinned", Size(*pinned)))?;
                flag(f, *read_only, "read-only")
            }
            Store::Ram { preallocate, .. } => flag(f, *preallocate, "preallocated"),
            Store::Null { .. } => Ok(()),
        }
    }
}

fn flag(f: &mut fmt::Formatter<'_>, on: bool, name: &str) -> fmt::Result {
    if on { write!(f, ", {name}") } else { Ok(()) }
}

/// One line about a rule: names of users, never a secret.
struct RuleLine<'a>(&'a AccessRule);

impl fmt::Display for RuleLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccessRule { initiator, addresses, chap } = self.0;
        write!(f, "{initiator}")?;
        if !addresses.is_empty() {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            write!(f, " from {}", addresses.join(", "))?;
        }
        let Some(chap) = chap else {
            return write!(f, ", no CHAP");
        };
        let algorithms: Vec<&str> = chap.algorithms.iter().map(|a| a.name()).collect();
        write!(f, ", CHAP as {:?}", chap.initiator.user)?;
        if let Some(target) = &chap.target {
            write!(f, ", mutual as {:?}", target.user)?;
        }
        write!(f, " ({})", algorithms.join(", "))
    }
}

/// A time in the unit that people would use.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            time if time.subsec_nanos() == 0 => write!(f, "{} s", time.as_secs()),
            time => write!(f, "{} us", time.as_micros()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_shows_cores_pools_portals_and_targets() {
        let text = Plan::demo(&[0, 1]).to_string();
        for part in [
            "data cores                   1\n",
            "small buffers, 4 KiB",
            "127.0.0.1:3260",
            "iqn.2026-01.io.ringlun:demo",
            "LUN 0     demo             1 GiB, blocks of 512, ram",
            "access    anyone",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
