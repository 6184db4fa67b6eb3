//! `socket_bind` and `socket_connect`: which ports sockets may use (BPF_PROG_TYPE_CGROUP_SOCK_ADDR).

use super::assembler::*;
use crate::{
    diagnostic::Located,
    policy::{PortRule, Protocol},
    sys::bpf::Instruction,
};

/// The numbers that a socket's protocol has for each: MPTCP begins as TCP and may fall back to it, UDP-Lite is UDP.
const TCP: [i32; 2] = [libc::IPPROTO_TCP, libc::IPPROTO_MPTCP];
const UDP: [i32; 2] = [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE];

/// Finds the port among the ranges of the socket's protocol.
pub(super) fn program(rules: &[Located<PortRule>]) -> Vec<Instruction> {
    // struct bpf_sock_addr: `protocol`, and `user_port` in the order of the network.
    const PROTOCOL: i16 = 36;
    const PORT: i16 = 24;
    let mut code = vec![load(op::LOAD_32, R2, R1, PROTOCOL), load(op::LOAD_32, R6, R1, PORT)];
    code.push(with(op::BIG_ENDIAN, R6, 16));
    for (numbers, protocol) in [(TCP, Protocol::Tcp), (UDP, Protocol::Udp)] {
        let own = ports(rules, protocol);
        code.push(jump(op::IF_EQUAL, R2, numbers[0], 1));
        code.push(jump(op::IF_NOT_EQUAL, R2, numbers[1], own.len()));
        code.extend(own);
    }
    // SCTP, DCCP, the sockets of ping: what is allowed for every protocol.
    code.extend(ports(rules, Protocol::Any));
    code
}

fn ports(rules: &[Located<PortRule>], protocol: Protocol) -> Vec<Instruction> {
    let fits = |rule: &PortRule| rule.protocol == protocol || rule.protocol == Protocol::Any;
    let rules: Vec<PortRule> = rules.iter().map(|rule| rule.value).filter(fits).collect();
    let ends = rules.iter().filter_map(|rule| rule.last.checked_add(1));
    let points = [0].into_iter().chain(rules.iter().map(|rule| rule.first)).chain(ends).collect();
    let ranges = ranges(points, |port| rules.iter().any(|rule| (rule.first..=rule.last).contains(&port)));
    tree(&ranges, &|from, distance| vec![jump(op::IF_AT_LEAST_32, R6, from.into(), distance)])
}
