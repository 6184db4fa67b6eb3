//! `ip_allow` and `ip_deny`: whom packets may go to and come from (BPF_PROG_TYPE_CGROUP_SKB).
//!
//! Of the networks that hold an address the narrowest decides, as routes do; where none holds it, it is denied if there
//! is a list of what is allowed. So `ip_deny` alone denies what it names, `ip_allow` alone allows nothing else, and of
//! `ip_allow = ["10.0.0.0/8"]`, `ip_deny = ["10.0.0.1"]` either means what it says, in either order of width.

use std::net::IpAddr;

use super::assembler::*;
use crate::{
    diagnostic::Place,
    policy::{CgroupLimits, Prefix},
    sys::bpf::Instruction,
};

/// Which address of a packet is the other side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Its source.
    In,
    /// Its destination.
    Out,
}

/// Networks and their verdicts, the narrowest first.
#[derive(Debug)]
pub(crate) struct Table<'p> {
    rows: Vec<Row<'p>>,
    /// There is a list of what is allowed, so nothing else is.
    closed: bool,
}

/// One network.
#[derive(Debug)]
pub(crate) struct Row<'p> {
    pub(crate) prefix: Prefix,
    pub(crate) allowed: bool,
    pub(crate) at: &'p Place,
}

impl<'p> Table<'p> {
    pub(crate) fn of(cgroup: &'p CgroupLimits) -> Self {
        let allow = cgroup.ip_allow.iter().flat_map(|list| &list.value).map(|network| (network, true));
        let deny = cgroup.ip_deny.iter().map(|network| (network, false));
        let mut rows: Vec<Row<'p>> = allow
            .chain(deny)
            .flat_map(|(network, allowed)| {
                let row = move |prefix: &Prefix| Row { prefix: *prefix, allowed, at: &network.at };
                network.value.prefixes.iter().map(row)
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.prefix.length));
        Self { rows, closed: cgroup.ip_allow.is_some() }
    }

    /// The row that decides, if one holds the address, and the verdict.
    pub(crate) fn verdict(&self, address: IpAddr) -> (Option<&Row<'p>>, bool) {
        let row = self.rows.iter().find(|row| row.prefix.contains(address));
        (row, row.map_or(!self.closed, |row| row.allowed))
    }

    /// Whether any address at all is left.
    pub(crate) fn allows_any(&self) -> bool {
        [false, true].iter().any(|six| self.ranges(*six).iter().any(|range| range.allowed))
    }

    /// Looks at the version of a packet, loads its address, and finds that among the ranges.
    pub(super) fn program(&self, direction: Direction) -> Vec<Instruction> {
        // struct __sk_buff: `protocol`, in the order of the network.
        const PROTOCOL: i16 = 16;
        let (four, six) = (self.four(direction), self.six(direction));
        let mut code = vec![on(op::MOVE_REGISTER, R6, R1), load(op::LOAD_32, R7, R6, PROTOCOL)];
        code.push(with(op::BIG_ENDIAN, R7, 16));
        code.push(jump(op::IF_NOT_EQUAL, R7, libc::ETH_P_IP, four.len()));
        code.extend(four);
        code.push(jump(op::IF_NOT_EQUAL, R7, libc::ETH_P_IPV6, six.len()));
        code.extend(six);
        // Neither: the sockets of both families carry nothing else.
        code.extend(answer(false));
        code
    }

    fn ranges(&self, six: bool) -> Vec<Range<u128>> {
        let rows: Vec<&Row<'p>> = self.rows.iter().filter(|row| row.prefix.six == six).collect();
        let highest = if six { u128::MAX } else { u32::MAX.into() };
        let mut points = vec![0];
        for row in &rows {
            points.push(row.prefix.bits);
            let last = row.prefix.bits | row.prefix.rest();
            points.extend((last < highest).then(|| last + 1));
        }
        ranges(points, |point| {
            let row = rows.iter().find(|row| point & !row.prefix.rest() == row.prefix.bits);
            row.map_or(!self.closed, |row| row.allowed)
        })
    }

    fn four(&self, direction: Direction) -> Vec<Instruction> {
        // struct iphdr: saddr, daddr.
        let mut code = address(if direction == Direction::In { 12 } else { 16 }, 4);
        code.push(load(op::LOAD_32, R6, R10, -16));
        code.push(with(op::BIG_ENDIAN, R6, 32));
        code.extend(tree(&self.ranges(false), &|from, distance| {
            let from = u32::try_from(from).expect("ranges of IPv4 begin within 32 bits");
            vec![jump(op::IF_AT_LEAST_32, R6, from.cast_signed(), distance)]
        }));
        code
    }

    fn six(&self, direction: Direction) -> Vec<Instruction> {
        // struct ipv6hdr: saddr, daddr.
        let mut code = address(if direction == Direction::In { 8 } else { 24 }, 16);
        for (register, offset) in [(R6, -16), (R7, -8)] {
            code.push(load(op::LOAD_64, register, R10, offset));
            code.push(with(op::BIG_ENDIAN, register, 64));
        }
        code.extend(tree(&self.ranges(true), &at_least_wide));
        code
    }
}

/// Copies an address to the stack; a packet that is too short for it is denied.
fn address(offset: i32, length: i32) -> Vec<Instruction> {
    let mut code = vec![
        on(op::MOVE_REGISTER, R1, R6),
        with(op::MOVE, R2, offset),
        on(op::MOVE_REGISTER, R3, R10),
        with(op::ADD, R3, -16),
        with(op::MOVE, R4, length),
        with(op::CALL, R0, SKB_LOAD_BYTES),
        jump(op::IF_EQUAL, R0, 0, answer(false).len()),
    ];
    code.extend(answer(false));
    code
}

/// Over `distance` instructions unless the address in R6 and R7 is below `from`.
fn at_least_wide(from: u128, distance: usize) -> Vec<Instruction> {
    let high = u64::try_from(from >> 64).unwrap_or(u64::MAX);
    let low = u64::try_from(from & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    let mut code = wide(R3, high).to_vec();
    if low == 0 {
        code.push(jump_on(op::IF_AT_LEAST_REGISTER, R6, R3, distance));
        return code;
    }
    let [first, second] = wide(R3, low);
    // Two of the wide number and its comparison lie between a jump here and what is below.
    code.push(jump_on(op::IF_ABOVE_REGISTER, R6, R3, distance + 4));
    code.push(jump_on(op::IF_BELOW_REGISTER, R6, R3, 3));
    code.push(first);
    code.push(second);
    code.push(jump_on(op::IF_AT_LEAST_REGISTER, R7, R3, distance));
    code
}
