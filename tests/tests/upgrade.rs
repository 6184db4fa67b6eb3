//! `motherctl upgrade`: what is put into the place of motherd and of initldr, what is refused, and what comes back by itself.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    programs::Programs,
    scratch::{Ran, Scratch, write_program},
};
use serde_json::Value;

const CLOCK: &str =
    "exec = [\"/usr/bin/sleep\", \"100000\"]\npolicy = \"unconfined\"\n[restart]\nwhen = \"always\"\n";

/// A pair that is installed in a folder of its own.
struct Installed {
    scratch: Scratch,
    bin: PathBuf,
    /// The main process of the service that must not notice.
    pid: u64,
}

impl Installed {
    /// `None` where this is not root.
    fn new(test: &str) -> Result<Option<Self>> {
        let Some(mut scratch) = Scratch::new(test)? else { return Ok(None) };
        let programs = Programs::built()?;
        let bin = scratch.path("bin");
        fs::create_dir_all(&bin)?;
        for (name, from) in [("initldr", &programs.initldr), ("motherd", &programs.motherd)] {
            copy(from, &bin.join(name))?;
        }
        scratch.service("clock", CLOCK)?;
        scratch.service("system", "[dependencies]\nwants = [\"clock\"]\n")?;
        let previous = bin.join("motherd.prev").display().to_string();
        scratch.start_as(&bin.join("initldr"), &bin.join("motherd"), &["--previous", &previous])?;
        let pid = scratch.running("clock")?;
        Ok(Some(Self { scratch, bin, pid }))
    }

    /// The same program as another file, and other bytes.
    fn another(&self, of: &str, name: &str) -> Result<PathBuf> {
        let path = self.scratch.path(name);
        let mut bytes = fs::read(self.bin.join(of))?;
        bytes.extend(name.as_bytes());
        write_program(&path, &bytes)?;
        Ok(path)
    }

    fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scratch.path(name);
        write_program(&path, text.as_bytes())?;
        Ok(path)
    }

    fn upgrade(&self, words: &[&str]) -> Result<Ran> {
        self.scratch.motherctl(&[&["upgrade"], words].concat())
    }

    fn manager(&self) -> Result<Value> {
        self.scratch.eventually("the manager answers", |scratch| {
            if scratch.motherctl(&["list"])?.status == 6 {
                return Ok(None);
            }
            let mut socket =
                std::os::unix::net::UnixStream::connect(scratch.path("run/motherd/motherd.sock"))?;
            use std::io::{Read, Write};
            socket.write_all(b"{\"method\":\"io.altimatos.MotherD.Manager\"}\0")?;
            let mut text = vec![];
            let mut byte = [0];
            while socket.read(&mut byte)? == 1 && byte[0] != 0 {
                text.push(byte[0]);
            }
            let reply: Value = serde_json::from_slice(&text).context("a reply")?;
            Ok(Some(reply["parameters"]["manager"].clone()))
        })
    }

    /// The service is the same process, and managed: it comes back when it is killed.
    fn unnoticed(&mut self) -> Result<()> {
        let pid = self.scratch.running("clock")?;
        ensure!(pid == self.pid, "clock was {}, is {pid}; the log:\n{}", self.pid, self.scratch.log()?);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(pid)?),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        self.pid = self.scratch.eventually("clock comes back", |scratch| {
            let Ok(status) = scratch.status("clock") else { return Ok(None) };
            Ok(status["main_pid"].as_u64().filter(|other| *other != pid && status["state"] == "running"))
        })?;
        Ok(())
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.bin.join(name)).with_context(|| name.to_owned())
    }

    fn left_over(&self) -> Result<Vec<String>> {
        let names =
            fs::read_dir(&self.bin)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        Ok(names.into_iter().filter(|name| name.starts_with('.')).collect())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write_program(to, &fs::read(from)?)
}

#[test]
fn another_motherd_takes_over_and_the_one_before_is_kept() -> Result<()> {
    let Some(mut installed) = Installed::new("another_motherd_takes_over")? else { return Ok(()) };
    let first = installed.bytes("motherd")?;
    let next = installed.another("motherd", "next")?;

    let checked = installed.upgrade(&["--check", next.to_str().context("a path")?])?;
    ensure!(
        checked.status == 0 && checked.out.contains("it can take over; nothing was changed"),
        "{checked:?}"
    );
    ensure!(checked.out.contains("reads 2 records, 2 service files, 1 policies"), "{checked:?}");
    ensure!(installed.bytes("motherd")? == first && !installed.bin.join("motherd.prev").exists());

    let upgraded = installed.upgrade(&[next.to_str().context("a path")?])?;
    ensure!(upgraded.status == 0, "{upgraded:?}; {}", installed.scratch.log()?);
    ensure!(
        upgraded.out.contains("has taken over (pid ") && upgraded.out.contains(", number 2)"),
        "{upgraded:?}"
    );
    ensure!(installed.bytes("motherd")? == fs::read(&next)? && installed.bytes("motherd.prev")? == first);
    let manager = installed.manager()?;
    ensure!(manager["mode"] == "normal" && manager["generation"] == 2, "{manager}");
    ensure!(manager["program"].as_str() == installed.bin.join("motherd").to_str(), "{manager}");
    installed.unnoticed()?;

    // A package has replaced the file meanwhile.
    let packaged = installed.another("motherd", "packaged")?;
    fs::rename(&packaged, installed.bin.join("motherd"))?;
    let manager = installed.manager()?;
    ensure!(manager["program"].as_str().is_some_and(|path| path.ends_with(" (deleted)")), "{manager}");
    let upgraded = installed.scratch.motherctl(&["--json", "upgrade"])?;
    let reply: Value = serde_json::from_str(&upgraded.out).with_context(|| format!("{upgraded:?}"))?;
    ensure!(upgraded.status == 0 && reply["manager"]["generation"] == 3, "{reply:#}");
    ensure!(installed.bytes("motherd.prev")? == fs::read(&next)?, "what ran is what is kept");
    installed.unnoticed()?;

    // The same again is a new start of the same program, and what is kept stays.
    let upgraded = installed.upgrade(&[])?;
    ensure!(upgraded.status == 0 && !upgraded.out.contains("the one before is"), "{upgraded:?}");
    ensure!(installed.bytes("motherd.prev")? == fs::read(&next)?);
    installed.unnoticed()?;

    // And back.
    let previous = installed.bin.join("motherd.prev");
    let upgraded = installed.upgrade(&[previous.to_str().context("a path")?])?;
    ensure!(upgraded.status == 0, "{upgraded:?}");
    ensure!(installed.bytes("motherd")? == fs::read(&next)?);
    installed.unnoticed()?;
    ensure!(installed.left_over()?.is_empty(), "{:?}", installed.left_over()?);

    let events = installed.scratch.motherctl(&["events"])?;
    for words in
        ["upgrade to motherd ", "requested by uid 0", "motherd number 3: the one before exited with status 0"]
    {
        ensure!(events.out.contains(words), "{words}: {}", events.out);
    }
    Ok(())
}

#[test]
fn a_motherd_that_dies_early_gives_way_to_the_one_before() -> Result<()> {
    let Some(mut installed) = Installed::new("a_motherd_that_dies_early")? else { return Ok(()) };
    let good = installed.bytes("motherd")?;
    let real = Programs::built()?.motherd.display().to_string();
    // It can read everything, and dies of something else.
    let script = format!("#!/bin/sh\ncase \"$*\" in *--check-state*) exec {real} \"$@\";; esac\nexit 3\n");
    let bad = installed.script("bad", &script)?;
    let upgraded = installed.upgrade(&[bad.to_str().context("a path")?])?;
    ensure!(upgraded.status == 1, "{upgraded:?}; {}", installed.scratch.log()?);
    ensure!(upgraded.out.contains("keeps dying early, so the previous program runs"), "{upgraded:?}");
    let manager = installed.manager()?;
    ensure!(manager["mode"] == "previous" && manager["why"] == "exited with status 3", "{manager}");
    installed.unnoticed()?;
    let status = installed.scratch.motherctl(&["status"])?;
    ensure!(status.out.starts_with("motherd: ") && status.out.contains("keeps dying early"), "{status:?}");
    let events = installed.scratch.motherctl(&["events"])?;
    ensure!(
        events.out.contains(", the previous program: the one before exited with status 3"),
        "{}",
        events.out
    );

    // The previous one installs a good one, and stays what is kept.
    let next = installed.another("motherd.prev", "next")?;
    let upgraded = installed.upgrade(&[next.to_str().context("a path")?])?;
    ensure!(upgraded.status == 0, "{upgraded:?}; {}", installed.scratch.log()?);
    ensure!(installed.manager()?["mode"] == "normal" && installed.bytes("motherd.prev")? == good);
    installed.unnoticed()
}

#[test]
fn what_cannot_take_over_is_refused_with_the_reason() -> Result<()> {
    let Some(mut installed) = Installed::new("what_cannot_take_over")? else { return Ok(()) };
    let first = installed.bytes("motherd")?;
    let real = Programs::built()?.motherd.display().to_string();
    let [foreign, writable, data] =
        ["foreign", "writable", "data"].map(|name| installed.another("motherd", name));
    let (foreign, writable, data) = (foreign?, writable?, data?);
    chown(&foreign, Some(1), None)?;
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o775))?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o644))?;
    let says = |name: &str, filter: &str| {
        let script = format!("#!/bin/sh\n{real} \"$@\" | /usr/bin/sed '{filter}'\n");
        installed.script(name, &script)
    };
    let older = says("older", r#"s/"records":[0-9][0-9]*/"records":0/"#)?;
    let other = says("other", &format!(r#"s/"link":{}/"link":99/"#, initldr::link::VERSION))?;
    let blind = says("blind", r#"s/"clock",//g; s/,"clock"//g"#)?;
    let crashes = installed.script("crashes", "#!/bin/sh\necho 'no, thank you' >&2\nkill -SEGV $$\n")?;
    for (path, words) in [
        (foreign, "belongs to uid 1, and not to root"),
        (writable, "may be written by others (mode 0775): chmod go-w"),
        (data, "is not executable (mode 0644)"),
        (installed.scratch.path("nothing"), "No such file or directory"),
        (installed.bin.clone(), "is no regular file"),
        ("/usr/bin/true".into(), "it is no motherd, or cannot read the state"),
        (older, "it knows layout 0 of records, and "),
        (other, "it speaks version 99 of the link"),
        (blind, "it cannot read the record of clock"),
        (crashes, "signal: 11 (SIGSEGV)"),
    ] {
        let path = path.to_str().context("a path")?;
        for words_before in [&["--check"][..], &[]] {
            let ran = installed.upgrade(&[words_before, &[path]].concat())?;
            ensure!(ran.status == 1 && ran.errors.contains(words), "{path}: {ran:?}");
        }
        ensure!(installed.bytes("motherd")? == first && installed.left_over()?.is_empty(), "{path}");
    }
    ensure!(!installed.bin.join("motherd.prev").exists());
    let manager = installed.manager()?;
    ensure!(manager["generation"] == 1, "it is another motherd: {manager:#}; {}", installed.scratch.log()?);
    // Where nothing can be written, and the control: there it can.
    let next = installed.another("motherd", "next")?;
    let next = next.to_str().context("a path")?;
    let read_only = ReadOnly::new(&installed.bin)?;
    let ran = installed.upgrade(&[next])?;
    let expected =
        format!("{} is on a read-only file system: nothing can be installed there", installed.bin.display());
    ensure!(ran.status == 1 && ran.errors.contains(&expected), "{ran:?}");
    drop(read_only);
    let ran = installed.upgrade(&[next])?;
    ensure!(ran.status == 0, "{ran:?}");
    installed.unnoticed()
}

/// A folder that is mounted on itself, read-only.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        mount(Some(path), path, none, MsFlags::MS_BIND, none)?;
        let mounted = Self(path);
        mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)?;
        Ok(mounted)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        if let Err(errno) = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {errno}", self.0.display());
        }
    }
}

#[test]
fn another_initldr_takes_over_and_motherd_runs_on() -> Result<()> {
    let Some(mut installed) = Installed::new("another_initldr_takes_over")? else { return Ok(()) };
    let first = installed.bytes("initldr")?;
    let motherd = installed.manager()?["pid"].clone();
    let next = installed.another("initldr", "next")?;
    let next_path = next.to_str().context("a path")?;
    let motherd_path = installed.bin.join("motherd");
    for (path, words) in [
        (
            motherd_path.to_str().context("a path")?,
            "it is no initldr, or one that cannot take the place of another",
        ),
        ("/usr/bin/true", "it is no initldr"),
    ] {
        let ran = installed.upgrade(&["--initldr", path])?;
        ensure!(ran.status == 1 && ran.errors.contains(words), "{ran:?}");
    }
    // It says what an initldr says, and is none.
    let mark = format!("initldr speaks link version {}", initldr::link::VERSION);
    let fake = installed.script("fake", &format!("#!/bin/sh\n# {mark}\nexit 2\n"))?;
    let ran = installed.upgrade(&["--initldr", fake.to_str().context("a path")?])?;
    ensure!(ran.status == 1 && ran.errors.contains("it does not answer as an initldr"), "{ran:?}");
    let ran = installed.upgrade(&["--initldr", "--check", next_path])?;
    ensure!(ran.status == 0 && installed.bytes("initldr")? == first, "{ran:?}");

    for round in 0..3 {
        let ran = installed.upgrade(&["--initldr", next_path])?;
        ensure!(
            ran.status == 0 && ran.out.contains("motherd runs on"),
            "{ran:?}; {}",
            installed.scratch.log()?
        );
        ensure!(installed.manager()?["pid"] == motherd, "round {round}: the link was lost");
        installed.unnoticed()?;
    }
    ensure!(installed.bytes("initldr")? == fs::read(&next)?);
    let init = installed.scratch.init()?;
    let runs = fs::metadata(format!("/proc/{init}/exe"))?;
    ensure!(runs.ino() == fs::metadata(installed.bin.join("initldr"))?.ino(), "it runs what is installed");
    // A motherd after it finds everything.
    let ran = installed.upgrade(&[])?;
    ensure!(ran.status == 0, "{ran:?}");
    installed.unnoticed()?;
    // In the new one's hands too the end is an end.
    ensure!(installed.scratch.stop()?.code() == Some(0));
    Ok(())
}
