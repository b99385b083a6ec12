//! Pods from the first moment of their life: under a policy that denies everything not one packet gets to them or comes from them.
//!
//! Each network that appears on a node is entered at once, before it has an interface. From there datagrams and TCP SYNs go to Pods
//! of both nodes as soon as it has an address, and all that arrives is looked at; a Pod's own program sends too. Those Pods
//! send the same to every address that a Pod can get, most often to those that come next, long before anybody has them.

mod wire;

use crate::cluster::{Cluster, within};
use crate::services::field::Field;
use crate::services::place::{Place, Proto, all_hear_nothing};
use ipnet::IpNet;
use sluice_tests::netns::Netns;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wire::{PORT, TCP, UDP, Wire, kind, packet};

/// Pods that are made unless `SLUICE_KUBE_PODS` says how many.
const PODS: usize = 60;
/// Pods at one time, and without a policy.
const WAVE: usize = 100;
const FREE: usize = 6;
/// Between two packets to an address, or of a Pod, that is young.
const STEP: Duration = Duration::from_millis(2);
/// How long a Pod is young.
const YOUNG: Duration = Duration::from_secs(3);
/// One of so many steps is for a Pod that is not.
const SELDOM: usize = 200;
/// Addresses that come next are asked for as if they were there: so many of each node and family.
const AHEAD: u128 = 4;
/// Pods that are printed when they were reached.
const PRINTED: usize = 5;

/// The Pods: each sends out at once, too. With a grace period a Pod is there for the API server until its network is gone.
const DEPLOYMENT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: race}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: race, name: race}
spec:
  replicas: 0
  selector: {matchLabels: {app: race}}
  template:
    metadata: {labels: {app: race}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: tools
          image: localhost/toolbox:1
          imagePullPolicy: IfNotPresent
          command: [sh, -c, 'for a in ADDRESSES; do /usr/bin/ping -q -c 10 -i 0.2 $a & done; exec sleep 100000']
";
/// Nothing in, nothing out.
const DENY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: race, name: nothing}, \
     spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}";

/// The address that is `n` behind this one.
fn behind(address: IpAddr, n: u128) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(n as u32)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(n)).into(),
    }
}

/// A network that has appeared.
struct Life {
    node: usize,
    wire: Wire,
    /// A socket for each place that probes, by which the kernel tells from where it would be reached.
    ways: Vec<(IpAddr, UdpSocket)>,
    packets: Vec<(IpAddr, Vec<u8>)>,
    own: Vec<IpAddr>,
    /// When it got its first address.
    since: Option<Instant>,
    sent: usize,
    /// Who was heard, how long after that for the first time, and by what.
    heard: BTreeMap<IpAddr, (Duration, String)>,
}

impl Life {
    fn new(node: usize, file: &Path, places: &[IpAddr]) -> Option<Self> {
        let netns = Netns::at(file).ok()?;
        let any = |to: &IpAddr| if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let ways = netns.run(|| places.iter().map(|to| (*to, UdpSocket::bind(any(to)).unwrap())).collect());
        let (wire, packets, own, heard) = (Wire::new(&netns), Vec::new(), Vec::new(), BTreeMap::new());
        Some(Self { node, wire, ways, packets, own, since: None, sent: 0, heard })
    }

    fn is_young(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() < YOUNG)
    }

    fn look(&mut self, race: &Race) {
        let is_global = |own: &IpAddr| !matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
        self.ways.retain(|(to, way)| {
            let connected = way.connect(SocketAddr::new(*to, PORT)).and_then(|()| way.local_addr());
            let Some(own) = connected.ok().map(|own| own.ip()).filter(is_global) else { return true };
            self.since.get_or_insert_with(Instant::now);
            self.packets.extend([UDP, TCP].map(|protocol| (*to, packet(protocol, own, *to))));
            if !self.own.contains(&own) {
                self.own.push(own);
                race.born(own);
            }
            false
        });
        let since = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.wire.sources(|from, packet| {
            if race.places.contains(&from) {
                self.heard.entry(from).or_insert_with(|| (since, kind(packet)));
            }
        });
    }

    fn send(&mut self, race: &Race) {
        let Some((to, packet)) = self.packets.get(self.sent % self.packets.len().max(1)) else { return };
        self.sent += 1;
        race.from_pods.fetch_add(u64::from(self.wire.send(*to, packet)), Ordering::Relaxed);
    }
}

/// What came of a race.
struct Outcome {
    lives: Vec<Life>,
    /// Of each place that probes: who was heard there.
    heard: Vec<BTreeSet<IpAddr>>,
    to_pods: u64,
    from_pods: u64,
}

/// A race while it lasts.
struct Race {
    /// The addresses of those who probe.
    places: Vec<IpAddr>,
    /// Of nodes, of both families, with the last address that a Pod has got there.
    cidrs: Mutex<Vec<(IpNet, IpAddr)>>,
    /// All addresses that Pods may get.
    all: Vec<IpAddr>,
    /// Pods that were there before, and nodes' own addresses.
    others: BTreeSet<IpAddr>,
    young: Mutex<Vec<(IpAddr, Instant)>>,
    ended: AtomicBool,
    to_pods: AtomicU64,
    from_pods: AtomicU64,
}

impl Race {
    /// Probes while something is done; no more than `count` Pods are made.
    fn during(field: &Field<'_>, count: usize, work: impl FnOnce()) -> Outcome {
        let cluster = field.cluster;
        let list = cluster.get("/api/v1/pods");
        let addresses = list["items"].as_array().unwrap().iter().flat_map(|pod| pod["status"]["podIPs"].as_array());
        let addresses = addresses.flatten().map(|of| of["ip"].as_str().unwrap().parse().unwrap());
        let mut others: BTreeSet<IpAddr> = addresses.collect();
        let nets = cluster.nodes.iter().flat_map(|node| cluster.pod_cidrs(node));
        let mut cidrs = Vec::new();
        for net in nets.map(|net| net.parse::<IpNet>().unwrap()) {
            let gateway = behind(net.network(), 1);
            others.insert(gateway);
            let last = others.iter().copied().filter(|address| net.contains(address)).max();
            cidrs.push((net, last.unwrap_or(gateway)));
        }
        let of = |(net, last): &(IpNet, IpAddr)| -> Vec<IpAddr> {
            match net {
                IpNet::V4(net) => net.hosts().map(IpAddr::from).collect(),
                // More than will ever be given.
                IpNet::V6(_) => (1..=2 * count as u128).map(|n| behind(*last, n)).collect(),
            }
        };
        let all = cidrs.iter().flat_map(of).filter(|address| !others.contains(address)).collect();
        let places = ["ask1", "ask2"].map(|pod| cluster.addresses(pod));
        let places = places.map(|own| own.iter().map(|address| address.parse().unwrap()).collect::<Vec<IpAddr>>());
        let race = Self {
            places: places.concat(),
            cidrs: Mutex::new(cidrs),
            all,
            others,
            young: Mutex::default(),
            ended: AtomicBool::new(false),
            to_pods: AtomicU64::new(0),
            from_pods: AtomicU64::new(0),
        };
        let folders: Vec<PathBuf> = cluster.nodes.iter().map(|node| networks(cluster, node)).collect();
        let (lives, heard) = thread::scope(|scope| {
            let race = &race;
            let known: Vec<_> = folders.iter().map(|folder| names(folder)).collect();
            let inside = folders.iter().zip(known).enumerate();
            let inside: Vec<_> =
                inside.map(|(node, (folder, known))| scope.spawn(move || race.inside(node, folder, known))).collect();
            let probing = [&field.c1, &field.c2].into_iter().zip(places);
            let probing: Vec<_> = probing.map(|(place, own)| scope.spawn(move || race.probe(place, &own))).collect();
            // What has panicked is told at the end.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            race.ended.store(true, Ordering::Relaxed);
            let lives = inside.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let heard = probing.into_iter().map(|thread| thread.join().unwrap()).collect();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (lives, heard)
        });
        let (to_pods, from_pods) = (race.to_pods.into_inner(), race.from_pods.into_inner());
        Outcome { lives, heard, to_pods, from_pods }
    }

    fn born(&self, address: IpAddr) {
        self.young.lock().unwrap().push((address, Instant::now()));
        let mut cidrs = self.cidrs.lock().unwrap();
        cidrs.iter_mut().filter(|(net, _)| net.contains(&address)).for_each(|(_, last)| *last = address);
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Looks after the networks of a node that are not known; all that there were.
    fn inside(&self, node: usize, folder: &Path, mut known: BTreeSet<OsString>) -> Vec<Life> {
        let (mut alive, mut gone) = (BTreeMap::<OsString, Life>::new(), Vec::new());
        for step in 0.. {
            let names = names(folder);
            for name in names.difference(&known) {
                let life = Life::new(node, &folder.join(name), &self.places);
                alive.extend(life.map(|life| (name.clone(), life)));
            }
            known.extend(names.iter().cloned());
            for (turn, life) in alive.values_mut().enumerate() {
                life.look(self);
                if life.is_young() || (step + turn) % SELDOM == 0 {
                    life.send(self);
                }
            }
            let is_over = self.is_over();
            gone.extend(alive.extract_if(.., |name, _| is_over || !names.contains(name)).map(|(_, life)| life));
            if is_over {
                break;
            }
            thread::sleep(STEP);
        }
        gone
    }

    /// Sends to all addresses, to those that are young or come next most often; who was heard.
    fn probe(&self, place: &Place, own: &[IpAddr]) -> BTreeSet<IpAddr> {
        let wire = Wire::new(&place.netns);
        let mut heard = BTreeSet::new();
        let nets: Vec<IpNet> = self.cidrs.lock().unwrap().iter().map(|(net, _)| *net).collect();
        let per_step = self.all.len().div_ceil(SELDOM);
        let mut seldom = self.all.iter().copied().cycle();
        for step in 0.. {
            let mut young = self.young.lock().unwrap();
            young.retain(|(_, since)| since.elapsed() < YOUNG);
            let mut targets: Vec<IpAddr> = young.iter().map(|(address, _)| *address).collect();
            drop(young);
            let last: Vec<IpAddr> = self.cidrs.lock().unwrap().iter().map(|(_, last)| *last).collect();
            targets.extend(last.into_iter().flat_map(|last| (1..=AHEAD).map(move |n| behind(last, n))));
            targets.extend(seldom.by_ref().take(per_step));
            let protocol = if step % 2 == 0 { UDP } else { TCP };
            for to in targets.into_iter().filter(|to| !self.others.contains(to)) {
                let from = own.iter().find(|own| own.is_ipv4() == to.is_ipv4()).unwrap();
                let is_sent = wire.send(to, &packet(protocol, *from, to));
                self.to_pods.fetch_add(u64::from(is_sent), Ordering::Relaxed);
            }
            wire.sources(|from, _| {
                if nets.iter().any(|net| net.contains(&from)) && !self.others.contains(&from) {
                    heard.insert(from);
                }
            });
            if self.is_over() {
                break;
            }
            thread::sleep(STEP);
        }
        heard
    }
}

/// Where a node's runtime has the networks of its Pods.
fn networks(cluster: &Cluster, node: &str) -> PathBuf {
    let first = fs::read_to_string(cluster.folder().join(format!("{node}.first"))).unwrap();
    PathBuf::from(format!("/proc/{}/root/run/netns", first.split_whitespace().next().unwrap()))
}

/// The names of those that are there: a file that is a network is of another file system than its folder.
fn names(folder: &Path) -> BTreeSet<OsString> {
    let own = fs::metadata(folder).unwrap().dev();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let is_network = |entry: &fs::DirEntry| fs::metadata(entry.path()).is_ok_and(|found| found.dev() != own);
    entries.filter(is_network).map(|entry| entry.file_name()).collect()
}

/// Has there be so many Pods; all run, or all are gone with their networks.
fn scale(cluster: &Cluster, count: usize) {
    cluster.kubectl(&["-n", "race", "scale", "deployment/race", &format!("--replicas={count}")]);
    within(120 + 3 * count as u64, &format!("{count} Pods"), || {
        let list = cluster.get("/api/v1/namespaces/race/pods");
        let pods = list["items"].as_array().unwrap();
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        if (pods.len(), running) == (count, count) { Ok(()) } else { Err(format!("{running} run of {}", pods.len())) }
    });
}

/// Everybody was heard and heard everybody, in each family.
fn check_free(cluster: &Cluster, outcome: &Outcome) {
    let Outcome { lives, heard, .. } = outcome;
    assert!(lives.len() >= FREE && (0..2).all(|node| lives.iter().any(|life| life.node == node)), "{}", lives.len());
    for life in lives {
        assert_eq!(life.own.len(), cluster.of_families(4, 6).len(), "{:?}", life.own);
        assert_eq!(life.heard.len(), 2 * life.own.len(), "{:?} was reached by {:?} alone", life.own, life.heard);
        for (place, heard) in heard.iter().enumerate() {
            let missing: Vec<_> = life.own.iter().filter(|own| !heard.contains(own)).collect();
            assert!(missing.is_empty(), "ask{} has heard nothing of {missing:?}", place + 1);
        }
    }
}

/// Nobody was heard, and nobody heard anything.
fn check_denied(outcome: &Outcome, count: usize) {
    let Outcome { lives, heard, to_pods, from_pods } = outcome;
    let with_address = lives.iter().filter(|life| life.since.is_some()).count();
    assert!(with_address >= count, "{with_address} of {} networks had an address", lives.len());
    let silent = lives.iter().filter(|life| life.since.is_some() && life.sent < 2 * life.own.len()).count();
    assert_eq!(silent, 0, "so many had no time to send");
    let reached: Vec<_> = lives.iter().filter(|life| !life.heard.is_empty()).map(|l| (&l.own, &l.heard)).collect();
    let some = &reached[..reached.len().min(PRINTED)];
    let is_quiet = reached.is_empty() && heard.iter().all(BTreeSet::is_empty);
    assert!(is_quiet, "{} of {count} Pods were reached: {some:#?}; heard were {heard:?}", reached.len());
    println!("{count} Pods: {to_pods} packets to them and {from_pods} from their networks, none came through");
}

/// Hundreds of Pods under a policy that denies everything.
pub(crate) fn from_the_first_moment(cluster: &Cluster) {
    let field = Field::of(cluster);
    let count = std::env::var("SLUICE_KUBE_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(PODS);
    let places = ["ask1", "ask2"].map(|pod| cluster.addresses(pod).join(" ")).join(" ");
    cluster.apply(&DEPLOYMENT.replace("ADDRESSES", &places));
    // The same packets do come through where nothing denies them.
    let free = Race::during(&field, FREE, || {
        scale(cluster, FREE);
        thread::sleep(YOUNG);
    });
    check_free(cluster, &free);
    cluster.apply(DENY);
    let all = free.lives.iter().flat_map(|life| life.own.iter().map(|own| SocketAddr::new(*own, PORT)));
    all_hear_nothing(&[&field.c1, &field.c2], &[Proto::Tcp], &all.collect::<Vec<_>>());
    scale(cluster, 0);
    let begin = Instant::now();
    let mut left = count;
    let denied = Race::during(&field, count, || {
        while left > 0 {
            let wave = left.min(WAVE);
            scale(cluster, wave);
            thread::sleep(YOUNG);
            scale(cluster, 0);
            left -= wave;
        }
    });
    check_denied(&denied, count);
    println!("{count} Pods took {:.0} s", begin.elapsed().as_secs_f64());
    unseen(&field);
    cluster.kubectl(&["delete", "namespace", "race", "--wait=false"]);
}

/// An attachment for a Pod that no API server has told of: which policies it is a subject of nobody can say, so it is neither heard
/// nor reached while it waits, and then it is undone.
fn unseen(field: &Field<'_>) {
    let cluster = field.cluster;
    let node = &cluster.nodes[0];
    let list = cluster.node(node, &["cat", "/etc/cni/net.d/10-sluice.conflist"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let mut plugin = list["plugins"][0].clone();
    (plugin["cniVersion"], plugin["name"]) = (list["cniVersion"].clone(), list["name"].clone());
    let file = cluster.folder().join("unseen.json");
    fs::write(&file, plugin.to_string()).unwrap();
    let command = |verb: &str| {
        let kind = plugin["type"].as_str().unwrap();
        format!(
            "CNI_COMMAND={verb} CNI_CONTAINERID=unseen CNI_NETNS=/run/netns/unseen CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
             CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME=unseen' /opt/cni/bin/{kind} <{}",
            file.display()
        )
    };
    let outcome = Race::during(field, 1, || {
        cluster.node(node, &["ip", "netns", "add", "unseen"]);
        let said = cluster.try_node(node, &["sh", "-c", &command("ADD")]);
        assert!(!said.good, "nobody can have confirmed it: {}", said.text);
    });
    cluster.node(node, &["sh", "-c", &command("DEL")]);
    cluster.node(node, &["ip", "netns", "delete", "unseen"]);
    let begun: Vec<_> = outcome.lives.iter().filter(|life| life.since.is_some()).collect();
    assert_eq!(begun.len(), 1, "it had an address, and no other Pod was made");
    check_denied(&outcome, 1);
}
