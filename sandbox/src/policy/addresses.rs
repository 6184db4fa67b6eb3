//! `cgroup.ip_allow` and `ip_deny`: addresses, and `socket_bind` and `socket_connect`: ports.

use std::net::IpAddr;

use super::{
    listed::Listed,
    reader::{Item, Notes, unknown},
};
use crate::diagnostic::{Diagnostic, Located, Place, nearest};

/// The addresses that begin with the first `length` bits of `bits`, which has no others set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// IPv6.
    pub six: bool,
    /// The address as a number; of IPv4 the lower 32 bits.
    pub bits: u128,
    /// At most 32 or 128.
    pub length: u8,
}

impl Prefix {
    const fn four(bits: u32, length: u8) -> Self {
        Self { six: false, bits: bits as u128, length }
    }

    const fn six(bits: u128, length: u8) -> Self {
        Self { six: true, bits, length }
    }

    /// How many bits an address has.
    pub(crate) const fn width(self) -> u8 {
        if self.six { 128 } else { 32 }
    }

    /// The bits that its addresses differ in.
    pub(crate) const fn rest(self) -> u128 {
        match self.width() - self.length {
            128 => u128::MAX,
            free => (1 << free) - 1,
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let (six, bits) = bits_of(address);
        six == self.six && bits & !self.rest() == self.bits
    }
}

/// As `ip_allow` has it.
impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = if self.six {
            IpAddr::from(self.bits.to_be_bytes())
        } else {
            IpAddr::from(u32::try_from(self.bits).unwrap_or_default().to_be_bytes())
        };
        if self.length == self.width() {
            write!(f, "{address}")
        } else {
            write!(f, "{address}/{}", self.length)
        }
    }
}

/// The version, and the address as a number.
pub(crate) fn bits_of(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, u32::from(address).into()),
        IpAddr::V6(address) => (true, address.into()),
    }
}

/// One entry of `ip_allow` or `ip_deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// As it is written.
    pub(super) name: String,
    /// At least one.
    pub prefixes: Vec<Prefix>,
}

#[cfg(test)]
impl Network {
    /// Of one prefix, for tests that make them up.
    pub(crate) fn of(prefix: Prefix) -> Self {
        Self { name: format!("{prefix:?}"), prefixes: vec![prefix] }
    }
}

impl Network {
    /// As it is written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Listed for Network {
    fn id(&self) -> String {
        self.name.clone()
    }
}

/// How many entries `ip_allow` and `ip_deny` can have, each.
pub(super) const NETWORKS: usize = 512;

/// Words for networks that every host has.
const NETWORK_WORDS: [(&str, [Prefix; 2]); 4] = [
    ("any", [Prefix::four(0, 0), Prefix::six(0, 0)]),
    ("localhost", [Prefix::four(0x7f00_0000, 8), Prefix::six(1, 128)]),
    ("link-local", [Prefix::four(0xa9fe_0000, 16), Prefix::six(0xfe80 << 112, 64)]),
    ("multicast", [Prefix::four(0xe000_0000, 4), Prefix::six(0xff00 << 112, 8)]),
];

/// `"10.0.0.0/8"`, `"2001:db8::/32"`, `"192.0.2.1"`, `"localhost"`.
pub(super) fn network(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Network>> {
    let text = item.text(notes)?;
    if let Some((_, prefixes)) = NETWORK_WORDS.iter().find(|(word, _)| *word == text.value) {
        let prefixes = prefixes.to_vec();
        return Some(text.map(|name| Network { name, prefixes }));
    }
    match prefix(&text.value) {
        Ok(prefix) => Some(text.map(|name| Network { name, prefixes: vec![prefix] })),
        Err(label) => {
            let message = format!("`{}` is no address and no network", text.value);
            let words = NETWORK_WORDS.map(|(word, _)| word);
            let near = nearest(&text.value, words).map(|word| format!("did you mean `{word}`?"));
            let help = format!("an address, address/length, or one of: {}", words.join(", "));
            let label = label.or(near).unwrap_or_default();
            notes.push(Diagnostic::error("invalid-address", text.at, message).label(label).help(help));
            None
        }
    }
}

/// The network, or what to write instead, where that is known.
fn prefix(text: &str) -> Result<Prefix, Option<String>> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let parsed: IpAddr = address.parse().map_err(|_| None)?;
    let (six, bits) = bits_of(parsed);
    if let IpAddr::V6(address) = parsed
        && let Some(four) = address.to_ipv4_mapped()
    {
        return Err(Some(format!("on the wire this is IPv4: write `{four}`")));
    }
    let whole = Prefix { six, bits, length: if six { 128 } else { 32 } };
    let Some(length) = length else { return Ok(whole) };
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length.parse().ok().filter(|length| digits && *length <= whole.width());
    let Some(length) = length else {
        return Err(Some(format!("the length is a number of bits, 0 to {}", whole.width())));
    };
    let prefix = Prefix { length, ..whole };
    let kept = bits & !prefix.rest();
    if kept != bits {
        let meant = Prefix { bits: kept, ..prefix };
        return Err(Some(format!("it has bits beyond the first {length}: did you mean `{meant}`?")));
    }
    Ok(prefix)
}

/// One network in both lists is a contradiction; of two that overlap the narrower one decides.
pub(super) fn check_both_lists(
    allow: Option<&[Located<Network>]>,
    deny: &[Located<Network>],
    notes: &mut Notes,
) {
    for denied in deny {
        let same = |prefix: &Prefix| denied.value.prefixes.contains(prefix);
        let allowed = allow.into_iter().flatten().find(|allowed| allowed.value.prefixes.iter().any(same));
        if let Some(allowed) = allowed {
            let (allowed, denied_name) = (&allowed.value.name, &denied.value.name);
            let message = if allowed == denied_name {
                format!("`{denied_name}` is in `ip_allow` and in `ip_deny`")
            } else {
                format!(
                    "`{denied_name}` is in `ip_deny`, and so is `{allowed}` in `ip_allow`: they are the same"
                )
            };
            let help = "the narrower network decides, and neither is; take it out of one list";
            notes.push(Diagnostic::error("conflicting-addresses", denied.at.clone(), message).help(help));
        }
    }
}

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, and MPTCP.
    Tcp,
    /// UDP, and UDP-Lite.
    Udp,
    /// Every protocol that has ports.
    Any,
}

/// One entry of `socket_bind` or `socket_connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRule {
    /// Whose ports.
    pub protocol: Protocol,
    /// The first one.
    pub first: u16,
    /// The last one, not below the first.
    pub last: u16,
}

impl Listed for PortRule {
    fn id(&self) -> String {
        let ports = match (self.first, self.last) {
            (0, u16::MAX) => "any".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        match self.protocol {
            Protocol::Tcp => format!("tcp:{ports}"),
            Protocol::Udp => format!("udp:{ports}"),
            Protocol::Any => ports,
        }
    }
}

/// How many entries `socket_bind` and `socket_connect` can have, each.
pub(super) const PORTS: usize = 512;

/// `80`, `"tcp:80"`, `"udp:5000-5999"`, `"udp:any"`.
pub(super) fn port_rule(item: &Item<'_>, notes: &mut Notes) -> Option<Located<PortRule>> {
    if item.number().is_some() {
        let port = item.integer(0_u16, u16::MAX, notes)?;
        return Some(port.map(|port| PortRule { protocol: Protocol::Any, first: port, last: port }));
    }
    if !item.value().is_str() {
        return item.wrong_type("a port, or a text such as \"tcp:80\" or \"udp:5000-5999\"", notes);
    }
    let text = item.text(notes)?;
    let (protocol, ports) = match text.value.split_once(':') {
        None => (Protocol::Any, text.value.as_str()),
        Some(("tcp", ports)) => (Protocol::Tcp, ports),
        Some(("udp", ports)) => (Protocol::Udp, ports),
        Some((other, _)) => {
            let message = format!("`{other}` is no protocol that ports can be named of");
            notes.push(unknown("unknown-value", text.at, message, other, &["tcp", "udp"]));
            return None;
        }
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let range = match ports.split_once('-') {
        _ if ports == "any" => Some((0, u16::MAX)),
        Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
        None => number(ports).map(|port| (port, port)),
    };
    let Some((first, last)) = range else {
        let message = format!("`{ports}` is no port and no range of ports");
        let label = "0 to 65535, as \"80\", \"5000-5999\" or \"any\"";
        notes.push(Diagnostic::error("invalid-port", text.at, message).label(label));
        return None;
    };
    Some(Located::new(PortRule { protocol, first, last }, text.at))
}

/// Notes a list with more entries than a program is made for.
pub(super) fn check_length<T>(key: &str, list: &[Located<T>], most: usize, notes: &mut Notes) {
    if let Some(first_too_many) = list.get(most) {
        let at: Place = first_too_many.at.clone();
        let message = format!("`cgroup.{key}` has {} entries", list.len());
        let label = format!("at most {most} can be enforced");
        notes.push(Diagnostic::error("list-too-long", at, message).label(label));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_address_and_a_length_without_further_bits() {
        for (text, expected) in [
            ("10.0.0.0/8", Ok(Prefix::four(0x0a00_0000, 8))),
            ("192.0.2.1", Ok(Prefix::four(0xc000_0201, 32))),
            ("0.0.0.0/0", Ok(Prefix::four(0, 0))),
            ("::/0", Ok(Prefix::six(0, 0))),
            ("::1", Ok(Prefix::six(1, 128))),
            ("2001:db8::/32", Ok(Prefix::six(0x2001_0db8 << 96, 32))),
            ("10.0.0.1/8", Err("`10.0.0.0/8`?")),
            ("2001:db8::1/32", Err("`2001:db8::/32`?")),
            ("10.0.0.0/33", Err("0 to 32")),
            ("::/129", Err("0 to 128")),
            ("10.0.0.0/+8", Err("0 to 32")),
            ("10.0.0.0/", Err("0 to 32")),
            ("::ffff:10.0.0.1", Err("write `10.0.0.1`")),
            ("10.0.0", Err("")),
            ("010.0.0.1", Err("")),
            ("", Err("")),
        ] {
            match (prefix(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(part)) => {
                    assert!(found.clone().unwrap_or_default().contains(part), "{text}: {found:?}");
                }
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_prefix_contains_what_begins_with_it() {
        let contains =
            |network: &str, address: &str| prefix(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.255.255") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::"));
        assert!(contains("::/0", "ffff::") && contains("::1", "::1") && !contains("::1", "::2"));
    }
}
