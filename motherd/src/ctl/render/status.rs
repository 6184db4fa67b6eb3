//! `motherctl status`: one block a service, the state first and the reason under it, then what it uses, then what
//! holds it back, then what it said.
//!
//! A line is a label and a value; a figure that cannot be had is said on a line of its own, by its file and the reason,
//! files with one reason together.

use std::borrow::Cow;

use nix::sys::signal::Signal;
use sandbox::attest::CapabilitySet;

use super::{
    by_reason,
    human::{bytes, duration, plural, printable},
    style::Style,
};
use crate::control::protocol::{
    Attested, Cause, ExitHow, Figure, Figures, Isolation, LandlockApplied, LastExit, LimitFigure, Missing,
    Namespace, SeccompMode, ServiceStatus, StandbyStatus,
};

/// The block of one. Between two there is an empty line.
pub(crate) fn status(service: &ServiceStatus, style: Style, text: &mut String) {
    let name = style.bold(&printable(&service.name));
    let mut page = Page::new(format!("{name}: {}\n", printable(&service.description)), style);
    page.line("state", &state(service, style));
    page.line("why", &why(&service.cause));
    if let Some(boot) = &service.boot {
        let by = if boot == "enabled" {
            "it is enabled".to_owned()
        } else {
            format!("{} has it", printable(boot))
        };
        page.line("boot", &format!("started: {by}"));
    }
    if let Some(says) = &service.says {
        page.line("says", &printable(says));
    }
    for (number, line) in service.health.iter().enumerate() {
        page.line(if number == 0 { "health" } else { "" }, &printable(line));
    }
    for (number, line) in service.pressure.iter().enumerate() {
        page.line(if number == 0 { "pressure" } else { "" }, &printable(line));
    }
    if let Some(pid) = service.main_pid {
        page.line("main pid", &pid.to_string());
    }
    if let Some(standby) = &service.standby {
        page.line("standby", &self::standby(standby));
    }
    page.line("restarts", &restarts(service));
    page.line("policy", &printable(&service.policy));
    if service.policy_in_force.as_ref().is_some_and(|in_force| in_force.drift) {
        page.warning("", "its files were changed since: what runs is confined by what they said; restart it");
    }
    for (number, line) in by_reason(&service.left_out).iter().enumerate() {
        page.warning(if number == 0 { "left out" } else { "" }, line);
    }
    if let Some(cgroup) = &service.cgroup {
        page.line("cgroup", &printable(cgroup));
    }
    match &service.figures {
        Some(figures) => page.figures(figures),
        None => {
            page.line("figures", &format!("none: a service that is {} has no cgroup", service.state.name()))
        }
    }
    match &service.isolation {
        Some(isolation) => page.isolation(isolation),
        None => page.line("isolation", "none: it has no main process"),
    }
    for socket in &service.sockets {
        let state = match (socket.starts_it, socket.listening) {
            (true, _) => "listens, and the next connection starts it",
            (false, true) => "listens",
            (false, false) => "closed",
        };
        let state = socket.error.as_deref().unwrap_or(state);
        page.line("socket", &printable(&format!("{} {} ({state})", socket.name, socket.listen)));
    }
    for timer in &service.timers {
        let next = timer
            .next_in_usec
            .map_or("nothing to wait for".to_owned(), |next| format!("in {}", duration(next)));
        page.line("timer", &printable(&format!("{} ({next})", timer.schedule)));
    }
    if !service.log.is_empty() || service.dropped_lines > 0 {
        match service.dropped_lines {
            0 => page.line("log", ""),
            dropped => page.line("log", &format!("({dropped} lines dropped by log.rate)")),
        }
        for line in &service.log {
            page.text.push_str(&format!("    {}\n", printable(line)));
        }
    }
    text.push_str(&page.text);
}

fn state(service: &ServiceStatus, style: Style) -> String {
    let mut text = style.state(service.state, service.state.name());
    if let Some(sub_state) = &service.sub_state {
        text.push_str(&format!(" ({})", style.warning(&printable(sub_state))));
    }
    if let Some(uptime) = service.uptime_usec {
        text.push_str(&format!(" for {}", duration(uptime)));
    }
    text
}

/// A cause that follows from a request further up says whose that was.
pub(super) fn why(Cause { words, request }: &Cause) -> String {
    match request {
        Some(who) if !words.contains(&format!("uid {}", who.uid)) => {
            format!("{}; asked for by uid {} (pid {})", printable(words), who.uid, who.pid)
        }
        Some(_) | None => printable(words),
    }
}

fn standby(StandbyStatus { pid, ready, why }: &StandbyStatus) -> String {
    match (pid, ready, why) {
        (Some(pid), true, _) => format!("waits right before execve as {pid}"),
        (Some(pid), false, _) => format!("on its way as {pid}"),
        (None, _, Some(why)) => format!("none: {}", printable(why)),
        (None, _, None) => "none at present".to_owned(),
    }
}

fn restarts(service: &ServiceStatus) -> String {
    let mut text = service.restarts.to_string();
    if let Some(exit) = &service.last_exit {
        text.push_str(&format!(", last {}", last_exit(exit)));
        // Both are on one clock, which the reply tells: the time now is the state's beginning and its age.
        if let (Some(then), Some(since), Some(age)) =
            (exit.boottime_usec, service.since_boottime_usec, service.uptime_usec)
        {
            text.push_str(&format!(" {} ago", duration((since + age).saturating_sub(then))));
        }
    }
    text
}

pub(super) fn last_exit(exit: &LastExit) -> String {
    let signal =
        || Signal::try_from(exit.status).map_or(format!("signal {}", exit.status), |s| s.to_string());
    match exit.how {
        ExitHow::Exited => format!("exited with status {}", exit.status),
        ExitHow::Killed => format!("killed by {}", signal()),
        ExitHow::Dumped => format!("killed by {}, core dumped", signal()),
        ExitHow::OutOfMemory => "killed: out of memory".to_owned(),
    }
}

/// How wide a label is, the two spaces after it included: `main pid` and `left out` are the longest.
const LABEL: usize = 11;

/// The same within the isolation: `capabilities` and `no_new_privs` are the longest.
const INNER_LABEL: usize = 14;

/// A block as it grows.
pub(super) struct Page {
    pub(super) text: String,
    style: Style,
}

impl Page {
    /// What it begins with.
    pub(super) fn new(text: String, style: Style) -> Self {
        Self { text, style }
    }

    pub(super) fn line(&mut self, label: &str, value: &str) {
        let start = self.text.len();
        self.label(2, label, LABEL);
        self.text.push_str(value);
        let end = self.text.trim_end().len().max(start);
        self.text.truncate(end);
        self.text.push('\n');
    }

    /// Spaces, and the label with spaces up to its width.
    fn label(&mut self, indent: usize, label: &str, width: usize) {
        self.spaces(indent);
        let start = self.text.len();
        self.text.push_str(label);
        self.spaces(width.saturating_sub(label.len()));
        self.style.dim_from(start, &mut self.text);
    }

    fn spaces(&mut self, count: usize) {
        self.text.extend(std::iter::repeat_n(' ', count));
    }

    pub(super) fn warning(&mut self, label: &str, value: &str) {
        let value = self.style.warning(value);
        self.line(label, &value);
    }

    fn inner(&mut self, label: &str, value: &str) {
        self.label(4, label, INNER_LABEL);
        self.text.push_str(value);
        self.text.push('\n');
    }

    /// The figures that there are on one line, those that there are not on further ones.
    fn row(&mut self, label: &str, row: &Row<'_>) {
        let mut label = label;
        if !row.had.is_empty() {
            self.line(label, &row.had.join(", "));
            label = "";
        }
        for (files, why) in &row.lacking {
            self.warning(label, &format!("unavailable: {}: {}", files.join(" "), printable(why)));
            label = "";
        }
    }

    fn figures(&mut self, figures: &Figures) {
        let memory = &figures.memory;
        let mut row = Row::default();
        row.figure(&memory.current_bytes, |value| format!("{} now", bytes(*value)));
        row.figure(&memory.peak_bytes, |value| format!("{} peak", bytes(*value)));
        row.limit(&memory.max_bytes, |value| format!("{} max", bytes(value)), "no max");
        row.figure(&memory.swap_bytes, |value| format!("{} swap", bytes(*value)));
        row.figure(&memory.oom_kills, |value| plural(*value, "oom kill"));
        self.row("memory", &row);

        let cpu = &figures.cpu;
        let mut row = Row::default();
        row.figure(&cpu.usage_usec, |value| duration(*value));
        row.figure(&cpu.user_usec, |value| format!("{} user", duration(*value)));
        row.figure(&cpu.system_usec, |value| format!("{} system", duration(*value)));
        row.figure(&cpu.throttled_usec, |value| format!("{} throttled", duration(*value)));
        self.row("cpu", &row);

        let mut row = Row::default();
        row.figure(&figures.io.read_bytes, |value| format!("{} read", bytes(*value)));
        row.figure(&figures.io.write_bytes, |value| format!("{} written", bytes(*value)));
        self.row("io", &row);

        let mut row = Row::default();
        row.figure(&figures.pids.current, |value| format!("{value} now"));
        row.limit(&figures.pids.max, |value| format!("{value} max"), "no max");
        self.row("pids", &row);

        let pressure = &figures.pressure;
        let mut row = Row::default();
        for (what, some, full) in [
            ("cpu", &pressure.cpu_some_avg10, &pressure.cpu_full_avg10),
            ("memory", &pressure.memory_some_avg10, &pressure.memory_full_avg10),
            ("io", &pressure.io_some_avg10, &pressure.io_full_avg10),
        ] {
            if let (Figure::Value(some), Figure::Value(full)) = (some, full) {
                row.had.push(format!("{what} {some:.2}% some {full:.2}% full"));
            } else {
                row.figure(some, |value| format!("{what} {value:.2}% some"));
                row.figure(full, |value| format!("{what} {value:.2}% full"));
            }
        }
        self.row("pressure", &row);
    }

    fn isolation(&mut self, isolation: &Isolation) {
        match &isolation.attested {
            Figure::Value(attested) => {
                self.line("isolation", &format!("as the kernel attests for pid {}", attested.pid));
                self.attested(attested);
            }
            Figure::Missing(Missing { file, why }) => {
                self.warning("isolation", &format!("not attested: {}: {}", printable(file), printable(why)));
            }
        }
        self.inner("landlock", &landlock(isolation.landlock.as_ref()));
    }

    fn attested(&mut self, attested: &Attested) {
        self.inner("namespaces", &split_namespaces(&attested.namespaces));
        self.inner("user", &identity(attested));
        for (number, line) in capabilities(attested).iter().enumerate() {
            self.inner(if number == 0 { "capabilities" } else { "" }, line);
        }
        self.inner("no_new_privs", if attested.no_new_privs { "yes" } else { "no" });
        self.inner("seccomp", &seccomp(attested));
        self.inner(
            "mounts",
            &match &attested.mounts {
                Figure::Value(mounts) => {
                    let root = if mounts.root_read_only { "read-only" } else { "writable" };
                    format!("{}, the root {root}", mounts.count)
                }
                Figure::Missing(Missing { file, why }) => {
                    format!("unavailable: {}: {}", printable(file), printable(why))
                }
            },
        );
    }
}

/// The parts of one line, and what it lacks.
#[derive(Default)]
struct Row<'a> {
    had: Vec<String>,
    /// Files and the reason that they have in common, in order of appearance.
    lacking: Vec<(Vec<&'a str>, &'a str)>,
}

impl<'a> Row<'a> {
    fn figure<T>(&mut self, figure: &'a Figure<T>, tell: impl FnOnce(&T) -> String) {
        match figure {
            Figure::Value(value) => self.had.push(tell(value)),
            Figure::Missing(missing) => self.lack(missing),
        }
    }

    fn limit(&mut self, limit: &'a LimitFigure, tell: impl FnOnce(u64) -> String, none: &str) {
        match limit {
            LimitFigure::Value(value) => self.had.push(tell(*value)),
            LimitFigure::Unlimited {} => self.had.push(none.into()),
            LimitFigure::Missing(missing) => self.lack(missing),
        }
    }

    fn lack(&mut self, Missing { file, why }: &'a Missing) {
        let (file, why): (&'a str, &'a str) = (file, why);
        match self.lacking.iter_mut().find(|(_, known)| *known == why) {
            Some((files, _)) if files.contains(&file) => {}
            Some((files, _)) => files.push(file),
            None => self.lacking.push((vec![file], why)),
        }
    }
}

fn split_namespaces(namespaces: &[Namespace]) -> String {
    let kinds = |private: bool| {
        let of = namespaces.iter().filter(|one| one.private == private && one.shared_with.is_none());
        let kinds: Vec<&str> = of.map(|one| one.kind.as_ref()).collect();
        if kinds.is_empty() { "none".into() } else { kinds.join(" ") }
    };
    let shared = namespaces.iter().filter_map(|one| {
        let service = one.shared_with.as_deref()?;
        Some(format!("; shared with {}: {}", printable(service), one.kind))
    });
    format!("private: {}; the host's: {}{}", kinds(true), kinds(false), shared.collect::<String>())
}

fn identity(attested: &Attested) -> String {
    // Four of a kind are the rule; where they differ, all are shown: real, effective, saved, file system.
    let ids = |ids: &[u32]| match ids {
        [first, rest @ ..] if rest.iter().all(|id| id == first) => first.to_string(),
        ids => numbers(ids, "/"),
    };
    let groups = match &attested.groups[..] {
        [] => "no other groups".into(),
        groups => format!("groups {}", numbers(groups, " ")),
    };
    format!("uid {}, gid {}, {groups}", ids(&attested.uids), ids(&attested.gids))
}

fn numbers(numbers: &[u32], between: &str) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(between)
}

/// A set of capabilities, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set<'a> {
    Names(&'a [Cow<'a, str>]),
    Bits(u64),
}

fn capabilities(attested: &Attested) -> Vec<String> {
    let lines = |[effective, permitted, inheritable, bounding, ambient]: [Set<'_>; 5], known| {
        let sets = [
            ("effective", effective),
            ("permitted", permitted),
            ("inheritable", inheritable),
            ("bounding", bounding),
            ("ambient", ambient),
        ];
        capability_lines(&sets, known)
    };
    if let Some(bits) = &attested.capability_bits {
        let sets = [bits.effective, bits.permitted, bits.inheritable, bits.bounding, bits.ambient];
        return lines(sets.map(Set::Bits), bits.known);
    }
    match &attested.capabilities {
        Some(names) => {
            let sets =
                [&names.effective, &names.permitted, &names.inheritable, &names.bounding, &names.ambient];
            lines(sets.map(|set| Set::Names(set)), names.known)
        }
        None => vec!["not in the answer".to_owned()],
    }
}

/// A line for each different set, under the names of the sets that are so.
fn capability_lines(sets: &[(&str, Set<'_>)], known: u64) -> Vec<String> {
    let mut distinct: Vec<(Vec<&str>, Set<'_>)> = Vec::new();
    for (name, set) in sets {
        match distinct.iter_mut().find(|(_, other)| other == set) {
            Some((names, _)) => names.push(name),
            None => distinct.push((vec![name], *set)),
        }
    }
    if let [(_, set)] = &distinct[..] {
        return vec![format!("{} in every set", capability_set(*set, known))];
    }
    distinct
        .iter()
        .map(|(names, set)| format!("{}: {}", names.join(", "), capability_set(*set, known)))
        .collect()
}

/// More than this many are counted, not listed: a service has a few, or it has nearly all.
const CAPABILITIES_LISTED: usize = 8;

fn capability_set(set: Set<'_>, known: u64) -> String {
    let count = match set {
        Set::Names(names) => names.len(),
        Set::Bits(bits) => bits.count_ones() as usize,
    };
    match count {
        0 => "none".into(),
        1..=CAPABILITIES_LISTED => match set {
            Set::Names(names) => names.join(" "),
            Set::Bits(bits) => CapabilitySet(bits).to_string(),
        },
        count if u64::try_from(count).is_ok_and(|count| count == known) => format!("all {known}"),
        count => format!("{count} of {known}"),
    }
}

fn seccomp(attested: &Attested) -> String {
    match (attested.seccomp_mode, &attested.seccomp_filters) {
        (SeccompMode::Disabled, _) => "off".into(),
        (SeccompMode::Strict, _) => "strict mode".into(),
        (SeccompMode::Filter, Figure::Value(count)) => format!("filter mode, {}", plural(*count, "filter")),
        (SeccompMode::Filter, Figure::Missing(Missing { file, why })) => {
            format!("filter mode, how many filters is not known: {}: {}", printable(file), printable(why))
        }
    }
}

fn landlock(applied: Option<&LandlockApplied>) -> String {
    let Some(LandlockApplied { abi, path_rules, port_rules, scopes }) = applied else {
        return "none".into();
    };
    let scopes = if scopes.is_empty() { "no scope".into() } else { format!("scope {}", scopes.join(" ")) };
    let (paths, ports) = (plural(*path_rules, "path rule"), plural(*port_rules, "port rule"));
    format!("ABI {abi}, {paths}, {ports}, {} (as applied at launch)", printable(&scopes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        Requester,
        samples::{brief, stopped, web},
    };

    fn status(services: &[ServiceStatus], style: Style) -> String {
        let block = |service| {
            let mut text = String::new();
            super::status(service, style, &mut text);
            text
        };
        services.iter().map(block).collect::<Vec<_>>().join("\n")
    }

    fn check(services: &[ServiceStatus], expected: &str) {
        let found = status(services, Style::PLAIN);
        assert_eq!(found, expected, "\n--- found\n{found}");
    }

    #[test]
    fn a_running_service_shows_everything() {
        check(
            &[web()],
            "\
web: static web server
  state      running (failing) for 1d 2h
  why        requested by uid 0 (pid 812)
  boot       started: it is enabled
  says       serving 3 clients
  health     tcp 127.0.0.1:80: well
  pressure   memory some: 150ms in 1s: report; 3 times, 7 s ago
  main pid   1234
  standby    waits right before execve as 1731
  restarts   2, last killed by SIGKILL 1d 2h ago
  policy     web-server
             its files were changed since: what runs is confined by what they said; restart it
  left out   landlock scope (needs ABI 6, this kernel has 2)
  cgroup     /sys/fs/cgroup/web.slice/web.service
  memory     24.3M now, 512M max, 0 swap, 0 oom kills
             unavailable: memory.peak: ENOENT: Linux 5.19 has it
  cpu        1.2s, 1s user, 240ms system, 0 throttled
  io         3M read, 96K written
  pids       5 now, no max
  pressure   cpu 0.12% some 0.00% full, memory 0.00% some 0.00% full, io 0.00% some 0.00% full
  isolation  as the kernel attests for pid 1234
    namespaces    private: mnt pid ipc uts cgroup; the host's: net user time
    user          uid 61042, gid 61042, no other groups
    capabilities  effective, permitted, bounding, ambient: CAP_NET_BIND_SERVICE
                  inheritable: none
    no_new_privs  yes
    seccomp       filter mode, 1 filter
    mounts        24, the root read-only
    landlock      ABI 2, 17 path rules, 0 port rules, no scope (as applied at launch)
  socket     http tcp:0.0.0.0:80 (listens)
  timer      daily 03:00 (in 3h 10m)
  log        (3 lines dropped by log.rate)
    listening on 0.0.0.0:80
    GET / 200
",
        );
    }

    #[test]
    fn a_brief_answer_shows_the_same() {
        assert_eq!(status(&[brief(web())], Style::PLAIN), status(&[web()], Style::PLAIN));
    }

    #[test]
    fn a_stopped_service_says_why_there_are_no_figures() {
        check(
            &[stopped()],
            "\
backup: nightly copy
  state      stopped
  why        never started
  restarts   0
  policy     base/default
  figures    none: a service that is stopped has no cgroup
  isolation  none: it has no main process
",
        );
    }

    #[test]
    fn a_cause_says_who_asked_once() {
        let request = Some(Requester { uid: 0, pid: 812 });
        let cause = |words: &str, request| why(&Cause { words: words.into(), request });
        assert_eq!(cause("started by uid 0 (pid 812)", request), "started by uid 0 (pid 812)");
        assert_eq!(cause("needed by web", request), "needed by web; asked for by uid 0 (pid 812)");
        assert_eq!(cause("exited with status 1", None), "exited with status 1");
    }

    #[test]
    fn two_services_have_an_empty_line_between_them() {
        let text = status(&[stopped(), stopped()], Style::PLAIN);
        assert_eq!(text.matches("\n\nbackup: ").count(), 1);
        assert!(!text.ends_with("\n\n"));
    }

    #[test]
    fn figures_that_a_host_lacks_share_a_line_where_they_share_the_reason() {
        let mut service = web();
        let figures = service.figures.as_mut().unwrap();
        let missing = |file: &'static str| Missing {
            file: file.into(),
            why: "the memory controller is not enabled".into(),
        };
        figures.memory.current_bytes = Figure::Missing(missing("memory.current"));
        figures.memory.peak_bytes = Figure::Missing(missing("memory.peak"));
        figures.memory.max_bytes = LimitFigure::Missing(missing("memory.max"));
        figures.memory.swap_bytes = Figure::Missing(missing("memory.swap.current"));
        figures.memory.oom_kills = Figure::Missing(missing("memory.events"));
        let io = || Figure::Missing(Missing { file: "io.stat".into(), why: "ENOENT".into() });
        figures.io.read_bytes = io();
        figures.io.write_bytes = io();
        let text = status(&[service], Style::PLAIN);
        let memory = "  memory     unavailable: memory.current memory.peak memory.max memory.swap.current memory.events: \
                      the memory controller is not enabled\n";
        assert!(text.contains(memory), "{text}");
        assert!(text.contains("  io         unavailable: io.stat: ENOENT\n"), "{text}");
    }

    #[test]
    fn an_isolation_that_cannot_be_read_is_not_claimed() {
        let mut service = web();
        let why = "EACCES: Permission denied".into();
        service.isolation = Some(Isolation {
            attested: Figure::Missing(Missing { file: "/proc/1234/ns/mnt".into(), why }),
            landlock: None,
        });
        let text = status(&[service], Style::PLAIN);
        let expected = "  isolation  not attested: /proc/1234/ns/mnt: EACCES: Permission denied\n    landlock      none\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn full_sets_are_counted() {
        let all: Vec<Cow<'_, str>> = (0..41).map(|number| format!("CAP_{number}").into()).collect();
        let bits = (1 << 41) - 1;
        for (all, most, few, none) in [
            (Set::Names(&all), Set::Names(&all[1..]), Set::Names(&["CAP_CHOWN".into()]), Set::Names(&[])),
            (Set::Bits(bits), Set::Bits(bits - 1), Set::Bits(1), Set::Bits(0)),
        ] {
            assert_eq!(capability_lines(&[("a", all), ("b", all)], 41), ["all 41 in every set"]);
            assert_eq!(capability_lines(&[("a", most), ("b", none)], 41), ["a: 40 of 41", "b: none"]);
            assert_eq!(capability_lines(&[("a", few), ("b", most)], 41), ["a: CAP_CHOWN", "b: 40 of 41"]);
        }
    }

    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        let mut service = stopped();
        service.log = vec!["\u{1b}]0;owned\u{7}".into()];
        assert!(status(&[service], Style::PLAIN).ends_with("  log\n    \\u{1b}]0;owned\\u{7}\n"));
    }
}
