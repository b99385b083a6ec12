//! Flows, and a packet for them.

/// A case.
pub(crate) struct Case {
    /// One flow a line.
    pub(crate) flows: &'static str,
    /// One group a line.
    pub(crate) groups: &'static str,
    /// The packet.
    pub(crate) packet: &'static str,
    /// What the connection tracker says, each time that it is asked.
    pub(crate) ct_next: &'static [&'static str],
    /// OVS tells the walk otherwise.
    pub(crate) walks_otherwise: bool,
}

const TCP: &str = "in_port=1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_ttl=64,tp_src=5,tp_dst=80";

const fn case(flows: &'static str, packet: &'static str) -> Case {
    Case { flows, groups: "", packet, ct_next: &[], walks_otherwise: false }
}

const fn tcp(flows: &'static str) -> Case {
    case(flows, TCP)
}

const fn group(flows: &'static str, groups: &'static str) -> Case {
    Case { groups, ..tcp(flows) }
}

/// OVS prints what is inside `ct(..)` again, and says `drop` where nothing is left to do.
const fn tracked(flows: &'static str, ct_next: &'static [&'static str]) -> Case {
    Case { ct_next, walks_otherwise: true, ..tcp(flows) }
}

pub(crate) const CASES: &[Case] = &[
    tcp("ip actions=drop"),
    tcp("arp actions=output:2"),
    tcp("ip actions=output:2,output(port=3,max_len=100),output:4"),
    tcp("ip actions=output:1,in_port,output:9"),
    tcp("ip actions=set_queue:7,output:2"),
    tcp("ip actions=set_field:0x7->pkt_mark,output:2,set_field:0->pkt_mark,output:3"),
    tcp("tcp actions=set_field:1.2.3.4->ip_src,set_field:2->ip_dscp,dec_ttl,set_field:1->tcp_dst,output:2"),
    tcp("ip actions=set_field:10.9.0.0/255.255.0.0->ip_src,set_field:02:00:00:00:00:01->eth_dst,output:2"),
    tcp(
        "ip actions=push_vlan:0x8100,set_field:4101->vlan_vid,set_field:3->vlan_pcp,output:2,push_vlan:0x88a8,output:3,pop_vlan,pop_vlan,output:4",
    ),
    tcp("ip actions=push_mpls:0x8847,set_field:77->mpls_label,set_field:3->mpls_tc,output:2"),
    tcp("ip actions=push_mpls:0x8847,set_field:77->mpls_label,push_mpls:0x8848,set_field:78->mpls_label,output:2"),
    tcp("ip actions=encap(nsh(md_type=1)),set_field:0x1234->nsh_spi,set_field:0x9->nsh_c1,encap(ethernet),output:2"),
    tcp(
        "ip actions=encap(nsh(md_type=2,tlv(0x1000,10,0x12345678),tlv(0x2000,20,0xfedc))),encap(ethernet),set_field:02:00:00:00:00:01->eth_dst,output:2",
    ),
    tcp("ip actions=clone(set_field:1.2.3.4->ip_src,output:2),output:3"),
    tcp("ip actions=output:2,clone(set_field:1.2.3.4->ip_src,output:3)"),
    tcp("ip,cookie=0x77 actions=controller(max_len=100),output:2"),
    tcp("ip actions=set_field:1.2.3.4->ip_src,controller(id=7,max_len=50,reason=no_match),output:2"),
    tcp("ip actions=meter:1,output:2"),
    tcp(
        "ip actions=check_pkt_larger(1000)->NXM_NX_REG5[0],resubmit(,10)\ntable=10,reg5=0x1/0x1 actions=output:2\ntable=10,reg5=0/0x1 actions=output:3",
    ),
    tcp(
        "ip actions=set_field:0x5->reg0,resubmit(,1),set_field:0x6->reg0,resubmit(,2),output:2\ntable=1 actions=output:2,resubmit(,3)\ntable=2 actions=output:3\ntable=3 actions=output:4",
    ),
    tcp("ip actions=goto_table:1\ntable=1,cookie=0x77,tcp actions=goto_table:2\ntable=2,priority=7 actions=output:2"),
    tcp(
        "ip actions=write_actions(output:2,set_field:6->ip_dscp),goto_table:1\ntable=1 actions=output:3,resubmit(,3)\ntable=3 actions=output:4",
    ),
    tcp(
        "ip actions=set_field:0x83->reg1,move:NXM_NX_REG1[0..3]->NXM_NX_REG2[4..7],push:NXM_NX_REG1[],pop:NXM_NX_REG3[],output:NXM_NX_REG1[0..1]",
    ),
    tcp("ip actions=multipath(symmetric_l3,50,modulo_n,1,0,NXM_NX_REG0[0..3]),output:2"),
    tcp("ip actions=learn(table=7,hard_timeout=5,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:2"),
    tcp(
        "ip actions=resubmit(2,),resubmit(,4)\npriority=40000,in_port=2 actions=output:3\ntable=4 actions=exit,output:2",
    ),
    tcp("ip actions=conjunction(7,1/2)\ntcp actions=conjunction(7,2/2)\nconj_id=7,ip actions=output:2"),
    tcp("ip actions=note:01.02.03.04.05.06,output:2"),
    group(
        "ip actions=group:1,output:2",
        "group_id=1,type=all,bucket=output:3,bucket=set_field:02:00:00:00:00:01->eth_dst,output:4",
    ),
    group(
        "ip actions=group:1,output:2",
        "group_id=1,type=ff,bucket=watch_port:5,output:5,bucket=watch_port:3,output:3",
    ),
    group("ip actions=group:1", "group_id=1,type=indirect,bucket=dec_ttl,output:4"),
    group("ip actions=group:1", "group_id=1,type=ff,bucket=watch_port:5,output:5"),
    case(
        "mpls actions=set_field:78->mpls_label,dec_mpls_ttl,output:2",
        "in_port=1,mpls,mpls_label=5,mpls_ttl=7,mpls_bos=1",
    ),
    case("mpls actions=pop_mpls:0x0800,output:2", "in_port=1,mpls,mpls_label=5,mpls_ttl=7,mpls_bos=1"),
    case(
        "tcp6 actions=set_field:5->tcp_src,set_field:fe80::1->ipv6_src,set_field:0x33->ipv6_label,set_field:2->nw_ecn,output:2",
        "in_port=1,tcp6,nw_ttl=9",
    ),
    case(
        "arp actions=set_field:2->arp_op,set_field:1.2.3.4->arp_spa,set_field:00:00:00:00:00:02->arp_sha,output:2",
        "in_port=1,arp,arp_op=1",
    ),
    case("icmp actions=set_field:2->icmp_type,set_field:3->icmp_code,output:2", "in_port=1,icmp,nw_ttl=4"),
    case(
        "icmp6,icmp_type=135,icmp_code=0 actions=set_field:fe80::1->nd_target,set_field:00:00:00:00:00:02->nd_sll,output:2",
        "in_port=1,icmp6,icmpv6_type=135,icmpv6_code=0,nw_ttl=255",
    ),
    case(
        "icmp6,icmp_type=136,icmp_code=0 actions=set_field:3->nd_reserved,set_field:2->nd_options_type,output:2",
        "in_port=1,icmp6,icmpv6_type=136,icmpv6_code=0,nw_ttl=255",
    ),
    case("sctp actions=set_field:1->sctp_dst,output:2", "in_port=1,sctp,nw_ttl=9"),
    case(
        "dl_type=0x894f actions=set_field:0x6->nsh_spi,dec_nsh_ttl,set_field:0x1->nsh_c4,output:2",
        "in_port=1,dl_type=0x894f,nsh_flags=0,nsh_mdtype=1,nsh_np=1,nsh_spi=5,nsh_si=3,nsh_ttl=9,nsh_c1=1",
    ),
    tracked("ip actions=ct(table=1)\ntable=1,ct_state=+trk+new actions=output:2", &[]),
    tracked("ip actions=ct(table=1)\ntable=1,ct_state=+trk+est actions=output:3", &["trk,est"]),
    tracked(
        "tcp actions=ct(commit,force,zone=5,alg=ftp,table=1,nat(dst=10.9.9.9:80)),output:3\ntable=1,ip,nw_dst=10.9.9.9 actions=output:2",
        &[],
    ),
    tracked(
        "ip actions=ct(commit,zone=5,exec(set_field:0x7->ct_mark,set_field:0x3/0xf->ct_label),nat(src=10.0.0.1-10.0.0.9:1000-2000,random)),output:2",
        &[],
    ),
    tracked(
        "ip actions=ct(commit,zone=9,table=1,exec(set_field:0x5->ct_mark,set_field:0x6->ct_label))\ntable=1,ip,ct_zone=9,ct_mark=5,ct_label=6 actions=ct(table=2)\ntable=2,ct_state=-new+trk actions=output:2",
        &["trk,new", "trk,est"],
    ),
    tracked("ip actions=clone(output:2,ct(commit)),output:3", &[]),
    tracked("tcp actions=ct(commit,nat(src)),ct(commit,nat(src=10.0.0.1-10.0.0.3:5-9,hash,persistent)),output:2", &[]),
    tracked(
        "ip actions=ct(table=3,nat),clone(ct(table=2)),output:2\ntable=3,ct_state=+trk actions=output:3\ntable=2,ct_state=+trk actions=output:4",
        &[],
    ),
];
