//! What runs while motherd is killed: services that stay, that crash, that log, that answer, that are started and
//! stopped, as service files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::client::{Ask, ask_echo, ask_for, ask_http, ask_over_one};
use crate::fetch::Cache;

/// What the body of nginx's answer is, which comes after its header.
pub const NGINX_ANSWERS: &str = "nginx answers\n";

/// What all need where nothing else is needed.
const DONE: &str = "done";

/// What a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It waits.
    Idle,
    /// It says that it is ready, and waits.
    Ready,
    /// It answers on a TCP port.
    Echo(u16),
    /// It ends with some status after so many milliseconds, or up to eleven times as many.
    Crash(u64),
    /// It is started and stopped by request.
    Churn,
    /// It is a oneshot, run again by request.
    Once,
    /// It logs bursts of so many lines, so many milliseconds apart.
    Log(u64, u64),
    /// nginx, on a TCP port.
    Nginx(u16),
    /// redis, on a TCP port.
    Redis(u16),
    /// It makes orphans by the thousand when it is told to.
    Storm,
}

impl Kind {
    /// Whether its process is to be the same from the first moment to the last.
    #[must_use]
    pub fn stays(self) -> bool {
        match self {
            Kind::Idle | Kind::Ready | Kind::Echo(_) | Kind::Log(..) => true,
            Kind::Nginx(_) | Kind::Redis(_) | Kind::Storm => true,
            Kind::Crash(_) | Kind::Churn | Kind::Once => false,
        }
    }
}

/// Where it runs: on this host or inside of a guest.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where the ledgers are.
    pub folder: PathBuf,
    /// `soak_service`.
    pub program: PathBuf,
    /// How nginx and redis are begun, up to their own arguments.
    pub nginx: Vec<String>,
    /// Likewise.
    pub redis: Vec<String>,
    /// What of that is in no folder that a service may read anyway.
    pub readable: Option<PathBuf>,
    /// What every service needs.
    pub needs: Vec<String>,
}

impl Place {
    /// This host, with nginx and redis out of the packages that the tests unpack.
    pub fn host(folder: &Path, program: &Path) -> Result<Self> {
        let tree = Cache::open()?.userland()?;
        let at = |path: &str| tree.join(path).display().to_string();
        let loader = ["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"];
        let loader = loader.into_iter().find(|path| tree.join(path).exists()).context("no loader")?;
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(at).join(":");
        let run =
            |program: &str| vec![at(loader), "--library-path".to_owned(), libraries.clone(), at(program)];
        Ok(Self {
            folder: folder.to_owned(),
            program: program.to_owned(),
            nginx: run("usr/sbin/nginx"),
            redis: run("usr/bin/redis-server"),
            readable: Some(tree.clone()),
            needs: vec![DONE.to_owned()],
        })
    }

    /// The guest of `soak_kill`, with everything where a system has it.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            folder: "/var/soak".into(),
            program: "/usr/lib/e2e/soak_service".into(),
            nginx: vec!["/usr/sbin/nginx".into()],
            redis: vec!["/usr/bin/redis-server".into()],
            readable: None,
            needs: vec!["loopback".into(), "small".into()],
        }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where it runs.
    pub place: Place,
    /// Where the ledgers are.
    pub folder: PathBuf,
    /// By name.
    pub services: Vec<(String, Kind)>,
}

/// How many there are of each kind that there can be any number of.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// All services together.
    pub services: usize,
    /// The first port of the answering ones.
    pub port: u16,
    /// Whether the loggers write 160,000 lines a second each, and what crashes does so at once; or, where a processor is
    /// emulated, a hundredth of it and a tenth as often.
    pub loud: bool,
}

/// A first port that no other run on this machine is likely to use, below those that the kernel gives to whoever connects.
#[must_use]
pub fn own_port() -> u16 {
    u16::try_from(std::process::id() % 100).map_or(20_000, |number| 20_000 + number * 110)
}

impl Load {
    /// Half a dozen of each kind, or fewer where there are few services, and the rest idle.
    #[must_use]
    pub fn new(place: Place, scale: Scale) -> Self {
        let few = (scale.services / 20).clamp(1, 10);
        let mut services = Vec::new();
        let mut add = |name: &str, count: usize, kind: &dyn Fn(u16) -> Kind| {
            for number in 0..count {
                let kind = kind(u16::try_from(number).unwrap_or_default());
                services.push((format!("{name}-{number}"), kind));
            }
        };
        add("echo", few.min(4), &|number| Kind::Echo(scale.port + number));
        // A launch of ten of these takes an emulated processor 200 ms: it is to have time for something else.
        add("crash", few, &|_| Kind::Crash(if scale.loud { 30 } else { 300 }));
        add("churn", few, &|_| Kind::Churn);
        add("once", few, &|_| Kind::Once);
        add("ready", 2 * few, &|_| Kind::Ready);
        add("nginx", 1, &|_| Kind::Nginx(scale.port + 100));
        add("redis", 1, &|_| Kind::Redis(scale.port + 101));
        add("storm", 1, &|_| Kind::Storm);
        // As fast as 12 MB/s, and as slow as most programs.
        add("fast", few.min(2), &|_| if scale.loud { Kind::Log(800, 5) } else { Kind::Log(80, 50) });
        add("slow", few, &|_| Kind::Log(10, 20));
        let left = scale.services.saturating_sub(services.len());
        (0..left).for_each(|number| services.push((format!("idle-{number}"), Kind::Idle)));
        Self { folder: place.folder.clone(), place, services }
    }

    /// The names of one sort.
    pub fn names(&self, wanted: impl Fn(Kind) -> bool) -> Vec<&str> {
        self.services.iter().filter(|(_, kind)| wanted(*kind)).map(|(name, _)| name.as_str()).collect()
    }

    /// Who asks all that answer, over a new connection for each question: echo, nginx and redis, by name.
    #[must_use]
    pub fn asks_anew(&self) -> Vec<(&str, Ask)> {
        let ask = |kind: &Kind| match kind {
            Kind::Echo(port) => Some(ask_echo(*port)),
            Kind::Nginx(port) => Some(ask_http(*port, NGINX_ANSWERS)),
            Kind::Redis(port) => Some(ask_for(*port, "PING\r\n", "+PONG\r\n")),
            Kind::Idle
            | Kind::Ready
            | Kind::Crash(_)
            | Kind::Churn
            | Kind::Once
            | Kind::Log(..)
            | Kind::Storm => None,
        };
        self.services.iter().filter_map(|(name, kind)| Some((name.as_str(), ask(kind)?))).collect()
    }

    /// The same, and nginx and redis over connections that stay. redis counts the questions: to be had once.
    #[must_use]
    pub fn asks(&self) -> Vec<Ask> {
        let mut asks: Vec<Ask> = self.asks_anew().into_iter().map(|(_, ask)| ask).collect();
        for (_, kind) in &self.services {
            if let Kind::Nginx(port) = kind {
                asks.push(ask_over_one(*port, |_| {
                    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), NGINX_ANSWERS.as_bytes().to_vec())
                }));
            }
            if let Kind::Redis(port) = kind {
                // It starts at 0 with the process: whoever started it again would be found out.
                asks.push(ask_over_one(*port, |nth| {
                    (b"INCR counter\r\n".to_vec(), format!(":{}\r\n", nth + 1).into_bytes())
                }));
            }
        }
        asks
    }

    fn ports(&self) -> Vec<u16> {
        let port = |kind: &Kind| match kind {
            Kind::Echo(port) | Kind::Nginx(port) | Kind::Redis(port) => Some(*port),
            Kind::Idle
            | Kind::Ready
            | Kind::Crash(_)
            | Kind::Churn
            | Kind::Once
            | Kind::Log(..)
            | Kind::Storm => None,
        };
        self.services.iter().filter_map(|(_, kind)| port(kind)).collect()
    }

    /// What has to be there before the services are: their folder's files.
    #[must_use]
    pub fn configuration(&self) -> Vec<(PathBuf, String)> {
        let folder = self.folder.display();
        let nginx = |port: &u16| {
            format!(
                "daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\n\
                 events {{ worker_connections 512; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
                 keepalive_timeout 1d;\n  client_body_temp_path {folder}/nginx.body;\n  proxy_temp_path {folder}/nginx.proxy;\n  \
                 fastcgi_temp_path {folder}/nginx.fastcgi;\n  uwsgi_temp_path {folder}/nginx.uwsgi;\n  \
                 scgi_temp_path {folder}/nginx.scgi;\n  server {{ listen 127.0.0.1:{port}; location / {{ return 200 \
                 \"nginx answers\\n\"; }} }}\n}}\n"
            )
        };
        let port = |kind: &Kind| if let Kind::Nginx(port) = kind { Some(*port) } else { None };
        let found = self.services.iter().filter_map(|(_, kind)| port(kind));
        found.map(|port| (self.folder.join("nginx.conf"), nginx(&port))).collect()
    }

    /// `soak`, strict but for the ledgers, the ports and the programs; and `soak-storm`, whose orphans come to initldr.
    #[must_use]
    pub fn policies(&self) -> [(&'static str, String); 2] {
        let storm = "extends = [\"soak\"]\n[namespaces]\npid = \"host\"\n[cgroup]\npids_max = 40000\n";
        [("soak", self.policy()), ("soak-storm", storm.to_owned())]
    }

    fn policy(&self) -> String {
        let folder = self.folder.display();
        let mut programs = vec![self.place.program.parent().unwrap_or(Path::new("/")).to_owned()];
        programs.extend(self.place.readable.clone());
        let programs: Vec<String> = programs.iter().map(|path| format!("\"{}\"", path.display())).collect();
        let programs = programs.join(", ");
        let ports: Vec<String> = self.ports().iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        format!(
            "extends = [\"base/default\"]\n[namespaces]\nnet = \"host\"\n[filesystem]\n\
             read_write = [\"{folder}\"]\n[landlock]\nread = {{ add = [\"{folder}\", {programs}] }}\n\
             write = {{ add = [\"{folder}\"] }}\nexecute = {{ add = [{programs}] }}\nbind_tcp = [{ports}]\n"
        )
    }

    /// Each service file: its name and its text; that of the target which wants all of them has this name.
    #[must_use]
    pub fn files(&self, target: &str) -> Vec<(String, String)> {
        let names: Vec<String> = self.services.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let system = format!("[dependencies]\nwants = [{}]\n", names.join(", "));
        // As a machine has them: a oneshot that all need, and that has no process when it is done.
        let done = "exec = [\"/bin/true\"]\npolicy = \"unconfined\"\n[start]\ntype = \"oneshot\"\n";
        let mut files = vec![(target.to_owned(), system), (DONE.to_owned(), done.to_owned())];
        for (name, kind) in &self.services {
            files.push((name.clone(), self.file(name, *kind)));
        }
        files
    }

    /// One of them.
    #[must_use]
    pub fn file(&self, name: &str, kind: Kind) -> String {
        let folder = self.folder.display();
        let even = name.bytes().last().is_some_and(|digit| digit % 2 == 0);
        let mut policy = "soak";
        let own = |mode: &str| {
            let words = [&self.place.program.display().to_string(), mode, &folder.to_string(), name];
            words.map(str::to_owned).to_vec()
        };
        let (exec, start) = match kind {
            Kind::Idle => (own("idle"), "exec"),
            // Its socket is 3.
            Kind::Churn if even => (own("idle"), "fd"),
            Kind::Ready | Kind::Churn => (own("idle"), "notify"),
            Kind::Echo(port) => ([own("echo"), vec![port.to_string()]].concat(), "notify"),
            Kind::Crash(life) => ([own("crash"), vec![life.to_string()]].concat(), "exec"),
            Kind::Once => (own("once"), "oneshot"),
            Kind::Log(burst, pause) => {
                ([own("log"), vec![burst.to_string(), pause.to_string()]].concat(), "exec")
            }
            Kind::Storm => {
                policy = "soak-storm";
                (own("storm"), "notify")
            }
            Kind::Nginx(_) => {
                let own = ["-p", &folder.to_string(), "-c", &format!("{folder}/nginx.conf"), "-e", "stderr"];
                ([self.place.nginx.clone(), own.map(str::to_owned).to_vec()].concat(), "exec")
            }
            Kind::Redis(port) => {
                let own =
                    ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
                let dir = ["--dir", &folder.to_string()].map(str::to_owned);
                ([self.place.redis.clone(), own.map(str::to_owned).to_vec(), dir.to_vec()].concat(), "exec")
            }
        };
        let exec: Vec<String> = exec.iter().map(|word| format!("\"{word}\"")).collect();
        let exec = exec.join(", ");
        let needs: Vec<String> = self.place.needs.iter().map(|name| format!("\"{name}\"")).collect();
        let needs = if needs.is_empty() {
            String::new()
        } else {
            format!("[dependencies]\nneeds = [{}]\n", needs.join(", "))
        };
        // Made and dropped with each start and stop.
        let number = if start == "fd" { "fd = 4\n[environment]\nREADY_FD = \"4\"\n" } else { "" };
        let socket = match kind {
            Kind::Churn => format!("[[socket]]\nlisten = \"unix:/run/{name}.sock\"\n"),
            Kind::Idle
            | Kind::Ready
            | Kind::Echo(_)
            | Kind::Crash(_)
            | Kind::Once
            | Kind::Log(..)
            | Kind::Nginx(_)
            | Kind::Redis(_)
            | Kind::Storm => String::new(),
        };
        // Of those that crash and of those that stay one half each has a process that waits to be its next.
        let standby = even && matches!(kind, Kind::Crash(_) | Kind::Ready);
        let when = if kind == Kind::Once { "failure" } else { "always" };
        // Whoever crashes is tried again at once and without end.
        format!(
            "exec = [{exec}]\npolicy = \"{policy}\"\nstandby = {standby}\n{needs}[start]\ntype = \"{start}\"\n{number}[reload]\nsignal = \"SIGHUP\"\n[restart]\nwhen = \"{when}\"\n\
             delay = \"10ms\"\nfactor = 1.0\nmax_delay = \"10ms\"\nlimit = 1000000000\n[log]\nkeep = \"64M\"\n{socket}"
        )
    }
}
