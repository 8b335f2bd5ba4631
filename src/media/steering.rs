//! Keeps RTCP apart: a second socket on a shard's port, to which the kernel gives RTCP and nothing else.
//!
//! Of what a forwarding server receives most is feedback of its viewers, a datagram each from everyone ten
//! or more times a second, and none of it is urgent to the millisecond. If each of them woke the shard,
//! waking would cost more than reading. The second socket wakes nobody; the shard looks into it when it is
//! up anyway.
//!
//! Both sockets are one `SO_REUSEPORT` group, in which a classic BPF program chooses (socket(7)). What it
//! gets wrong costs some delay, no more: whatever comes out of either socket goes the same way.

use std::io;

use socket2::Socket;

/// Makes `apart` the second of the group that begins with `first`, which is bound already, so that no other
/// process can have had its port. Bind `apart` to the same address afterwards, then call [`divide`].
///
/// # Errors
/// The system knows no such groups.
#[cfg(target_os = "linux")]
pub fn prepare(first: &Socket, apart: &Socket) -> io::Result<()> {
    first.set_reuse_port(true)?;
    apart.set_reuse_port(true)
}

/// Gives RTCP to the second socket of the group that `first` began, and everything else to itself.
///
/// # Errors
/// The system takes no program.
#[cfg(target_os = "linux")]
pub fn divide(first: &Socket) -> io::Result<()> {
    use nix::libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET,
    };
    use nix::libc::{c_ushort, sock_filter, sock_fprog};
    use nix::sys::socket::{setsockopt, sockopt};

    const FIRST: u32 = 0;
    const SECOND: u32 = 1;
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    // RFC 7983: RTP and RTCP begin with the bits 10. RFC 5761 §4: the second byte of RTCP is 192 to 223. A
    // datagram that is too short ends the program with 0.
    let mut program = [
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        step(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xc0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 0x80),
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 1),
        step(BPF_JMP | BPF_JGE | BPF_K, 0, 2, 192),
        step(BPF_JMP | BPF_JGT | BPF_K, 1, 0, 223),
        step(BPF_RET | BPF_K, 0, 0, SECOND),
        step(BPF_RET | BPF_K, 0, 0, FIRST),
    ];
    let program = sock_fprog { len: program.len() as c_ushort, filter: program.as_mut_ptr() };
    setsockopt(first, sockopt::AttachReusePortCbpf, &program).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
pub fn prepare(_first: &Socket, _apart: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub fn divide(_first: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
