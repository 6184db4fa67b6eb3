//! What uses something up, so that a limit on it is felt: memory, processor time, a device, huge pages, RDMA.
//!
//! `probe figure ...` measures and prints a number; the acts of [`crate::probe`] say whether it was allowed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

use crate::sys;

const MIB: usize = 1 << 20;
/// What direct transfers have to be aligned to.
const PAGE: usize = 4096;

/// The number that `words` ask for.
pub fn figure(words: &[&str]) -> Result<u128> {
    match *words {
        ["cpu", wall] => processor_time(milliseconds(wall)?),
        ["transfer", "read", path, block, count] => transfer(path, block.parse()?, count.parse()?, false),
        ["transfer", "write", path, block, count] => transfer(path, block.parse()?, count.parse()?, true),
        ["read-for", wall, path, block] => read_for(milliseconds(wall)?, path, block.parse()?),
        ["again", path, skip, count] => again(path, skip.parse()?, count.parse()?),
        _ => bail!("no such figure: {}", words.join(" ")),
    }
}

fn milliseconds(word: &str) -> Result<Duration> {
    Ok(Duration::from_millis(word.parse()?))
}

/// Computes for so long, and answers how many milliseconds of a processor it got.
fn processor_time(wall: Duration) -> Result<u128> {
    let (began, before) = (Instant::now(), sys::own_processor_time()?);
    let mut work = 0_u64;
    while began.elapsed() < wall {
        work = std::hint::black_box(work).wrapping_mul(31).wrapping_add(7);
    }
    Ok((sys::own_processor_time()? - before).as_millis())
}

/// Memory whose start direct transfers take.
fn aligned(memory: &mut [u8], length: usize) -> Result<&mut [u8]> {
    let start = memory.as_ptr().align_offset(PAGE);
    memory.get_mut(start..start + length).context("it is a page longer than what it is asked for")
}

/// Moves so many blocks past every cache, and answers how many milliseconds that took.
fn transfer(path: &str, block: usize, count: usize, write: bool) -> Result<u128> {
    let mut file = OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .context("open")?;
    let mut memory = vec![0; block + PAGE];
    let memory = aligned(&mut memory, block)?;
    let began = Instant::now();
    for _ in 0..count {
        if write {
            file.write_all(memory)?;
        } else {
            file.read_exact(memory)?;
        }
    }
    Ok(began.elapsed().as_millis())
}

/// Reads for so long past every cache, from the start again at the end, and answers how many KiB came.
fn read_for(wall: Duration, path: &str, block: usize) -> Result<u128> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).context("open")?;
    let mut memory = vec![0; block + PAGE];
    let memory = aligned(&mut memory, block)?;
    let (began, mut bytes) = (Instant::now(), 0_u128);
    while began.elapsed() < wall {
        match file.read(memory)? {
            0 => drop(file.seek(SeekFrom::Start(0))?),
            count => bytes += count as u128,
        }
    }
    Ok(bytes >> 10)
}

/// Reads a part of a file, says so, waits for a line on stdin, reads it again, and answers how many KiB the device had
/// to give the second time.
fn again(path: &str, skip: u64, count: usize) -> Result<u128> {
    let fetched = || -> Result<u128> {
        let text = fs::read_to_string("/proc/self/io")?;
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        Ok(line.context("no read_bytes")?.parse()?)
    };
    // Open throughout: what nobody has open of a disk does not stay in memory.
    let mut file = File::open(path).context("open")?;
    let mut read = || -> Result<()> {
        file.seek(SeekFrom::Start(skip << 20))?;
        let read = io::copy(&mut (&file).take((count * MIB) as u64), &mut io::sink())?;
        ensure!(read == (count * MIB) as u64, "{path} has {read} bytes there");
        Ok(())
    };
    read()?;
    println!("read");
    io::stdout().flush()?;
    io::stdin().read_line(&mut String::new())?;
    let before = fetched()?;
    read()?;
    Ok((fetched()? - before) >> 10)
}

/// Makes a device of software RDMA on a network interface, as `rdma link add NAME type rxe netdev INTERFACE` does.
pub(crate) fn rdma_link(name: &str, interface: &str) -> io::Result<()> {
    // rdma/rdma_netlink.h: RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK), and attributes of it.
    const NEW_LINK: u16 = (5 << 10) + 3;
    const ATTRIBUTES: [u16; 3] = [2, 51, 65]; // RDMA_NLDEV_ATTR_{DEV_NAME, NDEV_NAME, LINK_TYPE}
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4; // NLM_F_REQUEST | NLM_F_ACK
    let mut body = Vec::new();
    for (kind, text) in ATTRIBUTES.into_iter().zip([name, interface, "rxe"]) {
        let length = u16::try_from(4 + text.len() + 1).map_err(io::Error::other)?;
        body.extend(length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()));
        body.extend(text.bytes().chain([0]));
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(NEW_LINK.to_ne_bytes().into_iter().chain(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes()));
    message.extend([0; 8]); // sequence number and port
    message.extend(body);
    let socket = socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRDMA,
    )?;
    socket::send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    // An acknowledgement is a header and an errno, negative or 0.
    let mut answer = [0; 256];
    let count = socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let errno = answer[..count]
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-libc::EBADMSG, i32::from_ne_bytes);
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) }
}

/// Writes to so many MiB of memory. No page is like another, and each can be made smaller.
pub(crate) fn touch(mebibytes: usize) -> io::Result<()> {
    const WORDS: usize = PAGE / 8;
    let mut memory: Vec<u64> = vec![1; mebibytes * MIB / 8];
    for (number, page) in memory.chunks_mut(WORDS).enumerate() {
        for (place, word) in page.iter_mut().take(WORDS / 4).enumerate() {
            *word = ((number as u64) << 20) + place as u64;
        }
    }
    std::hint::black_box(&memory);
    Ok(())
}

/// Writes to so many huge pages of 2 MiB at once.
pub(crate) fn huge(count: usize) -> io::Result<()> {
    sys::touch_huge_pages(count, 2 * MIB)
}

/// What a program of an RDMA device has first: its context, and then `objects` protection domains.
pub(crate) fn rdma(path: &str, objects: usize) -> io::Result<()> {
    const GET_CONTEXT: u32 = 0; // IB_USER_VERBS_CMD_GET_CONTEXT (rdma/ib_user_verbs.h)
    const ALLOC_PD: u32 = 3; // IB_USER_VERBS_CMD_ALLOC_PD
    let mut device = OpenOptions::new().read(true).write(true).open(path)?;
    sys::verb(&mut device, GET_CONTEXT)?;
    (0..objects).try_for_each(|_| sys::verb(&mut device, ALLOC_PD))
}
