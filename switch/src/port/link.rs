//! A network interface of the kernel's, asked and told by ioctl.
//!
//! Ioctls serve where a few values of one interface are wanted, without a netlink socket and its messages. A [`Link`]
//! keeps a socket of the network namespace that it was opened in, so it works from any thread afterwards, and it goes by
//! index, so it survives a new name.

use super::sys::{IfOp, IfReq, if_ioctl};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

/// An interface in the network namespace that it was opened in.
#[derive(Debug)]
pub struct Link {
    socket: UnixDatagram,
    index: i32,
}

impl Link {
    /// The interface `name` in the calling thread's network namespace.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn open(name: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let mut req = IfReq::named(name);
        if_ioctl(socket.as_fd(), IfOp::GetIndex, &mut req)?;
        Ok(Self { socket, index: req.number() })
    }

    /// The interface with this index in the calling thread's network namespace.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn at(index: u32) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let link = Self { socket: UnixDatagram::unbound()?, index };
        link.name().map(|_| link)
    }

    /// The interface's index, 1 or more.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The interface's name now.
    ///
    /// # Errors
    /// `ENODEV` when the interface is gone, as with all that follow.
    pub fn name(&self) -> io::Result<String> {
        let mut req = IfReq::named("");
        req.set_number(self.index);
        if_ioctl(self.socket.as_fd(), IfOp::GetName, &mut req)?;
        Ok(req.name())
    }

    /// Longest network-layer packet, in bytes.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn mtu(&self) -> io::Result<u32> {
        Ok(self.get(IfOp::GetMtu)?.number().max(0) as u32)
    }

    /// Sets the MTU.
    ///
    /// # Errors
    /// `EINVAL` when out of the device's range, `EPERM`, `ENODEV`.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let value = i32::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        self.set(IfOp::SetMtu, |req| req.set_number(value))
    }

    /// Hardware address.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn mac(&self) -> io::Result<[u8; 6]> {
        Ok(self.get(IfOp::GetMac)?.mac())
    }

    /// Sets the hardware address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` for a group address, `EPERM`, `ENODEV`.
    pub fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        self.set(IfOp::SetMac, |req| req.set_mac(mac))
    }

    /// Whether the interface is administratively up.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn is_up(&self) -> io::Result<bool> {
        self.has_flags(libc::IFF_UP)
    }

    /// Whether the interface is up and has a carrier.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn is_running(&self) -> io::Result<bool> {
        self.has_flags(libc::IFF_UP | libc::IFF_RUNNING)
    }

    /// Sets the interface administratively up or down.
    ///
    /// # Errors
    /// `EPERM`, `ENODEV`.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        let mut req = self.get(IfOp::GetFlags)?;
        let bit = libc::IFF_UP as u16;
        req.set_flags(if up { req.flags() | bit } else { req.flags() & !bit });
        if_ioctl(self.socket.as_fd(), IfOp::SetFlags, &mut req)
    }

    fn has_flags(&self, wanted: libc::c_int) -> io::Result<bool> {
        let flags = libc::c_int::from(self.get(IfOp::GetFlags)?.flags());
        Ok(flags & wanted == wanted)
    }

    fn get(&self, op: IfOp) -> io::Result<IfReq> {
        let mut req = IfReq::named(&self.name()?);
        if_ioctl(self.socket.as_fd(), op, &mut req)?;
        Ok(req)
    }

    fn set(&self, op: IfOp, fill: impl FnOnce(&mut IfReq)) -> io::Result<()> {
        let mut req = IfReq::named(&self.name()?);
        fill(&mut req);
        if_ioctl(self.socket.as_fd(), op, &mut req)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_described() {
        let link = Link::open("lo").unwrap();
        assert_eq!(link.name().unwrap(), "lo");
        assert!(link.mtu().unwrap() >= 1500);
        assert_eq!(link.mac().unwrap(), [0; 6]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_to_be_missing() {
        assert_eq!(Link::open("no-such-link").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
