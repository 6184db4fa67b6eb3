//! What a signal to initldr asks of us. Those by which it ends at once, and by which it makes another motherd, it acts upon
//! by itself (`initldr/src/phase.rs`, whose numbers these are); of the others we are told.
//!
//! On a machine three of them may be a service's affair: `ctrl-alt-del`, `powerfail` and `kbrequest` are started by
//! SIGINT, SIGPWR and SIGWINCH, where such a service is there.

use super::{Daemon, Fatal, answer, now, phase};
use crate::{
    eventlog::What,
    manager::End,
    service::signal_name,
    supervise::{Cause, Requester, State},
};

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Everything down, and then this.
    End(End),
    /// Start a service; where there is none of this name, that, if it is anything.
    Service(&'static str, Option<End>),
    /// Read the service files anew.
    Reload,
    /// Say what there is.
    Dump,
    /// It is said that it came.
    Nothing,
}

/// The table of docs/boot.md.
fn meaning(machine: bool, signal: i32) -> Meaning {
    let off = Meaning::End(End::PowerOff);
    match signal {
        libc::SIGHUP => Meaning::Reload,
        libc::SIGUSR2 => Meaning::Dump,
        libc::SIGINT if machine => Meaning::Service("ctrl-alt-del", Some(End::Reboot)),
        libc::SIGPWR if machine => Meaning::Service("powerfail", Some(End::PowerOff)),
        libc::SIGWINCH if machine => Meaning::Service("kbrequest", None),
        libc::SIGTERM | libc::SIGINT | libc::SIGPWR if !machine => off,
        _ => match signal - libc::SIGRTMIN() {
            3..=7 if !machine => off,
            3 => Meaning::End(End::Halt),
            4 => off,
            5 => Meaning::End(End::Reboot),
            6 => Meaning::End(End::Kexec),
            7 => Meaning::End(End::SoftReboot),
            _ => Meaning::Nothing,
        },
    }
}

impl Daemon {
    /// A signal came to initldr. Where it takes it for a request to end, it gives us 90 s for that, unless we say that
    /// something else is done.
    pub(super) fn signalled(&mut self, number: u32, who: Requester) -> Result<(), Fatal> {
        let signal = i32::try_from(number).unwrap_or_default();
        let name = signal_name(signal);
        let cause = Cause::request(&format!("{name} to initldr, sent"), who);
        match meaning(phase::of_the_machine(), signal) {
            Meaning::End(how) => self.end(how, &cause)?,
            Meaning::Service(service, otherwise) => match (self.manager.graph().find(service), otherwise) {
                (Some(id), _) => {
                    tracing::info!("{service}: {}", cause.words);
                    self.note(What::Asked, service, &cause);
                    let effects = self.manager.boot(id, &cause, now());
                    self.dispatch(effects)?;
                    if otherwise.is_some() {
                        self.link.carry_on()?;
                    }
                }
                (None, Some(how)) => self.end(how, &cause)?,
                (None, None) => tracing::info!("{}: there is no service `{service}`", cause.words),
            },
            Meaning::Reload => {
                let plan = self.reload_config(false, who)?;
                for error in &plan.errors {
                    tracing::error!("{error}");
                }
                if !plan.errors.is_empty() {
                    tracing::error!("{}: nothing is changed", cause.words);
                }
            }
            Meaning::Dump => self.dump(&cause),
            Meaning::Nothing => tracing::info!("{}: it means nothing", cause.words),
        }
        Ok(())
    }

    /// Each service with its state and why, on standard error however little is said there otherwise: for whoever has
    /// nothing but the console left.
    fn dump(&self, cause: &Cause) {
        let mut text = format!("motherd (pid {}): {}\n", std::process::id(), cause.words);
        if let Some(how) = self.manager.ending() {
            text.push_str(&format!("  the machine is ending: {how:?}\n"));
        }
        for id in self.manager.graph().ids() {
            let unit = self.manager.unit(id);
            let (name, state) = (self.manager.graph().name(id), answer::state_name(&unit.state));
            let main = unit.main().map(|main| format!(" as {}", main.pid)).unwrap_or_default();
            let waits = self.manager.waits_for(id).filter(|_| unit.state == State::Waiting);
            let waits = waits.map(|obstacle| format!(", {obstacle}")).unwrap_or_default();
            text.push_str(&format!("  {name}: {state}{main}{waits} ({})\n", unit.cause.words));
        }
        for name in self.catalog.broken.keys() {
            text.push_str(&format!("  {name}: its file is broken\n"));
        }
        super::tell(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// initldr's own idea of what is a request to end, and ours, must not differ: it ends after 90 s what we do not.
    #[test]
    fn what_initldr_takes_for_a_request_to_end_is_one_here() {
        use initldr::{
            link::Signal,
            phase::{Effect, Event, Phase},
        };
        use std::time::Duration;
        for machine in [true, false] {
            for number in initldr::phase::taken() {
                let signal = Signal { number, sender_pid: 1, sender_uid: 0 };
                let (phase, effect) = Phase::of(machine).step(Event::Signal(signal), Duration::from_secs(1));
                if effect != Effect::PassOn(signal) {
                    continue; // it acts by itself
                }
                let ours = meaning(machine, i32::try_from(number).unwrap());
                let how = match ours {
                    Meaning::End(how) | Meaning::Service(_, Some(how)) => Some(how),
                    Meaning::Service(_, None) | Meaning::Reload | Meaning::Dump | Meaning::Nothing => None,
                };
                let deadline = phase.deadline().filter(|deadline| !deadline.is_zero());
                assert_eq!(phase.stop_signal().is_some(), how.is_some(), "{number} {machine} {deadline:?}");
            }
        }
    }

    #[test]
    fn to_a_machine_sigterm_means_nothing_and_to_a_container_the_end() {
        assert_eq!(meaning(true, libc::SIGTERM), Meaning::Nothing);
        assert_eq!(meaning(false, libc::SIGTERM), Meaning::End(End::PowerOff));
        assert_eq!(meaning(true, libc::SIGRTMIN() + 5), Meaning::End(End::Reboot));
        assert_eq!(meaning(false, libc::SIGRTMIN() + 5), Meaning::End(End::PowerOff));
        assert_eq!(meaning(false, libc::SIGWINCH), Meaning::Nothing);
    }
}
