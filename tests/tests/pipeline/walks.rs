//! The packets that are followed through the example, as its README tells their ways.

use sluice_flows::DropReason;

/// A packet, and its way.
pub(crate) struct Walk {
    /// Who sends what to whom.
    pub(crate) name: &'static str,
    /// The packet as it comes in.
    pub(crate) packet: &'static str,
    /// Its passes through the tables.
    pub(crate) passes: &'static [Leg],
}

/// One pass.
pub(crate) struct Leg {
    /// What the connection tracker says before it, in OVS's words; nothing before the first.
    pub(crate) state: &'static str,
    /// What the tracker has changed in a packet of a connection that it knows: addresses put back, and the mark.
    pub(crate) known: &'static str,
    /// The tables.
    pub(crate) tables: &'static [u8],
}

/// The first pass.
const fn first(tables: &'static [u8]) -> Leg {
    Leg { state: "", known: "", tables }
}

/// A later pass of the first packet of a connection.
const fn new(tables: &'static [u8]) -> Leg {
    Leg { state: "trk,new", known: "", tables }
}

/// A later pass of an answer.
const fn answer(known: &'static str, tables: &'static [u8]) -> Leg {
    Leg { state: "trk,est,rpl", known, tables }
}

/// What a Pod sends, up to the tracker.
const FROM_POD: &[u8] = &[0, 1, 4, 5, 6, 7, 8, 9];
/// What comes by the tunnel, up to the tracker.
const FROM_TUNNEL: &[u8] = &[0, 1, 4, 8, 9];

pub(crate) const WALKS: &[Walk] = &[
    Walk {
        name: "api-0 to web-1 on the other Node",
        packet: "in_port=4,tcp,dl_src=0a:00:00:00:01:0b,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.11,nw_dst=10.10.2.20,\
                 nw_ttl=64,tp_src=40000,tp_dst=8080,tcp_flags=syn",
        passes: &[
            first(FROM_POD),
            new(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
            new(&[21, 22, 25, 26, 27, 28, 29, 30, 34, 35]),
            new(&[36, 37]),
        ],
    },
    Walk {
        name: "web-1's answer, by the tunnel",
        packet: "in_port=32768,tcp,tun_src=172.18.0.3,tun_dst=172.18.0.2,dl_src=0e:00:00:00:02:01,\
                 dl_dst=aa:bb:cc:dd:ee:ff,nw_src=10.10.2.20,nw_dst=10.10.1.11,nw_ttl=63,tp_src=8080,tp_dst=40000,\
                 tcp_flags=syn|ack",
        passes: &[
            first(FROM_TUNNEL),
            answer("ct_mark=0x3", &[10, 17, 18, 21, 22, 25, 26, 27, 28, 29, 30, 31, 34, 35, 36, 37]),
        ],
    },
    Walk {
        name: "api-1 of the other Node to web-0",
        packet: "in_port=32768,tcp,tun_src=172.18.0.3,tun_dst=172.18.0.2,dl_src=0e:00:00:00:02:01,\
                 dl_dst=aa:bb:cc:dd:ee:ff,nw_src=10.10.2.22,nw_dst=10.10.1.10,nw_ttl=63,tp_src=40000,tp_dst=8080,\
                 tcp_flags=syn",
        passes: &[
            first(FROM_TUNNEL),
            new(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 25, 26, 27, 28, 29, 30, 31, 32]),
            new(&[34, 35]),
            new(&[36, 37]),
        ],
    },
    Walk {
        name: "web-0's answer, out by the tunnel",
        packet: "in_port=3,tcp,dl_src=0a:00:00:00:01:0a,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.10,nw_dst=10.10.2.22,\
                 nw_ttl=64,tp_src=8080,tp_dst=40000,tcp_flags=syn|ack",
        passes: &[
            first(FROM_POD),
            answer("ct_mark=0x1", &[10, 17, 18, 21, 22, 25, 26, 27, 28, 29, 30, 34, 35, 36, 37]),
        ],
    },
    Walk {
        name: "web-0 to shop/metrics, which is web-0",
        packet: "in_port=3,tcp,dp_hash=1,dl_src=0a:00:00:00:01:0a,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.10,\
                 nw_dst=10.96.0.40,nw_ttl=64,tp_src=40000,tp_dst=9090,tcp_flags=syn",
        passes: &[
            first(FROM_POD),
            new(&[10, 11, 12, 13, 14, 16]),
            new(&[17, 18, 19, 20, 21, 22, 25, 26]),
            new(&[27]),
            new(&[28, 29, 30, 35, 36, 37]),
        ],
    },
    Walk {
        name: "web-0's answer to itself",
        packet: "in_port=3,tcp,dl_src=0a:00:00:00:01:0a,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.10,nw_dst=10.10.1.1,\
                 nw_ttl=64,tp_src=9090,tp_dst=40000,tcp_flags=syn|ack",
        passes: &[
            first(&[0, 1, 4, 5, 6, 7, 8]),
            answer("ct_mark=0x70,nw_dst=10.10.1.10", &[9]),
            answer("ct_mark=0x73,nw_src=10.96.0.40", &[10, 17, 18, 21, 22, 25, 26, 27, 28, 29, 30, 35, 36, 37]),
        ],
    },
    Walk {
        name: "from outside to port 30443, whose endpoint is on the other Node",
        packet: "in_port=32769,tcp,dp_hash=1,dl_src=0e:00:00:00:01:01,dl_dst=aa:bb:cc:dd:ee:ff,nw_src=192.0.2.50,\
                 nw_dst=169.254.0.252,nw_ttl=63,tp_src=40000,tp_dst=30443,tcp_flags=syn",
        passes: &[
            first(FROM_POD),
            new(&[10, 11, 12, 13, 14, 16]),
            new(&[17, 18, 19, 20, 21, 22, 25, 26]),
            new(&[27]),
            new(&[28, 29, 30, 31, 32, 33, 34, 35, 36, 37]),
        ],
    },
    Walk {
        name: "web-1's answer to outside, by the tunnel",
        packet: "in_port=32768,tcp,tun_src=172.18.0.3,tun_dst=172.18.0.2,dl_src=0e:00:00:00:02:01,\
                 dl_dst=aa:bb:cc:dd:ee:ff,nw_src=10.10.2.20,nw_dst=10.10.1.1,nw_ttl=63,tp_src=8443,tp_dst=40000,\
                 tcp_flags=syn|ack",
        passes: &[
            first(&[0, 1, 4, 8]),
            answer("ct_mark=0x30,nw_dst=192.0.2.50", &[9]),
            answer(
                "ct_mark=0x32,nw_src=169.254.0.252,tp_src=30443",
                &[10, 17, 18, 21, 22, 25, 26, 27, 28, 29, 30, 34, 35, 36, 37],
            ),
        ],
    },
];

/// Packets that do not arrive, the owner of the rule that decides, and its reason.
pub(crate) const DENIED: &[(Walk, &str, DropReason)] = &[
    (
        Walk {
            name: "web-0 with another address",
            packet: "in_port=3,tcp,dl_src=0a:00:00:00:01:0a,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.99,\
                     nw_dst=10.10.2.20,nw_ttl=64,tp_src=40000,tp_dst=80",
            passes: &[first(&[0, 1, 4, 5])],
        },
        "builtin:SpoofGuard",
        DropReason::SpoofGuard,
    ),
    (
        Walk {
            name: "db-0 with web-0's address, by ARP",
            packet: "in_port=5,arp,dl_src=0a:00:00:00:01:0c,dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa=10.10.1.10,\
                     arp_tpa=10.10.1.1,arp_sha=0a:00:00:00:01:0c",
            passes: &[first(&[0, 1, 2])],
        },
        "builtin:ARPSpoofGuard",
        DropReason::SpoofGuard,
    ),
    (
        Walk {
            name: "web-0 to the cloud's metadata: a tiered rule",
            packet: "in_port=3,tcp,dl_src=0a:00:00:00:01:0a,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.10,\
                     nw_dst=169.254.169.254,nw_ttl=64,tp_src=40000,tp_dst=80",
            passes: &[first(FROM_POD), new(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 21])],
        },
        "np:cluster/no-metadata#1",
        DropReason::PolicyDeny,
    ),
    (
        Walk {
            name: "api-0 to web-1 on a port that no rule allows: isolation",
            packet: "in_port=4,tcp,dl_src=0a:00:00:00:01:0b,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.11,\
                     nw_dst=10.10.2.20,nw_ttl=64,tp_src=40000,tp_dst=80",
            passes: &[first(FROM_POD), new(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])],
        },
        "np:shop/api-egress",
        DropReason::PolicyDefaultDeny,
    ),
    (
        Walk {
            name: "db-0 to web-0 on this Node: isolation on ingress",
            packet: "in_port=5,tcp,dl_src=0a:00:00:00:01:0c,dl_dst=0a:00:00:00:01:0a,nw_src=10.10.1.12,\
                     nw_dst=10.10.1.10,nw_ttl=64,tp_src=40000,tp_dst=8080",
            passes: &[
                first(FROM_POD),
                new(&[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 28, 29, 30, 31, 32, 33]),
            ],
        },
        "np:shop/web-ingress",
        DropReason::PolicyDefaultDeny,
    ),
];

/// A packet to a Service that has no endpoint.
pub(crate) const NO_ENDPOINT: Walk = Walk {
    name: "db-0 to shop/legacy",
    packet: "in_port=5,tcp,dp_hash=1,dl_src=0a:00:00:00:01:0c,dl_dst=0e:00:00:00:01:01,nw_src=10.10.1.12,\
             nw_dst=10.96.0.50,nw_ttl=64,tp_src=40000,tp_dst=80,tcp_flags=syn",
    passes: &[first(FROM_POD), new(&[10, 11, 12, 13, 14, 16])],
};
