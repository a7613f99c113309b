//! The TUN device (Documentation/networking/tuntap.rst), with virtio headers and offloads where the kernel has them.

use super::{check, check_len};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use thicket_core::TunFeatures;
use thicket_core::wire::VNET_HEADER;

const IFF_TUN: libc::c_short = 0x0001;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_VNET_HDR: libc::c_short = 0x4000;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_TSO_ECN: libc::c_uint = 0x08;
/// Not in Debian 12's headers: Linux 6.2.
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// How far offloading may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunOffload {
    /// As much as the kernel takes.
    Auto,
    /// Plain packets without a virtio header.
    Off,
}

/// An open TUN device; gone when dropped.
pub struct Tun {
    file: File,
    name: String,
    vnet: bool,
    features: TunFeatures,
}

#[repr(C)]
struct IfReq {
    name: [libc::c_char; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

impl Tun {
    /// Creates (or attaches to) the device `name`, with so many queues if the kernel has several, else with one.
    pub fn open_queues(name: &str, offload: TunOffload, queues: usize) -> io::Result<Vec<Self>> {
        if queues > 1 {
            // The first gives the device its name, if that is a pattern. A device of one queue that exists already, or an old kernel, refuses.
            let first = Self::open_as(name, offload, IFF_MULTI_QUEUE);
            let all = first.and_then(|first| {
                let others: Vec<_> = (1..queues)
                    .map(|_| Self::open_as(&first.name, offload, IFF_MULTI_QUEUE))
                    .collect::<io::Result<_>>()?;
                Ok([first].into_iter().chain(others).collect())
            });
            match all {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG)) => {}
                result => return result,
            }
        }
        Ok(vec![Self::open(name, offload)?])
    }

    /// Creates (or attaches to) the device `name`.
    pub fn open(name: &str, offload: TunOffload) -> io::Result<Self> {
        Self::open_as(name, offload, 0)
    }

    fn open_as(name: &str, offload: TunOffload, flags: libc::c_short) -> io::Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an interface name has 1 to 15 bytes",
            ));
        }
        if offload == TunOffload::Auto {
            match Self::attach(name, flags, true) {
                Ok(tun) => return Ok(tun),
                // Virtio headers, or the calls about them, are unknown here.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Self::attach(name, flags, false)
    }

    fn attach(name: &str, flags: libc::c_short, vnet: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request = IfReq {
            name: [0; libc::IFNAMSIZ],
            flags: IFF_TUN | IFF_NO_PI | flags,
            padding: [0; 22],
        };
        if vnet {
            request.flags |= IFF_VNET_HDR;
        }
        for (place, byte) in request.name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        // SAFETY: TUNSETIFF reads and writes a struct ifreq (40 bytes), which `request` is.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &mut request) })?;
        let name: Vec<u8> = request.name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        let mut tun = Self {
            file,
            name: String::from_utf8_lossy(&name).into_owned(),
            vnet,
            features: TunFeatures::default(),
        };
        if vnet {
            tun.offload()?;
        } else {
            // A device that outlived an earlier run still has that one's offloads: packets without a header must come whole. An error: it knows none.
            let _ = tun.set_offload(0);
        }
        Ok(tun)
    }

    /// Asks for less and less until the kernel agrees.
    fn offload(&mut self) -> io::Result<()> {
        let size = VNET_HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETVNETHDRSZ as _, &size) })?;
        let tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        let mut result = Ok(());
        for (flags, tso, uso) in [
            (tso | TUN_F_USO4 | TUN_F_USO6, true, true),
            (tso, true, false),
            (TUN_F_CSUM, false, false),
            (0, false, false),
        ] {
            result = self.set_offload(flags);
            if result.is_ok() {
                // A virtio header may say NEEDS_CSUM on writing whatever was negotiated for reading.
                let checksum = true;
                self.features = TunFeatures { checksum, tso, uso };
                break;
            }
        }
        result
    }

    /// What the kernel may leave to us in packets that we read.
    fn set_offload(&self, flags: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) }).map(drop)
    }

    /// The name that the kernel gave.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What may be written.
    pub fn features(&self) -> TunFeatures {
        self.features
    }

    /// Whether packets have a virtio header before them.
    pub fn has_vnet_header(&self) -> bool {
        self.vnet
    }

    /// Reads one packet, virtio header first where there is one. `WouldBlock` when none waits.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: `buffer` is valid for its length.
        check_len(unsafe { libc::read(self.file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// Writes one packet from pieces.
    pub fn write(&self, pieces: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: callers build `pieces` from live slices (see `iovec`).
        check_len(unsafe { libc::writev(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) })
    }

    /// One piece for [`Tun::write`], good while `bytes` is borrowed.
    pub fn piece(bytes: &[u8]) -> libc::iovec {
        libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        }
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
