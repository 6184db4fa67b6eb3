//! A virtual machine in QEMU, and what a test says to it.
//!
//! It has two serial lines. The first is the kernel's console: it is followed and kept, within bounds. The second
//! carries commands to a shell in the guest, so that nothing the kernel prints falls into an answer. Everything waits
//! with poll(2) and a deadline.
//!
//! The emulation is TCG, so it runs where there is no KVM. Two of its faults are known and kept apart from ours: it
//! corrupts 6.12 guests around `cmpxchg16b`, so the CPU has none, and about one boot in thirty trips over the kernel
//! patching its own text while the other CPU runs it, so [`run_on`] tries once more, loudly, after such a panic. A
//! clock that is not watched is one reason less to patch: the guest is told that its TSC is reliable. Nor does it check
//! whether timer interrupts come in time, which they need not on a busy host (`no_timer_check`, as under KVM).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fetch::{Cache, Flavour, Kernel};

/// How long a boot may take, the emulation being slow and the machine shared.
const BOOT: Duration = Duration::from_secs(180);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// How much of a line's past is kept.
const KEPT: usize = 1 << 20;
/// What the guest's shell says first on the second line.
const READY: &str = "shell is ready\n";

/// A running guest. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Machine {
    kernel: Kernel,
    qemu: Child,
    console: Line,
    shell: Line,
    commands: u64,
    started: Instant,
    /// How much of the console was shown to whoever watches, if somebody does.
    shown: Option<u64>,
}

/// What a guest has besides its kernel and its initramfs.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The images of disks, on virtio; what the guest writes stays in them.
    pub disks: Vec<PathBuf>,
    /// More words of the kernel command line.
    pub words: String,
    /// Its memory in MiB, where it is not the usual 512.
    pub memory: Option<u32>,
    /// One processor, on which each instruction takes two nanoseconds, whatever this machine does meanwhile.
    pub counted: bool,
    /// Which build of the kernel.
    pub flavour: Flavour,
    /// More arguments of QEMU.
    pub arguments: Vec<&'static str>,
}

/// What a command in the guest came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// Both its outputs.
    pub output: String,
}

impl Answer {
    /// The output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status == 0, "exit status {}: {}", self.status, self.output.trim_end());
        Ok(self.output)
    }
}

/// One serial line and what came over it.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    kept: VecDeque<u8>,
    /// How many bytes came before those kept.
    forgotten: u64,
    ended: bool,
}

impl Line {
    /// A line, and the end of it that QEMU gets.
    fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self { socket: ours, kept: VecDeque::new(), forgotten: 0, ended: false }, theirs.into()))
    }

    /// Reads what is there.
    fn drain(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.kept.extend(&bytes[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
        self.forgotten += excess as u64;
        Ok(())
    }

    /// What came after the first `mark` bytes of all, as far as it is kept.
    fn since(&mut self, mark: u64) -> String {
        let skip = usize::try_from(mark.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        let bytes = self.kept.make_contiguous();
        String::from_utf8_lossy(bytes.get(skip..).unwrap_or_default()).into_owned()
    }

    /// How much came so far.
    fn mark(&self) -> u64 {
        self.forgotten + self.kept.len() as u64
    }
}

impl Machine {
    /// Starts QEMU and returns at once.
    pub fn start(kernel: Kernel, image: &Path) -> Result<Self> {
        Self::start_with(kernel, image, &Setup::default())
    }

    /// Starts QEMU with more than an image, and returns at once.
    pub fn start_with(kernel: Kernel, image: &Path, setup: &Setup) -> Result<Self> {
        let cache = Cache::open()?;
        let qemu = cache.qemu()?;
        let (console, console_end) = Line::new()?;
        let (shell, shell_end) = Line::new()?;
        let (program, before) = qemu.command.split_first().context("QEMU has no command")?;
        let mut command = Command::new(program);
        command
            .args(before)
            .envs(qemu.environment)
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max,-cx16"])
            .args(if setup.counted {
                &["-smp", "1", "-icount", "shift=1,sleep=off"][..]
            } else {
                &["-smp", "2"]
            })
            .args(["-m", &setup.memory.unwrap_or(512).to_string()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            // A disk that reads as nothing, for limits on devices: cloud kernels have the driver of no other built in.
            .args(["-blockdev", "driver=null-co,read-zeroes=on,node-name=disk,size=67108864"])
            .args(["-device", "nvme,serial=e2e,drive=disk"])
            .args(["-chardev", "socket,id=console,fd=0", "-serial", "chardev:console"])
            .args(["-chardev", "socket,id=shell,fd=1", "-serial", "chardev:shell"])
            .arg("-append")
            .arg(format!(
                "console=ttyS0 panic=-1 oops=panic loglevel=6 tsc=reliable no_timer_check {}",
                setup.words
            ))
            .arg("-kernel")
            .arg(cache.kernel(kernel, setup.flavour)?)
            .arg("-initrd")
            .arg(image)
            .stdin(console_end)
            .stdout(shell_end)
            .stderr(Stdio::inherit());
        command.args(&setup.arguments);
        for (number, disk) in setup.disks.iter().enumerate() {
            let drive = format!("driver=file,filename={},node-name=disk{number}", disk.display());
            let device = format!("virtio-blk-pci,drive=disk{number}");
            command.args(["-blockdev", &drive, "-device", &device]);
        }
        let qemu = crate::sys::end_with_this_thread(&mut command).spawn().context("cannot start QEMU")?;
        Ok(Self { kernel, qemu, console, shell, commands: 0, started: Instant::now(), shown: None })
    }

    /// The kernel it runs.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// How long ago QEMU was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs a shell command in the guest and waits for its end.
    pub fn run(&mut self, command: &str) -> Result<Answer> {
        ensure!(!command.contains('\n'), "one line at a time: {command}");
        self.commands += 1;
        // The guest's loop prints this and the status after the command; nothing prints it before.
        let end = format!("end-of-{}-{}", std::process::id(), self.commands);
        let mark = self.shell.mark();
        self.send(&format!("{end} {command}\n"))?;
        let (before, after) = self
            .shell_text(mark, &format!("\n{end} "), COMMAND)
            .and_then(|before| Ok((before, self.rest_of_line(mark, &format!("\n{end} "))?)))
            .with_context(|| format!("in the guest: {command}"))?;
        let status = after.parse().with_context(|| format!("status {after:?} of {command}"))?;
        Ok(Answer { status, output: before })
    }

    /// Runs a shell command that has to succeed and returns its output.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        self.run(command)?.ok().with_context(|| format!("in the guest: {command}"))
    }

    /// Asks again and again until `check` has an answer. It does not sleep: each question is a command's run time.
    pub fn eventually<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = check(self)? {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "not within {limit:?}: {what}");
        }
    }

    /// Waits until `text` has stood on the console, however long ago.
    pub fn console_shows(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.console.since(0).contains(text) {
            self.wait(deadline).with_context(|| format!("waiting for {text:?} on the console"))?;
        }
        Ok(())
    }

    /// Types a line on the console until it has its effect: what comes while a terminal is being set is thrown away.
    pub fn insist(&mut self, line: &str, effect: &str) -> Result<()> {
        for _ in 0..12 {
            self.type_to_console(format!("{line}\r").as_bytes())?;
            if self.console_shows(effect, Duration::from_secs(10)).is_ok() {
                return Ok(());
            }
        }
        self.console_shows(effect, Duration::ZERO)
    }

    /// Tells sulogin(8), which asks on the console, what is no password, and then what is.
    pub fn pass_sulogin(&mut self) -> Result<()> {
        self.insist("echo $((6 * 7))-let-in", "Login incorrect")?;
        self.insist(crate::disk::PASSWORD, " # ")?;
        let console = self.console();
        ensure!(!console.contains("42-let-in"), "{console}");
        Ok(())
    }

    /// What the console has shown so far.
    pub fn console(&mut self) -> String {
        self.console.since(0)
    }

    /// Starts a command that is not expected to answer, such as the one that ends the machine.
    pub fn begin(&mut self, command: &str) -> Result<()> {
        self.send(&format!("unanswered {command}\n"))
    }

    /// What a program in the guest has written to the second line when it has written `last` or the machine has ended.
    pub fn written(&mut self, last: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let ended = |machine: &Self| machine.console.ended && machine.shell.ended;
        while !self.shell.since(0).contains(last) && !ended(self) {
            self.poll(deadline).with_context(|| format!("waiting for {last:?} on the second line"))?;
        }
        Ok(self.shell.since(0))
    }

    /// Waits until QEMU has ended, and says how.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while !(self.console.ended && self.shell.ended) {
            self.poll(deadline).context("waiting for the machine to end")?;
        }
        Ok(self.qemu.wait()?)
    }

    /// Waits until the guest's shell takes commands.
    pub fn ready(&mut self) -> Result<()> {
        self.shell_text(0, READY, BOOT).context("the guest's shell did not come up").map(drop)
    }

    /// Waits until a shell that was started after `before` others takes commands.
    pub fn ready_again(&mut self, before: usize) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        while self.shell.since(0).matches(READY).count() <= before {
            self.wait(deadline).context("no other shell came up in the guest")?;
        }
        Ok(())
    }

    /// From now on, and from its beginning, the console is shown on standard output.
    pub fn show_console(&mut self) {
        self.shown = Some(0);
    }

    /// Sends what comes from `input` to the console until the machine ends, `input` does, or the byte `escape` comes.
    pub fn type_from(&mut self, input: &impl AsFd, escape: u8) -> Result<()> {
        while !self.console.ended {
            let mut fds = [
                PollFd::new(self.console.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.shell.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            // Nothing more comes from a line that has ended, and poll would say so without end.
            let watched = if self.shell.ended { &mut fds[..1] } else { &mut fds[..] };
            poll(watched, PollTimeout::NONE)?;
            let typed = fds[2].any().unwrap_or(false);
            self.take_in()?;
            if typed {
                let mut bytes = [0; 256];
                let count = nix::unistd::read(input, &mut bytes)?;
                if count == 0 || bytes[..count].contains(&escape) {
                    return Ok(());
                }
                self.type_to_console(&bytes[..count])?;
            }
        }
        Ok(())
    }

    /// Types on the console.
    pub fn type_to_console(&mut self, keys: &[u8]) -> Result<()> {
        self.console.socket.write_all(keys).context("the console takes no keys")
    }

    /// Reads what both lines have, and shows the console's part.
    fn take_in(&mut self) -> Result<()> {
        self.console.drain()?;
        self.shell.drain()?;
        if let Some(shown) = self.shown {
            self.shown = Some(self.console.mark());
            let mut output = std::io::stdout().lock();
            output.write_all(self.console.since(shown).as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }

    /// Whether the emulation failed, as far as its console tells: see the module's text.
    fn emulation_failed(&mut self) -> bool {
        let text = self.console.since(0);
        let panicked = text.contains("Kernel panic - not syncing: Fatal exception");
        panicked && (text.contains("Fatal exception in interrupt") || text.contains("int3: 0000"))
    }

    /// What came over the shell's line between `mark` and `pattern`, waiting for the latter.
    fn shell_text(&mut self, mark: u64, pattern: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let text = self.shell.since(mark);
            if let Some((before, _)) = text.split_once(pattern) {
                return Ok(before.to_owned());
            }
            self.wait(deadline)?;
        }
    }

    /// What stands between `pattern` and the end of its line, which may still be under way.
    fn rest_of_line(&mut self, mark: u64, pattern: &str) -> Result<String> {
        let deadline = Instant::now() + COMMAND;
        loop {
            let text = self.shell.since(mark);
            let line = text.split_once(pattern).and_then(|(_, after)| after.split_once('\n'));
            if let Some((line, _)) = line {
                return Ok(line.to_owned());
            }
            self.wait(deadline)?;
        }
    }

    /// Waits for anything on either line; an end of the machine is an error here.
    fn wait(&mut self, deadline: Instant) -> Result<()> {
        if self.console.ended {
            bail!("the machine has ended; its console's last lines:\n{}", self.console_tail());
        }
        self.poll(deadline).with_context(|| format!("the console's last lines:\n{}", self.console_tail()))
    }

    fn poll(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the time for this is over");
        let mut fds = Vec::new();
        for line in [&self.console, &self.shell].into_iter().filter(|line| !line.ended) {
            fds.push(PollFd::new(line.socket.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left.as_millis().min(60_000) + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.take_in()
    }

    fn send(&mut self, text: &str) -> Result<()> {
        // A command is far smaller than the socket's buffer, and the guest takes each before the next is sent.
        self.shell.socket.write_all(text.as_bytes()).context("the guest's shell takes no command")
    }

    fn console_tail(&mut self) -> String {
        let text = self.console.since(0);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Our own child, by its handle: it has ended already, or it ends now.
        if let Err(error) = self.qemu.kill().and_then(|()| self.qemu.wait()) {
            eprintln!("cannot end QEMU: {error}");
        }
    }
}

/// Boots `image` on `kernel` and runs `scenario` on it, once more if the emulation failed.
pub fn run_on(kernel: Kernel, image: &Path, scenario: impl Fn(&mut Machine) -> Result<()>) -> Result<()> {
    run_with(kernel, image, &|| Ok(Setup::default()), |machine| {
        machine.ready().and_then(|()| scenario(machine))
    })
}

/// Boots `image` with a setup that is made anew for each attempt, and runs `scenario` from the first instruction on.
pub fn run_with(
    kernel: Kernel,
    image: &Path,
    setup: &dyn Fn() -> Result<Setup>,
    scenario: impl Fn(&mut Machine) -> Result<()>,
) -> Result<()> {
    let mut attempt = 1;
    loop {
        let mut machine = Machine::start_with(kernel, image, &setup()?)?;
        let result = scenario(&mut machine);
        let Err(error) = result else { return Ok(()) };
        if attempt == 1 && machine.emulation_failed() {
            crate::say(&format!(
                "THE EMULATED KERNEL PANICKED in interrupt context (a known fault of QEMU's TCG), trying once \
                 more: {error:#}"
            ));
            attempt += 1;
            continue;
        }
        return Err(error.context(format!("on Linux {}", kernel.version())));
    }
}

/// Makes each scenario, a `fn(&mut Machine) -> Result<()>`, a test on each kernel: `linux_6_1::NAME` and
/// `linux_6_12::NAME`.
#[macro_export]
macro_rules! on_both_kernels {
    ($image:ident: $($name:ident)*) => {
        mod linux_6_1 {
            $(#[test] fn $name() -> anyhow::Result<()> {
                $crate::machine::run_on($crate::fetch::Kernel::V6_1, super::$image.path()?, super::$name)
            })*
        }
        mod linux_6_12 {
            $(#[test] fn $name() -> anyhow::Result<()> {
                $crate::machine::run_on($crate::fetch::Kernel::V6_12, super::$image.path()?, super::$name)
            })*
        }
    };
}
