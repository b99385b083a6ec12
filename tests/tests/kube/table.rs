//! Policies' truth tables with real packets: every case of `tests/policies`, each of its steps made on the cluster while it runs, and
//! then each cell asked for, in both families, over TCP, UDP and SCTP, from each Pod to each Pod, and to and from hosts and the outside
//! where a case speaks of them.

mod site;

use crate::cluster::{Cluster, ROOT};
use serde_json::{Value, json};
use site::{Question, Site};
use sluice_tests::policy::{Case, Cell, End, Step, World};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How long a change may take until it is in force everywhere.
const SETTLED: Duration = Duration::from_secs(60);
/// Wrong cells that are printed for a step.
const PRINTED: usize = 8;

/// Those who are in tables.
struct Sites {
    sites: BTreeMap<String, Site>,
}

/// What an end is called.
fn name_of(end: &End) -> String {
    match end {
        End::Pod { namespace, name, .. } => format!("{namespace}/{name}"),
        End::Host { node, .. } => format!("@{node}"),
        End::Address(_) => "outside".to_owned(),
    }
}

impl Sites {
    fn start(cluster: &Cluster, world: &World) -> Self {
        let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for end in world.pod_ends().iter().chain(&world.host_ends()) {
            addresses.entry(name_of(end)).or_default().push(end.address());
        }
        let mut sites = BTreeMap::new();
        for (name, addresses) in addresses {
            let netns = match name.split_once('/') {
                Some((namespace, pod)) => cluster.netns_in(namespace, pod),
                None => cluster.netns_of_machine(name.trim_start_matches('@')),
            };
            sites.insert(name, Site::start(netns, &addresses));
        }
        let outside = cluster.of_families("172.30.0.1", "fd00:30::1").into_iter().map(|text| text.parse().unwrap());
        sites.insert("outside".to_owned(), Site::start(cluster.outside(), &outside.collect::<Vec<_>>()));
        Self { sites }
    }

    /// The cells that are not as they are to be.
    fn wrong<'a>(&self, cells: &[&'a Cell]) -> Vec<&'a Cell> {
        let mut by_site: BTreeMap<String, Vec<&'a Cell>> = BTreeMap::new();
        cells.iter().for_each(|cell| by_site.entry(name_of(&cell.from)).or_default().push(cell));
        thread::scope(|scope| {
            let asking: Vec<_> =
                by_site.iter().map(|(name, cells)| scope.spawn(move || self.wrong_from(name, cells))).collect();
            asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn wrong_from<'a>(&self, name: &str, cells: &[&'a Cell]) -> Vec<&'a Cell> {
        let question = |cell: &&Cell| Question {
            from: cell.from.address(),
            to: SocketAddr::new(cell.to.address(), cell.port),
            at: &self.sites[&name_of(&cell.to)],
            protocol: cell.protocol,
            is_expected: cell.allowed,
        };
        let questions: Vec<_> = cells.iter().map(question).collect();
        let answers = self.sites[name].ask(&questions).into_iter();
        answers.zip(cells).filter_map(|(answered, cell)| (answered != cell.allowed).then_some(*cell)).collect()
    }

    /// Asks until every cell is as it is to be: what is wrong first alone, then all again.
    fn await_table(&self, cells: &[Cell]) -> Result<(), Vec<String>> {
        let end = Instant::now() + SETTLED;
        let all: Vec<&Cell> = cells.iter().collect();
        loop {
            let mut wrong = self.wrong(&all);
            if wrong.is_empty() {
                return Ok(());
            }
            while !wrong.is_empty() {
                if Instant::now() > end {
                    return Err(wrong.into_iter().map(told).collect());
                }
                wrong = self.wrong(&wrong);
            }
        }
    }
}

fn told(cell: &Cell) -> String {
    let Cell { from, to, protocol, port, allowed } = cell;
    format!("{from} -> {to} {protocol}/{port}: {}", if *allowed { "is to pass and does not" } else { "passes" })
}

fn folder() -> PathBuf {
    PathBuf::from(ROOT).join("tests/policies")
}

/// The Pods of the tables as they are on this cluster.
fn make_world(cluster: &Cluster) -> World {
    let text = fs::read_to_string(folder().join("world.yaml")).unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let labels: Vec<Value> = objects.extract_if(.., |object| object["kind"] == "Node").collect();
    for object in &mut objects {
        let fields = object.as_object_mut().unwrap();
        fields.remove("status");
        if fields["kind"] == "Pod" {
            let spec = &mut fields["spec"];
            spec["terminationGracePeriodSeconds"] = json!(0);
            spec["containers"][0]["image"] = json!(crate::cluster::TOOLBOX);
            spec["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
        }
    }
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
    for node in labels {
        for (key, value) in node["metadata"]["labels"].as_object().unwrap() {
            let label = format!("{key}={}", value.as_str().unwrap());
            cluster.kubectl(&["label", "--overwrite", "node", node["metadata"]["name"].as_str().unwrap(), &label]);
        }
    }
    for namespace in ["x", "y", "z"] {
        cluster.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=200s"]);
    }
    let mut objects = Vec::new();
    for words in
        [&["nodes"][..], &["namespaces", "x", "y", "z"], &["-n=x", "pods"], &["-n=y", "pods"], &["-n=z", "pods"]]
    {
        objects.push(serde_json::from_str(&cluster.kubectl(&[&["get", "--output=json"], words].concat())).unwrap());
    }
    World::read(objects).unwrap()
}

/// The cases in order of their files' names, those of this word alone if one is set.
fn cases(world: &World) -> Vec<(String, Case)> {
    let wanted = std::env::var("SLUICE_KUBE_CASES").unwrap_or_default();
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = files.map(|path| (name(&path), path)).collect();
    files.retain(|(name, _)| name != "world" && name.contains(&wanted));
    files.sort();
    let read = |(name, path): (String, PathBuf)| {
        let case = Case::read(&fs::read_to_string(path).unwrap(), world).unwrap_or_else(|why| panic!("{name}: {why}"));
        (name, case)
    };
    files.into_iter().map(read).collect()
}

/// Every cell of every table of every case.
pub(crate) fn tables(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-k", &format!("{ROOT}/deploy/crds")]);
    let world = make_world(cluster);
    let sites = Sites::start(cluster, &world);
    let (mut faults, mut asked) = (Vec::new(), 0);
    let cases = cases(&world);
    for (name, case) in &cases {
        let mut now = world.clone();
        for (index, step) in case.steps.iter().enumerate() {
            step.change(&mut now).unwrap();
            make(cluster, step);
            let mut cells = step.cells(&now);
            // What is outside has no way to Pods' addresses of its own.
            cells.retain(|cell| !matches!(cell.from, End::Address(_)));
            asked += cells.len();
            if let Err(wrong) = sites.await_table(&cells) {
                let count = wrong.len();
                let some: Vec<_> = wrong.into_iter().take(PRINTED).collect();
                faults.push(format!("{name}, step {index}: {count} wrong\n  {}", some.join("\n  ")));
                eprintln!("{}", faults[faults.len() - 1]);
            }
        }
        unmake(cluster, case, &now, &world);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} cases, {asked} cells", cases.len());
}

/// Does on the cluster what a step says.
fn make(cluster: &Cluster, step: &Step) {
    step.apply.iter().for_each(|object| cluster.put(&object.write()));
    step.delete.iter().for_each(|key| cluster.delete(key));
    for (key, changes) in &step.label {
        cluster.label(key, &json!(changes));
    }
}

/// Makes the cluster what it was before a case.
fn unmake(cluster: &Cluster, case: &Case, now: &World, before: &World) {
    let made = now.objects.iter().map(|object| object.key());
    for (kind, namespace, name) in made.filter(|(kind, ..)| kind.ends_with("Policy")) {
        cluster.delete(&(kind.to_owned(), namespace, name));
    }
    let mut before = before.clone();
    for (key, changes) in case.steps.iter().flat_map(|step| &step.label) {
        let object = before.object_mut(&key.0, &key.1, &key.2).unwrap();
        let labels = object.metadata().labels.clone().unwrap_or_default();
        let old: BTreeMap<&String, Option<&String>> = changes.keys().map(|key| (key, labels.get(key))).collect();
        cluster.label(key, &json!(old));
    }
}
