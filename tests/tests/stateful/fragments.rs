//! Packets larger than the MTU: put together to be tracked and translated, and sent on in the pieces that they came in.

use crate::labs::{CHATTER, Gateway, SERVER, SHARED, firewall};
use crate::programs::ping;
use sluice_switch::Clock;
use sluice_tests::host::{Kind, PATIENCE};
use sluice_tests::netns::skipped;
use sluice_tests::traffic::datagrams;
use std::net::UdpSocket;

#[test]
fn fragments_pass_the_firewall() {
    if skipped("fragments_pass_the_firewall") {
        return;
    }
    for kind in Kind::ALL {
        let lan = firewall(kind, Clock::monotonic());
        let (client, outside) = (lan.host(1), lan.host(3));
        for to in [outside.v4, outside.v6] {
            ping(&client.netns, to, 4000);
            datagrams(client, outside, to, [1473, 3000, 20_000, 60_000]);
        }
        lan.check_accounts(&CHATTER);
    }
}

#[test]
fn fragments_are_translated_with_their_datagram() {
    if skipped("fragments_are_translated_with_their_datagram") {
        return;
    }
    for kind in Kind::ALL {
        let gateway = Gateway::new(kind, 1, 1500);
        for (to, shared) in SERVER.into_iter().zip(SHARED) {
            ping(&gateway.host(1).netns, to, 4000);
            let far = gateway.server.run(|| UdpSocket::bind((to, 0))).unwrap();
            far.set_read_timeout(Some(PATIENCE)).unwrap();
            for n in [1, 2] {
                let host = gateway.host(n);
                let near = host.udp_at((host.address_like(to), 7000).into());
                near.connect(far.local_addr().unwrap()).unwrap();
                for len in [1473, 3000, 20_000, 60_000] {
                    let sent: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ n).collect();
                    near.send(&sent).unwrap();
                    let mut buffer = vec![0; 65_535];
                    let (got, from) = far.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes of {n}: {e}"));
                    assert_eq!(from.ip(), shared);
                    assert!(buffer[..got] == sent, "{len} bytes of {n} changed on their way");
                    far.send_to(&sent, from).unwrap();
                    let got = near.recv(&mut buffer).unwrap_or_else(|e| panic!("{len} bytes to {n}: {e}"));
                    assert!(buffer[..got] == sent, "{len} bytes to {n} changed on their way");
                }
            }
        }
        gateway.lan.check_accounts(&CHATTER);
    }
}
