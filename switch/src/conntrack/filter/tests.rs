use super::*;
use crate::conntrack::conn::{PlainState, Protocol};
use crate::conntrack::tcp::TcpState;
use sluice_flows::Owner;
use sluice_flows::rule::Millis;

fn filter(text: &str) -> ConnFilter {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A TCP connection from 10.0.0.1:4000 to 192.168.7.1:80 in zone 5, of which the source is translated to 1.1.1.1:7000.
fn web() -> Conn {
    let (client, server) = ("10.0.0.1".parse().unwrap(), "192.168.7.1".parse().unwrap());
    let original = Tuple::new(5, 6, client, server).with_ports(4000, 80);
    let reply = Tuple::new(5, 6, server, "1.1.1.1".parse().unwrap()).with_ports(80, 7000);
    let conn = Conn::new(original, reply, Protocol::Tcp(TcpState::default()), None, Millis(0));
    let mut marks = conn.marks();
    (marks.mark, marks.label, marks.owner) = (0x17, 1 << 100, Some(Owner::new("np:shop/web#1")));
    drop(marks);
    conn
}

/// A ping from fd00::1 to fd00::2 in zone 0 with identifier 77.
fn ping() -> Conn {
    let original = Tuple::new(0, 58, "fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()).with_ports(77, 128 << 8);
    Conn::new(original, original.reversed().unwrap(), Protocol::Plain(PlainState::default()), None, Millis(0))
}

#[test]
fn words_select_by_what_the_first_packet_and_its_answers_show() {
    let (web, ping) = (web(), ping());
    for (text, selects_web, selects_ping) in [
        ("", true, true),
        ("zone=5", true, false),
        ("ct_zone=0", false, true),
        ("tcp", true, false),
        ("tcp6", false, false),
        ("ip", true, false),
        ("ipv6", false, true),
        ("icmp6", false, true),
        ("nw_proto=58", false, true),
        ("!tcp", false, true),
        ("nw_src=10.0.0.0/8", true, false),
        ("nw_src=10.0.0.0/255.0.0.0,nw_dst=192.168.7.1", true, false),
        ("nw_dst=10.0.0.1", false, false),
        ("reply_nw_src=192.168.7.1 reply_nw_dst=1.1.1.1", true, false),
        ("ipv6_src=fd00::/64", false, true),
        ("addr=1.1.1.1", true, false),
        ("addr=1.1.1.1|fd00::1", true, true),
        ("!addr=1.1.1.1|9.9.9.9", false, true),
        ("src=10.0.0.0/8", true, false),
        ("src=fd00::1|10.0.0.9", false, true),
        ("dst=10.0.0.1", false, false),
        ("nw_dst=192.168.7.1|192.168.7.2", true, false),
        ("addr=fd00::2", false, true),
        ("addr=0.0.0.0/0", true, false),
        ("!addr=1.1.1.0/24", false, true),
        ("tp_src=4000,tp_dst=80", true, false),
        ("ct_tp_dst=80/0xfff0", true, false),
        ("reply_tp_dst=7000", true, false),
        ("port=7000", true, false),
        ("port=77", false, false),
        ("icmp_type=128,icmp_code=0,icmp_id=77", false, true),
        ("icmp_id=4000", false, false),
        ("ct_mark=0x10/0xf0", true, false),
        ("ct_mark=0x17", true, false),
        ("mark=7", false, false),
        ("ct_label=0x10000000000000000000000000", true, false),
        ("ct_label=0/1", true, true),
        ("owner=np:*", true, false),
        ("owner=np:shop/web#2", false, false),
        ("nat", true, false),
        ("snat,!dnat", true, false),
        ("dnat", false, false),
        ("state=closed", true, false),
        ("state=FIRST", false, true),
        ("unreplied", true, true),
        ("replied", false, false),
        ("!related", true, true),
    ] {
        let filter = filter(text);
        assert_eq!((filter.selects(&web), filter.selects(&ping)), (selects_web, selects_ping), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_filter_is_told_with_what_is_allowed() {
    for (text, error) in [
        ("zoen=5", "`zoen` says nothing of connections; did you mean `zone`? The words are ip, ipv6"),
        ("xxxxxxxxxx", "`xxxxxxxxxx` says nothing of connections. The words are"),
        ("zone", "`zone` needs a value, such as zone=5"),
        ("tcp=6", "`tcp` stands alone, without a value"),
        ("zone=65536", "zone=65536: want a zone from 0 to 65535"),
        ("zone=5/1", "zone=5/1: want a zone from 0 to 65535"),
        ("nw_src=fd00::1", "nw_src=fd00::1: want an IPv4 address"),
        ("nw_src=10.0.0.0/33", "want an IPv4 address, ADDRESS/PREFIX or ADDRESS/MASK"),
        ("src=10.0.0.1|x", "want an address of IPv4 or IPv6"),
        ("addr=10.0.0.0/ffff::", "want an address of IPv4 or IPv6"),
        ("tp_dst=http", "tp_dst=http: want a port from 0 to 65535"),
        ("ct_mark=0x1ffffffff", "want a number of 32 bits"),
        ("state=OPEN", "state=OPEN: want one of CLOSED, LISTEN"),
    ] {
        let said = text.parse::<ConnFilter>().unwrap_err().to_string();
        assert!(said.contains(error), "{text}: {said}");
    }
    let long = "tcp,".repeat(MAX_TERMS + 1);
    assert_eq!(long.parse::<ConnFilter>(), Err(FilterError::TooMany));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[!a-z_]{0,12}=?[0-9a-fx:./,*-]{0,24},?.{0,8}") {
        if let Ok(filter) = text.parse::<ConnFilter>() {
            // Either answer will do.
            _ = filter.selects(&web());
        }
    }
}

#[test]
fn every_word_that_is_listed_is_understood() {
    for text in ["zone=1", "nw_proto=6", "addr=::1", "icmp_type=8", "ct_label=1", "tp_src=0x10"] {
        assert!(!filter(text).is_all());
    }
    let example = "reply_nw_src=1.1.1.1,reply_ipv6_dst=::1,reply_tp_src=1,reply_ipv6_src=::1,reply_nw_dst=1.1.1.1";
    assert_eq!(filter(example).terms.len(), 5);
}
