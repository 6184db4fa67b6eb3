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

/// The system, and a service that has every limit which these kernels know.
static IMAGE: SharedImage = SharedImage::new("system", || {
    let mut image = Image::system()?;
    image.file("/usr/lib/motherd/policies/limited.toml", 0o644, LIMITED_POLICY)?;
    image.file("/usr/lib/motherd/services/limited.toml", 0o644, LIMITED_SERVICE)?;
    Ok(image)
});

const LIMITED_SERVICE: &str = r#"
description = "reads a disk once and waits"
exec   = ["/bin/sh", "-c", "time dd if=/dev/nvme0n1 of=/dev/null bs=1M count=4; exec sleep 600"]
policy = "limited"
slice  = "limits"
"#;

const LIMITED_POLICY: &str = r#"
description = "every limit of a cgroup that both kernels know"
extends = ["base/default"]

[process]
user = "root"

[filesystem]
dev = "host"

[cgroup]
memory_min  = "1M"
memory_low  = "2M"
swap_high   = "64M"
cpu_max     = "50%"
cpu_burst   = "20ms"
cpu_idle    = true
cpuset_cpus = [1]
cpuset_mems = [0]
io_max      = [{ device = "/dev/nvme0n1", rbps = "1M", wiops = 50 }]
hugetlb     = { 2MB = "4M" }
optional    = []
"#;

/// What is in the files of the service's cgroup, and of the slice that has to hand protection down.
const LIMITS: [(&str, &str); 13] = [
    ("limited.service/memory.min", "1048576"),
    ("memory.min", "1048576"),
    ("limited.service/memory.low", "2097152"),
    ("memory.low", "2097152"),
    ("limited.service/memory.swap.high", "67108864"),
    ("limited.service/cpu.max", "50000 100000"),
    ("limited.service/cpu.max.burst", "20000"),
    ("limited.service/cpu.idle", "1"),
    ("limited.service/cpuset.cpus", "1"),
    ("limited.service/cpuset.mems", "0"),
    ("limited.service/hugetlb.2MB.max", "4194304"),
    ("limited.service/memory.max", "536870912"),
    ("limited.service/pids.max", "64"),
];

on_both_kernels! {
    IMAGE:
    nginx_and_redis_answer_from_sandboxes_that_the_kernel_attests
    a_killed_nginx_comes_back_with_a_new_pid
    services_outlive_a_killed_motherd_and_obey_the_next
    cgroups_hold_their_limits_and_go_with_their_services
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
    // The kernel gives PID 1 4096 open files at most, too few for what it and motherd hold for a thousand services. A
    // service has what it would have had.
    let shell = console["main_pid"].to_string();
    for (pid, expected) in [("1", "8192 8192"), ("$(pidof motherd)", "65536 65536"), (&shell, "1024 4096")] {
        let limits = machine.ok(&format!("grep 'Max open files' /proc/{pid}/limits"))?;
        let words: Vec<&str> = limits.split_whitespace().skip(3).take(2).collect();
        ensure!(words.join(" ") == expected, "process {pid}: {limits}");
    }
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
    // Launches share templates on kernels that cannot copy a detached tree of mounts as well.
    let ready = machine.eventually("motherd has mounts ready", Duration::from_secs(30), |machine| {
        let held = machine.ok("ls -l /proc/$(pidof motherd)/fd | grep -o 'mnt:.[0-9]*' | sort -u")?;
        // A template and a berth each.
        Ok((held.lines().count() >= 4).then_some(held))
    })?;
    machine.ok(&format!("kill -KILL {nginx}"))?;
    let again = machine.eventually("nginx has a new pid", Duration::from_secs(30), |machine| {
        Ok(Some(running(machine, "nginx")?).filter(|pid| *pid != nginx))
    })?;
    nginx_serves(machine)?;
    let own = machine.ok(&format!("readlink /proc/{again}/ns/mnt"))?;
    let own = own.trim().trim_end_matches(']');
    ensure!(ready.lines().any(|held| held == own), "{own} was not ready: {ready}");
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

fn cgroups_hold_their_limits_and_go_with_their_services(machine: &mut Machine) -> Result<()> {
    let [nginx, _] = both_serve(machine)?;
    limits_are_in_the_kernel_and_felt(machine, nginx)?;
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

/// A service with every limit; nginx, which has few, is the control.
fn limits_are_in_the_kernel_and_felt(machine: &mut Machine, nginx: u64) -> Result<()> {
    machine.ok("motherctl start limited")?;
    let limited = running(machine, "limited")?;
    let slice = "/sys/fs/cgroup/limits.slice";
    for (file, expected) in LIMITS {
        let found = machine.ok(&format!("cat {slice}/{file}"))?;
        ensure!(found.trim() == expected, "{file}: {found}");
    }
    let disk = machine.ok("cat /sys/class/block/nvme0n1/dev")?;
    let io = machine.ok(&format!("cat {slice}/limited.service/io.max"))?;
    let line = format!("{} rbps=1048576 wbps=max riops=max wiops=50", disk.trim());
    ensure!(io.lines().any(|found| found == line), "io.max: {io}");
    let processors = |machine: &mut Machine, pid| {
        machine.ok(&format!("sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/{pid}/status"))
    };
    ensure!(processors(machine, limited)?.trim() == "1", "the cpuset is felt");
    ensure!(processors(machine, nginx)?.trim() == "0-1", "control");
    // Controllers that carry no figures are enabled where a limit needs them and nowhere else.
    let enabled = machine.ok("cat /sys/fs/cgroup/web.slice/cgroup.controllers")?;
    let has = |name: &str| enabled.split_whitespace().any(|enabled| enabled == name);
    ensure!(has("memory") && has("cpu"), "{enabled}");
    let of_web = machine.ok("cat /sys/fs/cgroup/web.slice/cgroup.subtree_control")?;
    let has = |name: &str| of_web.split_whitespace().any(|enabled| enabled == name);
    ensure!(!has("cpuset") && !has("hugetlb") && !has("rdma") && !has("misc"), "{of_web}");
    // 4 MiB at 1 MiB in a second; without the limit another part of the disk is read in no time.
    let mut last = String::new();
    let log = machine.eventually("the limited read has ended", Duration::from_secs(60), |machine| {
        last = machine.run("cat /var/log/motherd/limited/current")?.output;
        Ok(last.contains("real").then(|| last.clone()))
    });
    let log = log.with_context(|| format!("it said {last:?}"))?;
    let free = machine.ok("time dd if=/dev/nvme0n1 of=/dev/null bs=1M count=4 skip=32 2>&1")?;
    let (limited, free) = (seconds(&log)?, seconds(&free)?);
    ensure!(limited > 2.5 && free < limited / 2.0, "{limited} s with the limit, {free} s without");
    say(&format!(
        "Linux {}: 4 MiB read in {limited:.2} s at rbps=1M, in {free:.2} s without",
        machine.kernel().version()
    ));
    machine.ok("motherctl stop limited")?;
    Ok(())
}

/// What time(1) of busybox says: `real    0m 4.01s`.
fn seconds(text: &str) -> Result<f64> {
    let after = text.split("real").nth(1).unwrap_or_default();
    let mut words = after.split_whitespace();
    let minutes = words.next().and_then(|word| word.strip_suffix('m')?.parse::<f64>().ok());
    let seconds = words.next().and_then(|word| word.strip_suffix('s')?.parse::<f64>().ok());
    let both = minutes.zip(seconds).map(|(minutes, seconds)| minutes * 60.0 + seconds);
    both.with_context(|| format!("no time in {text:?}"))
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
