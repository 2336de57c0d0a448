//! How many of everything one core holds, added up from the plan.
//!
//! The sum, for one core:
//!
//! | what | how many | because |
//! |---|---|---|
//! | connections | `max_connections` / cores, rounded up | placement spreads sessions over cores |
//! | commands | connections x (`queue_depth` + 8) | a session's window, and immediate commands beside it |
//! | receive buffers | connections, 16 to 128, a power of two | one per connection with bytes in one turn; they go back in the same turn. Where the kernel can't pick them (`provided_buffers` masked) every connection holds one |
//! | small, at least | connections + 2 x volumes + 16 (+ 16 x protected volumes) | an INQUIRY or NOP of each connection moves although the store stalls |
//! | medium, at least | receive buffers + 8 x file and block volumes + 4 (+ 16 x protected ones on files and devices) | bounce buffers of each store's queue; tuples of protection information |
//! | large, at least | volumes + 4 | one burst of each volume; a quarter may be lent to receives of data that goes on at once |
//! | at most, of each | commands (+ receive buffers) | a command holds one buffer at a time |
//! | operations | 3 x connections + the buffers + 64; with `zero_copy` 8 more x connections | receive, send, close; a disk operation owns a buffer; timers, wakes, mailboxes, cancels; messages that are sent and not acknowledged |
//! | ring entries | operations, 256 to 4096, a power of two | what one turn publishes; more is published in two |
//! | completion entries | 2 x operations + 64, up to 65536, a power of two | each may be cancelled, which completes too |
//! | files | connections + volumes + 16 | registered descriptors |
//! | locked file pages | the sum of all `pinned` | of the whole process, as far as they are read; RLIMIT_MEMLOCK has to allow it |
//! | kernel workers | `store_depth` x file and block volumes | one stalled file must not starve the others |
//!
//! What `buffer_memory` leaves after the least is dealt out as a quarter to small, a quarter to medium and half to large
//! buffers; what a class can't use goes to the larger ones. Each buffer costs its payload and 4 KiB of headroom.
use crate::{Plan, Size, Store, Volume};
use serde::Serialize;

/// Immediate commands (NOP-Out, task management) beside a session's window.
const IMMEDIATE: u32 = 8;
/// Buffers that the queue of a protected volume keeps, as in `backstore::protection`.
const TUPLES: u32 = 16;
/// Messages that a connection may have sent without a copy, and that its peer has not acknowledged.
pub const HELD_SENDS: u32 = 8;
/// Bytes in front of each buffer, as in `memory::HEADROOM`.
const HEADROOM: u64 = 4096;
/// Payload bytes of the classes, as in `memory::Class::bytes`.
const SMALL: u64 = 4096;
const MEDIUM: u64 = 65_536;
const LARGE: u64 = 262_144;

/// Memory of so many buffers of each class, bytes, headroom included.
pub const fn buffer_cost(small: u32, medium: u32, large: u32) -> u64 {
    small as u64 * (SMALL + HEADROOM) + medium as u64 * (MEDIUM + HEADROOM) + large as u64 * (LARGE + HEADROOM)
}

/// Sizes of one core's pools, but for [`Pools::descriptors`] and [`Pools::pinned_bytes`], which are the process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pools {
    /// Connections, and as many sessions.
    pub connections: u32,
    /// Task slots.
    pub commands: u32,
    /// Buffers of 4 KiB.
    pub small: u32,
    /// Buffers of 64 KiB, the receive buffers among them.
    pub medium: u32,
    /// Buffers of 256 KiB.
    pub large: u32,
    /// Medium buffers that are given to the kernel to receive into; a power of two.
    pub receive_buffers: u32,
    /// Operation slots of the reactor.
    pub operations: u32,
    /// Submission queue entries; a power of two.
    pub ring_entries: u32,
    /// Completion queue entries; a power of two.
    pub completion_entries: u32,
    /// Slots in the table of registered files.
    pub files: u32,
    /// Bounded workers of the ring (IORING_REGISTER_IOWQ_MAX_WORKERS); at least 2.
    pub kernel_workers: u32,
    /// Memory of all buffers, bytes.
    pub buffer_bytes: u64,
    /// Descriptors that the whole process may hold: the file limit is raised to this if it is below.
    pub descriptors: u64,
    /// Bytes of files that the whole process may lock in memory.
    pub pinned_bytes: u64,
}

/// The counts that everything else is made of.
struct Counts {
    connections: u32,
    volumes: u32,
    /// Of these the ones on files and devices.
    files: u32,
    /// With protection information: in memory, on files and devices.
    protected: [u32; 2],
    receive_buffers: u32,
    /// Medium buffers that receives hold.
    receiving: u32,
}

impl Counts {
    fn of(plan: &Plan) -> Counts {
        let cores = u32::try_from(plan.server.cores.len()).unwrap_or(u32::MAX).max(1);
        let connections = plan.limits.max_connections.div_ceil(cores).max(1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).min(1 << 16);
        // Those that may come count as files.
        let room = plan.limits.max_volumes.max(count(plan.volumes.len()));
        let on_file = |volume: &&Volume| matches!(volume.store, Store::File { .. } | Store::Block { .. });
        let receive_buffers = connections.clamp(16, 128).next_power_of_two();
        let masked = |name: &String| matches!(name.as_str(), "all" | "provided_buffers");
        let unprovided = plan.server.mask_features.iter().any(masked);
        Counts {
            connections,
            volumes: room,
            files: count(plan.volumes.iter().filter(on_file).count()) + (room - count(plan.volumes.len())),
            protected: [false, true].map(|file| {
                let counts = |volume: &&Volume| volume.protection.is_some() && on_file(volume) == file;
                count(plan.volumes.iter().filter(counts).count())
            }),
            receive_buffers,
            receiving: if unprovided { connections.max(receive_buffers) } else { receive_buffers },
        }
    }

    /// Buffers of each class without which somebody could wait for ever.
    fn least(&self) -> [u32; 3] {
        let [memory, file] = self.protected.map(|volumes| TUPLES * volumes);
        [
            self.connections + 2 * self.volumes + 16 + memory + file,
            // Small ones where the file takes any I/O, medium ones where it wants it aligned.
            self.receiving + 8 * self.files + 4 + file,
            self.volumes + 4,
        ]
    }
}

impl Pools {
    /// The least `buffer_memory` of a plan with these many cores, connections and volumes, bytes.
    pub(crate) fn least_memory(plan: &Plan) -> u64 {
        let [small, medium, large] = Counts::of(plan).least();
        buffer_cost(small, medium, large)
    }

    /// Adds up. A `buffer_memory` below the least counts as the least.
    pub(crate) fn of(plan: &Plan) -> Pools {
        let counts = Counts::of(plan);
        let Counts { connections, volumes, receive_buffers, .. } = counts;
        let commands = connections.saturating_mul(plan.limits.queue_depth.saturating_add(IMMEDIATE));
        let [mut small, mut medium, mut large] = counts.least();
        let mut rest = plan.limits.buffer_memory.saturating_sub(buffer_cost(small, medium, large));
        let (for_small, for_medium) = (rest / 4, rest / 4);
        let mut deal = |share: u64, count: &mut u32, most: u32, payload: u64| {
            let cost = payload + HEADROOM;
            let more = (share / cost).min(u64::from(most.saturating_sub(*count)));
            *count += more as u32; // at most `most`, which is a u32
            rest -= more * cost;
            rest
        };
        deal(for_small, &mut small, commands, SMALL);
        let left = deal(for_medium, &mut medium, commands.saturating_add(counts.receiving), MEDIUM);
        deal(left, &mut large, commands, LARGE);

        let held = if plan.server.zero_copy > 0 { HELD_SENDS } else { 0 };
        let operations = connections
            .saturating_mul(3 + held)
            .saturating_add(small)
            .saturating_add(medium)
            .saturating_add(large)
            .saturating_add(64)
            .min(1 << 20);
        Pools {
            connections,
            commands,
            small,
            medium,
            large,
            receive_buffers,
            operations,
            ring_entries: operations.clamp(256, 4096).next_power_of_two(),
            // As the reactor asks for them: one for each operation, and one for its cancellation.
            completion_entries: operations.saturating_mul(2).saturating_add(64).clamp(512, 65_536).next_power_of_two(),
            files: connections.saturating_add(volumes).saturating_add(16),
            kernel_workers: plan.limits.store_depth.saturating_mul(counts.files).clamp(4, 1 << 15),
            buffer_bytes: buffer_cost(small, medium, large),
            descriptors: u64::from(plan.limits.max_connections)
                + u64::from(plan.limits.max_half_open_logins)
                + 2 * u64::from(volumes)
                + plan.portals.len() as u64
                + 8 * plan.server.cores.len() as u64
                + 64,
            pinned_bytes: plan.volumes.iter().map(|volume| volume.store.pinned()).fold(0, u64::saturating_add),
        }
    }

    /// The memory of the buffers, for people.
    pub fn buffer_size(&self) -> Size {
        Size(self.buffer_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(change: impl FnOnce(&mut Plan)) -> Pools {
        let mut plan = Plan::demo(&[0, 1]);
        change(&mut plan);
        plan.pools()
    }

    #[test]
    fn buffers_stay_within_the_memory_that_the_plan_gives() {
        for mib in [32u64, 64, 128, 1024, 65536] {
            let pools = demo(|plan| plan.limits.buffer_memory = mib << 20);
            assert!(pools.buffer_bytes <= mib << 20, "{mib} MiB: {pools:?}");
            assert_eq!(pools.buffer_bytes, buffer_cost(pools.small, pools.medium, pools.large));
        }
    }

    #[test]
    fn memory_is_used_when_there_is_need_for_it() {
        let pools = demo(|plan| plan.limits.buffer_memory = 256 << 20);
        assert!(pools.buffer_bytes > 250 << 20, "{pools:?}");
        assert!(pools.small > 1000 && pools.large > 300, "{pools:?}");
    }

    #[test]
    fn no_class_has_more_buffers_than_holders() {
        let pools = demo(|plan| {
            plan.limits.max_connections = 1;
            plan.limits.queue_depth = 1;
            plan.limits.buffer_memory = 8 << 30;
        });
        assert_eq!(pools.commands, 9);
        assert_eq!((pools.small, pools.medium, pools.large), (19, 25, 9));
    }

    #[test]
    fn the_least_holds_even_if_the_plan_gives_nothing() {
        let pools = demo(|plan| plan.limits.buffer_memory = 0);
        assert_eq!((pools.small, pools.medium, pools.large), (256 + 2 + 16, 128 + 4, 5));
        assert_eq!(pools.buffer_bytes, Pools::least_memory(&Plan::demo(&[0, 1])));
    }

    #[test]
    fn connections_are_spread_over_the_cores() {
        let pools = demo(|plan| {
            plan.server.cores = vec![1, 2, 3];
            plan.limits.max_connections = 1000;
        });
        assert_eq!(pools.connections, 334);
        assert_eq!(pools.commands, 334 * 136);
    }

    #[test]
    fn every_connection_has_a_buffer_to_receive_into_when_the_kernel_does_not_pick_them() {
        let pools = demo(|plan| {
            plan.server.mask_features = vec!["provided_buffers".to_owned()];
            plan.limits.buffer_memory = 0;
            plan.limits.max_connections = 1000;
        });
        assert_eq!((pools.medium, pools.receive_buffers), (1004, 128));
    }

    #[test]
    fn messages_that_the_kernel_holds_have_slots_of_their_own() {
        let (off, on) = (demo(|_| {}), demo(|plan| plan.server.zero_copy = 65536));
        assert_eq!(on.operations, off.operations + HELD_SENDS * on.connections);
    }

    #[test]
    fn rings_are_powers_of_two_that_the_kernel_takes() {
        for connections in [1, 100, 65_536, 1 << 20] {
            let pools = demo(|plan| plan.limits.max_connections = connections);
            for entries in [pools.ring_entries, pools.completion_entries, pools.receive_buffers] {
                assert!(entries.is_power_of_two() && entries <= 65_536, "{pools:?}");
            }
            assert!(pools.ring_entries <= 32_768);
        }
    }
}
