//! `motherctl logs`: what services wrote, out of the files. motherd is not asked, so it need not run, and a reader that
//! is slow disturbs nobody.

mod source;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use sandbox::diagnostic::nearest;
use serde_json::json;

use self::source::{Kind, Line, Source};
use super::{
    args::Global,
    failure::Failure,
    output::Stdout,
    render::{Style, printable},
};
use crate::{
    calendar::{Civil, timestamp},
    control::{
        client::Client,
        protocol::{Reply, Request, VERSION},
    },
    service,
};

/// What `-f` begins with.
const FOLLOW_LINES: usize = 10;
/// The command line's contract.
const USAGE: u8 = 2;
const NO_SUCH_SERVICE: u8 = 4;
const NO_PERMISSION: u8 = 5;

/// The logs that are read.
struct Logs {
    folder: PathBuf,
    /// Empty: all.
    named: Vec<String>,
    sources: BTreeMap<String, Source>,
    show: Show,
}

/// How lines are shown.
struct Show {
    json: bool,
    style: Style,
    terminal: bool,
    /// With the service's name.
    names: bool,
    /// Nothing before this is shown.
    since: Option<String>,
    stdout: Stdout,
}

/// The whole command.
pub(super) fn logs(
    global: &Global,
    named: &[String],
    lines: Option<usize>,
    since: Option<&str>,
    follow: bool,
) -> Result<u8, Failure> {
    let since = since.map(|text| since_stamp(text, now())).transpose()?;
    let lines = lines.or((follow && since.is_none()).then_some(FOLLOW_LINES));
    let show = Show {
        json: global.json,
        style: Style::choose(global.color),
        terminal: io::stdout().is_terminal(),
        names: named.len() != 1,
        since,
        stdout: Stdout,
    };
    let mut logs = Logs { folder: global.logs(), named: named.to_vec(), sources: BTreeMap::new(), show };
    logs.check_names(global)?;
    // Watched before it is read: what is written after the read wakes us.
    let inotify = follow.then(|| logs.watch()).transpose()?;
    logs.open(lines)?;
    if !logs.history(lines, follow)? {
        return Ok(0);
    }
    match inotify {
        Some(inotify) => logs.follow(&inotify),
        None => Ok(0),
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `10m`, `2d` ago, or a time.
fn since_stamp(text: &str, now: Duration) -> Result<String, Failure> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let ago = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600)).or(service::duration(text));
    if let Some(ago) = ago {
        return Ok(timestamp(now.saturating_sub(ago)));
    }
    let Some((civil, fraction)) = Civil::parse(text) else {
        let help = "\"30s\", \"10m\", \"2h\", \"3d\" ago, or UTC: \"2026-11-22\", \"2026-11-22 23:50\", \"2026-11-22T23:50:01Z\"";
        return Err(Failure::say(USAGE, format!("`{}` is no time: {help}", printable(text))));
    };
    let seconds = u64::try_from(civil.unix()).unwrap_or_default();
    Ok(timestamp(Duration::from_secs(seconds) + fraction))
}

impl Logs {
    fn failed(path: &Path, error: &io::Error) -> Failure {
        let status = if error.kind() == io::ErrorKind::PermissionDenied { NO_PERMISSION } else { 1 };
        Failure::say(status, format!("read {}: {error}", path.display()))
    }

    /// A service that never wrote has no folder; one that motherd does not know either is a spelling mistake.
    fn check_names(&self, global: &Global) -> Result<(), Failure> {
        for name in &self.named {
            let folder = self.folder.join(name);
            match folder.metadata() {
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Self::failed(&folder, &error)),
            }
            let answer = Client::connect(&global.socket()).and_then(|mut client| client.call(&Request::List));
            let known: Vec<String> = match answer {
                Ok(Reply::List(services)) => services.into_iter().map(|service| service.name).collect(),
                Ok(_) | Err(_) => vec![],
            };
            if !known.contains(name) {
                let folders = self.folders().unwrap_or_default();
                let near = nearest(name, known.iter().chain(&folders).map(String::as_str));
                let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                let message = format!("there is no log of `{}`{near}", printable(name));
                return Err(Failure::say(NO_SUCH_SERVICE, message));
            }
        }
        Ok(())
    }

    /// The services that have a log.
    fn folders(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Opens what is there and was not open.
    fn open(&mut self, last: Option<usize>) -> Result<(), Failure> {
        let found = match self.folders() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            found => found.map_err(|error| Self::failed(&self.folder, &error))?,
        };
        for name in found {
            if self.is_wanted(&name) && !self.sources.contains_key(&name) {
                let folder = self.folder.join(&name);
                let source = Source::open(&folder, last).map_err(|error| Self::failed(&folder, &error))?;
                self.sources.insert(name, source);
            }
        }
        Ok(())
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.named.is_empty() || self.named.iter().any(|named| named == name)
    }

    /// All that is there, by its time; whether anybody still reads.
    fn history(&mut self, last: Option<usize>, follow: bool) -> Result<bool, Failure> {
        let names: Vec<String> = self.sources.keys().cloned().collect();
        let mut heap = BinaryHeap::new();
        let mut heads: Vec<Option<Line>> = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let head = self.next(name, "", follow)?;
            if let Some(line) = &head {
                heap.push(Reverse((line.time.clone(), number)));
            }
            heads.push(head);
        }
        let mut kept: VecDeque<(usize, Line)> = VecDeque::new();
        while let Some(Reverse((_, number))) = heap.pop() {
            let Some(line) = heads[number].take() else { continue };
            heads[number] = self.next(&names[number], &line.time, follow)?;
            if let Some(next) = &heads[number] {
                heap.push(Reverse((next.time.clone(), number)));
            }
            if self.show.since.as_ref().is_some_and(|since| line.time < *since) {
                continue;
            }
            match last {
                None => {
                    if !self.show.line(&names[number], &line)? {
                        return Ok(false);
                    }
                }
                Some(last) => {
                    kept.push_back((number, line));
                    if kept.len() > last {
                        kept.pop_front();
                    }
                }
            }
        }
        for (number, line) in kept {
            if !self.show.line(&names[number], &line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next line of a log. One that has no time has that of the line before it.
    fn next(&mut self, name: &str, before: &str, follow: bool) -> Result<Option<Line>, Failure> {
        let Some(source) = self.sources.get_mut(name) else { return Ok(None) };
        let mut line = source.next().map_err(|error| Self::failed(&self.folder.join(name), &error))?;
        if line.is_none() && !follow {
            line = source.unfinished();
        }
        Ok(line.map(|mut line| {
            if line.time.is_empty() {
                before.clone_into(&mut line.time);
            }
            line
        }))
    }

    fn watch(&self) -> Result<Inotify, Failure> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)
            .map_err(|errno| Failure::say(1, format!("inotify_init1: {errno}")))?;
        let watched = match inotify.add_watch(&self.folder, AddWatchFlags::IN_CREATE) {
            Err(Errno::ENOENT) => {
                return Err(Failure::say(1, format!("there are no logs yet in {}", self.folder.display())));
            }
            watched => watched,
        };
        watched.map_err(|errno| Self::failed(&self.folder, &errno.into()))?;
        self.watch_folders(&inotify)?;
        Ok(inotify)
    }

    fn watch_folders(&self, inotify: &Inotify) -> Result<(), Failure> {
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let found = self.folders().map_err(|error| Self::failed(&self.folder, &error))?;
        for name in found.iter().filter(|name| self.is_wanted(name)) {
            match inotify.add_watch(&self.folder.join(name), flags) {
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Self::failed(&self.folder.join(name), &errno.into())),
            }
        }
        Ok(())
    }

    /// Waits for changes, and shows what they bring, until nobody reads.
    fn follow(&mut self, inotify: &Inotify) -> Result<u8, Failure> {
        loop {
            self.watch_folders(inotify)?;
            self.open(None)?;
            let mut lines: Vec<(String, Line)> = Vec::new();
            let names: Vec<String> = self.sources.keys().cloned().collect();
            for name in names {
                let mut before = String::new();
                while let Some(line) = self.next(&name, &before, true)? {
                    before.clone_from(&line.time);
                    lines.push((name.clone(), line));
                }
            }
            lines.sort_by(|(_, one), (_, other)| one.time.cmp(&other.time));
            for (name, line) in &lines {
                if !self.show.line(name, line)? {
                    return Ok(0);
                }
            }
            match inotify.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::say(1, format!("read inotify: {errno}"))),
            }
        }
    }
}

impl Show {
    /// One line; whether anybody still reads.
    fn line(&mut self, service: &str, line: &Line) -> Result<bool, Failure> {
        let bytes = if self.json { as_json(service, line) } else { self.text(service, line) };
        self.stdout.print_bytes(&bytes)
    }

    fn text(&self, service: &str, line: &Line) -> Vec<u8> {
        let mut text = line.time.clone().into_bytes();
        if self.names {
            text.push(b' ');
            text.extend(self.style.bold(&printable(service)).into_bytes());
        }
        text.extend(match line.kind {
            Kind::Written => b" ".as_slice(),
            Kind::Continued => b" + ".as_slice(),
            Kind::Manager => b" ! ".as_slice(),
        });
        // A terminal is not to be steered by what a service writes; a file or a pipe gets the bytes.
        if self.terminal {
            text.extend(printable(&String::from_utf8_lossy(&line.bytes)).into_bytes());
        } else {
            text.extend_from_slice(&line.bytes);
        }
        text.push(b'\n');
        text
    }
}

/// An object a line.
fn as_json(service: &str, line: &Line) -> Vec<u8> {
    let from = match line.kind {
        Kind::Written | Kind::Continued => "service",
        Kind::Manager => "motherd",
    };
    let mut value = json!({
        "version": VERSION,
        "service": service,
        "time": line.time,
        "from": from,
        "continued": line.kind == Kind::Continued,
        "text": String::from_utf8_lossy(&line.bytes),
    });
    if str::from_utf8(&line.bytes).is_err() {
        value["bytes"] = json!(line.bytes);
    }
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_age_or_a_time() {
        let now = Duration::from_secs(1_795_391_401);
        let check =
            |text: &str, expected: &str| assert_eq!(since_stamp(text, now).unwrap(), expected, "{text}");
        check("1s", "2026-11-22T23:50:00.000000Z");
        check("2h", "2026-11-22T21:50:01.000000Z");
        check("2d", "2026-11-20T23:50:01.000000Z");
        check("2026-11-22", "2026-11-22T00:00:00.000000Z");
        check("2026-11-22 23:50", "2026-11-22T23:50:00.000000Z");
        check("2026-11-22T23:50:01.5Z", "2026-11-22T23:50:01.500000Z");
        assert_eq!(since_stamp("yesterday", now).unwrap_err().status, USAGE);
    }

    #[test]
    fn json_has_the_bytes_where_they_are_no_text() {
        let line = |bytes: &[u8]| Line { time: "T".into(), kind: Kind::Manager, bytes: bytes.to_vec() };
        let value = |bytes: &[u8]| -> serde_json::Value {
            serde_json::from_slice(&as_json("web", &line(bytes))).unwrap()
        };
        assert_eq!(
            value(b"x"),
            json!({ "version": 1, "service": "web", "time": "T", "from": "motherd", "continued": false,
                "text": "x" })
        );
        assert_eq!(value(b"\xffx")["bytes"], json!([255, 120]));
    }

    #[test]
    fn a_terminal_is_not_steered_and_a_pipe_gets_the_bytes() {
        let show = |terminal| Show {
            json: false,
            style: Style::PLAIN,
            terminal,
            names: true,
            since: None,
            stdout: Stdout,
        };
        let line = Line { time: "T".into(), kind: Kind::Written, bytes: b"\x1b[2Jx".to_vec() };
        assert_eq!(show(false).text("web", &line), b"T web \x1b[2Jx\n");
        assert_eq!(show(true).text("web", &line), b"T web \\u{1b}[2Jx\n");
    }
}
