//! What happens is written into the event log, whose memory initldr keeps.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    time::{ClockId as Clock, clock_gettime},
    unistd::ftruncate,
};

use super::{Daemon, Fatal, answer::state_name, link::Link, now};
use crate::{
    eventlog::{Entry, EventLog, SIZE, What},
    graph::Id,
    supervise::{Cause, State},
};

/// The name under which initldr keeps the event log.
pub(super) const SLOT: &str = "events";

/// The log that initldr kept, or a new one.
pub(super) fn open(link: &Link, kept: Option<OwnedFd>) -> Result<EventLog, Fatal> {
    if let Some(kept) = kept {
        match EventLog::map(&kept) {
            Ok(log) => return Ok(log),
            Err(errno) => tracing::error!("the event log that initldr kept is of no use: {errno}"),
        }
    }
    let fail = |errno: nix::errno::Errno| Fatal::system("make the event log")(errno.into());
    let memory = memfd_create(c"motherd-events", MFdFlags::MFD_CLOEXEC).map_err(fail)?;
    ftruncate(&memory, i64::try_from(SIZE).unwrap_or_default()).map_err(fail)?;
    let log = EventLog::map(&memory).map_err(fail)?;
    link.store(SLOT, memory.as_fd())?;
    Ok(log)
}

impl Daemon {
    /// Something that is no change of a service's state.
    pub(super) fn note(&mut self, what: What, service: &str, cause: &Cause) {
        self.write_event(what, service, "", cause);
    }

    /// A service came into its state.
    pub(super) fn note_state(&mut self, id: Id, before: Option<&State>, state: &State) {
        let further = matches!((before, state), (Some(State::Stopping { .. }), State::Stopping { .. }));
        // What comes of a launch follows at once, with the same cause; a stop that goes on is no news.
        // What is waited for is told once it was looked for.
        if matches!(state, State::Launching | State::Expecting { .. }) || further {
            return;
        }
        let unit = self.manager.unit(id);
        let waits = unit.state == State::Waiting;
        let state = if waits && self.manager.is_blocked(id) { "blocked" } else { state_name(&unit.state) };
        let cause = unit.cause.clone();
        let name = self.manager.graph().name(id).to_owned();
        self.write_event(What::Became, &name, state, &cause);
    }

    pub(super) fn write_event(&mut self, what: What, service: &str, state: &str, cause: &Cause) {
        self.events.push(&Entry {
            sequence: 0,
            at: now(),
            realtime: clock_gettime(Clock::CLOCK_REALTIME).map(Into::into).unwrap_or_default(),
            service: service.to_owned(),
            what,
            state: state.to_owned(),
            words: cause.words.clone(),
            request: cause.request,
        });
    }
}
