//! The watchdog: a file takes the place of the device, so that what is written to it can be read.

use super::*;

/// What is written to.
struct Device(PathBuf);

impl Device {
    /// Has it kept as a watchdog is.
    fn kept(machine: &Machine, motherd: &mut Motherd) -> Result<Device> {
        let device = Device(machine.folder.join("device"));
        fs::write(&device.0, "")?;
        motherd.tell(&format!("store-writable watchdog {}", device.0.display()))?;
        Ok(device)
    }

    fn written(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.0)?)
    }

    /// It is written to from now on.
    fn is_written_to(&self) -> Result<()> {
        let (before, end) = (self.written()?.len(), Instant::now() + SOON);
        while self.written()?.len() == before {
            ensure!(Instant::now() < end, "nothing was written within {SOON:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

#[test]
fn it_is_written_to_over_deaths_and_a_succession_and_ended_with_the_machine() -> Result<()> {
    let mut machine = Machine::start("watchdog")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let device = Device::kept(&machine, &mut motherd)?;
    device.is_written_to()?;
    motherd.tell("alive")?;
    motherd.kill()?;
    let mut second = machine.motherd()?; // it has not said hello
    device.is_written_to()?;
    assert!(second.hello()?[1].starts_with("stored watchdog w"));
    device.is_written_to()?;

    let successor = machine.copy("successor")?;
    second.succeed(&successor, 0)?;
    device.is_written_to()?;

    second.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    let written = device.written()?;
    assert!(written.ends_with("wV"), "what is to be off is not reset: {written}");
    Ok(())
}

#[test]
fn what_was_dropped_is_not_written_to() -> Result<()> {
    let mut machine = Machine::start("watchdog-dropped")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let device = Device::kept(&machine, &mut motherd)?;
    device.is_written_to()?;
    motherd.tell("drop watchdog")?;
    motherd.tell("drop watchdog")?;
    motherd.expect(&format!("answer watchdog {}", libc::ENOENT))?; // the first is done by then
    let written = device.written()?;
    motherd.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    assert_eq!(device.written()?, written);
    Ok(())
}

/// It owes no answer but that one.
#[test]
#[ignore = "thirty seconds of silence: cargo test -p e2e --test initldr says_nothing -- --ignored"]
fn a_motherd_that_says_nothing_is_launched_anew() -> Result<()> {
    let mut machine = Machine::start("watchdog-hang")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let device = Device::kept(&machine, &mut motherd)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(29) {
        device.is_written_to()?;
    }
    let mut second = machine.motherd()?;
    let said = second.hello()?;
    assert!(said[0].contains("generation=2 pid1=false cause=Hung"), "{said:?}");
    device.is_written_to()
}
