//! What runs while motherd is killed: services that stay, that crash, that log, that answer, that are started and
//! stopped, as service files.

use std::path::{Path, PathBuf};

/// What a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It waits.
    Idle,
    /// It says that it is ready, and waits.
    Ready,
    /// It answers on a TCP port.
    Echo(u16),
    /// It ends with some status a moment after it was started.
    Crash,
    /// It is started and stopped by request.
    Churn,
    /// It is a oneshot, run again by request.
    Once,
    /// It logs bursts of so many lines, so many milliseconds apart.
    Log(u64, u64),
}

impl Kind {
    /// Whether its process is to be the same from the first moment to the last.
    #[must_use]
    pub fn stays(self) -> bool {
        matches!(self, Kind::Idle | Kind::Ready | Kind::Echo(_) | Kind::Log(..))
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the ledgers are.
    pub folder: PathBuf,
    /// `soak_service`.
    pub program: PathBuf,
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
}

impl Load {
    /// Half a dozen of each kind, or fewer where there are few services, and the rest idle.
    #[must_use]
    pub fn new(folder: &Path, program: &Path, scale: Scale) -> Self {
        let few = (scale.services / 20).clamp(1, 10);
        let mut services = Vec::new();
        let mut add = |name: &str, count: usize, kind: &dyn Fn(u16) -> Kind| {
            for number in 0..count {
                let kind = kind(u16::try_from(number).unwrap_or_default());
                services.push((format!("{name}-{number}"), kind));
            }
        };
        add("echo", few.min(4), &|number| Kind::Echo(scale.port + number));
        add("crash", few, &|_| Kind::Crash);
        add("churn", few, &|_| Kind::Churn);
        add("once", few, &|_| Kind::Once);
        add("ready", 2 * few, &|_| Kind::Ready);
        // As fast as 12 MB/s, and as slow as most programs.
        add("fast", few.min(2), &|_| Kind::Log(800, 5));
        add("slow", few, &|_| Kind::Log(10, 20));
        let left = scale.services.saturating_sub(services.len());
        (0..left).for_each(|number| services.push((format!("idle-{number}"), Kind::Idle)));
        Self { folder: folder.to_owned(), program: program.to_owned(), services }
    }

    /// The names of one sort.
    pub fn names(&self, wanted: impl Fn(Kind) -> bool) -> Vec<&str> {
        self.services.iter().filter(|(_, kind)| wanted(*kind)).map(|(name, _)| name.as_str()).collect()
    }

    /// The ports that answer.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let port = |kind: &Kind| if let Kind::Echo(port) = kind { Some(*port) } else { None };
        self.services.iter().filter_map(|(_, kind)| port(kind)).collect()
    }

    /// `soak.toml`: strict, but for the ledgers, the ports and the program.
    #[must_use]
    pub fn policy(&self) -> String {
        let folder = self.folder.display();
        let programs = self.program.parent().unwrap_or(Path::new("/")).display();
        let ports: Vec<String> = self.ports().iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        format!(
            "extends = [\"base/default\"]\n[namespaces]\nnet = \"host\"\n[filesystem]\n\
             read_write = [\"{folder}\"]\n[landlock]\nread = {{ add = [\"{folder}\", \"{programs}\"] }}\n\
             write = {{ add = [\"{folder}\"] }}\nexecute = {{ add = [\"{programs}\"] }}\nbind_tcp = [{ports}]\n"
        )
    }

    /// Each service file: its name and its text; `system` among them.
    #[must_use]
    pub fn files(&self) -> Vec<(String, String)> {
        let names: Vec<String> = self.services.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let system = format!("[dependencies]\nwants = [{}]\n", names.join(", "));
        let mut files = vec![("system".to_owned(), system)];
        for (name, kind) in &self.services {
            files.push((name.clone(), self.file(name, *kind)));
        }
        files
    }

    fn file(&self, name: &str, kind: Kind) -> String {
        let (mode, arguments, start) = match kind {
            Kind::Idle => ("idle", String::new(), "exec"),
            Kind::Ready | Kind::Churn => ("idle", String::new(), "notify"),
            Kind::Echo(port) => ("echo", format!(", \"{port}\""), "notify"),
            Kind::Crash => ("crash", String::new(), "exec"),
            Kind::Once => ("once", String::new(), "oneshot"),
            Kind::Log(burst, pause) => ("log", format!(", \"{burst}\", \"{pause}\""), "exec"),
        };
        let (program, folder) = (self.program.display(), self.folder.display());
        // Made and dropped with each start and stop.
        let socket = match kind {
            Kind::Churn => format!("[[socket]]\nlisten = \"unix:/run/{name}.sock\"\n"),
            Kind::Idle | Kind::Ready | Kind::Echo(_) | Kind::Crash | Kind::Once | Kind::Log(..) => {
                String::new()
            }
        };
        let when = if kind == Kind::Once { "failure" } else { "always" };
        // Whoever crashes is tried again at once and without end.
        format!(
            "exec = [\"{program}\", \"{mode}\", \"{folder}\", \"{name}\"{arguments}]\npolicy = \"soak\"\n\
             [start]\ntype = \"{start}\"\n[reload]\nsignal = \"SIGHUP\"\n[restart]\nwhen = \"{when}\"\n\
             delay = \"10ms\"\nfactor = 1.0\nmax_delay = \"10ms\"\nlimit = 1000000000\n[log]\nkeep = \"64M\"\n{socket}"
        )
    }
}
