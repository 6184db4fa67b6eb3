//! Containers on this very host, with MotherD as what they run: made with unshare(1), with more or less of a namespace and
//! of a cgroup tree, or by crun from an OCI bundle. The root is a folder into which the host's `/usr` is bound.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Pid, geteuid};

use crate::fetch::Cache;
use crate::programs::Programs;
use crate::scratch::{Ran, cgroup2, skip};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What contains it.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// unshare(1) with these words; and what is done in the new root before initldr is executed there.
    Unshare(&'static str, &'static str),
    /// crun, with the words of `/sys/fs/cgroup`: `rw` or `ro`.
    Crun(&'static str),
}

/// A container that runs. Dropping it kills what is left of it.
#[derive(Debug)]
pub struct Container {
    root: PathBuf,
    /// The one it was started in, as this host sees it.
    cgroup: PathBuf,
    outer: Child,
    /// What it says of itself by sd_notify(3).
    notify: UnixDatagram,
    by: By,
}

/// As root of everything below: enters the root, in mounts of its own.
const ENTER: &str = r#"set -e
echo $$ > "$CGROUP/cgroup.procs"
exec unshare $NAMESPACES --mount --pid --fork --kill-child --propagation private /bin/sh -ec '
    mount --rbind "$ROOT" "$ROOT"
    mount --rbind /usr "$ROOT/usr"
    mount --rbind /dev "$ROOT/dev"
    cd "$ROOT"
    pivot_root . old
    # While there are others to be seen: in a user namespace these are refused without.
    mount -t proc none proc
    mount -t sysfs none sys
    umount -l old
    exec /usr/sbin/chroot . /bin/sh -ec "$BEFORE exec /opt/initldr --motherd /opt/motherd"'
"#;

/// crun knows no hybrid tree of cgroups.
const CRUN: &str = r#"set -e
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec "$CRUN" --root "$ROOT/../crun" --cgroup-manager=cgroupfs run --bundle "$ROOT/.." "$NAME"
"#;

impl Container {
    /// One with these services, each a name and the text of its file; or `None`, loudly, where it cannot be had.
    pub fn start(test: &str, by: By, services: &[(&str, &str)]) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            skip(test, "it needs root")?;
            return Ok(None);
        }
        let mut variables = Vec::new();
        let script = match by {
            By::Unshare(namespaces, before) => {
                variables.extend([("NAMESPACES", namespaces.to_owned()), ("BEFORE", before.to_owned())]);
                variables.push(("NOTIFY_SOCKET", "/notify".to_owned()));
                ENTER
            }
            By::Crun(_) => {
                let (program, libraries) = match Cache::open().and_then(|cache| cache.crun()) {
                    Ok(found) => found,
                    Err(error) => {
                        skip(test, &format!("no crun: {error:#}"))?;
                        return Ok(None);
                    }
                };
                variables.push(("CRUN", program.display().to_string()));
                variables.extend(libraries.map(|path| ("LD_LIBRARY_PATH", path.display().to_string())));
                CRUN
            }
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("motherd-box-{}-{number}", std::process::id());
        let folder = crate::target_dir().join("tmp").join(&name);
        let root = folder.join("root");
        make_root(&root, services)?;
        let cgroup = cgroup2()?.join(&name);
        if let By::Crun(access) = by {
            fs::write(folder.join("config.json"), bundle(&root, access, &name)?)?;
        } else {
            fs::create_dir(&cgroup)?;
        }
        let notify = UnixDatagram::bind(root.join("notify"))?;
        notify.set_read_timeout(Some(LIMIT))?;
        let log = fs::File::create(root.join("log"))?;
        let outer = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", script])
            .envs(variables)
            .env("ROOT", &root)
            .env("CGROUP", &cgroup)
            .env("NAME", &name)
            .env("container", "test")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run unshare: apt-get install util-linux")?;
        Ok(Some(Self { root, cgroup, outer, notify, by }))
    }

    /// A path in it, as this host sees it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The cgroup it is in.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The next thing that it says by sd_notify(3). One of crun's says nothing: crun 1.8 passes it on, and does not end then.
    pub fn says(&self) -> Result<String> {
        let mut bytes = [0; 256];
        let length = self.notify.recv(&mut bytes).with_context(|| self.story("it says nothing"))?;
        Ok(String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned())
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn story(&self, what: &str) -> String {
        format!("{what}; by {:?}; the log:\n{}", self.by, self.log())
    }

    /// Every process of it, by its number here.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        let mut folders = vec![self.cgroup.clone()];
        while let Some(folder) = folders.pop() {
            let pids = match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(pids) => pids,
                Err(_) if !folder.exists() => continue,
                Err(error) => return Err(error.into()),
            };
            found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
                folders.extend(entry.path().is_dir().then(|| entry.path()));
            }
        }
        Ok(found)
    }

    /// Its PID 1.
    pub fn initldr(&self) -> Result<Pid> {
        self.eventually("it has an initldr", |container| {
            let is_first = |pid: &i32| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("opt/initldr"))
            };
            Ok(container.processes()?.into_iter().find(is_first).map(Pid::from_raw))
        })
    }

    /// Runs a command in it.
    pub fn run(&self, words: &[&str]) -> Result<Ran> {
        let output = Command::new("nsenter")
            .args(["--target", &self.initldr()?.to_string(), "--all"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("cannot run nsenter: apt-get install util-linux")?;
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Ok(Ran {
            status: status.context("neither exited nor killed")?,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Asks again and again until there is an answer.
    pub fn eventually<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = check(self)? {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "{}", self.story(what));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has ended: with which status, and that nothing is left of it.
    pub fn ended(&mut self) -> Result<i32> {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            match self.outer.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => bail!("{}", self.story("it did not end")),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let left = self.processes()?;
        ensure!(left.is_empty(), "{}", self.story(&format!("{left:?} are left")));
        status.code().with_context(|| format!("it was killed: {status}"))
    }

    fn clean(&mut self) -> Result<()> {
        if self.cgroup.exists() {
            // The processes of it; unshare and crun end with them.
            fs::write(self.cgroup.join("cgroup.kill"), "1")?;
            let deadline = Instant::now() + LIMIT;
            while !self.processes()?.is_empty() {
                ensure!(Instant::now() < deadline, "{} does not become empty", self.cgroup.display());
            }
            remove_cgroups(&self.cgroup)?;
        }
        if self.outer.try_wait()?.is_none() {
            self.outer.kill()?;
            self.outer.wait()?;
        }
        let folder = self.root.parent().context("it is in a folder")?;
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.clean() {
            eprintln!("cannot clean up: {error:#}");
        }
    }
}

fn remove_cgroups(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_cgroups(&path)?;
        }
    }
    Ok(fs::remove_dir(folder)?)
}

/// What is not the host's `/usr`.
fn make_root(root: &Path, services: &[(&str, &str)]) -> Result<()> {
    for folder in [
        "usr",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "var/log",
        "opt",
        "old",
        "etc/motherd/services",
        "etc/motherd/policies",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    let programs = Programs::built()?;
    for (from, to) in
        [(&programs.initldr, "initldr"), (&programs.motherd, "motherd"), (&programs.motherctl, "motherctl")]
    {
        fs::copy(from, root.join("opt").join(to))?;
    }
    for file in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(file), root.join("etc").join(file))?;
    }
    crate::scratch::copy(&crate::workspace().join("policies"), &root.join("etc/motherd/policies"))?;
    for (name, text) in services {
        let path = root.join(format!("etc/motherd/services/{name}.toml"));
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The bundle of docs/container.md, with what the test changes in it.
fn bundle(root: &Path, access: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(crate::workspace().join("docs/examples/container/config.json"))?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    config["root"]["path"] = root.display().to_string().into();
    config["process"]["args"] = serde_json::json!(["/opt/initldr", "--motherd", "/opt/motherd"]);
    config["linux"]["cgroupsPath"] = format!("/{name}").into();
    let mounts = config["mounts"].as_array_mut().context("mounts")?;
    for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys/fs/cgroup") {
        let options = mount["options"].as_array_mut().context("options")?;
        options.retain(|option| option != "rw");
        options.push(access.into());
    }
    mounts.insert(
        0,
        serde_json::json!({ "destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro"] }),
    );
    Ok(serde_json::to_string_pretty(&config)?)
}
