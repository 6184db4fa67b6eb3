//! The services in each contender's own words: files that the guest writes before it becomes the contender.
//!
//! Everybody gets what it does best with: no shell between a supervisor and the service, no dependency that is not needed,
//! and a restart at once wherever that can be said.

use std::fmt::Write;

use super::contender::Contender;

/// The service.
pub const SERVICE: &str = "/bench/service";
/// Where service folders lie, for those who scan one.
pub const SCAN: &str = "/bench/scan";
/// The folder that services write to.
pub const WRITABLE: &str = "/bench/run";

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Contents {
    /// A file and its permissions.
    File(u32, String),
    /// A symbolic link.
    Link(String),
}

/// All files of a contender with so many services.
#[must_use]
pub fn of(contender: Contender, services: usize) -> Vec<(String, Contents)> {
    let mut files = Files::default();
    let ids = 0..services;
    match contender {
        Contender::Floor | Contender::FloorCgroup | Contender::FloorSandboxed | Contender::FloorStandby => {}
        Contender::MotherD | Contender::MotherDSandboxed | Contender::MotherDStandby => {
            let confined = contender.is_sandboxed();
            let standby = if contender == Contender::MotherDStandby { "standby = true\n" } else { "" };
            let policy = if confined { "bench" } else { "unconfined" };
            for id in ids.clone() {
                let text = format!(
                    "exec = [\"{SERVICE}\", \"{id}\"]\npolicy = \"{policy}\"\n{standby}[restart]\nwhen = \"always\"\ndelay = \"0s\"\n"
                );
                files.file(&format!("/etc/motherd/services/svc-{id}.toml"), text);
            }
            let wants: Vec<String> = ids.map(|id| format!("\"svc-{id}\"")).collect();
            files.file(
                "/etc/motherd/services/system.toml",
                format!("[dependencies]\nwants = [{}]\n", wants.join(", ")),
            );
            if confined {
                files.file("/etc/motherd/policies/bench.toml", POLICY);
            }
        }
        Contender::Busybox => {
            let line = |id| format!("::respawn:{SERVICE} {id}\n");
            files.file("/etc/inittab", ids.map(line).collect::<String>());
        }
        Contender::Sysvinit => {
            let line = |id| format!("{id}:2:respawn:{SERVICE} {id}\n");
            files.file("/etc/inittab", format!("id:2:initdefault:\n{}", ids.map(line).collect::<String>()));
        }
        Contender::Finit => {
            let line = |id| format!("service [2] :{id} {SERVICE} {id} -- service {id}\n");
            files.file("/etc/finit.conf", format!("runlevel 2\n{}", ids.map(line).collect::<String>()));
        }
        Contender::Runit => {
            let script = |text: &str| Contents::File(0o755, format!("#!/bin/sh\n{text}\n"));
            files.put("/etc/runit/1", script("exit 0"));
            files.put("/etc/runit/2", script(&format!("exec runsvdir -P {SCAN}")));
            files.put("/etc/runit/3", script("exit 0"));
            files.scan(services);
        }
        Contender::S6 => files.scan(services),
        Contender::Systemd | Contender::SystemdSandboxed => {
            let hardened = if contender == Contender::Systemd { "" } else { HARDENING };
            let unit = "[Unit]\nDefaultDependencies=no\n";
            let folder = "/etc/systemd/system";
            for id in ids {
                let name = format!("svc-{id}.service");
                files.file(
                    &format!("{folder}/{name}"),
                    format!(
                        "{unit}[Service]\nExecStart={SERVICE} {id}\nRestart=always\nRestartSec=0\nStandardOutput=null\n\
                         StandardError=null\n{hardened}"
                    ),
                );
                files.put(
                    &format!("{folder}/bench.target.wants/{name}"),
                    Contents::Link(format!("{folder}/{name}")),
                );
            }
            files.file(&format!("{folder}/bench.target"), unit);
            files.put(&format!("{folder}/default.target"), Contents::Link(format!("{folder}/bench.target")));
        }
        Contender::Openrc => {
            for id in ids {
                let path = format!("/etc/init.d/svc-{id}");
                let text = format!(
                    "#!/sbin/openrc-run\nsupervisor=supervise-daemon\ncommand={SERVICE}\ncommand_args={id}\n\
                     respawn_delay=0\nrespawn_max=0\n"
                );
                files.put(&path, Contents::File(0o755, text));
                files.put(&format!("/etc/runlevels/default/svc-{id}"), Contents::Link(path));
            }
            for level in ["sysinit", "boot", "nonetwork", "shutdown"] {
                files.file(&format!("/etc/runlevels/{level}/.keep"), "");
            }
        }
    }
    files.0
}

#[derive(Default)]
struct Files(Vec<(String, Contents)>);

impl Files {
    fn file(&mut self, path: &str, text: impl Into<String>) {
        self.put(path, Contents::File(0o644, text.into()));
    }

    fn put(&mut self, path: &str, contents: Contents) {
        self.0.push((path.to_owned(), contents));
    }

    /// A folder for each service; its `run` is the service itself, which reads its number off the folder's name.
    fn scan(&mut self, services: usize) {
        for id in 0..services {
            self.put(&format!("{SCAN}/svc-{id}/run"), Contents::Link(SERVICE.to_owned()));
        }
    }
}

/// `base/default` and the way to what the service writes.
const POLICY: &str = r#"description = "a service of the benchmark"
extends = ["base/default"]

[filesystem]
read_write = { add = ["/bench/run"] }       # where it writes when it began

[landlock]
read    = { add = ["/bench"] }
execute = { add = ["/bench"] }
write   = { add = ["/bench/run"] }
"#;

/// What its manual recommends against what `base/default` is against.
const HARDENING: &str = "\
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateIPC=yes
ProtectSystem=strict
ReadWritePaths=/bench/run
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
ProcSubset=pid
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service
SystemCallArchitectures=native
CapabilityBoundingSet=
MemoryMax=512M
TasksMax=64
";

/// The words that tell a guest what to do, on its kernel command line.
#[must_use]
pub fn order(contender: Contender, services: usize, measures: &[String]) -> String {
    let mut words = format!("peers={},{services}", contender.name());
    for measure in measures {
        // Writing to a String does not fail.
        write!(words, ",{measure}").unwrap_or_default();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_of_every_service_and_of_no_other() {
        for contender in Contender::ALL.into_iter().filter(|contender| !contender.is_floor()) {
            let all: String =
                of(contender, 12).iter().map(|(path, contents)| format!("{path} {contents:?}\n")).collect();
            assert!(all.contains("11") && !all.contains("svc-12"), "{}: {all}", contender.name());
            assert!(!all.contains("respawn:/bench/service 12"), "{}: {all}", contender.name());
        }
    }
}
