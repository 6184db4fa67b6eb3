//! `[[condition]]`: what has to be so on the machine before a service starts, and what happens when it ends to be.
//!
//! A condition is about the machine as motherd sees it, not about another service: a path, a socket that somebody listens
//! on, a mount, the network. Groups have them too, so that one group can stand for "the network is up".

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use sandbox::diagnostic::{Diagnostic, Located, Place, nearest};
use toml::de::DeTable;

use super::{
    raw::{RawService, Reader},
    validate::Checker,
};

/// A record of what is met has a bit for each.
const CONDITIONS_MAX: usize = 32;
/// sizeof(sun_path), less the NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// IFNAMSIZ, less the NUL.
const LINK_NAME_MAX_BYTES: usize = 15;

/// One `[[condition]]` as it is written.
#[derive(Debug)]
pub(crate) struct RawCondition {
    at: Place,
    path: Option<Located<String>>,
    socket: Option<Located<String>>,
    mount: Option<Located<String>>,
    network: Option<Located<String>>,
    timeout: Option<Located<String>>,
    on_loss: Option<Located<String>>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Something is there (stat(2)).
    Path(PathBuf),
    /// Somebody listens.
    Tcp(SocketAddr),
    /// Somebody listens, whatever the type of the socket.
    Unix(PathBuf),
    /// Something is mounted exactly there.
    Mount(PathBuf),
    /// An address that others could reach, of a link that is up.
    Address,
    /// A default route.
    Route,
    /// This link is up and has a carrier.
    Link(String),
}

impl Resource {
    /// What is so while the condition does not hold.
    #[must_use]
    pub fn lack(&self) -> String {
        match self {
            Self::Path(path) => format!("{} is not there", path.display()),
            Self::Tcp(address) => format!("nobody listens on tcp:{address}"),
            Self::Unix(path) => format!("nobody listens on unix:{}", path.display()),
            Self::Mount(path) => format!("nothing is mounted on {}", path.display()),
            Self::Address => "no network address is there".to_owned(),
            Self::Route => "no default route is there".to_owned(),
            Self::Link(name) => format!("the link {name} is not up"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "path {}", path.display()),
            Self::Tcp(address) => write!(f, "socket tcp:{address}"),
            Self::Unix(path) => write!(f, "socket unix:{}", path.display()),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Address => write!(f, "network address"),
            Self::Route => write!(f, "network route"),
            Self::Link(name) => write!(f, "network link:{name}"),
        }
    }
}

/// What happens to a service that is up when its condition does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Nothing.
    Ignore,
    /// It stops, and stays so until somebody starts it.
    Stop,
    /// It stops, and starts again as soon as the condition holds.
    Restart,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is waited for.
    pub resource: Resource,
    /// How long others wait with it. `None`: they do not.
    pub timeout: Option<Duration>,
    /// When it does not hold any more.
    pub on_loss: OnLoss,
}

impl Reader<'_> {
    pub(super) fn conditions(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const KEYS: [&str; 6] = ["path", "socket", "mount", "network", "timeout", "on_loss"];
        let Some(entry) = table.get("condition") else { return };
        let Some(array) = entry.get_ref().as_array() else {
            self.wrong_type("condition", entry, "a list of tables");
            return;
        };
        for item in array.iter() {
            let Some(condition) = item.get_ref().as_table() else {
                self.wrong_type("condition", item, "a table in this list");
                continue;
            };
            self.known(condition, "[[condition]]", &KEYS);
            raw.conditions.push(RawCondition {
                at: self.place(item.span()),
                path: self.string(condition, "path"),
                socket: self.string(condition, "socket"),
                mount: self.string(condition, "mount"),
                network: self.string(condition, "network"),
                timeout: self.string(condition, "timeout"),
                on_loss: self.string(condition, "on_loss"),
            });
        }
    }
}

impl Checker<'_> {
    pub(super) fn conditions(&mut self, raw: &RawService) -> Vec<Condition> {
        if let Some(one) = raw.conditions.get(CONDITIONS_MAX) {
            let message = format!("a service has at most {CONDITIONS_MAX} conditions");
            self.refuse("bad-value", &one.at, message, "a group can stand for some of them");
        }
        raw.conditions.iter().filter_map(|written| self.condition(written)).collect()
    }

    fn condition(&mut self, written: &RawCondition) -> Option<Condition> {
        let timeout = self.duration(written.timeout.as_ref());
        if let (Some(at), Some(Duration::ZERO)) = (&written.timeout, timeout) {
            self.refuse(
                "bad-value",
                &at.at,
                "a `condition.timeout` is longer than nothing",
                "without one nobody waits with the service, which waits as long as it takes",
            );
        }
        let words = [("ignore", OnLoss::Ignore), ("stop", OnLoss::Stop), ("restart", OnLoss::Restart)];
        let on_loss = self.word("condition.on_loss", written.on_loss.as_ref(), &words);
        let kinds = [
            ("path", &written.path),
            ("socket", &written.socket),
            ("mount", &written.mount),
            ("network", &written.network),
        ];
        let mut named = kinds.iter().filter_map(|(kind, value)| Some((*kind, value.as_ref()?)));
        let Some((kind, value)) = named.next() else {
            self.refuse(
                "missing-key",
                &written.at,
                "a [[condition]] lacks what it is about",
                "one of `path`, `socket`, `mount`, `network`",
            );
            return None;
        };
        if let Some((other, second)) = named.next() {
            self.refuse(
                "bad-value",
                &second.at,
                format!("a [[condition]] is about one thing, and this one has `{kind}` and `{other}`"),
                "write two: a service waits for all of its conditions",
            );
            return None;
        }
        let value = self.expand(value.clone());
        let resource = match kind {
            "path" => self.absolute(&value).map(Resource::Path),
            "mount" => self.absolute(&value).map(Resource::Mount),
            "socket" => self.listener(&value),
            _ => self.network(&value),
        }?;
        if let (Resource::Tcp(_) | Resource::Unix(_), Some(loss), Some(OnLoss::Stop | OnLoss::Restart)) =
            (&resource, &written.on_loss, on_loss)
        {
            self.refuse(
                "bad-value",
                &loss.at,
                "the kernel does not tell when nobody listens on a socket any more",
                "if a service of yours listens there, name it in `dependencies.bound_to`",
            );
        }
        Some(Condition { resource, timeout, on_loss: on_loss.unwrap_or(OnLoss::Ignore) })
    }

    fn absolute(&mut self, path: &Located<String>) -> Option<PathBuf> {
        if path.value.starts_with('/')
            && !path.value.contains('\0')
            && path.value.split('/').all(|part| part != "..")
        {
            return Some(PathBuf::from(&path.value));
        }
        self.refuse(
            "bad-value",
            &path.at,
            format!("`{}` is not an absolute path without `..`", path.value),
            "a path as motherd sees it, on the host",
        );
        None
    }

    fn listener(&mut self, written: &Located<String>) -> Option<Resource> {
        let (kind, rest) = written.value.split_once(':').unwrap_or((&written.value, ""));
        let found = match kind {
            "tcp" => rest.parse().ok().map(Resource::Tcp),
            "unix" => Some(rest)
                .filter(|path| {
                    path.starts_with('/') && path.len() <= SOCKET_PATH_MAX_BYTES && !path.contains('\0')
                })
                .map(|path| Resource::Unix(PathBuf::from(path))),
            _ => None,
        };
        if found.is_none() {
            let message = format!("`{}` is nothing that somebody can listen on", written.value);
            let help = "\"tcp:127.0.0.1:5432\", \"tcp:[::]:80\", \"unix:/run/db.sock\"; no name is resolved";
            let problem = Diagnostic::error("bad-value", written.at.clone(), message).help(help);
            self.report(match nearest(kind, ["tcp", "unix"]) {
                Some(near) if near != kind => problem.label(format!("did you mean `{near}:`?")),
                Some(_) | None => problem,
            });
        }
        found
    }

    fn network(&mut self, written: &Located<String>) -> Option<Resource> {
        if let Some(name) = written.value.strip_prefix("link:") {
            let sound = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
            if !name.is_empty() && name.len() <= LINK_NAME_MAX_BYTES && name.bytes().all(sound) {
                return Some(Resource::Link(name.to_owned()));
            }
            self.refuse(
                "bad-value",
                &written.at,
                format!("`{name}` is not the name of a link"),
                "1 to 15 characters, as `ip link` shows it: \"link:eth0\"",
            );
            return None;
        }
        match written.value.as_str() {
            "address" => Some(Resource::Address),
            "route" => Some(Resource::Route),
            other => {
                let message = format!("`condition.network` cannot be \"{other}\"");
                let problem = Diagnostic::error("bad-value", written.at.clone(), message)
                    .help("it is one of \"address\", \"route\", \"link:NAME\"");
                self.report(match nearest(other, ["address", "route"]) {
                    Some(near) => problem.label(format!("did you mean \"{near}\"?")),
                    None => problem,
                });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::parse_text;

    fn check(lines: &str) -> Result<Vec<Condition>, Vec<(&'static str, String)>> {
        let text = format!("description = \"x\"\n[[condition]]\n{lines}\n");
        match parse_text("web", &text) {
            Ok(service) => Ok(service.conditions().to_vec()),
            Err(report) => Err(report
                .diagnostics
                .iter()
                .map(|problem| (problem.code, format!("{} {}", problem.message, problem.label)))
                .collect()),
        }
    }

    #[test]
    fn each_kind_says_what_is_waited_for_and_what_is_lacking() {
        for (lines, is, lacks) in [
            ("path = \"/srv/x\"", "path /srv/x", "/srv/x is not there"),
            (
                "socket = \"tcp:127.0.0.1:5432\"",
                "socket tcp:127.0.0.1:5432",
                "nobody listens on tcp:127.0.0.1:5432",
            ),
            ("socket = \"unix:/run/db\"", "socket unix:/run/db", "nobody listens on unix:/run/db"),
            ("mount = \"/srv\"", "mount /srv", "nothing is mounted on /srv"),
            ("network = \"route\"", "network route", "no default route is there"),
            ("network = \"address\"", "network address", "no network address is there"),
            ("network = \"link:eth0\"", "network link:eth0", "the link eth0 is not up"),
        ] {
            let condition = check(lines).unwrap().remove(0);
            assert_eq!(
                (condition.resource.to_string().as_str(), condition.resource.lack().as_str()),
                (is, lacks)
            );
            assert_eq!((condition.timeout, condition.on_loss), (None, OnLoss::Ignore));
        }
        let condition =
            check("mount = \"/srv\"\ntimeout = \"30s\"\non_loss = \"restart\"").unwrap().remove(0);
        assert_eq!((condition.timeout, condition.on_loss), (Some(Duration::from_secs(30)), OnLoss::Restart));
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused() {
        for (lines, code, words) in [
            ("", "missing-key", "lacks what it is about"),
            ("timeout = \"1s\"", "missing-key", "lacks what it is about"),
            (
                "path = \"/a\"\nmount = \"/b\"",
                "bad-value",
                "about one thing, and this one has `path` and `mount`",
            ),
            ("path = \"a\"", "bad-value", "not an absolute path"),
            ("mount = \"/a/../b\"", "bad-value", "not an absolute path"),
            ("socket = \"tpc:127.0.0.1:1\"", "bad-value", "did you mean `tcp:`?"),
            ("socket = \"tcp:localhost:80\"", "bad-value", "nothing that somebody can listen on"),
            ("socket = \"unix:/a\"\non_loss = \"stop\"", "bad-value", "the kernel does not tell"),
            ("network = \"rout\"", "bad-value", "did you mean \"route\"?"),
            ("network = \"link:\"", "bad-value", "not the name of a link"),
            ("network = \"link:a-name-of-sixteen\"", "bad-value", "not the name of a link"),
            ("path = \"/a\"\ntimeout = \"0s\"", "bad-value", "longer than nothing"),
            ("path = \"/a\"\ntimeout = \"soon\"", "bad-duration", "not a time"),
            ("path = \"/a\"\non_loss = \"resart\"", "bad-value", "did you mean \"restart\"?"),
            ("path = \"/a\"\nuntil = \"1s\"", "unknown-key", "`until`"),
            ("path = 7", "wrong-type", "`path` has to be"),
        ] {
            let problems = check(lines).unwrap_err();
            assert!(
                problems.iter().any(|(found, text)| *found == code && text.contains(words)),
                "{lines}: {problems:?}"
            );
        }
    }
}
