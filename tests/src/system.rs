//! The booted system of [`crate::initramfs`]: what it is asked, and what it has to answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fetch::Kernel;
use crate::machine::{Answer, Machine};

/// How long a service may take to come up.
pub const START: Duration = Duration::from_secs(60);

/// What the kernel has to say of a service that its policy confines.
#[derive(Debug)]
pub struct Confined {
    /// The service.
    pub service: &'static str,
    /// The policy's user.
    pub uid: u64,
    /// Every capability it may have.
    pub capabilities: &'static [&'static str],
}

/// The two daemons of the image.
pub const DAEMONS: [Confined; 2] = [
    Confined { service: "nginx", uid: 33, capabilities: &["CAP_NET_BIND_SERVICE"] },
    Confined { service: "redis", uid: 101, capabilities: &[] },
];

/// What `motherctl status --json` says of one service; its exit status is left to the state that it tells.
pub fn status(machine: &mut Machine, service: &str) -> Result<Value> {
    let answer = machine.run(&format!("motherctl --json status {service} 2>/tmp/status.errors"))?;
    let reply: Value = serde_json::from_str(&answer.output)
        .with_context(|| format!("status of {service}: exit status {}: {}", answer.status, answer.output))?;
    ensure!(reply["version"] == 1, "{reply}");
    let services = reply["services"].as_array().with_context(|| format!("no services in {reply}"))?;
    ensure!(services.len() == 1 && services[0]["name"] == service, "asked for {service}, got {reply}");
    Ok(services[0].clone())
}

/// Waits until `service` is running and returns the pid of its main process.
pub fn running(machine: &mut Machine, service: &str) -> Result<u64> {
    let mut last = Value::Null;
    let found = machine.eventually(&format!("{service} is running"), START, |machine| {
        // Until motherd listens, and while a new one takes over, there is no answer.
        match status(machine, service) {
            Ok(status) => {
                let running = status["state"] == "running";
                last = status;
                Ok(running.then(|| last["main_pid"].as_u64()).flatten())
            }
            Err(error) => {
                last = Value::String(format!("{error:#}"));
                Ok(None)
            }
        }
    });
    found.with_context(|| format!("the last status: {last:#}"))
}

/// Both daemons run and answer; returns the pids of nginx and redis.
pub fn both_serve(machine: &mut Machine) -> Result<[u64; 2]> {
    let pids = [running(machine, "nginx")?, running(machine, "redis")?];
    nginx_serves(machine)?;
    redis_serves(machine)?;
    Ok(pids)
}

/// nginx comes to answer: a service runs from its execve on, and listens a little later.
pub fn nginx_serves(machine: &mut Machine) -> Result<()> {
    comes_to(machine, "nginx answers", nginx_answers)
}

/// redis comes to answer.
pub fn redis_serves(machine: &mut Machine) -> Result<()> {
    comes_to(machine, "redis answers", redis_answers)
}

fn comes_to(machine: &mut Machine, what: &str, check: fn(&mut Machine) -> Result<()>) -> Result<()> {
    let mut last = None;
    let came = machine.eventually(what, START, |machine| match check(machine) {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    });
    came.with_context(|| format!("the last answer: {last:?}"))
}

/// nginx answers an HTTP request with its page, now.
pub fn nginx_answers(machine: &mut Machine) -> Result<()> {
    let page = machine.ok("wget -q -O - http://127.0.0.1/")?;
    ensure!(page.contains("nginx answers from inside its sandbox"), "nginx answered {page}");
    Ok(())
}

/// redis answers PING, now.
pub fn redis_answers(machine: &mut Machine) -> Result<()> {
    // nc would close with its input and might miss the answer, so redis closes first.
    let answer = machine.ok(r"printf 'PING\r\nQUIT\r\n' | nc -w 10 127.0.0.1 6379")?;
    ensure!(answer == "+PONG\r\n+OK\r\n", "redis answered {answer:?}");
    Ok(())
}

/// Memory and processor time were accounted to the service's own cgroup.
pub fn figures_are_real(status: &Value) -> Result<()> {
    let service = &status["name"];
    for figure in ["/memory/current_bytes", "/memory/peak_bytes", "/cpu/usage_usec", "/pids/current"] {
        let value = status.pointer(&format!("/figures{figure}/value")).and_then(Value::as_u64);
        ensure!(value.is_some_and(|value| value > 0), "{service} {figure}: {:#}", status["figures"]);
    }
    for limit in ["/memory/max_bytes", "/pids/max"] {
        let value = status.pointer(&format!("/figures{limit}/value")).and_then(Value::as_u64);
        ensure!(value.is_some_and(|value| value > 0), "{service} {limit}: {:#}", status["figures"]);
    }
    Ok(())
}

/// The isolation that the kernel attests is the policy's.
pub fn isolation_is_attested(kernel: Kernel, status: &Value, expected: &Confined) -> Result<()> {
    let isolation = &status["isolation"];
    let attested = &isolation["attested"]["value"];
    let say = |what: &str| format!("{} of {}: {status:#}", what, expected.service);
    ensure!(attested["no_new_privs"] == true, say("no_new_privs"));
    ensure!(attested["seccomp_mode"] == "filter", say("seccomp mode"));
    ensure!(attested["seccomp_filters"]["value"].as_u64() >= Some(1), say("seccomp filters"));
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        ensure!(is_private(attested, kind) == Some(true), say(kind));
    }
    // Both policies ask for the host's network, and no policy has a user namespace unless it says so.
    for kind in ["net", "user"] {
        ensure!(is_private(attested, kind) == Some(false), say(kind));
    }
    for set in ["permitted", "effective", "bounding", "ambient"] {
        let names: Vec<&str> = attested["capabilities"][set]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        ensure!(names == expected.capabilities, say(set));
    }
    let uids = attested["uids"].as_array().context("no uids")?;
    ensure!(uids.len() == 4 && uids.iter().all(|uid| uid.as_u64() == Some(expected.uid)), say("uids"));
    ensure!(attested["groups"].as_array().is_some_and(Vec::is_empty), say("supplementary groups"));
    ensure!(attested["mounts"]["value"]["root_read_only"] == true, say("a read-only root"));
    ensure!(isolation["landlock"]["path_rules"].as_u64() >= Some(5), say("Landlock's path rules"));
    landlock_is_what_the_kernel_has(kernel, status).with_context(|| say("Landlock"))
}

/// What an older kernel lacks is reported, and what a newer one has is used.
fn landlock_is_what_the_kernel_has(kernel: Kernel, status: &Value) -> Result<()> {
    let landlock = &status["isolation"]["landlock"];
    let left_out: Vec<&str> =
        status["left_out"].as_array().into_iter().flatten().filter_map(|one| one["what"].as_str()).collect();
    let lacks = |word: &str| left_out.iter().any(|what| what.contains("landlock") && what.contains(word));
    match kernel {
        Kernel::V6_1 => {
            ensure!(lacks("net") && lacks("scope"), "ABI 2 has neither: {left_out:?}");
            ensure!(landlock["port_rules"] == 0, "{landlock}");
        }
        Kernel::V6_12 => {
            ensure!(left_out.is_empty(), "this kernel has everything: {left_out:?}");
            ensure!(landlock["abi"].as_u64() >= Some(6), "{landlock}");
            ensure!(landlock["port_rules"].as_u64() >= Some(1), "{landlock}");
            ensure!(landlock["scopes"].as_array().map(Vec::len) == Some(2), "{landlock}");
        }
    }
    Ok(())
}

/// Runs a shell under `base/default` and these lines, without a quote `'` in any of them.
pub fn under(machine: &mut Machine, lines: &[&str], script: &str) -> Result<Answer> {
    let command = policy_at(machine, "/root/own.toml", lines)?;
    machine.run(&format!("{command} /bin/sh -c '{script}' 2>&1"))
}

/// Writes the policy of `base/default` and these lines, and answers what runs a command under it.
pub fn policy_at(machine: &mut Machine, path: &str, lines: &[&str]) -> Result<String> {
    let lines: String = lines.iter().map(|line| format!(" '{line}'")).collect();
    machine.ok(&format!("printf '%s\\n' 'extends = [\"base/default\"]'{lines} >{path}"))?;
    Ok(format!("motherctl run --policy {path} --"))
}

fn is_private(attested: &Value, kind: &str) -> Option<bool> {
    let namespaces = attested["namespaces"].as_array()?;
    namespaces.iter().find(|namespace| namespace["kind"] == kind)?["private"].as_bool()
}

/// Policies that must not load or compile, and what their diagnostics must name. `loop/a` and `loop/b` extend each
/// other, and nothing is at `/srv/missing`.
pub const BAD_POLICIES: &[(&str, &[&str])] = &[
    (
        "extends = [\"base/default\"]\n[cgroup]\nmemory_mx = \"1M\"\n",
        &["bad.toml:3:1", "memory_mx", "memory_max"],
    ),
    ("extends = [\"base/default\"]\n[cgroup]\npids_max = true\n", &["bad.toml:3:12"]),
    (
        "extends = [\"base/default\"]\n[seccomp]\nallow = [\"@system-service\", \"raed\"]\n",
        &["bad.toml:3:29", "raed", "`read`"],
    ),
    (
        "extends = [\"base/default\"]\n[landlock]\nread = [\"/srv/missing\"]\n",
        &["bad.toml:3:9", "/srv/missing"],
    ),
    ("extends = [\"loop/a\"]\n", &["loop/a.toml:1:12", "loop/b.toml:1:12"]),
];
