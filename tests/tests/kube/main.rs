//! Sluice on a real Kubernetes, installed as a user does it, on clusters of several shapes.
//!
//! A [`Scenario`] is a cluster and the tests that run on it, one after the other: they build on each other's Pods, and the last one
//! takes Sluice off again. The suite has a `main` of its own, so that clusters are taken down after failures too. Words on the
//! command line choose tests by parts of `SCENARIO::NAME`; in each scenario that is chosen, those that install and make Pods
//! always run. `--list` prints all names.
//!
//! # Adding a test
//! A function of `&Cluster` that panics when it fails, and a line in [`DUAL`] before those that kill things. It finds the Pods of
//! `pods.yaml` and the Service `web`, takes away what it makes, and leaves everything as it was. `cluster.addresses(..)` and their
//! like give one address for each family that the cluster has, so that most tests are for any family: such a one may be in
//! [`IPV6`] too. A cluster costs 20 s; a shape that can be had by changing one that is up (a mode, a node more) is a test of
//! it, not a scenario.
//!
//! `SLUICE_KUBE_IMAGE=FILE.tar` takes an image that is there; without it one of the dev profile is made.
//! `SLUICE_KUBE_NET=bridge` leaves Sluice out for the plain network and kube-proxy, which shows that cluster and suite are sound.
//! `SLUICE_KUBE_KEEP=1` leaves clusters up. `SLUICE_KUBE_PODS` is how many Pods are made, `SLUICE_KUBE_CASES` a part of the names
//! of those of `tests/policies` that are wanted, `SLUICE_KUBE_CONNECTIONS` how many connections are open while policies change.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod api;
mod cli;
mod cluster;
mod cluster_role;
mod deploy;
mod faults;
mod first_use;
mod install;
mod modes;
mod nodes;
mod pods;
mod policies;
mod sctp;
mod services;
mod table;

use cluster::{Cluster, Shape};
use sluice_tests::netns::skipped;
use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// What the suite needs that a machine may lack, and Debian's packages of it.
const PROGRAMS: [(&str, &str); 5] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/sbin/nft", "nftables"),
];

/// Clusters at one time: each waits more than it works.
const LANES: usize = 2;

/// When a test runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Always, and nothing after it makes sense when it fails.
    First,
    /// When it is chosen, on every network.
    Any,
    /// When it is chosen, on Sluice's.
    Sluice,
}

type Test = (&'static str, When, fn(&Cluster));

/// A cluster, and what is tested on it.
struct Scenario {
    name: &'static str,
    shape: Shape,
    tests: &'static [Test],
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "dual", shape: Shape { nodes: 3, far: 1, family: "dual" }, tests: DUAL },
    Scenario { name: "faults", shape: Shape { nodes: 2, far: 0, family: "dual" }, tests: FAULTS },
    Scenario { name: "policies", shape: Shape { nodes: 2, far: 0, family: "dual" }, tests: POLICIES },
    Scenario { name: "role", shape: Shape { nodes: 2, far: 0, family: "dual" }, tests: ROLE },
    Scenario { name: "ipv6", shape: Shape { nodes: 2, far: 0, family: "6" }, tests: IPV6 },
];

/// What is tested with both families, in order.
const DUAL: &[Test] = &[
    ("nodes_turn_ready_when_sluice_is_installed", When::First, install::install),
    ("pods_become_ready_by_the_probes_of_the_kubelet", When::First, pods::make),
    ("pods_reach_each_other_on_a_node_and_across", When::Any, pods::reach_each_other),
    ("exec_and_logs_work", When::Any, pods::exec_and_logs),
    ("hosts_reach_pods_and_pods_hosts", When::Any, pods::hosts),
    ("pods_reach_the_outside_behind_their_nodes_address", When::Sluice, pods::outside),
    ("a_service_spreads_connections_over_its_endpoints", When::Any, services::cluster_ip),
    ("a_service_is_reached_from_hosts", When::Any, services::from_hosts),
    ("a_pod_reaches_itself_by_its_service", When::Any, services::hairpin),
    ("a_node_port_is_reached_from_outside_on_every_node", When::Any, services::node_port),
    ("a_service_without_endpoints_refuses_at_once", When::Any, services::without_endpoints),
    ("the_api_server_is_reached_by_its_service", When::Any, services::api_server),
    ("a_load_balancers_address_leads_to_its_service", When::Any, services::entrances::load_balancer),
    ("source_ranges_hold_for_everybody", When::Any, services::entrances::source_ranges),
    ("external_addresses_lead_to_their_service", When::Any, services::entrances::external_ips),
    ("with_external_policy_local_clients_are_seen_as_they_are", When::Any, services::entrances::external_local),
    ("with_internal_policy_local_a_node_has_its_own_endpoints", When::Any, services::entrances::internal_local),
    ("endpoints_may_be_hosts_and_outside", When::Any, services::entrances::manual_endpoints),
    ("an_endpoint_on_the_host_is_reached_with_policy_local", When::Any, services::entrances::hosted_and_local),
    ("node_ports_are_reached_from_everywhere", When::Any, services::entrances::node_ports),
    ("host_ports_lead_to_their_pod", When::Any, services::entrances::host_ports),
    ("a_service_has_the_families_that_it_says", When::Any, services::entrances::families),
    ("a_client_with_affinity_keeps_its_endpoint", When::Any, services::changes::affinity),
    ("near_endpoints_are_preferred", When::Any, services::changes::topology),
    ("endpoints_that_are_not_ready_are_used_when_that_is_said", When::Any, services::changes::not_ready),
    ("endpoints_that_terminate_serve_to_the_end", When::Any, services::changes::terminating),
    ("services_that_are_none_of_ours_are_left_alone", When::Any, services::changes::not_ours),
    ("clients_of_udp_go_on_with_new_endpoints", When::Any, services::changes::udp_clients_that_go_on),
    ("ports_and_kinds_of_a_service_change_live", When::Any, services::changes::ports_and_kinds),
    ("open_connections_outlive_changes_of_endpoints", When::Any, services::changes::long_connections),
    ("a_deleted_endpoint_takes_only_its_own_connections", When::Any, services::changes::deleted_endpoint),
    ("large_datagrams_reach_services", When::Any, services::changes::fragments),
    ("policies_say_who_may_come_in", When::Sluice, policies::ingress),
    ("policies_say_where_one_may_send", When::Sluice, policies::egress),
    ("drops_name_the_policy", When::Sluice, policies::by_name),
    ("policies_stay_in_force_without_the_node_role", When::Sluice, policies::while_away),
    ("names_resolve", When::Any, services::names),
    ("every_verb_works_by_a_kubeconfig", When::Sluice, cli::every_verb),
    ("traces_follow_packets_through_the_cluster", When::Sluice, cli::traces),
    ("a_pods_packets_are_captured_by_its_name", When::Sluice, cli::capture),
    ("kubectl_knows_sluice_as_a_plugin", When::Sluice, cli::plugin),
    ("status_names_what_is_wrong_and_what_to_do", When::Sluice, cli::faults),
    ("every_node_tells_its_numbers", When::Sluice, deploy::metrics),
    ("every_overlay_is_taken_by_the_api_server", When::Sluice, deploy::overlays),
    ("many_pods_at_once_become_ready_and_answer", When::Any, pods::many),
    ("sctp_goes_from_pod_to_pod", When::Any, sctp::between_pods),
    ("sctp_goes_to_services_and_node_ports", When::Any, sctp::by_service),
    ("geneve_carries_packets_of_the_whole_mtu", When::Sluice, modes::geneve),
    ("vxlan_carries_everything", When::Sluice, modes::vxlan),
    ("without_encapsulation_everything_is_routed", When::Sluice, modes::no_encap),
    ("hybrid_takes_the_tunnel_to_other_networks_only", When::Sluice, modes::hybrid),
    ("node_ports_are_kept_to_the_addresses_that_are_said", When::Sluice, modes::node_port_addresses),
    ("the_mode_goes_back_to_geneve", When::Sluice, modes::back),
    ("a_node_that_is_added_is_part_of_the_network", When::Sluice, nodes::added),
    ("a_node_that_changes_its_addresses_is_reached_by_the_new_ones", When::Sluice, nodes::moved),
    ("a_node_that_is_removed_leaves_nothing_on_the_others", When::Sluice, nodes::removed),
    ("no_call_of_the_controllers_is_denied", When::Sluice, faults::no_denied_call),
    ("uninstalling_leaves_the_nodes_clean", When::Sluice, install::uninstall),
];

/// What is said by the cluster role, and what comes of it when that is away.
const ROLE: &[Test] = &[
    ("nodes_turn_ready_when_sluice_is_installed", When::First, install::install),
    ("policies_hold_that_the_cluster_role_tells", When::Sluice, cluster_role::by_stream),
    ("policies_say_when_they_are_in_force", When::Sluice, cluster_role::status),
    ("policies_stay_in_force_without_the_cluster_role", When::Sluice, cluster_role::killed),
    ("policies_stay_in_force_without_api_server_and_cluster_role", When::Sluice, cluster_role::without_api_server),
    ("another_instance_takes_over_from_a_leader_that_is_killed", When::Sluice, cluster_role::failover),
    ("a_node_looks_itself_when_the_cluster_role_is_gone_for_good", When::Sluice, cluster_role::gone),
    ("a_change_of_the_source_of_policies_loses_nothing", When::Sluice, cluster_role::off_and_on),
    ("no_call_of_the_controllers_is_denied", When::Sluice, faults::no_denied_call),
    ("uninstalling_leaves_the_nodes_clean", When::Sluice, install::uninstall),
];

/// What stops when something ends, and what is told when something is wrong. The kubelet waits longer each time that it starts a
/// container of a Pod again: tests that kill one more than once come when Sluice's Pods are new.
const FAULTS: &[Test] = &[
    ("nodes_turn_ready_when_sluice_is_installed", When::First, install::install),
    ("pods_become_ready_by_the_probes_of_the_kubelet", When::First, pods::make),
    ("connections_outlive_a_rolling_update", When::Sluice, faults::rolling_update),
    ("connections_outlive_a_killed_switch", When::Sluice, faults::switch),
    ("a_restart_of_the_node_role_loses_no_packet", When::Sluice, faults::node_role),
    ("the_flows_after_a_restart_are_those_before", When::Sluice, faults::same_flows),
    ("a_killed_kubelet_costs_pods_no_packet", When::Sluice, faults::kubelet),
    ("no_killed_program_of_kubernetes_costs_a_packet", When::Sluice, faults::others),
    ("the_node_role_starts_from_its_copy_without_an_api_server", When::Sluice, faults::without_api_server),
    ("a_wrong_configuration_is_told_by_the_pod", When::Sluice, first_use::wrong_configuration),
    ("a_missing_privilege_is_told_by_the_pod", When::Sluice, first_use::missing_privilege),
    ("a_second_network_on_a_node_is_told_by_the_pod", When::Sluice, first_use::second_network),
    ("an_interface_that_is_not_ours_is_told_by_the_pod", When::Sluice, first_use::foreign_interface),
    ("a_service_deleted_while_the_node_role_was_down_is_gone", When::Sluice, faults::deleted_meanwhile),
    ("no_call_of_the_controllers_is_denied", When::Sluice, faults::no_denied_call),
    ("uninstalling_after_faults_leaves_the_nodes_clean", When::Sluice, install::uninstall_after_faults),
];

/// What policies say, cell by cell.
const POLICIES: &[Test] = &[
    ("nodes_turn_ready_when_sluice_is_installed", When::First, install::install),
    ("every_cell_of_every_truth_table_is_right", When::Sluice, table::tables),
    ("no_packet_gets_to_a_pod_or_from_it_before_its_policies", When::Sluice, policies::race::from_the_first_moment),
    ("open_connections_end_when_they_are_denied_and_only_then", When::Sluice, policies::open::while_policies_change),
    ("who_decided_is_told_by_the_names_of_the_cluster", When::Sluice, policies::told::by_every_verb),
    ("no_call_of_the_controllers_is_denied", When::Sluice, faults::no_denied_call),
];

/// What is tested on a cluster that has only IPv6, in order.
const IPV6: &[Test] = &[
    ("nodes_turn_ready_when_sluice_is_installed", When::First, install::install),
    ("pods_become_ready_by_the_probes_of_the_kubelet", When::First, pods::make),
    ("pods_reach_each_other_on_a_node_and_across", When::Any, pods::reach_each_other),
    ("exec_and_logs_work", When::Any, pods::exec_and_logs),
    ("hosts_reach_pods_and_pods_hosts", When::Any, pods::hosts),
    ("pods_reach_the_outside_behind_their_nodes_address", When::Sluice, pods::outside),
    ("a_service_spreads_connections_over_its_endpoints", When::Any, services::cluster_ip),
    ("a_service_is_reached_from_hosts", When::Any, services::from_hosts),
    ("a_pod_reaches_itself_by_its_service", When::Any, services::hairpin),
    ("a_node_port_is_reached_from_outside_on_every_node", When::Any, services::node_port),
    ("a_service_without_endpoints_refuses_at_once", When::Any, services::without_endpoints),
    ("the_api_server_is_reached_by_its_service", When::Any, services::api_server),
    ("a_load_balancers_address_leads_to_its_service", When::Any, services::entrances::load_balancer),
    ("external_addresses_lead_to_their_service", When::Any, services::entrances::external_ips),
    ("with_external_policy_local_clients_are_seen_as_they_are", When::Any, services::entrances::external_local),
    ("a_client_with_affinity_keeps_its_endpoint", When::Any, services::changes::affinity),
    ("large_datagrams_reach_services", When::Any, services::changes::fragments),
    ("names_resolve", When::Any, services::names),
    ("geneve_carries_packets_of_the_whole_mtu", When::Sluice, modes::geneve),
    ("vxlan_carries_everything", When::Sluice, modes::vxlan),
    ("without_encapsulation_everything_is_routed", When::Sluice, modes::no_encap),
    ("the_mode_goes_back_to_geneve", When::Sluice, modes::back),
    ("a_restart_of_the_node_role_loses_no_packet", When::Sluice, faults::node_role),
    ("no_call_of_the_controllers_is_denied", When::Sluice, faults::no_denied_call),
    ("uninstalling_leaves_the_nodes_clean", When::Sluice, install::uninstall),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(policies::open::SERVE) {
        policies::open::serve(words);
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::args().any(|word| word == "--list") {
        for scenario in &SCENARIOS {
            scenario.tests.iter().for_each(|(name, ..)| println!("{}::{name}: test", scenario.name));
        }
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<(&Scenario, Vec<Test>)> =
        SCENARIOS.iter().filter_map(|scenario| Some((scenario, scenario.chosen(&words, plain())?))).collect();
    if chosen.is_empty() {
        println!("test result: ok. No test of that name.");
        return ExitCode::SUCCESS;
    }
    if cannot() {
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    if !plain() {
        install::make_image(folder.path());
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Each runs even if one before it has failed.
    let lane = || {
        while let Some((scenario, tests)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            failed.fetch_add(usize::from(!run(scenario, tests)), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| (0..LANES).for_each(|_| _ = scope.spawn(lane)));
    if failed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Scenario {
    /// The tests that some words choose, with those that they need; none if no test is chosen.
    fn chosen(&self, words: &[String], bare: bool) -> Option<Vec<Test>> {
        let is_named = |name: &str| {
            let name = format!("{}::{name}", self.name);
            words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
        };
        if !self.tests.iter().any(|(name, ..)| is_named(name)) {
            return None;
        }
        let all = self
            .tests
            .iter()
            .copied()
            .filter(|(name, when, _)| *when == When::First || is_named(name) && (*when == When::Any || !bare));
        Some(all.collect())
    }
}

/// Whether the plain network takes Sluice's place.
pub(crate) fn plain() -> bool {
    std::env::var("SLUICE_KUBE_NET").is_ok_and(|net| net == "bridge")
}

/// Whether this machine cannot run the suite; the reason is said.
fn cannot() -> bool {
    if skipped("kube") {
        return true;
    }
    let Some((_, package)) = PROGRAMS.iter().find(|(program, _)| !Path::new(program).exists()) else { return false };
    _ = writeln!(io::stderr(), "skipped: kube: needs Debian's {package}");
    true
}

/// Whether all went well.
fn run(scenario: &Scenario, tests: &[Test]) -> bool {
    let begin = Instant::now();
    let name = scenario.name;
    let cluster = match Cluster::up(&format!("{name}{}", std::process::id()), scenario.shape, plain()) {
        Ok(cluster) => cluster,
        Err((Some(77), reason)) => {
            _ = writeln!(io::stderr(), "skipped: kube: {reason}");
            return true;
        }
        Err((_, reason)) => {
            println!(
                "failures:\nthe cluster {name} did not come up:\n{reason}\ntest result: FAILED. {name}: no cluster"
            );
            return false;
        }
    };
    println!("cluster {name} up in {:.1} s; running {} tests", begin.elapsed().as_secs_f64(), tests.len());
    let mut failed = Vec::new();
    for (test, when, function) in tests {
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| function(&cluster)));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name}::{test} ... {word} ({:.1} s)", begin.elapsed().as_secs_f64());
        if let Err(panic) = result {
            if failed.is_empty() {
                println!("{}", cluster.diagnose());
            }
            failed.push(format!("---- {name}::{test} ----\n{}\n", said(&*panic)));
            if *when == When::First {
                break;
            }
        }
    }
    drop(cluster);
    let seconds = begin.elapsed().as_secs_f64();
    let (count, of) = (failed.len(), tests.len());
    let verdict = if count == 0 { "ok" } else { "FAILED" };
    // At once, since another scenario tells of itself meanwhile.
    let reasons = if count == 0 { String::new() } else { format!("failures:\n{}", failed.concat()) };
    println!("{reasons}test result: {verdict}. {name}: {count} failed of {of}; {seconds:.0} s");
    count == 0
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}
