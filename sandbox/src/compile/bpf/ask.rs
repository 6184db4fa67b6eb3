//! What a compiled program answers to one act: it is run in the interpreter on what the kernel would show it.

use std::net::IpAddr;

use super::{
    devices::{access_bits, kind_number},
    interpreter::{Input, run},
};
use crate::{
    policy::{DeviceAccess, DeviceKind},
    sys::bpf::Instruction,
};

fn allows(program: &[Instruction], context: &[u8], packet: &[u8]) -> bool {
    run(program, Input { context, packet }) == Ok(1)
}

/// May a device be opened or made?
pub(crate) fn device(
    program: &[Instruction],
    access: DeviceAccess,
    (kind, major, minor): (DeviceKind, u32, u32),
) -> bool {
    // struct bpf_cgroup_dev_ctx
    let context = [access_bits(access) << 16 | kind_number(kind), major, minor];
    allows(program, context.map(u32::to_le_bytes).as_flattened(), &[])
}

/// May a socket of this protocol use a port?
pub(crate) fn port(program: &[Instruction], protocol: i32, port: u16) -> bool {
    // struct bpf_sock_addr: user_port in the order of the network, protocol.
    let mut context = [0; 72];
    context[24..26].copy_from_slice(&port.to_be_bytes());
    context[36..40].copy_from_slice(&protocol.to_le_bytes());
    allows(program, &context, &[])
}

/// May a packet go to an address?
pub(crate) fn destination(program: &[Instruction], address: IpAddr) -> bool {
    let (protocol, offset, octets) = match address {
        IpAddr::V4(address) => (libc::ETH_P_IP, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::ETH_P_IPV6, 24, address.octets().to_vec()),
    };
    // struct __sk_buff: protocol in the order of the network; then an IP header with nothing but this address.
    let mut context = [0; 192];
    let number = u16::try_from(protocol).unwrap_or_default();
    context[16..18].copy_from_slice(&number.to_be_bytes());
    let mut packet = [0; 40];
    packet[offset..offset + octets.len()].copy_from_slice(&octets);
    allows(program, &context, &packet)
}
