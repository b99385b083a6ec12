//! How long a connection lives without packets.
//!
//! A connection is in one [`TimeoutClass`] at any time, by its protocol and state. [`Timeouts`] has the seconds for
//! each, under the names and with the defaults of OVS's `CT_Timeout_Policy`; those of SCTP, which OVS's user-space
//! tracker does not know, are the Linux kernel's (`nf_conntrack_sctp_timeout_*`).

use std::fmt;

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $seconds:literal;)+) => {
        /// What of a connection decides how long it lives without packets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum TimeoutClass {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl TimeoutClass {
            /// Every class, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in settings.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Seconds by default.
            pub const fn default_seconds(self) -> u32 {
                match self { $(Self::$variant => $seconds),+ }
            }
        }
    };
}

classes! {
    /// TCP: only the first SYN was seen, once or more often.
    TcpSynSent = "tcp_syn_sent", 30;
    /// TCP: the handshake is not complete.
    TcpSynRecv = "tcp_syn_recv", 30;
    /// TCP: both ends are established.
    TcpEstablished = "tcp_established", 86_400;
    /// TCP: one end has sent its FIN.
    TcpFinWait = "tcp_fin_wait", 900;
    /// TCP: both ends have sent their FIN.
    TcpTimeWait = "tcp_time_wait", 45;
    /// TCP: both FINs are acknowledged, or there was a RST.
    TcpClose = "tcp_close", 30;
    /// UDP and protocols without states of their own: one packet.
    UdpFirst = "udp_first", 60;
    /// Likewise: more packets, all in one direction.
    UdpSingle = "udp_single", 60;
    /// Likewise: packets in both directions.
    UdpMultiple = "udp_multiple", 30;
    /// ICMP and ICMPv6: not answered.
    IcmpFirst = "icmp_first", 60;
    /// ICMP and ICMPv6: answered.
    IcmpReply = "icmp_reply", 30;
    /// SCTP: aborted, or not begun.
    SctpClosed = "sctp_closed", 10;
    /// SCTP: INIT was sent.
    SctpCookieWait = "sctp_cookie_wait", 3;
    /// SCTP: COOKIE ECHO was sent.
    SctpCookieEchoed = "sctp_cookie_echoed", 3;
    /// SCTP: established.
    SctpEstablished = "sctp_established", 210;
    /// SCTP: the end that began has sent SHUTDOWN.
    SctpShutdownSent = "sctp_shutdown_sent", 3;
    /// SCTP: the other end has sent SHUTDOWN.
    SctpShutdownRecd = "sctp_shutdown_recd", 3;
    /// SCTP: SHUTDOWN ACK was sent.
    SctpShutdownAckSent = "sctp_shutdown_ack_sent", 3;
    /// SCTP: only a HEARTBEAT was seen.
    SctpHeartbeatSent = "sctp_heartbeat_sent", 30;
}

impl TimeoutClass {
    /// Number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// The class with this name in settings.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.name() == name)
    }

    /// Whether a connection in this class may make room for another: the other side has not answered, the handshake is
    /// not complete, or it is over.
    pub const fn is_unassured(self) -> bool {
        match self {
            Self::TcpSynSent
            | Self::TcpSynRecv
            | Self::TcpTimeWait
            | Self::TcpClose
            | Self::UdpFirst
            | Self::UdpSingle
            | Self::IcmpFirst
            | Self::SctpClosed
            | Self::SctpCookieWait
            | Self::SctpCookieEchoed
            | Self::SctpHeartbeatSent => true,
            Self::TcpEstablished
            | Self::TcpFinWait
            | Self::UdpMultiple
            | Self::IcmpReply
            | Self::SctpEstablished
            | Self::SctpShutdownSent
            | Self::SctpShutdownRecd
            | Self::SctpShutdownAckSent => false,
        }
    }
}

impl fmt::Display for TimeoutClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Seconds for every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; TimeoutClass::COUNT]);

impl Timeouts {
    /// The seconds of a class.
    #[inline]
    pub const fn get(&self, class: TimeoutClass) -> u32 {
        self.0[class as usize]
    }

    /// Sets the seconds of a class.
    pub const fn set(&mut self, class: TimeoutClass, seconds: u32) {
        self.0[class as usize] = seconds;
    }

    /// Classes and seconds, in the order of [`TimeoutClass::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (TimeoutClass, u32)> {
        TimeoutClass::ALL.iter().copied().zip(self.0)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let mut seconds = [0; TimeoutClass::COUNT];
        for class in TimeoutClass::ALL {
            seconds[*class as usize] = class.default_seconds();
        }
        Self(seconds)
    }
}
