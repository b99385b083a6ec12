//! How a connection is, in the words that people are shown.

use super::Seen;
use super::conn::{Conn, Protocol};
use super::sctp::Association;
use super::tcp::TcpEnd;
use sluice_flows::action::CtAlg;

/// Names of the states of connections, as OVS's `dump-conntrack` has them: those of TCP and SCTP, and of a connection
/// without states of its own how much was seen of it.
pub(super) const STATES: [&str; 21] = [
    "CLOSED",
    "LISTEN",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "CLOSE_WAIT",
    "FIN_WAIT_1",
    "CLOSING",
    "LAST_ACK",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
    "FIRST",
    "MULTIPLE",
    "BIDIR",
];

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnState {
    /// Of TCP: of the end that began, and of the other.
    Tcp([TcpEnd; 2]),
    /// Of SCTP, and whether the other side has answered.
    Sctp(Association, bool),
    /// Of everything without states of its own.
    Plain(Seen),
}

impl TcpEnd {
    /// The state as OVS names it.
    pub const fn name(self) -> &'static str {
        STATES[self as usize]
    }

    /// The state with this number; [`TcpEnd::TimeWait`] for those above.
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Closed,
            1 => Self::Listen,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::Established,
            5 => Self::CloseWait,
            6 => Self::FinWait1,
            7 => Self::Closing,
            8 => Self::LastAck,
            9 => Self::FinWait2,
            _ => Self::TimeWait,
        }
    }
}

impl Association {
    /// The state as OVS names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownReceived => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }
}

impl ConnState {
    /// One word for it. Of TCP that of the end that is further on, with `SYN_RECV` told as `ESTABLISHED` and
    /// `FIN_WAIT_2` as `TIME_WAIT`, as `dump-conntrack` does.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp([original, reply]) => match original.max(reply) {
                TcpEnd::SynReceived => TcpEnd::Established.name(),
                TcpEnd::FinWait2 => TcpEnd::TimeWait.name(),
                end => end.name(),
            },
            Self::Sctp(association, _) => association.name(),
            Self::Plain(Seen::First) => "FIRST",
            Self::Plain(Seen::Multiple) => "MULTIPLE",
            Self::Plain(Seen::Both) => "BIDIR",
        }
    }

    /// Whether the other side has answered.
    pub fn is_replied(self) -> bool {
        match self {
            Self::Tcp([_, reply]) => reply > TcpEnd::Closed,
            Self::Sctp(_, replied) => replied,
            Self::Plain(seen) => seen == Seen::Both,
        }
    }
}

impl Conn {
    /// Its state now.
    pub fn state(&self) -> ConnState {
        match &self.protocol {
            Protocol::Tcp(tcp) => ConnState::Tcp([tcp.ends[0].state(), tcp.ends[1].state()]),
            Protocol::Sctp(sctp) => ConnState::Sctp(sctp.association(), sctp.is_replied()),
            Protocol::Plain(seen) => ConnState::Plain(seen.get()),
        }
    }

    /// Of TCP, the window scales that the two ends have offered, the one that began first.
    pub fn window_scales(&self) -> [Option<u8>; 2] {
        match &self.protocol {
            Protocol::Tcp(tcp) => [tcp.ends[0].scale(), tcp.ends[1].scale()],
            _ => [None; 2],
        }
    }

    /// The helper that reads its payload, by name.
    pub fn alg(&self) -> Option<&'static str> {
        self.helper.as_ref().map(|helper| match helper.alg() {
            CtAlg::Ftp => "ftp",
            CtAlg::Tftp => "tftp",
        })
    }

    /// Whether source address or port of the original direction's packets are replaced.
    pub fn is_snat(&self) -> bool {
        let (sent, answered) = (&self.original, &self.reply);
        sent.src() != answered.dst() || !sent.is_icmp() && sent.src_port != answered.dst_port
    }

    /// Whether destination address or port of the original direction's packets are replaced.
    pub fn is_dnat(&self) -> bool {
        let (sent, answered) = (&self.original, &self.reply);
        sent.dst() != answered.src() || !sent.is_icmp() && sent.dst_port != answered.src_port
    }
}
