//! What `/proc` says of a process that is not our child: whether it is still the one we know, and whether a signal
//! would reach it.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd},
};

/// What a small file of /proc or of a cgroup says, in the two calls that it takes: its size says nothing, and whoever goes
/// by that reads it in many.
pub(crate) fn read_small(file: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(2048);
    file.take(64 << 10).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn text_of(path: &str) -> io::Result<String> {
    read_small(&mut File::open(path)?)
}

/// Field 22 of `/proc/PID/stat`: when it was started, in clock ticks since boot. Together with the pid it names a
/// process for ever, and no setting of the clock changes it.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    birth(pid).map(|(start_ticks, _)| start_ticks)
}

/// When a process was started, as [`start_ticks`] has it, and its parent (field 4).
pub(crate) fn birth(pid: u32) -> io::Result<(u64, u32)> {
    let stat = text_of(&format!("/proc/{pid}/stat"))?;
    let born = || Some((parse_start_ticks(&stat)?, field(&stat, 4)?));
    born().ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
}

/// Field 52 of `/proc/PID/stat` of a process that is dead and was not reaped yet: how it ended, as wait(2) encodes it.
pub(crate) fn exit_code(pid: u32) -> Option<i32> {
    let stat = text_of(&format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    (fields.next()? == "Z").then(|| fields.nth(52 - 4)?.parse().ok())?
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// The name (field 2) is in parentheses and may have any character in it; after the last one there is field 3.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Its parent.
pub(crate) fn parent(pid: u32) -> io::Result<u32> {
    field_of_status(pid, "PPid:", |words| words.next()?.parse().ok())
}

/// Its pids, from the one that this process sees to the one that it sees itself.
pub(crate) fn pids(pid: u32) -> io::Result<Vec<u32>> {
    field_of_status(pid, "NSpid:", |words| words.map(|word| word.parse().ok()).collect())
}

/// Its pid as it sees itself.
pub(crate) fn innermost_pid(pid: u32) -> io::Result<u32> {
    field_of_status(pid, "NSpid:", |words| words.last()?.parse().ok())
}

fn field_of_status<T>(
    pid: u32,
    name: &str,
    read: impl Fn(&mut dyn Iterator<Item = &str>) -> Option<T>,
) -> io::Result<T> {
    let status = text_of(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| read(&mut line.split_ascii_whitespace()))
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no {name}")))
}

/// Whether a process is dead, and waits to be reaped.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = text_of(&format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.split_ascii_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}

/// Whether a process is dead, or on its way there: its descriptors are closed before it is (PF_EXITING in field 9).
pub(crate) fn is_ending(pid: u32) -> bool {
    /// include/linux/sched.h: since the kernel has had the field.
    const PF_EXITING: u32 = 4;
    let stat = text_of(&format!("/proc/{pid}/stat")).unwrap_or_default();
    field::<u32>(&stat, 9).is_none_or(|flags| flags & PF_EXITING != 0)
}

/// The pid of the process that a pidfd is of, as this pid namespace has it; `None` where it is gone.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let text = text_of(&format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Why the kernel would drop a signal to this process: it is the first of its pid namespace, and has no handler for it
/// (pid_namespaces(7)). `None`: the signal gets through.
pub(crate) fn deaf(pid: u32, signal: i32) -> io::Result<Option<String>> {
    let status = text_of(&format!("/proc/{pid}/status"))?;
    // Who sits in sigwait(3) hears too, and shows what it waits for in none of its masks.
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let waits = call.starts_with(&format!("{} ", libc::SYS_rt_sigtimedwait));
    Ok((!waits && is_deaf(&status, signal)).then(|| {
        format!(
            "it is PID 1 of its pid namespace and has no handler for {}, so the kernel would drop it",
            crate::service::signal_name(signal)
        )
    }))
}

fn is_deaf(status: &str, signal: i32) -> bool {
    if signal == libc::SIGKILL || signal == libc::SIGSTOP {
        return false;
    }
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // One number for each pid namespace from ours down to its own.
    let first = field("NSpid:").is_some_and(|pids| pids.split_ascii_whitespace().skip(1).last() == Some("1"));
    let mask = |name| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    // One that is blocked is not dropped either: it waits, for a signalfd or sigwait(3).
    let heard = mask("SigCgt:").unwrap_or(u64::MAX) | mask("SigBlk:").unwrap_or_default();
    first && heard & (1 << (signal - 1)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_passed_over() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_ticks(&format!("7 (a) b (c) {rest}")), Some(4711));
        assert_eq!(parse_start_ticks("7 (a) S"), None);
    }

    #[test]
    fn a_small_file_is_read_whole() {
        for path in ["/proc/self/status", "/proc/self/mountinfo"] {
            let mut file = fs::File::open(path).unwrap();
            let text = fs::read_to_string(path).unwrap();
            let first = |text: &str| text.lines().next().map(str::to_owned);
            let small = read_small(&mut file).unwrap();
            assert_eq!((first(&small), small.lines().count()), (first(&text), text.lines().count()));
        }
    }

    #[test]
    fn the_oracle_of_start_ticks_is_this_process() {
        assert_eq!(birth(std::process::id()).unwrap().1, std::os::unix::process::parent_id());
        let own = start_ticks(std::process::id()).unwrap();
        let text = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(text.contains(&format!(" {own} ")));
    }

    #[test]
    fn the_first_process_of_a_namespace_hears_only_what_it_handles() {
        let first = "NSpid:\t4321\t1\nSigCgt:\t0000000000004000\n"; // SIGTERM (15) alone
        assert!(!is_deaf(first, libc::SIGTERM));
        assert!(is_deaf(first, libc::SIGINT));
        assert!(!is_deaf(first, libc::SIGKILL));
        let waits = "NSpid:\t4321\t1\nSigBlk:\t0000000000004000\nSigCgt:\t0000000000000000\n";
        assert!(!is_deaf(waits, libc::SIGTERM), "sigwait(3)");
        assert!(is_deaf(waits, libc::SIGINT));
        let second = "NSpid:\t4321\t2\nSigCgt:\t0000000000000000\n";
        assert!(!is_deaf(second, libc::SIGTERM));
        let ours = "NSpid:\t1\nSigCgt:\t0000000000000000\n";
        assert!(!is_deaf(ours, libc::SIGTERM), "no namespace of its own");
    }
}
