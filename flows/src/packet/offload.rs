//! What the sender left for the output to do: checksums not yet filled in, a super-frame not yet cut.
//!
//! The data is that of a virtio-net header (VIRTIO 1.2, 5.1.6), which TAP and AF_PACKET speak. It travels with the
//! frame, so that an output that can do the work in the kernel is handed the frame as it came.

/// Which protocol a super-frame is to be cut as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GsoKind {
    /// Not a super-frame.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, cut into datagrams of `gso_size` payload bytes (Linux `UDP_SEGMENT`), over either IP version.
    Udp,
}

/// Offload metadata of one frame. All offsets count from the first byte of the Ethernet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// How to cut the frame, if it is a super-frame.
    pub gso: GsoKind,
    /// The first segment carries CWR and the others must not (virtio's `GSO_ECN`).
    pub gso_ecn: bool,
    /// The transport checksum is partial: the field at `csum_start + csum_offset` holds the pseudo-header's sum, and
    /// the sum over everything from `csum_start` is still to be added.
    pub csum_partial: bool,
    /// The sender vouches for the transport checksum (virtio's `DATA_VALID`).
    pub csum_valid: bool,
    /// Payload bytes in each segment, 1 to 65,535; 0 when not a super-frame.
    pub gso_size: u16,
    /// Length of all headers up to the payload, a hint from the sender; 0 when unknown.
    pub hdr_len: u16,
    /// Where the checksum starts, when `csum_partial`.
    pub csum_start: u16,
    /// Where the checksum field is, from `csum_start`, when `csum_partial`.
    pub csum_offset: u16,
}

impl Offload {
    /// Nothing is left to do.
    pub const NONE: Self = Self {
        gso: GsoKind::None,
        gso_ecn: false,
        csum_partial: false,
        csum_valid: false,
        gso_size: 0,
        hdr_len: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// The metadata once the transport checksum is complete.
    pub(super) fn filled(mut self) -> Self {
        if self.csum_partial {
            (self.csum_partial, self.csum_start, self.csum_offset) = (false, 0, 0);
        }
        self
    }

    /// Adjusts the offsets after `delta` bytes were inserted (positive) or removed (negative) in front of the network
    /// header.
    pub fn shift(&mut self, delta: i16) {
        if self.csum_partial {
            self.csum_start = self.csum_start.saturating_add_signed(delta);
        }
        if self.hdr_len != 0 {
            self.hdr_len = self.hdr_len.saturating_add_signed(delta);
        }
    }
}
