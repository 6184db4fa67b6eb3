//! A seed for the kernel's random numbers, kept from one boot to the next (random(4)).
//!
//! Invariant: a seed is used once. It is replaced before it is credited, so a machine that loses power after that
//! does not begin twice with the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::Failure;
use crate::sys::random;

/// Where Debian keeps it, and others.
const PATH: &str = "/var/lib/motherd/random-seed";
/// 256 bits are what the kernel's generator holds; twice that costs nothing.
const SIZE: usize = 64;

/// Credits what was saved, and saves another.
pub(super) fn load() -> Result<(), Failure> {
    let seed = match fs::read(PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("there is no {PATH} yet: nothing is credited");
            return save();
        }
        other => other.map_err(Failure::of(PATH))?,
    };
    let device = OpenOptions::new().write(true).open("/dev/urandom").map_err(Failure::of("/dev/urandom"))?;
    // Mixed in first and without credit: so what is saved next depends on it.
    (&device).write_all(&seed).map_err(Failure::of("/dev/urandom"))?;
    save()?;
    if seed.len() != SIZE {
        println!("{PATH} has {} bytes instead of {SIZE}: mixed in, nothing credited", seed.len());
        return Ok(());
    }
    random::credit(&device, &seed).map_err(Failure::of("RNDADDENTROPY"))
}

/// Saves a new one: written aside, flushed, and moved into place.
pub(super) fn save() -> Result<(), Failure> {
    let mut seed = [0; SIZE];
    let read = File::open("/dev/urandom").and_then(|mut device| device.read_exact(&mut seed));
    read.map_err(Failure::of("/dev/urandom"))?;
    let path = Path::new(PATH);
    let folder = path.parent().expect("it is in a folder");
    fs::create_dir_all(folder).map_err(Failure::of(folder.display()))?;
    let aside = path.with_extension("new");
    let written = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&seed)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(Failure::of(path.display()))
}
