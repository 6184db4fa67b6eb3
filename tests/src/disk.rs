//! A disk with a Debian system on it, as one is installed: ext4, users with passwords, `/etc/fstab`, a login on the console,
//! and MotherD as its init. Nothing is installed on this machine, and no loop device is needed: `mkfs.ext4 -d` fills it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::fetch::{Cache, Flavour, Kernel, run};
use crate::programs::Programs;

/// What the kernel command line can name it by.
pub const UUID: &str = "6d6f7468-6572-4400-8000-000000000001";
/// Likewise.
pub const LABEL: &str = "motherd-root";
/// Root's password.
pub const PASSWORD: &str = "mother";
/// The disk's size; it is sparse.
const SIZE: u64 = 512 << 20;
/// `openssl passwd -6 -salt motherd mother`
const HASH: &str =
    "$6$motherd$ML0gsSjUEpr/fmoEBXaJBR6gB9YtaKZu2RmliyO6D3Kzc/KOUdEM/85xZNyDG5d0fqS3Ou.06I0wS0dXAqLns0";

/// Files of the system that a maintainer's script or an administrator would have written.
const FILES: [(&str, u32, &str); 11] = [
    (
        "etc/fstab",
        0o644,
        "UUID=6d6f7468-6572-4400-8000-000000000001 / ext4 rw,errors=remount-ro 0 1\ntmpfs /mnt tmpfs size=1M 0 0\n",
    ),
    ("etc/hostname", 0o644, "altimat\n"),
    ("etc/sysctl.d/90-test.conf", 0o644, "kernel.pid_max = 65536\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
    ("etc/pam.d/common-auth", 0o644, "auth required pam_unix.so\n"),
    ("etc/pam.d/common-account", 0o644, "account required pam_unix.so\n"),
    ("etc/pam.d/common-password", 0o644, "password required pam_unix.so\n"),
    ("etc/pam.d/common-session", 0o644, "session required pam_unix.so\n"),
    ("etc/pam.d/common-session-noninteractive", 0o644, "session required pam_unix.so\n"),
    (
        "etc/motherd/services/system.toml",
        0o644,
        "[dependencies]\nwants = [\"basic\", \"getty@ttyS0\", \"commands\", \"redis\"]\n",
    ),
    (
        "etc/motherd/services/redis.toml",
        0o644,
        "exec = [\"/usr/bin/redis-server\", \"/etc/redis/redis.conf\", \"--daemonize\", \"no\"]\npolicy = \"redis\"\n[dependencies]\nneeds = [\"loopback\", \"local-mounts\"]\n",
    ),
];

/// A root file system under construction: a folder.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The whole system. `name` tells it from others that are made at the same time.
    pub fn system(name: &str) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a disk whose files are root's is made by root");
        let cache = Cache::open()?;
        let tree = cache.system()?;
        let programs = Programs::built()?;
        let folder = crate::target_dir().join(format!("e2e-disks/{name}-{}", std::process::id()));
        remove(&folder)?;
        fs::create_dir_all(folder.parent().context("it is in a folder")?)?;
        // Links, not copies: nothing here is changed in place.
        run(Command::new("cp").args(["-a", "--link"]).arg(&tree).arg(&folder), "coreutils")?;
        let disk = Self { folder };
        merge_usr(&disk.folder)?;
        for path in
            ["dev", "proc", "sys", "run", "tmp", "mnt", "rootfs", "var/lib/motherd", "var/log/motherd"]
        {
            fs::create_dir_all(disk.at(path))?;
        }
        fs::set_permissions(disk.at("tmp"), fs::Permissions::from_mode(0o1777))?;
        for (from, to) in [
            (&programs.initldr, "usr/sbin/initldr"),
            (&programs.motherd, "usr/sbin/motherd"),
            (&programs.motherctl, "usr/sbin/motherctl"),
            (&programs.early, "usr/lib/motherd/motherd-early"),
        ] {
            disk.copy(from, to)?;
        }
        let workspace = crate::workspace();
        disk.copy(&workspace.join("motherd/services/rescue"), "usr/lib/motherd/rescue")?;
        disk.copies(&workspace.join("motherd/services/system"), "usr/lib/motherd/services")?;
        disk.copies(&workspace.join("policies"), "usr/lib/motherd/policies")?;
        for service in ["commands", "loopback"] {
            let from = workspace.join(format!("tests/image/services/{service}.toml"));
            disk.copy(&from, &format!("etc/motherd/services/{service}.toml"))?;
        }
        disk.copy(&workspace.join("tests/image/root/usr/lib/e2e/commands"), "usr/lib/e2e/commands")?;
        disk.copies(&workspace.join("tests/image/disk"), "usr/lib/e2e")?;
        for (path, permissions, text) in FILES {
            disk.file(path, permissions, text)?;
        }
        disk.users()?;
        disk.file(
            "etc/redis/redis.conf",
            0o644,
            &fs::read_to_string(workspace.join("tests/image/root/etc/redis/redis.conf"))?,
        )?;
        fs::create_dir_all(disk.at("var/lib/redis"))?;
        chown(disk.at("var/lib/redis"), Some(101), Some(101))?;
        for kernel in Kernel::ALL {
            let modules = cache.modules(kernel, Flavour::Cloud)?;
            for (path, data) in crate::modules::files(&modules, &["overlay", "loop", "dm_mod", "softdog"])? {
                disk.file(&format!("usr/lib/modules/{path}"), 0o644, data)?;
            }
            // The system's own modprobe reads tables that only depmod writes.
            let release = modules.file_name().context("a folder of modules has a name")?;
            run(Command::new("chroot").arg(&disk.folder).arg("/sbin/depmod").arg(release), "coreutils")?;
        }
        Ok(disk)
    }

    /// Writes a file of root's, in the place of what is there.
    pub fn file(&self, path: &str, permissions: u32, data: impl AsRef<[u8]>) -> Result<()> {
        let path = self.at(path);
        fs::create_dir_all(path.parent().context("it is in a folder")?)?;
        // Removed first: it may be a link to the file of the cache.
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
        }
        fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(permissions))?)
    }

    /// Makes the file system, and returns where its image is. The folder is gone then.
    pub fn write(self) -> Result<PathBuf> {
        // Not with_extension: a name may end in a kernel's version.
        let image = PathBuf::from(format!("{}.ext4", self.folder.display()));
        fs::File::create(&image)?.set_len(SIZE)?;
        let mut command = Command::new("mkfs.ext4");
        // Without a journal's lazy work: what is checked afterwards was written, not left to a thread of the kernel.
        command.args([
            "-q",
            "-F",
            "-U",
            UUID,
            "-L",
            LABEL,
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            "-d",
        ]);
        run(command.arg(&self.folder).arg(&image), "e2fsprogs")?;
        remove(&self.folder)?;
        Ok(image)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let executable = from.metadata().with_context(|| format!("cannot read {}", from.display()))?;
        let permissions = if executable.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        self.file(to, permissions, fs::read(from)?)
    }

    fn copies(&self, from: &Path, to: &str) -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = format!("{to}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.copies(&entry.path(), &target)?;
            } else {
                self.copy(&entry.path(), &target)?;
            }
        }
        Ok(())
    }

    /// base-passwd's lists, a password for root, and who redis runs as.
    fn users(&self) -> Result<()> {
        let read = |path: &str| fs::read_to_string(self.at(path));
        let passwd = read("usr/share/base-passwd/passwd.master")?.replace("root:*:", "root:x:");
        let group = read("usr/share/base-passwd/group.master")?;
        self.file(
            "etc/passwd",
            0o644,
            format!("{passwd}redis:x:101:101::/var/lib/redis:/usr/sbin/nologin\n"),
        )?;
        self.file("etc/group", 0o644, format!("{group}redis:x:101:\n"))?;
        self.file("etc/shadow", 0o600, shadow())
    }
}

/// Root's line of shadow(5), with [`PASSWORD`].
#[must_use]
pub fn shadow() -> String {
    format!("root:{HASH}:20000:0:99999:7:::\n")
}

/// `/bin` and its likes are links into `/usr`, which unpacking alone does not make.
pub(crate) fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let [from, to] = [root.join(name), root.join("usr").join(name)];
        fs::create_dir_all(&to)?;
        if from.is_dir() && !from.is_symlink() {
            run(Command::new("cp").args(["-a", "--link"]).arg(from.join(".")).arg(&to), "coreutils")?;
            fs::remove_dir_all(&from)?;
        }
        if !from.is_symlink() {
            symlink(format!("usr/{name}"), &from)?;
        }
    }
    Ok(())
}

/// Checks a file system that nobody uses: `fsck.ext4 -n -f`, which changes nothing. What it found is the error.
pub fn check(image: &Path) -> Result<()> {
    let output = Command::new("fsck.ext4").args(["-n", "-f"]).arg(image).stdin(Stdio::null()).output();
    let output = output.context("cannot run fsck.ext4: apt-get install e2fsprogs")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "fsck.ext4: {}\n{text}", output.status);
    // A journal that has to be replayed is repaired silently by the next mount; an unmounted one has nothing to replay.
    let header = run(Command::new("dumpe2fs").arg("-h").arg(image), "e2fsprogs")?;
    ensure!(!header.contains("needs_recovery"), "its journal was not closed: it was not unmounted");
    Ok(())
}

/// A file of a file system that nobody uses.
pub fn read(image: &Path, path: &str) -> Result<Vec<u8>> {
    let mut command = Command::new("debugfs");
    let output = command.args(["-R", &format!("cat {path}")]).arg(image).stdin(Stdio::null()).output();
    let output = output.context("cannot run debugfs: apt-get install e2fsprogs")?;
    ensure!(output.status.success(), "debugfs: {}", output.status);
    Ok(output.stdout)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
