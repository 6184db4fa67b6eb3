//! The daemons of `docs/daemons.md`: the service files of that page, a root of unpacked Debian packages to run them in, and
//! how each is asked something.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::fetch::{Cache, run};
use crate::initramfs::Image;
use crate::scratch::Scratch;

/// A user of one of them: name, uid and gid, home.
const USERS: [(&str, u32, &str); 4] = [
    ("www-data", 33, "/var/www"),
    ("redis", 101, "/var/lib/redis"),
    ("postgres", 102, "/var/lib/postgresql"),
    ("memcache", 103, "/nonexistent"),
];

/// What belongs to them.
const FOLDERS: [(&str, u32); 5] = [
    ("var/lib/nginx", 33),
    ("var/log/nginx", 33),
    ("var/lib/redis", 101),
    ("var/lib/postgresql", 102),
    ("var/www/html", 33),
];

/// Debian's default site, with the one address that the page's socket has.
const SITE: &str = "server {\n\tlisten 80 default_server;\n\troot /var/www/html;\n}\n";
const PAGE: &str = "nginx answers from inside its sandbox\n";

/// The service files of `docs/daemons.md`, by name.
pub fn services() -> Result<Vec<(String, String)>> {
    let page = fs::read_to_string(crate::workspace().join("docs/daemons.md"))?;
    let mut services = Vec::new();
    for block in page.split("```toml\n").skip(1) {
        let (text, _) = block.split_once("\n```").context("a block without an end")?;
        let name = text.strip_prefix("# /etc/motherd/services/").and_then(|rest| rest.split_once(".toml\n"));
        let (name, _) = name.with_context(|| format!("a block that does not say where it goes:\n{text}"))?;
        services.push((name.to_owned(), format!("{text}\n")));
    }
    ensure!(services.len() >= 5, "docs/daemons.md has {} service files", services.len());
    Ok(services)
}

/// The version of PostgreSQL in a tree of Debian's: its folder is named after it.
fn postgresql_version(tree: &Path) -> Result<String> {
    let folder = tree.join("usr/lib/postgresql");
    let entry = fs::read_dir(&folder)?.next().context("no PostgreSQL")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// The page is written for Debian 12.
fn for_version(text: &str, version: &str) -> String {
    text.replace("postgresql/15/", &format!("postgresql/{version}/"))
}

fn passwd() -> (String, String) {
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    let mut group = "root:x:0:\n".to_owned();
    for (name, id, home) in USERS {
        passwd += &format!("{name}:x:{id}:{id}::{home}:/usr/sbin/nologin\n");
        group += &format!("{name}:x:{id}:\n");
    }
    (passwd, group)
}

/// The booted system with all of them in it: what is up is what a test starts.
pub fn image() -> Result<Image> {
    let mut image = Image::system()?;
    let tree = Cache::open()?.daemons()?;
    image.packages(&tree);
    let version = postgresql_version(&tree)?;
    let postgresql = format!("usr/lib/postgresql/{version}");
    for program in ["postgres", "initdb", "psql"] {
        let path = format!("{postgresql}/bin/{program}");
        image.program(&tree.join(&path), &format!("/{path}"))?;
    }
    // What initdb loads; it is looked for beside the programs.
    for module in ["plpgsql.so", "dict_snowball.so"] {
        let path = format!("{postgresql}/lib/{module}");
        image.program(&tree.join(&path), &format!("/{path}"))?;
    }
    image.tree(&tree.join("usr/share/postgresql"), "/usr/share/postgresql")?;
    image.program(&tree.join("usr/bin/memcached"), "/usr/bin/memcached")?;
    image.file("/etc/nginx/nginx.conf", 0o644, fs::read(tree.join("etc/nginx/nginx.conf"))?)?;
    image.file("/etc/nginx/sites-enabled/default", 0o644, SITE)?;
    for folder in ["modules-enabled", "conf.d"] {
        image.folder(&format!("/etc/nginx/{folder}"), 33)?;
    }
    image.file("/var/www/html/index.html", 0o644, PAGE)?;
    for (path, id) in FOLDERS.into_iter().filter(|(path, _)| !path.starts_with("var/www")) {
        image.folder(&format!("/{path}"), id)?;
    }
    let (passwd, group) = passwd();
    image.file("/etc/passwd", 0o644, passwd)?;
    image.file("/etc/group", 0o644, group)?;
    for (name, text) in services()? {
        let path = format!("/etc/motherd/services/{name}.toml");
        image.file(&path, 0o644, for_version(&text, &version))?;
    }
    let system = "[dependencies]\nwants = [\"console\", \"commands\", \"loopback\"]\n";
    image.file("/etc/motherd/services/system.toml", 0o644, system)?;
    Ok(image)
}

/// A root directory below a scratch one, in which the daemons are installed, and a network of their own for all of them.
#[derive(Debug)]
pub struct Debian {
    root: PathBuf,
    version: String,
}

impl Debian {
    /// Makes it, has the shipped policies mean it, and writes the service files of the page.
    pub fn new(scratch: &Scratch) -> Result<Self> {
        let tree = Cache::open()?.daemons()?;
        let root = scratch.path("debian");
        // Links, not copies: nothing here is changed in place.
        run(Command::new("cp").args(["-a", "--link"]).arg(&tree).arg(&root), "coreutils")?;
        crate::disk::merge_usr(&root)?;
        for path in ["dev", "proc", "sys", "run", "tmp", "root", "home", "boot"] {
            fs::create_dir_all(root.join(path))?;
        }
        for (path, id) in FOLDERS {
            fs::create_dir_all(root.join(path))?;
            chown(root.join(path), Some(id), Some(id))?;
        }
        let (passwd, group) = passwd();
        for below in [&root, &scratch.path("")] {
            fs::create_dir_all(below.join("etc"))?;
            fs::write(below.join("etc/passwd"), &passwd)?;
            fs::write(below.join("etc/group"), &group)?;
        }
        for file in ["etc/hosts", "etc/nsswitch.conf"] {
            fs::copy(crate::workspace().join("tests/image/root").join(file), root.join(file))?;
        }
        symlink("../sites-available/default", root.join("etc/nginx/sites-enabled/default"))?;
        let site = root.join("etc/nginx/sites-available/default");
        fs::remove_file(&site)?;
        fs::write(&site, SITE)?;
        fs::write(root.join("var/www/html/index.html"), PAGE)?;
        let debian = Self { version: postgresql_version(&root)?, root };
        for (name, text) in services()? {
            scratch.service(&name, &for_version(&text, &debian.version))?;
            // A readiness socket is bound at the path that it has outside: /run, elsewhere, and there it is made.
            let outside = scratch.path(&format!("run/motherd/notify/{name}"));
            let inside = debian.root.join(outside.strip_prefix("/")?);
            fs::create_dir_all(inside.parent().context("it is in a folder")?)?;
            fs::write(inside, "")?;
        }
        // The shipped text, and one line: where "the host" is.
        for policy in ["nginx", "redis", "postgresql", "memcached"] {
            let path = scratch.path(&format!("usr/lib/motherd/policies/{policy}.toml"));
            let text = fs::read_to_string(&path)?;
            let line = format!("[filesystem]\nroot = \"{}\"\n", debian.root.display());
            let text = match text.contains("[filesystem]\n") {
                true => text.replace("[filesystem]\n", &line),
                false => format!("{text}\n{line}"),
            };
            fs::write(&path, text)?;
        }
        Ok(debian)
    }

    /// Starts initldr and motherd in a network namespace of their own: the ports of the page may be taken on this machine.
    pub fn start(&self, scratch: &mut Scratch) -> Result<()> {
        let programs = crate::programs::Programs::built()?;
        let tree = Cache::open()?.userland()?;
        let busybox = ["usr/bin/busybox", "bin/busybox"].map(|path| tree.join(path));
        let busybox = busybox.iter().find(|path| path.exists()).context("no busybox")?.display().to_string();
        let script = format!("{busybox} ip link set lo up && exec \"$0\" \"$@\"");
        let initldr = programs.initldr.display().to_string();
        let words = ["--net", "/bin/sh", "-c", &script, &initldr];
        scratch.start_as(Path::new("/usr/bin/unshare"), &programs.motherd, &words)
    }

    /// What psql says to one command, asked as the server's own user over its socket.
    pub fn sql(&self, command: &str) -> Result<String> {
        let psql = format!("/usr/lib/postgresql/{}/bin/psql", self.version);
        let mut chroot = Command::new("chroot");
        chroot.arg("--userspec=102:102").arg(&self.root).arg(psql);
        chroot.args(["-X", "-A", "-t", "-h", "/var/lib/postgresql", "postgres", "-c", command]);
        Ok(run(&mut chroot, "postgresql-client")?.trim().to_owned())
    }
}

/// Runs something in the network namespace of a process, on a thread that ends with it.
pub fn in_network_of<T: Send>(pid: Pid, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let act = || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
        act()
    };
    std::thread::scope(|scope| scope.spawn(act).join().map_err(|_| anyhow::anyhow!("a panic")))?
}

/// Says something to a port of this machine and returns what is answered until the other side closes.
pub fn ask(port: u16, words: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("connect to {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(words.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What is said to each that speaks over a port, and what has to be in the answer.
pub fn answers(service: &str) -> Result<()> {
    let (port, words, expected) = match service {
        "redis" => (6379, "PING\r\nQUIT\r\n", "+PONG"),
        "nginx" | "web" => (80, "GET / HTTP/1.0\r\n\r\n", "nginx answers"),
        "memcached" => (11211, "set x 0 0 2\r\n42\r\nget x\r\nquit\r\n", "VALUE x 0 2\r\n42"),
        _ => bail!("nobody knows how {service} is asked"),
    };
    let answer = ask(port, words)?;
    ensure!(answer.contains(expected), "{service} answered {answer:?}");
    Ok(())
}

/// What a guest's shell runs to ask one of them, and what has to be in the answer.
#[must_use]
pub fn question(service: &str) -> (&'static str, &'static str) {
    match service {
        "redis" => (r"printf 'PING\r\nQUIT\r\n' | nc -w 10 127.0.0.1 6379", "+PONG"),
        "memcached" => (
            r"printf 'set x 0 0 2\r\n42\r\nget x\r\nquit\r\n' | nc -w 10 127.0.0.1 11211",
            "VALUE x 0 2\r\n42",
        ),
        "postgresql" => (
            "su -s /bin/sh postgres -c \"/usr/lib/postgresql/*/bin/psql -XAt -h /var/lib/postgresql -c 'select 6 * 7'\"",
            "42",
        ),
        _ => ("wget -q -O - http://127.0.0.1/", "nginx answers"),
    }
}
