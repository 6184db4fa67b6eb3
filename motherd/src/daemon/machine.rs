//! What is so on the machine now: the questions that conditions ask, each answered by what the kernel says at this moment.
//!
//! Nothing here waits, connects to another machine, or disturbs whom it asks about beyond one connection to a UNIX socket,
//! for which the kernel has no other answer: its listeners are told of by network namespace, and it can be in any.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use nix::{errno::Errno, ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

use crate::{control::address, service::Resource};

/// As many symbolic links as the kernel follows (MAXSYMLINKS).
const LINKS_MAX: usize = 40;
/// RTF_UP, RTF_REJECT (linux/route.h).
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;
/// IFA_F_TENTATIVE, IFA_F_DADFAILED (linux/if_addr.h): nobody can use such an address (yet).
const UNUSABLE: u32 = 0x40 | 0x08;
/// TCP_LISTEN of /proc/net/tcp.
const LISTENING: &str = "0A";

/// Whether a condition holds. What cannot be read does not hold, and is said.
pub(super) fn holds(resource: &Resource, root: &Path) -> bool {
    let answer = match resource {
        Resource::Path(path) => Ok(fs::metadata(below(root, path)).is_ok()),
        Resource::Unix(path) => Ok(listens_at(&below(root, path))),
        Resource::Tcp(address) => read("/proc/self/net/tcp").map(|v4| {
            // A machine without IPv6 has no such file.
            let v6 = fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
            listens_on(*address, &v4, &v6)
        }),
        Resource::Mount(path) => {
            fs::read("/proc/self/mountinfo").map(|text| is_mounted(&below(root, path), &text))
        }
        Resource::Address => has_address(),
        Resource::Route => read("/proc/self/net/route").map(|v4| {
            let v6 = fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
            has_route(&v4, &v6)
        }),
        Resource::Link(name) => links_up().map(|up| up.contains(name)),
    };
    answer.unwrap_or_else(|error| {
        tracing::error!("{resource}: {error}");
        false
    })
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path)
}

/// A path of a service file, with the root that motherd was given.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Somebody accepts connections, or takes datagrams.
fn listens_at(path: &Path) -> bool {
    match address::connect_now(path) {
        Ok(()) => true,
        // Its queue is full; or it is there, and of another type.
        Err(error) => {
            matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EAGAIN | Errno::EPROTOTYPE))
        }
    }
}

/// Somebody listens there, on that address or on all, by what /proc/net/tcp and tcp6 list.
fn listens_on(address: SocketAddr, v4: &str, v6: &str) -> bool {
    let local = |line: &str| {
        let mut words = line.split_whitespace();
        let (place, port) = words.nth(1)?.split_once(':')?;
        let listens = words.nth(1)? == LISTENING;
        let here = u16::from_str_radix(port, 16).ok()? == address.port();
        (listens && here).then(|| place.to_owned())
    };
    let is = |ip: IpAddr| ip == address.ip() || ip.is_unspecified();
    v4.lines().skip(1).filter_map(local).filter_map(|place| ipv4(&place)).any(|ip| is(ip.into()))
        || v6.lines().skip(1).filter_map(local).filter_map(|place| ipv6(&place)).any(|ip| {
            // One on all of IPv6 takes connections by IPv4 too, as those of the first kind are listed there.
            is(ip.to_canonical()) || ip.is_unspecified()
        })
}

/// `0100007F`: words of the machine's byte order.
fn ipv4(hex: &str) -> Option<Ipv4Addr> {
    let word = u32::from_str_radix(hex, 16).ok()?;
    Some(Ipv4Addr::from(word.to_ne_bytes()))
}

fn ipv6(hex: &str) -> Option<Ipv6Addr> {
    let mut bytes = [0; 16];
    for (number, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&ipv4(hex.get(number * 8..number * 8 + 8)?)?.octets());
    }
    Some(Ipv6Addr::from(bytes))
}

/// Whether something is mounted exactly there (proc_pid_mountinfo(5): the fifth field, octal escapes).
fn is_mounted(path: &Path, mountinfo: &[u8]) -> bool {
    let path: PathBuf = path.components().collect();
    let point = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescaped);
    mountinfo.split(|byte| *byte == b'\n').filter_map(point).any(|point| point == path.as_os_str())
}

fn unescaped(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..3).filter(|_| *first == b'\\');
        let octal = escape.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

/// The links that are up and have a carrier, without the loopback.
fn links_up() -> io::Result<BTreeSet<String>> {
    let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let all = getifaddrs()?;
    Ok(all
        .filter(|one| one.flags.contains(up) && !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .map(|one| one.interface_name)
        .collect())
}

/// An address that others could reach, of a link that is up: none of the link itself, and none that is still being tried.
fn has_address() -> io::Result<bool> {
    let up = links_up()?;
    let of_v4 = |address: &SockaddrStorage| {
        address.as_sockaddr_in().is_some_and(|v4| !v4.ip().is_link_local() && !v4.ip().is_unspecified())
    };
    let v4 =
        getifaddrs()?.any(|one| up.contains(&one.interface_name) && one.address.as_ref().is_some_and(of_v4));
    let v6 = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    Ok(v4 || v6.lines().any(|line| is_usable(line, &up)))
}

/// A line of /proc/net/if_inet6: address, index, length of the prefix, scope, flags, link.
fn is_usable(line: &str, up: &BTreeSet<String>) -> bool {
    const GLOBAL: &str = "00";
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, scope, flags, link] = words[..] else { return false };
    let usable = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UNUSABLE == 0);
    scope == GLOBAL && usable && up.contains(link)
}

/// A way to everywhere, by /proc/net/route and ipv6_route.
fn has_route(v4: &str, v6: &str) -> bool {
    let leads = |flags: Option<&str>| {
        flags
            .and_then(|flags| u32::from_str_radix(flags, 16).ok())
            .is_some_and(|flags| flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0)
    };
    let v4 = v4.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000") && leads(words.get(3).copied())
    });
    let v6 = v6.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let everywhere = words.first().is_some_and(|to| to.bytes().all(|byte| byte == b'0'));
        everywhere
            && words.get(1) == Some(&"00")
            && words.get(9) != Some(&"lo")
            && leads(words.get(8).copied())
    });
    v4 || v6
}

/// Every entry of a folder on which it depends whether a path is there: the folder and the name in it. Links are followed
/// as the kernel follows them, so what decides about a path behind one is in the list too.
pub(super) fn steps_to(path: &Path) -> BTreeSet<(PathBuf, OsString)> {
    let mut steps = BTreeSet::new();
    let mut here = PathBuf::from("/");
    let mut rest: Vec<OsString> = names(path.as_os_str());
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        steps.insert((here.clone(), name.clone()));
        let next = here.join(&name);
        match fs::symlink_metadata(&next) {
            Err(_) => break,
            Ok(found) if found.file_type().is_symlink() => {
                links += 1;
                let Some(target) = fs::read_link(&next).ok().filter(|_| links <= LINKS_MAX) else { break };
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(names(target.as_os_str()));
            }
            Ok(found) if found.is_dir() => here = next,
            Ok(_) => break,
        }
    }
    steps
}

/// The parts of a path, the last first.
fn names(path: &OsStr) -> Vec<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    Path::new(OsStr::from_bytes(path.as_bytes())).components().filter_map(part).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;
    use crate::scratch::Scratch;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
        1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
        2: 0100007F:0BB8 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st\n   \
        0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0 0\n   \
        1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0 0\n";

    #[test]
    fn who_listens_is_read_from_the_kernels_tables() {
        let check = |address: &str, expected| {
            assert_eq!(listens_on(address.parse().unwrap(), TCP, TCP6), expected, "{address}");
        };
        check("127.0.0.1:8080", true);
        check("127.0.0.2:8080", false);
        check("10.1.2.3:22", true);
        check("127.0.0.1:3000", false); // a connection
        check("127.0.0.1:80", true); // all of IPv6 and IPv4
        check("[::1]:80", true);
        check("[::1]:81", true);
        check("[::2]:81", false);
        check("127.0.0.1:81", false);
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let resource = Resource::Tcp(own.local_addr().unwrap());
        assert!(holds(&resource, Path::new("/")));
        drop(own);
        assert!(!holds(&resource, Path::new("/")));
    }

    #[test]
    fn a_unix_socket_that_nobody_listens_on_any_more_does_not_hold() {
        let scratch = Scratch::new();
        let path = scratch.path().join("s");
        let resource = Resource::Unix(path.clone());
        assert!(!holds(&resource, Path::new("/")));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(holds(&resource, Path::new("/")));
        drop(listener);
        assert!(path.exists() && !holds(&resource, Path::new("/")));
        fs::remove_file(&path).unwrap();
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(holds(&resource, Path::new("/")), "whatever its type");
    }

    #[test]
    fn a_mount_point_is_one_exactly_there() {
        let mountinfo =
            b"30 23 0:26 / / rw - ext4 /dev/vda rw\n31 30 0:27 / /srv/a\\040b rw shared:1 - tmpfs tmpfs rw\n";
        for (path, expected) in
            [("/", true), ("/srv/a b", true), ("/srv/a b/", true), ("/srv", false), ("/srv/a b/c", false)]
        {
            assert_eq!(is_mounted(Path::new(path), mountinfo), expected, "{path}");
        }
        assert!(holds(&Resource::Mount("/proc".into()), Path::new("/")));
    }

    #[test]
    fn the_network_is_what_leads_elsewhere() {
        const HEADER: &str =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let route = |to: &str, mask: &str, flags: &str| {
            format!("{HEADER}eth0\t{to}\t0100A8C0\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        assert!(has_route(&route("00000000", "00000000", "0003"), ""));
        assert!(!has_route(&route("0000A8C0", "00FFFFFF", "0001"), ""), "the neighbours alone");
        assert!(!has_route(&route("00000000", "00000000", "0203"), ""), "a refusal");
        let zero = "00000000000000000000000000000000";
        let v6 = |flags: &str, link: &str| {
            format!(
                "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 {flags}       {link}\n"
            )
        };
        assert!(has_route(HEADER, &v6("00450003", "eth0")));
        assert!(!has_route(HEADER, &v6("00200200", "lo")));
        let up = BTreeSet::from(["eth0".to_owned()]);
        let address = "20010db8000000000000000000000001 02 40";
        assert!(is_usable(&format!("{address} 00 80     eth0"), &up));
        assert!(!is_usable(&format!("{address} 00 c0     eth0"), &up), "still being tried");
        assert!(!is_usable(&format!("{address} 20 80     eth0"), &up), "of the link");
        assert!(!is_usable(&format!("{address} 00 80     eth1"), &up), "of a link that is down");
    }

    #[test]
    fn what_decides_about_a_path_is_each_folder_on_the_way_and_behind_its_links() {
        let scratch = Scratch::new();
        let base = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("real/deep")).unwrap();
        symlink("real", base.join("link")).unwrap();
        symlink("link/deep/x", base.join("far")).unwrap();
        let steps = |path: &str| -> Vec<(String, String)> {
            let steps = steps_to(&base.join(path));
            let inside = steps.into_iter().filter(|(folder, _)| folder.starts_with(&base));
            let shown = |path: &Path| path.strip_prefix(&base).unwrap().display().to_string();
            inside.map(|(folder, name)| (shown(&folder), name.display().to_string())).collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(folder, name)| ((*folder).to_owned(), (*name).to_owned())).collect()
        };
        assert_eq!(steps("real/deep/x"), pairs(&[("", "real"), ("real", "deep"), ("real/deep", "x")]));
        assert_eq!(
            steps("far"),
            pairs(&[("", "far"), ("", "link"), ("", "real"), ("real", "deep"), ("real/deep", "x")])
        );
        assert_eq!(steps("nothing/below"), pairs(&[("", "nothing")]));
        symlink("loop", base.join("loop")).unwrap();
        assert_eq!(steps("loop/x"), pairs(&[("", "loop")]));
    }
}
