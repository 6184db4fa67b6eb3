//! Questions about ports, addresses and devices, and the opinions of the programs on the cgroup.

use std::net::{IpAddr, Ipv6Addr};

use super::{Asked, Need, Opinion};
use crate::{
    compile::bpf::{addresses::Table, ask},
    diagnostic::Place,
    plan::CgroupProgram,
    policy::{CgroupLimits, DeviceAccess, DeviceKind, Protocol, Rules},
    sys::bpf::Hook,
};

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// SOCK_STREAM
    Tcp,
    /// SOCK_DGRAM
    Udp,
}

/// A port, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Whose it is.
    pub transport: Transport,
    /// `None`: no matter where.
    pub address: Option<IpAddr>,
    /// Its number.
    pub number: u16,
}

impl Port {
    /// `80`, `udp:53`, `10.1.2.3:443`, `udp:[2001:db8::1]:53`.
    ///
    /// # Errors
    /// It is no such thing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (transport, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Transport::Tcp, rest),
            Some(("udp", rest)) => (Transport::Udp, rest),
            _ => (Transport::Tcp, text),
        };
        let (address, number) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, number)) => (Some(address), number),
        };
        let number = number
            .parse()
            .map_err(|_| format!("`{text}` is no port: 0 to 65535, as `80`, `udp:53` or `10.1.2.3:443`"))?;
        let address = address.map(|address| parse_address(address, text)).transpose()?;
        Ok(Self { transport, address, number })
    }

    /// The same without an address: what binds is asked by its port alone.
    ///
    /// # Errors
    /// It is no such thing.
    pub fn bound(text: &str) -> Result<Self, String> {
        let port = Self::parse(text)?;
        match port.address {
            Some(_) => Err(format!("`{text}` has an address: no rule on bind tells addresses apart")),
            None => Ok(port),
        }
    }

    fn protocol(&self) -> i32 {
        match self.transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        }
    }

    fn word(&self) -> String {
        match self.transport {
            Transport::Tcp => format!("TCP port {}", self.number),
            Transport::Udp => format!("UDP port {}", self.number),
        }
    }
}

fn parse_address(address: &str, text: &str) -> Result<IpAddr, String> {
    let six = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match six {
        Some(six) => six.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => address.parse().ok().filter(|address: &IpAddr| address.is_ipv4()),
    };
    parsed.ok_or_else(|| format!("`{address}` in `{text}` is no address: `10.1.2.3`, or `[2001:db8::1]`"))
}

impl Asked<'_> {
    fn program(&self, hook: Hook) -> Option<&CgroupProgram> {
        self.plan.programs().find(|program| program.hook == hook)
    }

    fn limits(&self) -> Option<&CgroupLimits> {
        match self.policy.rules() {
            Rules::Confined(rules) => Some(&rules.cgroup),
            Rules::Unconfined(_) => None,
        }
    }

    /// What `socket_bind` and `socket_connect` say.
    pub(super) fn port_program(&self, asked: &Port, call: &str) -> Option<Opinion> {
        let hook = if call == "bind" { Hook::Bind4 } else { Hook::Connect4 };
        let program = self.program(hook)?;
        let allowed = ask::port(&program.code, asked.protocol(), asked.number);
        let limits = self.limits()?;
        let list = if call == "bind" { &limits.socket_bind } else { &limits.socket_connect };
        let own = match asked.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let entry = list.iter().flat_map(|list| &list.value).find(|entry| {
            [own, Protocol::Any].contains(&entry.value.protocol)
                && (entry.value.first..=entry.value.last).contains(&asked.number)
        });
        let has = if allowed { "has" } else { "does not have" };
        let why = format!("cgroup.{} {has} {}", program.key, asked.word());
        Some(Opinion::new(allowed, why, Some(entry.map_or(&program.at, |entry| &entry.at))))
    }

    /// What `ip_allow` and `ip_deny` say of the address; of none in particular, whether any is left.
    pub(super) fn address_program(&self, asked: &Port) -> Option<Opinion> {
        let program = self.program(Hook::Egress)?;
        let table = Table::of(self.limits()?);
        let Some(address) = asked.address else {
            if table.allows_any() {
                return None;
            }
            let why = format!("cgroup.{} leaves no address", program.key);
            return Some(Opinion::new(false, why, Some(&program.at)));
        };
        let allowed = ask::destination(&program.code, address);
        let (why, at) = match table.verdict(address).0 {
            Some(row) => {
                let key = if row.allowed { "ip_allow" } else { "ip_deny" };
                (format!("cgroup.{key} has {}, the narrowest network with {address}", row.prefix), row.at)
            }
            None if allowed => (format!("cgroup.ip_deny does not have {address}"), &program.at),
            None => (format!("cgroup.ip_allow does not have {address}"), &program.at),
        };
        Some(Opinion::new(allowed, why, Some(at)))
    }

    /// What is good to know where an answer without an address is yes.
    pub(super) fn address_note(&self, asked: &Port) -> Option<String> {
        let filtered = self.program(Hook::Egress).is_some() && asked.address.is_none();
        filtered.then(|| {
            let number = asked.number;
            format!("cgroup.ip_allow and ip_deny tell addresses apart: ask for one, as `connect 10.1.2.3:{number}`")
        })
    }

    /// What `devices` and the mount say of a device node.
    pub(super) fn device(&self, path: &str, need: Need) -> Option<Opinion> {
        let access = match need {
            Need::Read => DeviceAccess { read: true, write: false, mknod: false },
            Need::Write => DeviceAccess { read: false, write: true, mknod: false },
            Need::Execute => return None,
        };
        let device = self.tree.device(path, self.host)?;
        let mount = self.tree.covering(path);
        if let Some(mount) = mount.filter(|mount| mount.has(libc::MOUNT_ATTR_NODEV) && !mount.is_hidden()) {
            let why = format!("{} is mounted nodev: devices in it cannot be opened", mount.target);
            return Some(Opinion::new(false, why, mount.at));
        }
        let program = self.program(Hook::Device)?;
        let allowed = ask::device(&program.code, access, device);
        let (kind, major, minor) = device;
        let name = format!("{path} ({} {major}:{minor})", kind.word());
        let why = if allowed {
            format!("cgroup.devices: {name} may be opened")
        } else {
            format!("cgroup.devices does not have {name}, and filesystem.dev does not give it")
        };
        let listed = self.policy.elements("cgroup", "devices").iter().find(|(id, _)| id == path);
        let at: &Place = listed.map_or(&program.at, |(_, at)| at);
        Some(Opinion::new(allowed, why, Some(at)))
    }
}

/// Kind, major and minor number of what mknod(2) was given.
pub(super) fn numbers(device: u64) -> Option<(DeviceKind, u32, u32)> {
    let number = |part: u64| u32::try_from(part).ok();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    Some((DeviceKind::Char, number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_have_a_protocol_and_an_address() {
        let parsed = |text: &str| {
            let Port { transport, address, number } = Port::parse(text)?;
            Ok::<_, String>((transport, address.map(|address| address.to_string()), number))
        };
        let some = |address: &str| Some(address.to_owned());
        assert_eq!(parsed("80"), Ok((Transport::Tcp, None, 80)));
        assert_eq!(parsed("udp:53"), Ok((Transport::Udp, None, 53)));
        assert_eq!(parsed("10.1.2.3:443"), Ok((Transport::Tcp, some("10.1.2.3"), 443)));
        assert_eq!(parsed("udp:[2001:db8::1]:53"), Ok((Transport::Udp, some("2001:db8::1"), 53)));
        for wrong in ["", "http", "65536", "sctp:80", "::1:80", "10.1.2:80", "[10.1.2.3]:80", "tcp:", ":80"] {
            assert!(Port::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Port::bound("10.1.2.3:80").is_err() && Port::bound("tcp:80").is_ok());
    }
}
