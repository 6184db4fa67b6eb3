//! `cargo boot`: builds the system, boots it in QEMU, shows what runs in it, and leaves a shell in it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::fetch::Kernel;
use e2e::initramfs::Image;
use e2e::machine::{Machine, run_on};
use e2e::system::{DAEMONS, both_serve, figures_are_real, isolation_is_attested, status};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

const USAGE: &str = "\
usage: cargo boot [--kernel 6.1|6.12]            boot, show what runs, leave a shell
       cargo boot --check [--kernel 6.1|6.12|all]   boot, check that all is as promised, power off";

/// Ctrl-]
const ESCAPE: u8 = 0x1d;

struct Arguments {
    check: bool,
    kernels: Vec<Kernel>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo boot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut check = false;
    let mut asked = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--check" => check = true,
            "--kernel" => asked = Some(words.next().context("--kernel needs a value")?),
            _ => bail!("{word} is no option"),
        }
    }
    let named = |name: &str| Kernel::ALL.into_iter().find(|kernel| kernel.version() == name);
    let kernels = match asked.as_deref() {
        None if check => Kernel::ALL.to_vec(),
        Some("all") if check => Kernel::ALL.to_vec(),
        None => vec![Kernel::V6_12],
        Some(name) => vec![named(name).with_context(|| format!("--kernel {name}: 6.1 or 6.12 is meant"))?],
    };
    Ok(Arguments { check, kernels })
}

fn run(arguments: &Arguments) -> Result<()> {
    let image = Image::system()?.write("boot")?;
    for &kernel in &arguments.kernels {
        if arguments.check {
            run_on(kernel, &image, check)?;
            println!("Linux {}: all as promised", kernel.version());
        } else {
            show(kernel, &image)?;
        }
    }
    Ok(())
}

/// What `--check` asserts.
fn check(machine: &mut Machine) -> Result<()> {
    let pids = both_serve(machine)?;
    for (daemon, pid) in DAEMONS.iter().zip(pids) {
        let status = status(machine, daemon.service)?;
        figures_are_real(&status)?;
        isolation_is_attested(machine.kernel(), &status, daemon)?;
        println!("Linux {}: {} runs confined as pid {pid}", machine.kernel().version(), daemon.service);
    }
    machine.begin("motherctl poweroff")?;
    let status = machine.ended(Duration::from_secs(10)).context("after motherctl poweroff")?;
    ensure!(status.success() && machine.console().contains("reboot: Power down"), "it did not power off");
    Ok(())
}

/// The boot, the status of what runs, and a shell.
fn show(kernel: Kernel, image: &Path) -> Result<()> {
    let mut machine = Machine::start(kernel, image)?;
    machine.show_console();
    machine.ready()?;
    both_serve(&mut machine)?;
    let color = if std::io::stdout().is_terminal() { "always" } else { "never" };
    let asked = "motherctl status nginx redis";
    let told = machine.ok(&format!("motherctl --color {color} status nginx redis"))?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "\n$ {asked}\n{told}")?;
    drop(output);
    let input = std::io::stdin();
    if input.is_terminal() {
        println!("This is a shell in the guest. `motherctl poweroff` or Ctrl-] ends it.\r");
        let raw = Raw::enter(&input)?;
        // A prompt, since the shell wrote its own long ago.
        machine.type_to_console(b"\r")?;
        machine.type_from(&input, ESCAPE)?;
        drop(raw);
        println!();
        return Ok(());
    }
    // No terminal, nobody to type: the status was what they came for.
    machine.begin("motherctl poweroff")?;
    machine.ended(Duration::from_secs(30)).context("after motherctl poweroff")?;
    Ok(())
}

/// A terminal that hands over every key as it is, until this is dropped.
struct Raw<'t> {
    terminal: &'t std::io::Stdin,
    before: Termios,
}

impl<'t> Raw<'t> {
    fn enter(terminal: &'t std::io::Stdin) -> Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before) {
            eprintln!("cannot set the terminal back: {error}; `reset` does\r");
        }
    }
}
