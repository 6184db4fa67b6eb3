//! Health checks: what is well stays, what is not is said or started again, in the service's own network and root.
//! On this very host, as ordinary processes.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::scratch::{Scratch, skip};

const PYTHON: &str = "/usr/bin/python3";

/// A server in the service's own network that answers with this status on port 80 and takes connections at /tmp/sock.
fn server(status: &str, checks: &str) -> String {
    let script = format!(
        "import socket,threading\n\
         u=socket.socket(socket.AF_UNIX)\nu.bind('/tmp/sock')\nu.listen()\n\
         t=socket.socket()\nt.bind(('127.0.0.1',8080))\nt.listen()\n\
         while True:\n\x20c,_=t.accept()\n\x20c.recv(999)\n\x20c.sendall(b'HTTP/1.0 {status}\\\\r\\\\n\\\\r\\\\n')\n\x20c.close()\n"
    );
    format!(
        "policy = \"serves\"\nexec = [\"{PYTHON}\", \"-c\", \"\"\"\n{script}\"\"\"]\n[stop]\nsignal = \"SIGKILL\"\n{checks}"
    )
}

fn check(kind: &str, target: &str, action: &str) -> String {
    let what = if kind == "exec" { format!("command = {target}") } else { format!("target = \"{target}\"") };
    format!(
        "[[health]]\nkind = \"{kind}\"\n{what}\nevery = \"200ms\"\ntimeout = \"2s\"\nfailures = 2\naction = \"{action}\"\n"
    )
}

#[test]
fn what_is_well_stays_and_what_is_not_is_said_or_started_again() -> Result<()> {
    let test = "what_is_well_stays";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    if !Path::new(PYTHON).exists() {
        return skip(test, "no python3 on this machine");
    }
    scratch.policy("serves", "extends = [\"base/default\"]\n[landlock]\nbind_tcp = [8080]\n")?;
    let all = |action: &str| {
        [
            check("tcp", "127.0.0.1:8080", action),
            check("http", "http://127.0.0.1:8080/up", action),
            check("unix", "/tmp/sock", action),
            check("exec", "[\"/bin/sh\", \"-c\", \"test -S /tmp/sock\"]", action),
        ]
        .concat()
    };
    scratch.service("well", &server("200 OK", &all("restart")))?;
    scratch.service("sick", &server("503 Sorry", &check("http", "http://127.0.0.1:8080/up", "restart")))?;
    scratch
        .service("reported", &server("503 Sorry", &check("http", "http://127.0.0.1:8080/up", "report")))?;
    for (name, kind, target) in [
        ("no-tcp", "tcp", "127.0.0.1:81"),
        ("no-unix", "unix", "/tmp/none"),
        ("no-exec", "exec", "[\"/bin/false\"]"),
    ] {
        scratch.service(name, &server("200 OK", &check(kind, target, "restart")))?;
    }
    scratch.start()?;
    for service in ["well", "sick", "reported", "no-tcp", "no-unix", "no-exec"] {
        scratch.running_by_request(service)?;
    }
    for (service, words) in [
        ("sick", "http://127.0.0.1:8080/up: status 503, 2 times in a row"),
        ("no-tcp", "tcp 127.0.0.1:81: ECONNREFUSED"),
        ("no-unix", "unix /tmp/none: ENOENT"),
        ("no-exec", "exec /bin/false: exited with status 1, 2 times in a row"),
    ] {
        scratch.eventually(&format!("{service} is started again"), |scratch| {
            let again = scratch.status(service)?["restarts"].as_u64() > Some(0);
            Ok((again && scratch.log()?.contains(words)).then_some(()))
        })?;
    }
    let reported = scratch.eventually("it is reported", |scratch| {
        let status = scratch.status("reported")?;
        Ok(status["health"][0].as_str().is_some_and(|line| line.contains("status 503 (")).then_some(status))
    })?;
    ensure!(reported["state"] == "running" && reported["restarts"] == 0, "{reported}");
    let well = scratch.eventually("all checks were made", |scratch| {
        let status = scratch.status("well")?;
        let all = status["health"].as_array().is_some_and(|lines| {
            lines.len() == 4
                && lines.iter().all(|line| line.as_str().is_some_and(|line| line.ends_with(": well")))
        });
        Ok(all.then_some(status))
    })?;
    ensure!(well["state"] == "running" && well["restarts"] == 0, "{well}");
    scratch.stop()?;
    Ok(())
}
