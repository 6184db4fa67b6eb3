//! `[[socket]]`: what listens before its service runs.

use std::{fmt, net::SocketAddr, path::PathBuf};

use sandbox::diagnostic::{Diagnostic, Located, Place, nearest};
use toml::de::DeTable;

use super::{
    raw::{RawService, Reader},
    validate::Checker,
};

/// What may wait to be accepted where nothing is written: what Linux allows where nobody changed it.
const BACKLOG: i32 = 4096;
/// Who may connect to a UNIX socket or open a FIFO where nothing is written.
const MODE: u32 = 0o666;
/// initldr's names for the descriptors of one service have two digits.
pub(crate) const SOCKETS_MAX: usize = 64;
/// sizeof(sun_path), less the NUL.
const PATH_MAX_BYTES: usize = 107;
const PREFIXES: [&str; 6] = ["tcp", "udp", "unix", "unix-dgram", "unix-seqpacket", "fifo"];

/// One `[[socket]]` as it is written.
#[derive(Debug)]
pub(crate) struct RawSocket {
    pub(crate) at: Place,
    pub(crate) name: Option<Located<String>>,
    pub(crate) listen: Option<Located<String>>,
    pub(crate) lazy: Option<Located<bool>>,
    pub(crate) mode: Option<Located<String>>,
    pub(crate) owner: Option<Located<String>>,
    pub(crate) group: Option<Located<String>>,
    pub(crate) backlog: Option<Located<i64>>,
    pub(crate) reuse_port: Option<Located<bool>>,
    pub(crate) nonblocking: Option<Located<bool>>,
}

/// One checked socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Socket {
    /// For LISTEN_FDNAMES.
    pub name: String,
    /// Where, and the place in the file.
    pub listen: Located<Address>,
    /// The service is started when somebody connects.
    pub lazy: bool,
    /// Permission bits of a UNIX socket or FIFO.
    pub mode: u32,
    /// Its owner, by name or number; motherd's where there is none.
    pub owner: Option<Located<String>>,
    /// Its group.
    pub group: Option<Located<String>>,
    /// What may wait to be accepted.
    pub backlog: i32,
    /// SO_REUSEPORT: others may listen there too.
    pub reuse_port: bool,
    /// O_NONBLOCK, at each start.
    pub nonblocking: bool,
}

/// What is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A stream over IP.
    Tcp(SocketAddr),
    /// Datagrams over IP.
    Udp(SocketAddr),
    /// A stream at a path.
    Unix(PathBuf),
    /// Datagrams at a path.
    UnixDgram(PathBuf),
    /// Packets of a connection at a path.
    UnixSeqpacket(PathBuf),
    /// A named pipe.
    Fifo(PathBuf),
}

impl Address {
    /// The path, where it has one.
    #[must_use]
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Tcp(_) | Self::Udp(_) => None,
            Self::Unix(path) | Self::UnixDgram(path) | Self::UnixSeqpacket(path) | Self::Fifo(path) => {
                Some(path)
            }
        }
    }

    /// Whether it has connections that wait to be accepted.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::UnixSeqpacket(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::UnixDgram(path) => write!(f, "unix-dgram:{}", path.display()),
            Self::UnixSeqpacket(path) => write!(f, "unix-seqpacket:{}", path.display()),
            Self::Fifo(path) => write!(f, "fifo:{}", path.display()),
        }
    }
}

/// Reads `tcp:0.0.0.0:80`.
fn address(text: &str) -> Result<Address, (String, Option<&'static str>)> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let ip = || {
        rest.parse::<SocketAddr>().map_err(|_| {
            let what = if rest.parse::<u16>().is_ok() {
                format!("write `{kind}:0.0.0.0:{rest}` for all of IPv4, `{kind}:[::]:{rest}` for all of IP")
            } else {
                format!("`{rest}` is no address with a port: {kind}:127.0.0.1:80, {kind}:[::1]:80")
            };
            (what, None)
        })
    };
    let path = || {
        let sound = rest.starts_with('/') && !rest.ends_with('/') && !rest.contains('\0');
        if !sound || rest.split('/').any(|part| part == "..") {
            Err((format!("`{rest}` is no absolute path without `..`"), None))
        } else if rest.len() > PATH_MAX_BYTES {
            Err((
                format!("a path of a socket has at most {PATH_MAX_BYTES} bytes, this has {}", rest.len()),
                None,
            ))
        } else {
            Ok(PathBuf::from(rest))
        }
    };
    match kind {
        "tcp" => ip().map(Address::Tcp),
        "udp" => ip().map(Address::Udp),
        "unix" => path().map(Address::Unix),
        "unix-dgram" => path().map(Address::UnixDgram),
        "unix-seqpacket" => path().map(Address::UnixSeqpacket),
        "fifo" => path().map(Address::Fifo),
        _ => Err((format!("`{kind}` is no kind of socket"), nearest(kind, PREFIXES))),
    }
}

impl Reader<'_> {
    /// Every `[[socket]]`.
    pub(super) fn sockets(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const KEYS: [&str; 9] =
            ["name", "listen", "lazy", "mode", "owner", "group", "backlog", "reuse_port", "nonblocking"];
        for (socket, at) in self.tables(table, "socket", &KEYS) {
            raw.sockets.push(RawSocket {
                at,
                name: self.string(socket, "name"),
                listen: self.string(socket, "listen"),
                lazy: self.boolean(socket, "lazy"),
                mode: self.string(socket, "mode"),
                owner: self.string(socket, "owner"),
                group: self.string(socket, "group"),
                backlog: self.integer(socket, "backlog"),
                reuse_port: self.boolean(socket, "reuse_port"),
                nonblocking: self.boolean(socket, "nonblocking"),
            });
        }
    }
}

impl Checker<'_> {
    /// Every socket; the wrong ones are told and left out.
    pub(super) fn sockets(&mut self, service: &str, raw: &RawService) -> Vec<Socket> {
        if let Some(one_too_many) = raw.sockets.get(SOCKETS_MAX) {
            let message = format!("a service has at most {SOCKETS_MAX} sockets");
            self.refuse("bad-socket", &one_too_many.at, message, "split the service");
        }
        let mut sockets: Vec<Socket> = Vec::new();
        for raw in &raw.sockets {
            let Some(socket) = self.socket(service, raw) else { continue };
            if !socket.reuse_port
                && let Some(twice) = sockets.iter().find(|other| other.listen.value == socket.listen.value)
            {
                let message = format!("`{}` is listened on twice", twice.listen.value);
                self.refuse("bad-socket", &socket.listen.at, message, "one of them cannot be made");
            }
            sockets.push(socket);
        }
        sockets
    }

    fn socket(&mut self, service: &str, raw: &RawSocket) -> Option<Socket> {
        let Some(written) = raw.listen.clone() else {
            let help = "for instance `listen = \"tcp:0.0.0.0:80\"` or `listen = \"unix:/run/web.sock\"`";
            self.refuse("bad-socket", &raw.at, "this socket does not say where it listens", help);
            return None;
        };
        let written = self.expand(written);
        let listen = match address(&written.value) {
            Ok(address) => Located::new(address, written.at),
            Err((why, near)) => {
                let message = format!("\"{}\" is nothing to listen on: {why}", written.value);
                let problem = Diagnostic::error("bad-socket", written.at, message)
                    .help(format!("it begins with {}:", PREFIXES.join(":, ")));
                self.report(match near {
                    Some(near) => problem.label(format!("did you mean `{near}:`?")),
                    None => problem,
                });
                return None;
            }
        };
        let name = self.socket_name(service, raw);
        let on_path = listen.value.path().is_some();
        for (key, written) in [("mode", &raw.mode), ("owner", &raw.owner), ("group", &raw.group)] {
            if let (Some(written), false) = (written, on_path) {
                let message = format!("`{key}` is about a path, and `{}` has none", listen.value);
                self.refuse("bad-socket", &written.at, message, "who may connect to it is for the firewall");
            }
        }
        if let (Some(written), false) = (&raw.backlog, listen.value.has_backlog()) {
            let message = format!("nothing waits to be accepted on `{}`", listen.value);
            self.refuse("bad-socket", &written.at, message, "take `backlog` out");
        }
        if let (Some(written), true) = (&raw.reuse_port, on_path) {
            let message = "`reuse_port` is for tcp: and udp:";
            self.refuse("bad-socket", &written.at, message, "a path has one socket");
        }
        Some(Socket {
            name,
            listen,
            lazy: raw.lazy.as_ref().is_some_and(|lazy| lazy.value),
            mode: self.mode(raw.mode.as_ref()),
            owner: raw.owner.clone(),
            group: raw.group.clone(),
            backlog: self.backlog(raw.backlog.as_ref()),
            reuse_port: raw.reuse_port.as_ref().is_some_and(|reuse| reuse.value),
            nonblocking: raw.nonblocking.as_ref().is_some_and(|nonblocking| nonblocking.value),
        })
    }

    fn socket_name(&mut self, service: &str, raw: &RawSocket) -> String {
        let Some(written) = raw.name.clone() else { return service.to_owned() };
        let name = self.expand(written);
        let sound = !name.value.is_empty()
            && name.value.len() <= 255
            && name.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !sound {
            let message = format!("\"{}\" is not the name of a descriptor", name.value);
            let help = "LISTEN_FDNAMES puts colons between them: 1 to 255 printable characters without `:`";
            self.refuse("bad-name", &name.at, message, help);
        }
        name.value
    }

    fn mode(&mut self, written: Option<&Located<String>>) -> u32 {
        let Some(written) = written else { return MODE };
        let digits = matches!(written.value.len(), 3 | 4);
        match u32::from_str_radix(&written.value, 8).ok().filter(|mode| digits && *mode <= 0o777) {
            Some(mode) => mode,
            None => {
                let message = format!("\"{}\" is no mode", written.value);
                self.refuse("bad-mode", &written.at, message, "three octal digits: \"660\"");
                MODE
            }
        }
    }

    fn backlog(&mut self, written: Option<&Located<i64>>) -> i32 {
        let Some(written) = written else { return BACKLOG };
        match i32::try_from(written.value).ok().filter(|backlog| *backlog >= 1) {
            Some(backlog) => backlog,
            None => {
                let help = "the kernel takes no more than net.core.somaxconn";
                self.refuse("bad-value", &written.at, "`backlog` is at least 1", help);
                BACKLOG
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_address_is_read_as_it_is_shown() {
        for text in [
            "tcp:0.0.0.0:80",
            "tcp:[::1]:443",
            "udp:127.0.0.1:53",
            "unix:/run/a.sock",
            "unix-dgram:/dev/log",
            "unix-seqpacket:/run/b",
            "fifo:/run/c",
        ] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_near() {
        let check = |text: &str, near| assert_eq!(address(text).expect_err(text).1, near, "{text}");
        check("tpc:0.0.0.0:80", Some("tcp"));
        check("unix-seqpaket:/run/a", Some("unix-seqpacket"));
        for text in [
            "",
            "80",
            "tcp:80",
            "tcp:localhost:80",
            "tcp:1.2.3.4",
            "tcp:0.0.0.0:65536",
            "unix:run/a",
            "unix:/run/../a",
            "unix:/run/",
            "fifo:",
            &format!("unix:/{}", "x".repeat(107)),
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
