//! Task management functions (RFC 7143 11.5, 11.6): which of them the server sees, when, and for which task.

use crate::connection::Connection;
use crate::event::{Advance, Event, TaskManagement, TmfResponse};
use crate::session::Session;
use crate::sink::Sink;
use crate::task::Tasks;
use wire::{
    BHS_LEN, RejectReason, TaskManagementFunction as Function, TaskManagementRequest, TaskManagementResponse,
    TaskManagementResult,
};

/// Task management requests that a connection may have in progress.
pub const MAX_MANAGEMENT: usize = 8;

/// The requests in progress.
#[derive(Debug, Default)]
pub(crate) struct Management {
    slots: [Option<Request>; MAX_MANAGEMENT],
    /// How many were not given to the server yet.
    waiting: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    initiator_task_tag: u32,
    /// The server's view of it.
    request: TaskManagement,
    /// It waits for the commands before it (RFC 7143 4.2.3.3 b).
    waits: bool,
}

impl Management {
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        self.waiting != 0
    }

    fn is_full(&self) -> bool {
        self.slots.iter().all(Option::is_some)
    }

    fn add(&mut self, initiator_task_tag: u32, mut request: TaskManagement, waits: bool) -> Option<TaskManagement> {
        let slot = self.slots.iter().position(Option::is_none)?;
        self.generation = self.generation.wrapping_add(1);
        request.key = self.generation.wrapping_mul(MAX_MANAGEMENT as u32).wrapping_add(slot as u32);
        self.slots[slot] = Some(Request { initiator_task_tag, request, waits });
        self.waiting += u32::from(waits);
        Some(request)
    }

    fn take(&mut self, key: u32) -> Option<Request> {
        let slot = &mut self.slots[key as usize % MAX_MANAGEMENT];
        let request = slot.take_if(|request| request.request.key == key)?;
        self.waiting -= u32::from(request.waits);
        Some(request)
    }

    /// One whose commands are all there.
    pub(crate) fn due(&mut self, session: &Session) -> Option<Event> {
        let request = self
            .slots
            .iter_mut()
            .flatten()
            .find(|slot| slot.waits && !misses_commands(session, slot.request.cmd_sn))?;
        request.waits = false;
        self.waiting -= 1;
        Some(Event::TaskManagement(request.request))
    }
}

/// Commands before `cmd_sn` did not arrive yet.
fn misses_commands(session: &Session, cmd_sn: u32) -> bool {
    let missing = cmd_sn.wrapping_sub(session.exp_cmd_sn());
    // A CmdSN far off is a mistake; waiting for it would be for ever.
    missing != 0 && session.in_window(cmd_sn.wrapping_sub(1))
}

impl Connection {
    pub(crate) fn task_management<T>(
        &mut self,
        session: &mut Session,
        tasks: &Tasks<T>,
        header: &[u8; BHS_LEN],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let Ok(request) = TaskManagementRequest::parse(header) else {
            self.reject(session, header, RejectReason::InvalidPduField, sink);
            return None;
        };
        let tag = request.initiator_task_tag;
        if self.management.is_full() {
            if request.immediate {
                self.reject(session, header, RejectReason::ImmediateCommandReject, sink);
            } else {
                self.put_management(session, tag, TmfResponse::Rejected, sink);
            }
            return None;
        }
        let mut passed = TaskManagement {
            key: 0,
            function: request.function.code(),
            lun: request.lun,
            referenced: None,
            cmd_sn: request.cmd_sn,
        };
        let mut waits = false;
        match request.function {
            Function::AbortTask => match session.find(tasks, request.referenced_task_tag) {
                Some(key) if tasks.get(key).is_some_and(|task| !task.finished && task.lun == request.lun) => {
                    passed.referenced = Some(key);
                }
                _ => {
                    let response = abort_missing(session, &request);
                    self.put_management(session, tag, response, sink);
                    return None;
                }
            },
            Function::AbortTaskSet | Function::ClearTaskSet | Function::LogicalUnitReset => {
                waits = request.immediate && misses_commands(session, request.cmd_sn);
            }
            // Commands that did not arrive yet count as received, without waiting for them.
            Function::TargetWarmReset | Function::TargetColdReset => session.plug_before(request.cmd_sn),
            Function::TaskReassign => {
                self.put_management(session, tag, TmfResponse::ReassignmentNotSupported, sink);
                return None;
            }
            _ => {
                self.put_management(session, tag, TmfResponse::NotSupported, sink);
                return None;
            }
        }
        let passed = self.management.add(tag, passed, waits)?;
        if waits { None } else { Some(Advance::Event(Event::TaskManagement(passed))) }
    }

    /// Answers a task management request. `key` is [`TaskManagement::key`]; one that was answered already is ignored.
    pub fn task_management_response(
        &mut self,
        session: &mut Session,
        key: u32,
        response: TmfResponse,
        sink: &mut impl Sink,
    ) {
        if let Some(request) = self.management.take(key) {
            self.put_management(session, request.initiator_task_tag, response, sink);
        }
    }

    fn put_management(&mut self, session: &Session, tag: u32, response: TmfResponse, sink: &mut impl Sink) {
        let response = TaskManagementResponse {
            response: TaskManagementResult::from_code(response as u8),
            data_segment_length: 0,
            additional_information: 0,
            initiator_task_tag: tag,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
        };
        self.put_header(sink, |space| response.emit(space));
    }
}

/// ABORT TASK for a task that is not here (RFC 7143 11.6.1): a command that is still to come counts as received, and never
/// runs.
fn abort_missing(session: &mut Session, request: &TaskManagementRequest) -> TmfResponse {
    let earlier = (request.ref_cmd_sn.wrapping_sub(request.cmd_sn) as i32) < 0;
    if earlier && session.in_window(request.ref_cmd_sn) {
        session.plug(request.ref_cmd_sn);
        TmfResponse::Complete
    } else {
        TmfResponse::NoTask
    }
}
