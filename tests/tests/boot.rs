//! The whole system, booted: initldr as PID 1, motherd, nginx and redis in their sandboxes, on both kernels.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::Machine;
use e2e::system::{
    BAD_POLICIES, DAEMONS, both_serve, figures_are_real, isolation_is_attested, nginx_answers, nginx_serves,
    redis_answers, redis_serves, running, status,
};
use e2e::{on_both_kernels, say};

static IMAGE: SharedImage = SharedImage::new("system", Image::system);

on_both_kernels! {
    IMAGE:
    nginx_and_redis_answer_from_sandboxes_that_the_kernel_attests
    a_killed_nginx_comes_back_with_a_new_pid
    services_outlive_a_killed_motherd_and_obey_the_next
    a_stopped_service_leaves_no_cgroup
    bad_files_are_diagnosed_and_nothing_of_them_starts
}

fn nginx_and_redis_answer_from_sandboxes_that_the_kernel_attests(machine: &mut Machine) -> Result<()> {
    both_serve(machine)?;
    for daemon in &DAEMONS {
        let status = status(machine, daemon.service)?;
        figures_are_real(&status)?;
        isolation_is_attested(machine.kernel(), &status, daemon)?;
        ensure!(status["policy"] == daemon.service, "each has its own policy: {status:#}");
        // motherctl is not the witness of its own claims.
        let pid = &status["main_pid"];
        let kernel =
            machine.ok(&format!("grep -E '^(NoNewPrivs|Seccomp|CapEff|Uid):' /proc/{pid}/status"))?;
        let words: Vec<&str> = kernel.split_whitespace().collect();
        let after = |label: &str| words.iter().position(|word| *word == label).map(|at| words[at + 1]);
        ensure!(after("NoNewPrivs:") == Some("1") && after("Seccomp:") == Some("2"), "{kernel}");
        ensure!(after("Uid:") == Some(daemon.uid.to_string().as_str()), "{kernel}");
        let capabilities = if daemon.capabilities.is_empty() { 0 } else { 1_u64 << 10 };
        ensure!(after("CapEff:") == Some(format!("{capabilities:016x}").as_str()), "{kernel}");
    }
    let console = status(machine, "console")?;
    ensure!(console["state"] == "running" && console["restarts"] == 0, "a person's shell stays: {console:#}");
    for (program, pid) in [("initldr as PID 1", "1"), ("motherd", "$(pidof motherd)")] {
        let memory = machine.ok(&format!("grep -E '^(Rss|Pss_Anon):' /proc/{pid}/smaps_rollup"))?;
        let memory: Vec<&str> = memory.split_whitespace().collect();
        say(&format!(
            "Linux {}: resident memory of {program}: {}",
            machine.kernel().version(),
            memory.join(" ")
        ));
    }
    powers_off(machine)
}

/// `motherctl poweroff` ends the machine, by ACPI and not by a panic, within ten seconds.
fn powers_off(machine: &mut Machine) -> Result<()> {
    machine.begin("motherctl poweroff")?;
    let status = machine.ended(Duration::from_secs(10)).context("after motherctl poweroff")?;
    ensure!(status.success(), "QEMU ended with {status}");
    ensure!(machine.console().contains("reboot: Power down"), "{}", machine.console());
    Ok(())
}

fn a_killed_nginx_comes_back_with_a_new_pid(machine: &mut Machine) -> Result<()> {
    let [nginx, redis] = both_serve(machine)?;
    machine.ok(&format!("kill -KILL {nginx}"))?;
    let again = machine.eventually("nginx has a new pid", Duration::from_secs(30), |machine| {
        Ok(Some(running(machine, "nginx")?).filter(|pid| *pid != nginx))
    })?;
    nginx_serves(machine)?;
    let after = status(machine, "nginx")?;
    ensure!(after["restarts"] == 1, "{after:#}");
    ensure!(after["last_exit"]["how"] == "killed" && after["last_exit"]["status"] == 9, "{after:#}");
    let all = machine.ok("pidof nginx")?;
    let procs = machine.ok("cat /sys/fs/cgroup/web.slice/nginx.service/cgroup.procs")?;
    ensure!(all.split_whitespace().count() == 2, "a master and a worker, none of the first nginx: {all}");
    ensure!(procs.lines().next() == Some(again.to_string().as_str()), "{again} leads the cgroup: {procs}");
    ensure!(running(machine, "redis")? == redis, "redis was left alone");
    Ok(())
}

fn services_outlive_a_killed_motherd_and_obey_the_next(machine: &mut Machine) -> Result<()> {
    let [nginx, redis] = both_serve(machine)?;
    let first = machine.ok("pidof motherd")?;
    machine.ok(&format!("kill -KILL {}", first.trim()))?;
    nginx_answers(machine)?;
    redis_answers(machine)?;
    machine.eventually("another motherd is there", Duration::from_secs(30), |machine| {
        let now = machine.run("pidof motherd")?;
        Ok((now.status == 0 && now.output != first).then_some(()))
    })?;
    ensure!(both_serve(machine)? == [nginx, redis], "the same processes serve");
    for daemon in &DAEMONS {
        let status = status(machine, daemon.service)?;
        ensure!(status["restarts"] == 0, "{status:#}");
        figures_are_real(&status)?;
        isolation_is_attested(machine.kernel(), &status, daemon)?;
    }
    ensure!(machine.ok("pidof redis-server | wc -w")?.trim() == "1", "nothing was started twice");
    machine.ok("motherctl restart redis")?;
    ensure!(running(machine, "redis")? != redis, "the new motherd restarts what the old one started");
    redis_serves(machine)?;
    ensure!(running(machine, "nginx")? == nginx);
    machine.ok(&format!("kill -KILL {nginx}"))?;
    machine.eventually("the new motherd restarts nginx", Duration::from_secs(30), |machine| {
        Ok(Some(running(machine, "nginx")?).filter(|pid| *pid != nginx))
    })?;
    nginx_serves(machine)
}

fn a_stopped_service_leaves_no_cgroup(machine: &mut Machine) -> Result<()> {
    both_serve(machine)?;
    let cgroup = "/sys/fs/cgroup/web.slice/nginx.service";
    ensure!(machine.ok(&format!("wc -l <{cgroup}/cgroup.procs"))?.trim() != "0");
    machine.ok("motherctl stop nginx")?;
    let after = machine.run(&format!("ls -d {cgroup}"))?;
    ensure!(after.status != 0, "the cgroup is still there: {}", after.output);
    ensure!(machine.run("pidof nginx")?.status != 0, "nginx is still there");
    ensure!(machine.run("motherctl status nginx")?.status == 3, "a stopped service is not running");
    ensure!(status(machine, "nginx")?["state"] == "stopped");
    machine.ok("motherctl start nginx")?;
    running(machine, "nginx")?;
    nginx_serves(machine)
}

fn bad_files_are_diagnosed_and_nothing_of_them_starts(machine: &mut Machine) -> Result<()> {
    both_serve(machine)?;
    machine.ok("mkdir -p /etc/motherd/policies/loop && cd /etc/motherd/policies && printf 'extends = [\"loop/b\"]\\n' \
                >loop/a.toml && printf 'extends = [\"loop/a\"]\\n' >loop/b.toml")?;
    for (text, expected) in BAD_POLICIES {
        let path = "/etc/motherd/policies/bad.toml";
        machine.ok(&format!("printf '{}' >{path}", text.replace('\n', "\\n")))?;
        let run = machine.run(&format!("motherctl run --policy {path} -- /bin/echo it-was-started"))?;
        for word in *expected {
            ensure!(
                run.output.contains(word),
                "{word:?} is not in the diagnostic of {text:?}:\n{}",
                run.output
            );
        }
        ensure!(run.status == 125, "exit status {} for {text:?}:\n{}", run.status, run.output);
        ensure!(!run.output.contains("it-was-started"), "it was started all the same");
    }
    let path = "/etc/motherd/policies/open.toml";
    let run = format!("motherctl run --policy {path} -- /bin/echo it-was-started");
    machine.ok(&format!("printf 'extends = [\"base/default\"]\\n' >{path}"))?;
    ensure!(
        machine.ok(&run)?.contains("it-was-started"),
        "control: it starts while only root may write the file"
    );
    machine.ok(&format!("chmod 666 {path}"))?;
    let open = machine.run(&run)?;
    ensure!(
        open.status == 125 && open.output.contains("open.toml") && open.output.contains("writable"),
        "{open:?}"
    );
    Ok(())
}
