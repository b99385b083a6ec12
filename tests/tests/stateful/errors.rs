//! ICMP errors about translated connections come to who has to know.

use crate::labs::{Gateway, SERVER};
use sluice_tests::host::PATIENCE;
use sluice_tests::netns::skipped;
use sluice_tests::variant;
use std::io::ErrorKind;
use std::net::UdpSocket;

#[test]
fn a_host_behind_nat_is_told_that_nobody_listens() {
    if skipped("a_host_behind_nat_is_told_that_nobody_listens") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    for to in SERVER {
        for n in [1, 2] {
            let socket = gateway.host(n).udp(to);
            socket.connect((to, 9)).unwrap();
            socket.send(b"anyone?").unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    }
}

#[test]
fn a_server_is_told_that_a_host_behind_nat_listens_no_more() {
    if skipped("a_server_is_told_that_a_host_behind_nat_listens_no_more") {
        return;
    }
    let gateway = Gateway::new(variant::port(), 1, 1500);
    for to in SERVER {
        let far = gateway.server.run(|| UdpSocket::bind((to, 0))).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let near = gateway.host(1).udp(to);
        near.send_to(b"hello", far.local_addr().unwrap()).unwrap();
        let (_, from) = far.recv_from(&mut [0; 8]).unwrap();
        drop(near);
        far.connect(from).unwrap();
        far.send(b"still there?").unwrap();
        assert_eq!(far.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
