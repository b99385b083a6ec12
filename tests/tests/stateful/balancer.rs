//! Through the load balancer: clients are spread over the backends and stay with theirs, and a backend may be its own.

use crate::STREAM;
use crate::labs::{CHATTER, balancer};
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use sluice_tests::host::{Host, Kind, LINK, PATIENCE};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{ping_until_answered, stream, stream_to};
use sluice_tests::variant;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

/// The service.
const SERVICE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100))];
/// Who a backend seems to be to itself.
const ITSELF: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x101))];
/// Hosts that are backends.
const BACKENDS: [u8; 3] = [2, 3, 4];
/// Addresses that the clients have.
const CLIENTS: u8 = 24;
/// Connections of a client that has to stay with its backend.
const AGAIN: usize = 8;

/// What every backend listens on, in this order.
fn listeners(lan: &Lan, family: usize) -> Vec<(u8, TcpListener)> {
    let listen = |n: u8| {
        let host = lan.host(n);
        let listener = host.listen(if family == 0 { host.v4 } else { host.v6 }, 8080);
        listener.set_nonblocking(true).unwrap();
        (n, listener)
    };
    BACKENDS.into_iter().map(listen).collect()
}

/// Whoever connects is told which backend it is, and the backend who connected. Ends with `calls`.
fn serve(listeners: &[(u8, TcpListener)], calls: usize) -> Vec<(u8, SocketAddr)> {
    let mut served = Vec::new();
    // Each call is made within the time that its caller waits for it.
    for _ in 0..100_000 {
        for (n, listener) in listeners {
            match listener.accept() {
                Ok((mut stream, from)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.write_all(&[*n]).unwrap();
                    served.push((*n, from));
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
        if served.len() == calls {
            return served;
        }
        thread::sleep(Duration::from_millis(1));
    }
    served
}

/// A connection to the service from one of the host's addresses, and from this port unless it is 0.
fn connect(host: &Host, from: SocketAddr, service: IpAddr) -> TcpStream {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = host.netns.run(|| {
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
        // Also for how long it tries to connect.
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64))?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((service, 80))))?;
        Ok::<_, nix::Error>(socket)
    });
    made.unwrap_or_else(|e| panic!("{from} to {service}: {e}")).into()
}

/// Calls the service: which backend answers.
fn call(host: &Host, from: SocketAddr, service: IpAddr) -> u8 {
    let mut got = [0];
    connect(host, from, service).read_exact(&mut got).unwrap_or_else(|e| panic!("{from} to {service}: {e}"));
    got[0]
}

/// Client number `n`.
fn client(n: u8, family: usize) -> IpAddr {
    match family {
        0 => Ipv4Addr::new(10, 0, 0, 200 + n).into(),
        _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x200 + u16::from(n)).into(),
    }
}

#[test]
fn clients_are_spread_over_the_backends_and_stay_with_theirs() {
    if skipped("clients_are_spread_over_the_backends_and_stay_with_theirs") {
        return;
    }
    let lan = balancer(variant::port());
    let host = lan.host(1);
    for (family, service) in SERVICE.into_iter().enumerate() {
        let listeners = listeners(&lan, family);
        let calls = usize::from(CLIENTS) * AGAIN;
        let server = thread::spawn(move || serve(&listeners, calls));
        let mut used = BTreeSet::new();
        for n in 0..CLIENTS {
            let address = client(n, family);
            host.netns.add_address(LINK, address, if family == 0 { 24 } else { 64 }).unwrap();
            let mine = call(host, (address, 40_000).into(), service);
            used.insert(mine);
            for _ in 1..AGAIN {
                assert_eq!(call(host, (address, 0).into(), service), mine, "{address} stays with its backend");
            }
        }
        assert_eq!(used, BACKENDS.into(), "all backends have clients");
        let served = server.join().unwrap();
        assert_eq!(served.len(), calls);
        // The backends see the clients' own addresses.
        let clients: BTreeSet<_> = served.iter().map(|(_, from)| from.ip()).collect();
        assert_eq!(clients, (0..CLIENTS).map(|n| client(n, family)).collect());
    }
    lan.check_accounts(&CHATTER);
}

#[test]
fn a_backend_reaches_itself_through_the_service() {
    if skipped("a_backend_reaches_itself_through_the_service") {
        return;
    }
    for kind in [Kind::Tap, Kind::AfPacket] {
        let lan = balancer(kind);
        for (family, service) in SERVICE.into_iter().enumerate() {
            for (number, n) in (1..).zip(BACKENDS) {
                let host = lan.host(n);
                let own = if family == 0 { host.v4 } else { host.v6 };
                remember(&lan, own, service, number);
                let listener = host.listen(own, 8080);
                let stream = connect(host, (own, 0).into(), service);
                let (mut far, seen) = listener.accept().unwrap();
                assert_eq!(seen.ip(), ITSELF[family]);
                far.write_all(b"hello").unwrap();
                drop(far);
                let mut got = String::new();
                { stream }.read_to_string(&mut got).unwrap();
                assert_eq!(got, "hello");
                stream_to(host, (service, 80).into(), listener, STREAM);
            }
        }
        lan.check_accounts(&CHATTER);
    }
}

/// As if the client had been sent to this backend before.
fn remember(lan: &Lan, client: IpAddr, service: IpAddr, backend: u8) {
    let addresses = match client {
        IpAddr::V4(_) => format!("tcp,nw_src={client},nw_dst={service}"),
        IpAddr::V6(_) => format!("tcp6,ipv6_src={client},ipv6_dst={service}"),
    };
    lan.add_flows(
        "br0",
        &[&format!(
            "table=4,priority=100,{addresses},tp_dst=80 actions=load:{backend}->NXM_NX_REG1[],load:2->NXM_NX_REG0[]"
        )],
    );
}

#[test]
fn a_client_whose_backend_is_gone_gets_another() {
    if skipped("a_client_whose_backend_is_gone_gets_another") {
        return;
    }
    let lan = balancer(variant::port());
    for (family, service) in SERVICE.into_iter().enumerate() {
        let host = lan.host(1);
        let own = if family == 0 { host.v4 } else { host.v6 };
        remember(&lan, own, service, 9);
        let listeners = listeners(&lan, family);
        let server = thread::spawn(move || serve(&listeners, 1));
        assert!(BACKENDS.contains(&call(host, (own, 0).into(), service)));
        assert_eq!(server.join().unwrap().len(), 1);
    }
}

#[test]
fn streams_to_the_service_and_traffic_beside_it_pass() {
    if skipped("streams_to_the_service_and_traffic_beside_it_pass") {
        return;
    }
    for kind in Kind::ALL {
        let lan = balancer(kind);
        let (near, far) = (lan.host(1), lan.host(2));
        for (family, service) in SERVICE.into_iter().enumerate() {
            let (own, to) = if family == 0 { (near.v4, far.v4) } else { (near.v6, far.v6) };
            remember(&lan, own, service, 1);
            stream_to(near, (service, 80).into(), far.listen(to, 8080), STREAM);
            ping_until_answered(near, to);
            stream(near, far, to, STREAM);
        }
        for n in [1, 2] {
            assert_eq!(lan.seen(n).super_frames() > 0, kind.offloads());
        }
        lan.check_accounts(&CHATTER);
    }
}
