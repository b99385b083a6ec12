//! Addresses and ports that several Services claim.

use super::*;
use crate::services::claims::Claims;

/// A Service with an address of its own and an external one, and what is made of it.
fn made(name: &str, created: Option<&str>, own: &str, external: &str) -> (Service, facts::Service) {
    let object: Service = object(json!({
        "metadata": { "namespace": "shop", "name": name, "creationTimestamp": created },
        "spec": { "clusterIP": own, "externalIPs": [external], "ports": [{ "port": 80 }] },
    }));
    let facts = service(&object, &[], &here()).unwrap();
    (object, facts)
}

/// The addresses of the frontends that are left to a Service, and the names of those who took the others.
fn left(claims: &Claims, facts: &facts::Service) -> (Vec<IpAddr>, Vec<String>) {
    let mut facts = facts.clone();
    let lost = claims.settle(&mut facts).into_iter().map(|lost| lost.winner).collect();
    (facts.ports[0].frontends.iter().map(|f| f.address).collect(), lost)
}

const OLD: Option<&str> = Some("2026-01-01T00:00:00Z");
const NEW: Option<&str> = Some("2026-02-01T00:00:00Z");

#[test]
fn an_address_and_port_of_two_services_is_the_first_ones_whatever_the_order() {
    let (old, old_facts) = made("z-old", OLD, "10.96.0.1", "203.0.113.9");
    let (new, new_facts) = made("a-new", NEW, "10.96.0.2", "203.0.113.9");
    for old_first in [true, false] {
        let mut claims = Claims::default();
        let affected = if old_first {
            assert_eq!(claims.put(&old, &old_facts), BTreeSet::new());
            (claims.put(&new, &new_facts), "shop/z-old")
        } else {
            assert_eq!(claims.put(&new, &new_facts), BTreeSet::new());
            (claims.put(&old, &old_facts), "shop/a-new")
        };
        assert_eq!(affected.0, [affected.1.to_owned()].into());
        assert_eq!(left(&claims, &old_facts), (["10.96.0.1", "203.0.113.9"].map(ip).to_vec(), vec![]));
        assert_eq!(left(&claims, &new_facts), ([ip("10.96.0.2")].to_vec(), vec!["shop/z-old".to_owned()]));
        assert_eq!(claims.remove("shop/z-old"), ["shop/a-new".to_owned()].into(), "who wins is said");
        assert_eq!(left(&claims, &new_facts).1, Vec::<String>::new());
    }
}

#[test]
fn a_services_own_address_is_its_own_though_another_claimed_it_before() {
    let (thief, thief_facts) = made("thief", OLD, "10.96.0.1", "10.96.0.2");
    let (victim, victim_facts) = made("victim", NEW, "10.96.0.2", "203.0.113.9");
    let mut claims = Claims::default();
    claims.put(&thief, &thief_facts);
    claims.put(&victim, &victim_facts);
    assert_eq!(left(&claims, &victim_facts).1, Vec::<String>::new());
    assert_eq!(left(&claims, &thief_facts), ([ip("10.96.0.1")].to_vec(), vec!["shop/victim".to_owned()]));
}

#[test]
fn of_two_of_the_same_age_the_first_by_name_wins_and_one_without_an_age_comes_last() {
    let (a, a_facts) = made("a", OLD, "10.96.0.1", "203.0.113.9");
    let (b, b_facts) = made("b", OLD, "10.96.0.2", "203.0.113.9");
    let (ageless, ageless_facts) = made("0", None, "10.96.0.3", "203.0.113.9");
    let mut claims = Claims::default();
    claims.put(&ageless, &ageless_facts);
    claims.put(&b, &b_facts);
    claims.put(&a, &a_facts);
    assert_eq!(left(&claims, &a_facts).1, Vec::<String>::new());
    assert_eq!(left(&claims, &b_facts).1, ["shop/a"]);
    assert_eq!(left(&claims, &ageless_facts).1, ["shop/a"]);
}

#[test]
fn what_is_put_again_is_claimed_once_and_what_is_no_longer_claimed_is_free() {
    let (a, a_facts) = made("a", OLD, "10.96.0.1", "203.0.113.9");
    let (b, b_facts) = made("b", NEW, "10.96.0.2", "203.0.113.9");
    let mut claims = Claims::default();
    claims.put(&a, &a_facts);
    claims.put(&a, &a_facts);
    claims.put(&b, &b_facts);
    let (changed, changed_facts) = made("a", OLD, "10.96.0.1", "203.0.113.10");
    assert_eq!(claims.put(&changed, &changed_facts), ["shop/b".to_owned()].into());
    assert_eq!(left(&claims, &b_facts).1, Vec::<String>::new());
}
