//! `motherctl upgrade`: asks motherd for it, and waits for the one that takes over.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    args::Global,
    failure::Failure,
    output::{print, print_json},
    render::printable,
};
use crate::control::{
    client::{CallError, Client},
    protocol::{Manager, Mode, Reply, Request, Upgraded, VERSION},
};

/// Seven early deaths of a new motherd take 3 s of waits, and each of them its own time.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(60);
/// From one look for the next motherd to the next.
const LOOK: Duration = Duration::from_millis(20);

/// Checks, installs and hands over, or only checks.
pub(super) fn upgrade(
    global: &Global,
    path: Option<&Path>,
    initldr: bool,
    check: bool,
) -> Result<u8, Failure> {
    let path = path.map(absolute).transpose()?;
    let socket = global.socket();
    let refused = |error: CallError| Failure::new(error.exit_status(), &error);
    let before = manager(&socket).map_err(refused)?;
    let request = Request::Upgrade { path, initldr, check };
    let reply = Client::connect(&socket).and_then(|mut client| client.call(&request));
    let upgraded = match reply {
        Ok(Reply::Upgraded(upgraded)) => upgraded,
        Ok(_) => return Err(Failure::say(1, "motherd answered something else")),
        Err(error) => return Err(refused(error)),
    };
    if !global.json {
        print(&text(&upgraded))?;
    }
    if check {
        return if global.json { report(&upgraded, None, 0) } else { Ok(0) };
    }
    let after =
        if initldr { manager(&socket).map_err(refused)? } else { successor(&socket, before.generation)? };
    let status = u8::from(!initldr && after.mode != Mode::Normal);
    if global.json {
        return report(&upgraded, Some(&after), status);
    }
    print(&took_over(&after, initldr))?;
    Ok(status)
}

/// The manager itself.
pub(super) fn manager(socket: &Path) -> Result<Manager, CallError> {
    let reply = Client::connect(socket)?.call(&Request::Manager)?;
    let Reply::Manager(manager) = reply else { unreachable!("what `decode` makes of the answer: {reply:?}") };
    Ok(manager)
}

/// The motherd after that one.
fn successor(socket: &Path, generation: u32) -> Result<Manager, Failure> {
    let deadline = Instant::now() + TAKES_OVER_WITHIN;
    loop {
        match manager(socket) {
            Ok(manager) if manager.generation != generation => return Ok(manager),
            Ok(_) => {}
            Err(error) if Instant::now() > deadline => {
                return Err(Failure::new(error.exit_status(), &error));
            }
            Err(_) => {}
        }
        if Instant::now() > deadline {
            return Err(Failure::say(1, "the motherd of before has not ended"));
        }
        std::thread::sleep(LOOK);
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute: PathBuf =
        std::path::absolute(path).map_err(|error| Failure::say(1, format!("{}: {error}", path.display())))?;
    absolute
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::say(2, format!("{}: its name is no UTF-8", path.display())))
}

fn report(upgraded: &Upgraded, manager: Option<&Manager>, status: u8) -> Result<u8, Failure> {
    print_json(&json!({ "version": VERSION, "upgrade": upgraded, "manager": manager }))?;
    Ok(status)
}

fn text(upgraded: &Upgraded) -> String {
    let Upgraded { candidate, release, found, installed, kept, only_checked, .. } = upgraded;
    let reads = format!("{}: {release}, reads {}\n", printable(candidate), found.join(", "));
    if *only_checked {
        return format!("{reads}it can take over; nothing was changed\n");
    }
    let kept = kept.as_ref().map(|kept| format!("; the one before is {}", printable(kept)));
    format!("{reads}installed as {}{}\n", printable(installed), kept.unwrap_or_default())
}

fn took_over(manager: &Manager, initldr: bool) -> String {
    let Manager { release, pid, generation, initldr_pid, initldr_program, .. } = manager;
    if initldr {
        return format!("initldr (pid {initldr_pid}) runs {}; motherd runs on\n", printable(initldr_program));
    }
    let mut text = format!("motherd {release} has taken over (pid {pid}, number {generation})\n");
    text.push_str(&notice(manager));
    text
}

/// What an operator has to know of a manager that is not as it should be; else nothing.
pub(super) fn notice(manager: &Manager) -> String {
    let why = manager.why.as_deref().unwrap_or("died early");
    let safe = "safe mode: what runs is left alone, and nothing is started. Once the cause is mended, kill -9 of motherd ends that, and no service notices";
    let previous = format!(
        "{} keeps dying early, so the previous program runs: {}",
        printable(&manager.installed),
        printable(&manager.previous)
    );
    let lost = match manager.lost_exits {
        0 => String::new(),
        lost => format!(
            "motherd: {lost} exits were not recorded: more processes ended while there was no motherd than initldr keeps\n"
        ),
    };
    let words = match manager.mode {
        Mode::Normal => return lost,
        Mode::Safe => safe.to_owned(),
        Mode::Previous => previous,
        Mode::PreviousSafe => format!("{previous}, in {safe}"),
    };
    format!("{lost}motherd: {words} (the one before {})\n", printable(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::{manager, upgraded};

    #[test]
    fn an_upgrade_says_what_was_found_and_what_was_done() {
        let reads = "/tmp/motherd: motherd 0.2.0, reads 3 records, 5 service files\n";
        let done = upgraded();
        let expected = "installed as /usr/sbin/motherd; the one before is /usr/sbin/motherd.prev\n";
        assert_eq!(text(&done), format!("{reads}{expected}"));
        let checked = Upgraded { only_checked: true, kept: None, ..done.clone() };
        assert_eq!(text(&checked), format!("{reads}it can take over; nothing was changed\n"));
        assert_eq!(
            text(&Upgraded { kept: None, ..done }),
            format!("{reads}installed as /usr/sbin/motherd\n")
        );
    }

    #[test]
    fn a_manager_that_is_as_it_should_be_is_no_news() {
        assert_eq!(notice(&manager()), "");
        assert_eq!(took_over(&manager(), false), "motherd 0.1.0 has taken over (pid 77, number 3)\n");
        let failed = Manager { mode: Mode::Previous, why: Some("ended by SIGSEGV".into()), ..manager() };
        let expected = "motherd: /usr/sbin/motherd keeps dying early, so the previous program runs: \
                        /usr/sbin/motherd.prev (the one before ended by SIGSEGV)\n";
        assert_eq!(notice(&failed), expected);
        let lossy = Manager { lost_exits: 7, ..manager() };
        assert!(notice(&lossy).starts_with("motherd: 7 exits were not recorded: "), "{}", notice(&lossy));
        let safe = Manager { mode: Mode::Safe, ..manager() };
        assert!(
            notice(&safe).starts_with("motherd: safe mode: what runs is left alone, and nothing is started.")
        );
    }
}
