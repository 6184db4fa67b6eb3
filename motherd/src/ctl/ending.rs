//! The end of everything, now or at a time; and what one does where motherd cannot be asked any more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::{
    errno::Errno,
    sys::reboot::{RebootMode, reboot, set_cad_enabled},
    unistd::geteuid,
};

use super::{
    args::{Global, Shutdown},
    failure::Failure,
    output::complain,
    remote::{self, ask},
};
use crate::{
    control::protocol::{How, Request},
    sys,
};

/// SIGRTMIN: 13 more and what follows are ends at once (docs/boot.md).
const SIGRTMIN: i32 = 34;

/// Asks motherd for the end. Forced, initldr is told by a signal where motherd does not answer; forced twice, the kernel
/// is, at once, and nothing is unmounted.
pub(super) fn end(global: &Global, how: How, status: u8, force: u8) -> Result<u8, Failure> {
    if force > 1 {
        return by_kernel(how);
    }
    let asked = ask(global, &Request::End { how, status, force: force > 0 });
    match asked {
        Err(failure) if failure.status == remote::NOT_REACHABLE && force > 0 => {
            complain(&format!("{failure}: initldr is told by a signal\n"));
            by_signal(how)
        }
        Err(failure) if failure.status == remote::NOT_REACHABLE => {
            Err(failure.advise("with --force initldr is told by a signal, and ends everything at once"))
        }
        other => other,
    }
}

fn by_signal(how: How) -> Result<u8, Failure> {
    let number = match how {
        How::Halt => 13,
        How::Poweroff | How::Exit => 14,
        How::Reboot => 15,
        How::Kexec => 16,
        How::SoftReboot => 17,
    };
    let told = sys::process::kill(1, SIGRTMIN + number);
    told.map(|()| 0).map_err(|errno| Failure::say(1, format!("kill 1 with SIGRTMIN+{number}: {errno}")))
}

fn by_kernel(how: How) -> Result<u8, Failure> {
    let mode = match how {
        How::Poweroff => RebootMode::RB_POWER_OFF,
        How::Reboot => RebootMode::RB_AUTOBOOT,
        How::Halt => RebootMode::RB_HALT_SYSTEM,
        How::Kexec | How::SoftReboot | How::Exit => {
            return Err(Failure::say(2, format!("{}: --force is there once, not twice", how.name())));
        }
    };
    if !geteuid().is_root() {
        return Err(Failure::say(5, "permission denied: this is for root"));
    }
    // Where even that is refused Ctrl-Alt-Del is what is left.
    let Err(errno) = reboot(mode);
    let keys = if set_cad_enabled(true).is_ok() { "; Ctrl-Alt-Del reboots at once now" } else { "" };
    Err(Failure::say(if errno == Errno::EPERM { 5 } else { 1 }, format!("reboot(2): {errno}{keys}")))
}

/// `shutdown`.
pub(super) fn shutdown(global: &Global, arguments: &Shutdown) -> Result<u8, Failure> {
    if arguments.cancel {
        return ask(global, &Request::Unschedule);
    }
    let how = match arguments {
        Shutdown { reboot: true, .. } => How::Reboot,
        Shutdown { halt: true, .. } => How::Halt,
        _ => How::Poweroff,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ahead = sys::clock::ahead_of_utc(i64::try_from(now.as_secs()).unwrap_or_default()).unwrap_or(0);
    let wait =
        wait(arguments.time.as_deref().unwrap_or("+1"), now, ahead).map_err(|why| Failure::say(2, why))?;
    if wait.is_zero() {
        return end(global, how, 0, 0);
    }
    let at = now.saturating_add(wait).as_secs();
    ask(global, &Request::Schedule { how, at, message: arguments.message.join(" ") })
}

/// How long it is until `now`, `+MINUTES` or `HH:MM`, the next one of this machine's days.
fn wait(text: &str, now: Duration, ahead_of_utc: i64) -> Result<Duration, String> {
    const DAY: i64 = 24 * 60 * 60;
    let wrong = || format!("{text} is no time: now, +MINUTES or HH:MM");
    let number = |text: &str| -> Result<u32, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(wrong)
    };
    if text == "now" {
        return Ok(Duration::ZERO);
    }
    let minutes = text.strip_prefix('+').or((!text.contains(':')).then_some(text));
    if let Some(minutes) = minutes {
        return Ok(Duration::from_secs(u64::from(number(minutes)?) * 60));
    }
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return Err(wrong());
    }
    let wanted = i64::from(hours * 3600 + minutes * 60);
    let today = (i64::try_from(now.as_secs()).unwrap_or_default() + ahead_of_utc).rem_euclid(DAY);
    let seconds = (wanted - today).rem_euclid(DAY);
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_so_long_from_now() {
        // 1970-01-02 10:30:15 UTC
        let now = Duration::from_secs(24 * 3600 + 10 * 3600 + 30 * 60 + 15);
        let check = |text: &str, ahead: i64, expected: Option<u64>| {
            assert_eq!(wait(text, now, ahead).ok(), expected.map(Duration::from_secs), "{text}");
        };
        check("now", 0, Some(0));
        check("+0", 0, Some(0));
        check("+5", 0, Some(300));
        check("90", 0, Some(5400));
        check("10:31", 0, Some(45));
        check("10:30", 0, Some(24 * 3600 - 15));
        check("00:00", 0, Some(13 * 3600 + 29 * 60 + 45));
        check("12:31", 2 * 3600, Some(45));
        check("02:31", -8 * 3600, Some(45));
        for text in
            ["", "+", "-5", "+-5", "tomorrow", "24:00", "10:60", "10:", ":30", "+99999999999", "1:2:3"]
        {
            check(text, 0, None);
        }
    }
}
