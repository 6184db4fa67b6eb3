//! Attacks by what stands in policies, or by who may write them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sandbox::policy::{Store, load_file};

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    filter_that_decides_on_memory [17]
        "a rule on an argument that is an address is refused";
    policies_that_somebody_else_wrote [47]
        "owner and mode of what was opened; links are not followed";
    control_socket_bound_into_a_sandbox [39]
        "refused by name; every sandbox has a /run of its own";
    loader_variable_of_a_writable_folder [45]
        "refused, since no_new_privs means that the loader obeys it always";
    paths_that_mislead [47]
        "paths are absolute and normal, without control characters, in letters that cannot be mistaken";
}

/// The code of what is wrong with these sections.
fn refused(lab: &Lab, sections: &str, code: &str) -> Result<()> {
    let told = lab.plan(sections).map(drop).map_err(|error| format!("{error:#}"));
    ensure!(told.as_ref().is_err_and(|told| told.contains(code)), "{sections:?} has to be {code}: {told:?}");
    Ok(())
}

fn control_socket_bound_into_a_sandbox(lab: &Lab) -> Result<Verdict> {
    for socket in
        ["/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket"]
    {
        let bind = format!(
            "[filesystem]\nbind = [{{ from = \"{socket}\", to = \"/run/socket\", optional = true }}]\n"
        );
        refused(lab, &bind, "control-socket")?;
        let said = bind.replace("optional = true", "optional = true, control_socket = true");
        lab.plan(&said).context("control: where the policy says so")?;
        refused(
            lab,
            &format!("[filesystem]\nread_write = [{{ path = \"{socket}\", optional = true }}]\n"),
            "control-socket",
        )?;
    }
    // A socket that governs nothing is bound, and answers: the refusal is by name, not of sockets.
    let path = lab.path("plain.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    lab.mode("plain.sock", 0o777)?;
    let bind = format!("[filesystem]\nbind = [{{ from = \"{path}\", to = \"/run/socket\" }}]\n");
    let answer = lab.outcome(&bind, "unix-connect /run/socket")?;
    ensure!(answer == Outcome::Allowed, "control: {answer}");
    Ok(Verdict::Resisted)
}

fn loader_variable_of_a_writable_folder(lab: &Lab) -> Result<Verdict> {
    let sections = |name: &str, value: &str| format!("[process.environment]\n{name} = \"{value}\"\n");
    for (name, value) in [
        ("LD_LIBRARY_PATH", "/tmp/lib"),
        ("LD_LIBRARY_PATH", "/usr/lib:/run"),
        ("LD_LIBRARY_PATH", "lib"),
        ("LD_LIBRARY_PATH", "/usr/lib:"),
        ("LD_PRELOAD", "/usr/lib/a.so /tmp/b.so"),
        ("LD_PRELOAD", "./a.so"),
        ("LD_AUDIT", "/tmp/a.so"),
        ("GCONV_PATH", "/tmp"),
    ] {
        refused(lab, &sections(name, value), "loader-path")?;
    }
    for (name, value) in [("LD_LIBRARY_PATH", "/usr/lib/own"), ("LD_PRELOAD", "libc.so.6"), ("HOME", "/tmp")]
    {
        lab.plan(&sections(name, value)).with_context(|| format!("control: {name}={value}"))?;
    }
    let folder = lab.folder("data")?;
    let writable = |write: &str| {
        format!(
            "[filesystem]\nread_write = [\"{folder}\"]\n[landlock]\nwrite = {{ add = [{write}] }}\n{}",
            sections("LD_LIBRARY_PATH", &folder)
        )
    };
    refused(lab, &writable(&format!("\"{folder}\"")), "loader-path")?;
    lab.plan(&writable("")).context("control: where Landlock grants no writing")?;
    Ok(Verdict::Resisted)
}

fn filter_that_decides_on_memory(lab: &Lab) -> Result<Verdict> {
    for (call, argument) in
        [("openat", 1), ("execve", 0), ("connect", 1), ("openat2", 2), ("ioctl", 2), ("clone3", 0)]
    {
        let rule = format!("[[seccomp.rule]]\ncall = \"{call}\"\narg = {argument}\nin = [1]\n");
        let told = lab.plan(&rule).map(drop).map_err(|error| format!("{error:#}"));
        // Of an ioctl the third argument is what the request says: as wide as an address.
        let code = |told: &String| told.contains("pointer-argument") || told.contains("wide-argument");
        ensure!(told.as_ref().is_err_and(code), "{call} {argument}: {told:?}");
    }
    lab.plan("[[seccomp.rule]]\ncall = \"openat\"\narg = 2\nin = [0]\n")
        .context("control: the flags of openat")?;
    Ok(Verdict::Resisted)
}

fn policies_that_somebody_else_wrote(lab: &Lab) -> Result<Verdict> {
    let folder = lab.folder("own")?;
    let path = Path::new(&folder).join("own.toml");
    lab.file("own/own.toml", "extends = [\"lab\"]\n")?;
    let stores =
        || Store::new(vec![Path::new(&folder).to_owned(), Path::new(&lab.path("policies")).to_owned()]);
    let load = || stores().load("own").map(drop).map_err(|report| report.to_string());
    ensure!(load().is_ok(), "control: {:?}", load());
    let unsafe_ = |what: &str| -> Result<()> {
        let told = load();
        ensure!(told.as_ref().is_err_and(|told| told.contains("unsafe-file")), "{what}: {told:?}");
        Ok(())
    };
    lab.mode("own/own.toml", 0o666)?;
    unsafe_("a file that everybody may write")?;
    lab.mode("own/own.toml", 0o644)?;
    std::os::unix::fs::chown(&path, Some(65534), None)?;
    unsafe_("a file of somebody else's")?;
    std::os::unix::fs::chown(&path, Some(0), None)?;
    lab.mode("own", 0o777)?;
    unsafe_("a folder that everybody may write")?;
    lab.mode("own", 0o755)?;
    ensure!(load().is_ok(), "control: {:?}", load());
    let real = lab.file("elsewhere.toml", "extends = [\"lab\"]\n")?;
    fs::remove_file(&path)?;
    symlink(real, &path)?;
    unsafe_("a link")?;
    let told = load_file(&path, &stores()).map(drop).map_err(|report| report.to_string());
    ensure!(told.is_err(), "a link, by its path");
    fs::remove_file(&path)?;
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    unsafe_("a fifo, without waiting for it")?;
    Ok(Verdict::Resisted)
}

fn paths_that_mislead(lab: &Lab) -> Result<Verdict> {
    let list = |path: &str| format!("[landlock]\nread = {{ add = [{path}] }}\n");
    for path in ["\"usr\"", "\"/usr/../etc\"", "\"/usr/./lib\"", "\"/usr/\"", "\"//usr\"", "\"\""] {
        refused(lab, &list(path), "invalid-path")?;
    }
    refused(lab, &list("\"/usr\\u0000/x\""), "control-character")?;
    refused(lab, &list("\"/usr\\n\""), "control-character")?;
    // What is not seen, and what turns around what is: /usr/bin with a zero-width space, and a right-to-left override.
    refused(lab, &list("\"/usr\\u200b/bin\""), "control-character")?;
    refused(lab, &list("\"/usr/\\u202enib\""), "control-character")?;
    // A Cyrillic letter that looks Latin is a path that is not there.
    refused(lab, &list("\"/us\\u0433/bin\""), "missing-path")?;
    for path in ["\"/proc/self/fd/3\"", "\"/proc/1/root\""] {
        refused(lab, &list(path), "unsafe-path")?;
    }
    lab.plan(&list("\"/usr/bin\"")).context("control: an ordinary path")?;
    Ok(Verdict::Resisted)
}
