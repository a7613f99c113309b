//! Control messages beside datagrams (cmsg(3)): how a train is cut, and which of our own addresses datagrams come to and leave from.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const SOL_UDP: libc::c_int = 17;
pub const UDP_SEGMENT: libc::c_int = 103;
pub const UDP_GRO: libc::c_int = 104;

/// Room for the control messages of one datagram or train, aligned as C wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; 96],
}

/// What came with a datagram or train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The size that the kernel merged by, if it merged.
    pub segment: Option<usize>,
    /// Our address that it came to.
    pub local: Option<IpAddr>,
}

impl Control {
    /// Empty.
    pub const fn new() -> Self {
        Self { bytes: [0; 96] }
    }

    /// Where the kernel reads or writes.
    pub fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    /// How much it may write.
    pub const fn room(&self) -> usize {
        self.bytes.len()
    }

    /// Asks for segmentation and for a source address; returns the length. `v6`: for an IPv6 socket.
    pub fn write(&mut self, segment: Option<u16>, local: Option<IpAddr>, v6: bool) -> usize {
        let mut at = 0;
        if let Some(segment) = segment {
            at = self.push(at, SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        match local {
            None => {}
            Some(IpAddr::V4(v4)) if !v6 => {
                // in_pktinfo: interface 0 (as routed), source address, unused.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&v4.octets());
                at = self.push(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(ip) => {
                // in6_pktinfo: source address, interface 0.
                let mut info = [0; 20];
                let ip = match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                info[..16].copy_from_slice(&ip.octets());
                at = self.push(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
        at
    }

    fn push(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        const HEAD: usize = size_of::<libc::cmsghdr>();
        let len = HEAD + data.len();
        let end = at + len.next_multiple_of(size_of::<usize>());
        let Some(place) = self.bytes.get_mut(at..end) else {
            return at;
        };
        place.fill(0);
        // SAFETY: a plain C struct for which zeroes are valid: musl's has padding where the kernel has the upper half of the length.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = len as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: `place` has at least HEAD bytes; unaligned writes are asked for.
        unsafe { place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        place[HEAD..len].copy_from_slice(data);
        end
    }
}

/// Reads what the kernel put beside a datagram.
///
/// # Safety
///
/// `header`'s control buffer must be valid for the length that it names, and what stands there must be the kernel's.
pub unsafe fn read(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: as the caller vouches; the CMSG macros stay inside the buffer.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let m = message.read_unaligned();
            let data = libc::CMSG_DATA(message);
            match (m.cmsg_level, m.cmsg_type) {
                (SOL_UDP, UDP_GRO) => {
                    told.segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    told.local = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    told.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    told
}
