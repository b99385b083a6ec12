//! Connection tracking, labels, learning, fragments.

use super::*;
use crate::action::{Ct, CtZone, Learn, LearnSource, LearnSpec};
use crate::datapath::Effect;
use crate::key::{CT_NEW, CT_TRK, FRAG_ANY, FRAME_WORDS};
use crate::tunnel::TunnelKey;

fn to(no: u16) -> Action {
    Action::Output(PortNo(no))
}

fn set_reg(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: u128::MAX }
}

#[test]
fn a_tracked_packet_goes_on_in_its_table_with_registers_and_the_rest_sees_no_connection() {
    let ct = Ct { zone: CtZone::Number(5), table: Some(table(1)), ..Ct::default() };
    let mut tracked = rule(1, vec![to(2)]);
    tracked.matches.set(slot::CT_STATE, u128::from(CT_TRK | CT_NEW), u128::from(CT_TRK | CT_NEW));
    tracked.matches.set_field(Field::Reg1, 7);
    let model =
        model(trunks(3), vec![rule(0, vec![set_reg(Field::Reg1, 7), Action::Ct(Box::new(ct)), to(3)]), tracked]);
    let first = run(&model, &tcp());
    assert!(matches!(first.actions[..], [DpAction::Ct(_), DpAction::Recirculate(0), DpAction::Output(DpPort(3))]));
    let resume = &first.resumes[0];
    assert_eq!((resume.table, resume.ct_zone), (table(1), Some(5)));
    let mut key = resume.key;
    key.set(slot::CT_STATE, u128::from(CT_TRK | CT_NEW));
    let second = translate_resumed(&model, &NoMacs, resume, &key, &mut NoTrace).unwrap();
    assert_eq!(second.actions, [out(2)]);
    assert_ne!(second.mask.get(slot::CT_STATE), 0);
    key.set(slot::CT_STATE, 0);
    let second = translate_resumed(&model, &NoMacs, resume, &key, &mut NoTrace).unwrap();
    assert_eq!(second.verdict, Verdict::Drop(DropReason::NoRule));
}

/// A pass begins with the tunnel words that the packet arrived with, and those that flows wrote since, in whatever pass.
#[test]
fn what_flows_wrote_of_the_tunnel_goes_through_all_passes() {
    let to_table = |no| Ct { zone: CtZone::Number(5), table: Some(table(no)), ..Ct::default() };
    let first = vec![set_reg(Field::TunId, 7), Action::Ct(Box::new(to_table(1)))];
    let second = vec![set_reg(Field::TunDst, 9), Action::Ct(Box::new(to_table(2)))];
    let model = model(trunks(1), vec![rule(0, first), rule(1, second)]);
    let first = run(&model, &tcp());
    let [resume] = &first.resumes[..] else { panic!("{:?}", first.resumes) };
    let second = translate_resumed(&model, &NoMacs, resume, &resume.key, &mut NoTrace).unwrap();
    let [resume] = &second.resumes[..] else { panic!("{:?}", second.resumes) };
    let arrived = TunnelKey::of_flow(&tcp());
    let mut wanted = arrived;
    wanted.set_id(7);
    wanted.set(slot::TUN_DST, 9);
    assert_eq!(arrived.overlaid(&TunnelKey::of_flow(&resume.key), &resume.tunnel_written), wanted);
}

#[test]
fn mark_and_label_are_set_with_the_bits_that_are_named() {
    let exec = [
        Action::SetField { field: Field::CtMark, value: 0x10, mask: 0x10 },
        Action::Load { value: 3, dst: Subfield { field: Field::CtLabel, ofs: 64, bits: 8 } },
    ];
    let ct = Ct { commit: true, exec: exec.into(), ..Ct::default() };
    let result = run(&model(trunks(1), vec![rule(0, vec![Action::Ct(Box::new(ct))])]), &tcp());
    let [DpAction::Ct(asked)] = &result.actions[..] else { panic!("{:?}", result.actions) };
    assert_eq!((asked.mark, asked.label), (Some((0x10, 0x10)), Some((3 << 64, 0xff << 64))));
}

#[test]
fn a_lookup_with_the_first_packets_tuple_depends_on_what_the_tracker_said() {
    let mut other = rule(1, vec![to(2)]);
    other.matches.set_field(Field::EthType, 0x0800);
    other.matches.set_field(Field::IpDst, 0x0a00_0009);
    let ask = Action::Resubmit { port: None, table: Some(table(1)), ct: true, extended: true };
    let model = model(trunks(2), vec![rule(0, vec![ask]), other]);
    let mut key = tcp();
    key.set(slot::CT_STATE, u128::from(CT_TRK | CT_NEW));
    key.set(slot::CT_NW_DST, 0x0a00_0009);
    let result = run(&model, &key);
    assert_eq!(result.actions, [out(2)]);
    assert_eq!(result.mask.get(slot::CT_NW_DST), 0xffff_ffff);
    assert_eq!(result.mask.get(slot::IP_DST), 0);
    key.set(slot::CT_STATE, 0);
    assert_eq!(run(&model, &key).verdict, Verdict::Drop(DropReason::RuleDrop), "an untracked packet has no such tuple");
}

#[test]
fn a_label_takes_class_and_ttl_from_the_packet_and_hides_it() {
    let mut under = rule(1, vec![to(2)]);
    under.matches.set_field(Field::EthType, 0x8847);
    let model = model(trunks(2), vec![rule(0, vec![Action::PushMpls(0x8847), resubmit(1)]), under]);
    let mut key = tcp();
    key.set(slot::IP_TTL, 9);
    key.set(slot::IP_DSCP, 10);
    let result = run(&model, &key);
    // Label 0, class 10 & 7 = 2, bottom of stack, TTL 9.
    assert_eq!(result.actions, [DpAction::PushMpls { eth_type: 0x8847, lse: 2 << 9 | 0x100 | 9 }, out(2)]);
}

#[test]
fn popping_the_last_label_to_look_under_it_takes_another_pass() {
    let mut key = tcp();
    key.0[4..FRAME_WORDS].fill(0);
    key.set(slot::ETH_TYPE, 0x8847);
    key.set(slot::MPLS_LSE, 100 << 12 | 0x140);
    let model1 = model(trunks(2), vec![rule(0, vec![Action::PopMpls(0x0800), to(2)])]);
    assert_eq!(run(&model1, &key).actions, [DpAction::PopMpls(0x0800), out(2)]);
    let model2 = model(trunks(2), vec![rule(0, vec![Action::PopMpls(0x0800), resubmit(1)])]);
    let result = run(&model2, &key);
    assert_eq!(result.actions, [DpAction::PopMpls(0x0800), DpAction::Recirculate(0)]);
    assert_eq!(result.resumes[0].lists.len(), 1);
}

#[test]
fn what_is_left_of_every_list_is_done_in_the_pass_that_reads_under_the_label() {
    let mut key = tcp();
    key.0[4..FRAME_WORDS].fill(0);
    key.set(slot::ETH_TYPE, 0x8847);
    key.set(slot::MPLS_LSE, 100 << 12 | 0x140);
    let inner = vec![Action::PopMpls(0x0800), to(3), Action::DecTtl(Box::default()), to(2)];
    let model = model(trunks(4), vec![rule(0, vec![resubmit(1), to(4)]), rule(1, inner)]);
    let first = run(&model, &key);
    assert_eq!(first.actions, [DpAction::PopMpls(0x0800), out(3), DpAction::Recirculate(0)]);
    let resume = &first.resumes[0];
    let second = translate_resumed(&model, &NoMacs, resume, &tcp(), &mut NoTrace).unwrap();
    assert_eq!(second.actions, [set(Field::IpTtl, 63, 0xff), out(2), out(4)]);
    assert_eq!(second.mask.get(slot::IP_TTL), 0xff);
}

#[test]
fn a_label_that_is_not_the_last_is_popped_though_the_next_one_is_empty() {
    let mut key = tcp();
    key.0[4..FRAME_WORDS].fill(0);
    key.set(slot::ETH_TYPE, 0x8847);
    key.set(slot::MPLS_LSE, 100 << 12 | 0x40);
    let model = model(trunks(2), vec![rule(0, vec![Action::PopMpls(0x8847), to(2)])]);
    assert_eq!(run(&model, &key).actions, [DpAction::PopMpls(0x8847), out(2)]);
}

#[test]
fn a_flow_is_learned_from_the_packet_and_owned_by_who_asked() {
    let specs = [
        LearnSpec::Match {
            dst: Subfield::whole(Field::EthDst),
            src: LearnSource::Field(Subfield::whole(Field::EthSrc)),
        },
        LearnSpec::Load { dst: Subfield::whole(Field::Reg0), src: LearnSource::Value(5) },
        LearnSpec::Output(Subfield::whole(Field::InPort)),
    ];
    let learn = Learn {
        table: table(9),
        idle_timeout: 10,
        hard_timeout: 0,
        priority: 7,
        cookie: 3,
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        send_flow_rem: false,
        delete_learned: false,
        limit: 0,
        result_dst: Some(Subfield { field: Field::Reg1, ofs: 0, bits: 1 }),
        specs: specs.into(),
    };
    let result = run(&model(trunks(2), vec![rule(0, vec![Action::Learn(Box::new(learn)), to(2)])]), &tcp());
    let [Effect::Learn(learned)] = &result.effects[..] else { panic!("{:?}", result.effects) };
    let spec = &learned.spec;
    assert_eq!((spec.table, spec.priority, spec.cookie, spec.idle_timeout), (table(9), 7, 3, 10));
    assert_eq!(spec.matches.field(Field::EthDst), (H1, slot::ETH_DST.max()));
    assert_eq!(*spec.actions, [Action::Load { value: 5, dst: Subfield::whole(Field::Reg0) }, to(1)]);
    assert_eq!(spec.owner, Owner::user());
    assert_eq!(result.mask.get(slot::ETH_SRC), slot::ETH_SRC.max());
}

#[test]
fn only_a_packet_that_ends_a_connection_shortens_timeouts() {
    let model = model(trunks(2), vec![rule(0, vec![Action::FinTimeout { idle: 5, hard: 0 }, to(2)])]);
    assert!(run(&model, &tcp()).effects.is_empty());
    let mut fin = tcp();
    fin.set(slot::TCP_FLAGS, 0x11);
    let result = run(&model, &fin);
    assert!(matches!(result.effects[..], [Effect::FinTimeout { idle: 5, hard: 0, .. }]));
    assert_eq!(result.mask.get(Field::TcpFlags.slot()) & 5, 5);
}

#[test]
fn tables_do_not_see_the_ports_of_a_fragment() {
    let mut web = rule(0, vec![to(2)]);
    web.matches.set_field(Field::EthType, 0x0800);
    web.matches.set_field(Field::IpProto, 6);
    web.matches.set_field(Field::TcpDst, 80);
    let model = model(trunks(2), vec![web]);
    assert_eq!(run(&model, &tcp()).actions, [out(2)]);
    let mut first = tcp();
    first.set(slot::IP_FRAG, FRAG_ANY.into());
    let result = run(&model, &first);
    assert_eq!(result.verdict, Verdict::Drop(DropReason::NoRule));
    assert_eq!(result.mask.get(slot::TP_DST), 0);
}
