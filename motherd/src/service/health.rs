//! `[[health]]`: checks from outside of a service that is up.

use std::{fmt, net::SocketAddr, time::Duration};

use sandbox::diagnostic::{Diagnostic, Located, Place};
use toml::de::DeTable;

use super::{
    commands::RawCommand,
    raw::{RawService, Reader},
    validate::Checker,
};

/// Between two checks where nothing is written.
const EVERY: Duration = Duration::from_secs(10);
/// What one may take where nothing is written.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many in a row are a failure where nothing is written.
const FAILURES: u32 = 3;

/// One `[[health]]` as it is written.
#[derive(Debug)]
pub(crate) struct RawHealth {
    at: Place,
    kind: Option<Located<String>>,
    target: Option<Located<String>>,
    command: Option<RawCommand>,
    every: Option<Located<String>>,
    timeout: Option<Located<String>>,
    failures: Option<Located<i64>>,
    action: Option<Located<String>>,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection is accepted, in the service's network.
    Tcp(SocketAddr),
    /// The same at a path as the service sees it.
    Unix(String),
    /// A GET is answered with 200 to 399.
    Http {
        /// In the service's network.
        address: SocketAddr,
        /// From the slash on.
        path: String,
    },
    /// A command beside the program ends with status 0.
    Exec(Vec<String>),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {path}"),
            Self::Http { address, path } => write!(f, "http://{address}{path}"),
            Self::Exec(command) => write!(f, "exec {}", command.first().map_or("", String::as_str)),
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is tried.
    pub probe: Probe,
    /// The pause between two.
    pub every: Duration,
    /// What one may take.
    pub timeout: Duration,
    /// So many in a row are a failure.
    pub failures: u32,
    /// The service is started again then; else it is only said.
    pub restart: bool,
}

impl Reader<'_> {
    pub(super) fn health(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const KEYS: [&str; 7] = ["kind", "target", "command", "every", "timeout", "failures", "action"];
        let Some(entry) = table.get("health") else { return };
        let Some(array) = entry.get_ref().as_array() else {
            self.wrong_type("health", entry, "a list of tables");
            return;
        };
        for item in array.iter() {
            let Some(check) = item.get_ref().as_table() else {
                self.wrong_type("health", item, "a table in this list");
                continue;
            };
            self.known(check, "[[health]]", &KEYS);
            raw.health.push(RawHealth {
                at: self.place(item.span()),
                kind: self.string(check, "kind"),
                target: self.string(check, "target"),
                command: self.strings(check, "command"),
                every: self.string(check, "every"),
                timeout: self.string(check, "timeout"),
                failures: self.integer(check, "failures"),
                action: self.string(check, "action"),
            });
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Unix,
    Http,
    Exec,
}

impl Checker<'_> {
    pub(super) fn health(&mut self, raw: &RawService) -> Vec<Health> {
        raw.health.iter().filter_map(|written| self.one_health(written)).collect()
    }

    fn one_health(&mut self, written: &RawHealth) -> Option<Health> {
        let kinds = [("tcp", Kind::Tcp), ("unix", Kind::Unix), ("http", Kind::Http), ("exec", Kind::Exec)];
        if written.kind.is_none() {
            self.problems.push(Diagnostic::error(
                "missing-key",
                written.at.clone(),
                "a [[health]] lacks its `kind`".to_owned(),
            ));
        }
        let kind = self.word("health.kind", written.kind.as_ref(), &kinds);
        let restart = self
            .word("health.action", written.action.as_ref(), &[("restart", true), ("report", false)])
            .unwrap_or(true);
        let every = self.duration(written.every.as_ref()).unwrap_or(EVERY);
        let timeout = self.duration(written.timeout.as_ref()).unwrap_or(TIMEOUT);
        for (key, time) in [(&written.every, every), (&written.timeout, timeout)] {
            if let (Some(key), true) = (key, time < Duration::from_millis(10)) {
                self.refuse("bad-value", &key.at, "a health check takes at least 10ms", "\"5s\" is usual");
            }
        }
        let failures = match &written.failures {
            None => FAILURES,
            Some(count) => u32::try_from(count.value).ok().filter(|count| *count > 0).unwrap_or_else(|| {
                self.refuse("bad-value", &count.at, "`health.failures` is at least 1", "3 is usual");
                FAILURES
            }),
        };
        let probe = self.probe(kind?, written)?;
        Some(Health { probe, every, timeout, failures, restart })
    }

    fn probe(&mut self, kind: Kind, written: &RawHealth) -> Option<Probe> {
        if let Kind::Exec = kind {
            let Some(command) = &written.command else {
                self.refuse(
                    "missing-key",
                    &written.at,
                    "this [[health]] lacks its `command`",
                    "as in `exec`",
                );
                return None;
            };
            return self.exec(command).map(|command| Probe::Exec(command.value));
        }
        let Some(target) = written.target.clone().map(|target| self.expand(target)) else {
            self.refuse(
                "missing-key",
                &written.at,
                "this [[health]] lacks its `target`",
                "what is connected to",
            );
            return None;
        };
        let (probe, help) = match kind {
            Kind::Tcp => (
                target.value.parse().ok().map(Probe::Tcp),
                "an address and a port, since no name is resolved: \"127.0.0.1:80\", \"[::1]:80\"",
            ),
            Kind::Http => {
                (http(&target.value), "as in \"http://127.0.0.1:8080/health\", without a name to resolve")
            }
            Kind::Unix | Kind::Exec => (
                Some(&target.value)
                    .filter(|path| path.starts_with('/') && path.len() < 108 && !path.contains('\0'))
                    .map(|path| Probe::Unix(path.clone())),
                "an absolute path as the service sees it: \"/run/web.sock\"",
            ),
        };
        if probe.is_none() {
            let message = format!("`{}` cannot be connected to", target.value);
            self.refuse("bad-value", &target.at, message, help);
        }
        probe
    }
}

fn http(target: &str) -> Option<Probe> {
    let rest = target.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let address = authority.parse().ok().or_else(|| format!("{authority}:80").parse().ok())?;
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| Probe::Http { address, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::parse_text;

    fn check(lines: &str) -> Result<Vec<Health>, Vec<&'static str>> {
        let text = format!("exec = [\"/bin/web\"]\n[[health]]\n{lines}\n");
        match parse_text("web", &text) {
            Ok(service) => Ok(service.program().unwrap().health.clone()),
            Err(report) => Err(report.diagnostics.iter().map(|problem| problem.code).collect()),
        }
    }

    #[test]
    fn each_kind_says_what_it_tries() {
        let tried = |lines: &str| check(lines).unwrap()[0].probe.to_string();
        assert_eq!(tried("kind = \"tcp\"\ntarget = \"127.0.0.1:80\""), "tcp 127.0.0.1:80");
        assert_eq!(tried("kind = \"unix\"\ntarget = \"/run/web.sock\""), "unix /run/web.sock");
        assert_eq!(
            tried("kind = \"http\"\ntarget = \"http://[::1]:8080/up?x=1\""),
            "http://[::1]:8080/up?x=1"
        );
        assert_eq!(tried("kind = \"http\"\ntarget = \"http://127.0.0.1\""), "http://127.0.0.1:80/");
        assert_eq!(tried("kind = \"exec\"\ncommand = [\"/bin/check\", \"-q\"]"), "exec /bin/check");
        let health = check("kind = \"tcp\"\ntarget = \"127.0.0.1:80\"").unwrap().remove(0);
        assert_eq!((health.every, health.timeout), (EVERY, TIMEOUT));
        assert_eq!((health.failures, health.restart), (FAILURES, true));
    }

    #[test]
    fn what_cannot_be_tried_is_refused() {
        for (lines, code) in [
            ("target = \"127.0.0.1:80\"", "missing-key"),
            ("kind = \"tcp\"", "missing-key"),
            ("kind = \"exec\"", "missing-key"),
            ("kind = \"udp\"\ntarget = \"127.0.0.1:80\"", "bad-value"),
            ("kind = \"tcp\"\ntarget = \"localhost:80\"", "bad-value"),
            ("kind = \"http\"\ntarget = \"https://127.0.0.1/\"", "bad-value"),
            ("kind = \"http\"\ntarget = \"http://127.0.0.1/a b\"", "bad-value"),
            ("kind = \"unix\"\ntarget = \"web.sock\"", "bad-value"),
            ("kind = \"tcp\"\ntarget = \"127.0.0.1:80\"\nfailures = 0", "bad-value"),
            ("kind = \"tcp\"\ntarget = \"127.0.0.1:80\"\nevery = \"1ms\"", "bad-value"),
            ("kind = \"tcp\"\ntarget = \"127.0.0.1:80\"\naction = \"reboot\"", "bad-value"),
            ("kind = \"tcp\"\ntarget = \"127.0.0.1:80\"\nport = 80", "unknown-key"),
        ] {
            assert_eq!(check(lines).unwrap_err(), [code], "{lines}");
        }
    }
}
