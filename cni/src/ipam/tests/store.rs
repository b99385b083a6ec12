//! The store under several processes, kills and damage.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Tells [`a_process_of_its_own`] where the store is, its name, and how many additions it makes.
const WORK: &str = "SLUICE_IPAM_TEST_WORK";
/// How many processes are killed, if it is not [`KILLS`].
const KILLS_VARIABLE: &str = "SLUICE_IPAM_TEST_KILLS";
const KILLS: u64 = 100;

fn net_in(dir: &Path) -> Own {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "net", "dataDir": dir.join("store"),
        "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]], "dataDir": dir.join("networks")},
    });
    let conf = Conf::read(conf.to_string().as_bytes(), &CniArgs::default(), "c").expect("a configuration");
    match conf.kind {
        Kind::Own(settings) => Own { network: conf.network, settings: *settings },
        other => panic!("{other:?}"),
    }
}

fn who(id: String) -> Attachment {
    Attachment { network: "net".into(), container_id: id, ifname: "eth0".into() }
}

fn at() -> Moment {
    Moment { now_ms: now().now_ms, boot_id: "boot".into() }
}

/// Adds and releases addresses, and says what is done and what it begins to do.
#[test]
#[ignore = "other tests of this file start it as a process of its own"]
fn a_process_of_its_own() {
    let work = std::env::var(WORK).expect("who starts it says what to do");
    let mut words = work.split(' ');
    let mut next = || words.next().expect("three words");
    let (dir, name, adds) = (next(), next(), next().parse::<u64>().expect("a number"));
    let own = net_in(Path::new(dir));
    for n in 0..adds {
        let id = format!("{name}-{n}");
        let (result, _) = own.add(&who(id.clone()), "", &at()).expect("ADD");
        println!("\nadded {id} {} {}", result.ips[0].address.addr(), result.ips[1].address.addr());
        if n % 3 != 0 {
            println!("\nreleasing {id}");
            own.del(&who(id.clone()), &at()).expect("DEL");
            println!("\nreleased {id}");
        }
    }
}

fn start(dir: &Path, name: &str, adds: u64) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "ipam::tests::store::a_process_of_its_own", "--ignored", "--nocapture", "--test-threads=1"])
        .env(WORK, format!("{} {name} {adds}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process")
}

/// What a process has said: who surely has which addresses, and of whom it is not known, since a release was begun.
#[derive(Default)]
struct Said {
    has: BTreeMap<String, BTreeSet<String>>,
    unsure: BTreeSet<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.trim().split(' ').collect();
        match words[..] {
            ["added", id, v4, v6] => drop(self.has.insert(id.into(), [v4.to_owned(), v6.to_owned()].into())),
            ["releasing", id] => {
                self.has.remove(id);
                self.unsure.insert(id.to_owned());
            }
            ["released", id] => drop(self.unsure.remove(id)),
            _ => {}
        }
    }

    /// Hears all until the process ends.
    fn all(mut self, output: BufReader<ChildStdout>) -> Self {
        output.lines().for_each(|line| self.hear(&line.expect("text")));
        self
    }
}

/// Who has which addresses.
fn owners(own: &Own) -> BTreeMap<String, BTreeSet<String>> {
    let all = own.store().read(|view| view.reservations(Some("net"))).expect("reads").unwrap_or_default();
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, address, record) in all {
        owners.entry(record.container_id).or_default().insert(address.to_string());
    }
    owners
}

#[test]
fn processes_killed_at_any_point_leave_what_they_said_and_nothing_by_halves() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = net_in(dir.path());
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seed = 1u64;
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |n| n.parse().expect("a number"));
    for round in 0..kills {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut child = start(dir.path(), &format!("p{round}"), 10_000);
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut said = Said::default();
        while said.has.is_empty() {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).expect("text"), 0, "the process is at work");
            said.hear(&line);
        }
        std::thread::sleep(Duration::from_micros((seed >> 40) % 20_000));
        child.kill().expect("killed");
        child.wait().expect("gone");
        let Said { has, unsure } = said.all(output);
        let found = owners(&own);
        own.store().write(|tables| tables.audit()).expect("the store opens, and its tables agree");
        for (id, ips) in expected.iter().chain(&has) {
            assert_eq!(found.get(id), Some(ips), "{id} has what was said, round {round}");
        }
        for (id, ips) in &found {
            assert_eq!(ips.len(), 2, "{id} has both addresses, round {round}");
            // At most the addition that was being made when the process was killed.
            let known = expected.contains_key(id) || has.contains_key(id) || unsure.contains(id);
            assert!(known || id.starts_with(&format!("p{round}-")), "{id} of another round");
        }
        own.gc(&BTreeSet::new(), &at()).expect("GC");
        expected.clear();
        if round % 2 == 0 {
            own.add(&who(format!("kept{round}")), "", &at()).expect("ADD");
            expected = owners(&own);
        }
    }
}

#[test]
fn processes_at_the_same_time_wait_for_one_another_and_get_different_addresses() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let children: Vec<Child> = (0..8).map(|n| start(dir.path(), &format!("p{n}"), 20)).collect();
    let mut has = BTreeMap::new();
    for mut child in children {
        let said = Said::default().all(BufReader::new(child.stdout.take().expect("a pipe")));
        let status = child.wait().expect("ended");
        assert!(status.success(), "{status}");
        has.extend(said.has);
    }
    assert_eq!(has.len(), 8 * 7, "every third is kept");
    assert_eq!(owners(&net_in(dir.path())), has);
}

#[test]
fn a_store_that_is_held_is_busy_after_a_bounded_time() {
    let net = Net::subnet("10.77.0.0/24");
    net.one("a");
    let own = net.own("b").expect("a configuration");
    let path = own.store().path().with_file_name("addresses.lock");
    let holder = std::fs::File::open(&path).expect("the lock");
    holder.lock().expect("locked");
    let store = own.store().waiting(Duration::from_millis(30));
    let busy = crate::error::Failure::from(store.write(|_| Ok(())).expect_err("it is held"));
    assert!(busy.is(crate::error::Code::TryAgainLater), "{busy}");
    drop(holder);
    assert!(store.write(|_| Ok(())).is_ok());
}

#[test]
fn a_damaged_store_is_told_and_left_as_it_is() {
    let net = Net::subnet("10.77.0.0/24");
    net.one("a");
    let path = net.own("b").expect("a configuration").store().path();
    let whole = std::fs::read(&path).expect("the file");
    for damaged in [b"not a store".to_vec(), whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]] {
        std::fs::write(&path, &damaged).expect("written");
        let why = net.why("b");
        assert!(why.contains("addresses.redb"), "{why}");
        assert_eq!(std::fs::read(&path).expect("the file"), damaged);
    }
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(net.one("b"), "10.77.0.3");
}

#[test]
fn files_of_the_store_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let net = Net::subnet("10.77.0.0/24");
    net.one("a");
    let dir = net.dir.path().join("store");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!((mode(&dir.join("addresses.redb")), mode(&dir.join("addresses.lock"))), (0o600, 0o600));
}
