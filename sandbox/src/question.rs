//! May a service do this? Answered from its compiled [`Plan`], with the rule that says so.
//!
//! Each layer is asked: what is mounted there, Landlock, the seccomp program itself (run in an interpreter), the
//! capability sets. What the plan does not decide is not answered: file modes and owners apply besides, with the plan's
//! uid.

use std::fmt;

use landlock::AccessFs;

use crate::{
    compile::{
        mounts::{Seen, is_beneath},
        seccomp,
    },
    plan::{Op, Plan, Step},
    syscalls,
};

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Open a file for reading, or list a directory.
    Read(String),
    /// Open a file for writing, or make one.
    Write(String),
    /// Execute a file.
    Execute(String),
    /// bind(2) a TCP socket to this port.
    Bind(u16),
    /// connect(2) a TCP socket to this port.
    Connect(u16),
    /// Make this system call, by number.
    Call(u32),
    /// Use this capability.
    Capability(caps::Capability),
}

/// Yes or no, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the plan allows it.
    pub allowed: bool,
    /// The rules that decide, most telling first; each with its place where it has one.
    pub because: Vec<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.allowed { "yes" } else { "no" })?;
        for reason in &self.because {
            write!(f, "\n  {reason}")?;
        }
        Ok(())
    }
}

/// One layer's opinion.
struct Opinion {
    allowed: bool,
    why: String,
}

impl Plan {
    /// Whether the plan allows an act. All layers must; a denial names the first that does not.
    #[must_use]
    pub fn can(&self, question: &Question) -> Answer {
        let opinions = match question {
            Question::Read(path) => self.path(path, "openat", Need::Read),
            Question::Write(path) => self.path(path, "openat", Need::Write),
            Question::Execute(path) => self.path(path, "execve", Need::Execute),
            Question::Bind(port) => self.port(*port, "bind"),
            Question::Connect(port) => self.port(*port, "connect"),
            Question::Call(number) => vec![self.call(*number)],
            Question::Capability(capability) => vec![self.capability(*capability)],
        };
        let allowed = opinions.iter().all(|opinion| opinion.allowed);
        let because =
            opinions.into_iter().filter(|opinion| opinion.allowed == allowed).map(|opinion| opinion.why);
        Answer { allowed, because: because.collect() }
    }

    fn path(&self, path: &str, call: &str, need: Need) -> Vec<Opinion> {
        let mut opinions = vec![self.mounted(path, need)];
        opinions.extend(self.landlock_path(path, need));
        opinions.extend(syscalls::number(call).map(|number| self.call(number)));
        opinions
    }

    fn mounted(&self, path: &str, need: Need) -> Opinion {
        let rights = self.view.rights(path);
        let place = rights.at.as_ref().map(|at| format!("{}: ", self.sources.locate(at))).unwrap_or_default();
        let mount = &rights.mount;
        let (allowed, what) = if rights.hidden {
            (false, format!("{mount} is hidden"))
        } else if self.view.look(path) == Seen::Nothing {
            (false, "nothing is there: the root is empty and no bind covers it".to_owned())
        } else if rights.read_only && need == Need::Write && !is_device(path) {
            (false, format!("{mount} is read-only"))
        } else if rights.noexec && need == Need::Execute {
            (false, format!("{mount} is mounted noexec"))
        } else if need == Need::Write {
            (true, format!("{mount} is mounted writable"))
        } else {
            (true, format!("{mount} is visible"))
        };
        Opinion { allowed, why: format!("{place}{what}") }
    }

    /// Rights add up over the rules on the way to the root.
    fn landlock_path(&self, path: &str, need: Need) -> Option<Opinion> {
        self.landlock.as_ref()?;
        let wanted = landlock::BitFlags::from(need.right()).bits();
        let resolved = self.resolve(path);
        let rule = self.steps.iter().find(|step| {
            let Op::LandlockPath { path: root, directory, file, .. } = &step.op else { return false };
            let root = self.resolve(&root.to_string_lossy());
            is_beneath(&resolved, &root) && (directory | file) & wanted != 0
        });
        let word = need.word();
        Some(match rule {
            Some(step) => Opinion {
                allowed: true,
                why: format!("{}landlock: {word} beneath {}", self.place(step), step.object),
            },
            None => Opinion { allowed: false, why: format!("landlock: no {word} rule covers {path}") },
        })
    }

    /// Symbolic links of the host followed, as far as the path is the host's; what is missing stays as it is.
    fn resolve(&self, path: &str) -> String {
        let Seen::Host(on_host) = self.view.look(path) else { return path.to_owned() };
        if on_host != path {
            return path.to_owned();
        }
        std::fs::canonicalize(path)
            .map_or_else(|_| path.to_owned(), |real| real.to_string_lossy().into_owned())
    }

    fn port(&self, port: u16, call: &str) -> Vec<Opinion> {
        let mut opinions: Vec<Opinion> = ["socket", call]
            .into_iter()
            .filter_map(syscalls::number)
            .map(|number| self.call(number))
            .collect();
        if let Some(landlock) = &self.landlock {
            let (rules, key) = match call {
                "bind" => (&landlock.bind_tcp, "bind_tcp"),
                _ => (&landlock.connect_tcp, "connect_tcp"),
            };
            let opinion = match rules {
                None => Opinion { allowed: true, why: format!("landlock: {key} is not restricted") },
                Some(ports) if ports.contains(&port) => {
                    Opinion { allowed: true, why: format!("landlock: {key} names {port}") }
                }
                Some(_) => Opinion { allowed: false, why: format!("landlock: {key} does not name {port}") },
            };
            opinions.insert(0, opinion);
        }
        opinions
    }

    fn call(&self, number: u32) -> Opinion {
        let name = syscalls::name(number).map_or_else(|| number.to_string(), str::to_owned);
        let filter = self.steps.iter().find_map(|step| {
            let Op::Seccomp { program, .. } = &step.op else { return None };
            Some((step, program))
        });
        let Some((step, program)) = filter else {
            return Opinion { allowed: true, why: "no seccomp filter".to_owned() };
        };
        let (allowed, words) = match seccomp::verdict(program, number) {
            None => (true, "allowed, depending on its arguments".to_owned()),
            Some(seccomp::ALLOW) => (true, "allowed".to_owned()),
            Some(seccomp::LOG) => (true, "allowed and logged".to_owned()),
            Some(denial) => (false, format!("denied: {}", seccomp::action(denial))),
        };
        Opinion { allowed, why: format!("{}seccomp: {name} is {words}", self.place(step)) }
    }

    fn capability(&self, capability: caps::Capability) -> Opinion {
        let bounding_dropped = self
            .steps
            .iter()
            .find(|step| matches!(step.op, Op::DropBounding(number) if number == capability.index()));
        let raised = self
            .steps
            .iter()
            .any(|step| matches!(step.op, Op::RaiseAmbient(number) if number == capability.index()));
        match bounding_dropped {
            Some(_) => {
                Opinion { allowed: false, why: format!("capabilities.keep does not name {capability}") }
            }
            None if self.inside_uid == 0 || raised => {
                Opinion { allowed: true, why: format!("capabilities.keep names {capability}") }
            }
            None => Opinion {
                allowed: false,
                why: format!(
                    "{capability} is kept but not ambient, so uid {} loses it at execve",
                    self.inside_uid
                ),
            },
        }
    }

    fn place(&self, step: &Step) -> String {
        step.at.as_ref().map(|at| format!("{}: ", self.sources.locate(at))).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Write,
    Execute,
}

impl Need {
    fn right(self) -> AccessFs {
        match self {
            Self::Read => AccessFs::ReadFile,
            Self::Write => AccessFs::WriteFile,
            Self::Execute => AccessFs::Execute,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
        }
    }
}

/// A read-only mount does not stop writing to a device.
fn is_device(path: &str) -> bool {
    is_beneath(path, "/dev") && path != "/dev"
}
