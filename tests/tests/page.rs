//! The page that `sluice lab graph --serve` and `sluiced --ui` have for browsers: what Chromium shows of a lab that changes, and
//! what the server refuses.
//!
//! Where no lab can be made, or there is no Chromium, a test says so by name and does nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::{Value, json};
use sluice_tests::daemon::{Daemon, sluiced};
use sluice_tests::netns::Netns;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

const LAB: &str = "\
lab: page
hosts: {h1: {}, h2: {}}
switches: {s1: {rules: [{name: no-ssh, match: \"tcp,tcp_dst=22\", action: drop}]}, s2: {}}
links:
  - [h1, s1]
  - {ends: [s1, s2], name: wan, delay: 5ms}
  - [h2, s2]
";

/// A folder with a lab that ends also when the test fails.
struct Lab(tempfile::TempDir);

impl Drop for Lab {
    fn drop(&mut self) {
        self.sluice(&["lab", "down", "--all"]);
    }
}

impl Lab {
    /// Brings the lab up; `None` where that is not possible.
    fn up(text: &str) -> Option<Self> {
        let lab = Self(tempfile::tempdir().unwrap());
        std::fs::write(lab.path().join("x.yml"), text).unwrap();
        let up = lab.sluice(&["lab", "up", "x.yml"]);
        if up.status.code() == Some(77) {
            eprintln!("skipped: no lab can be made here: {}", String::from_utf8_lossy(&up.stderr));
            return None;
        }
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        Some(lab)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(sluiced().with_file_name("sluice"));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command.env("SLUICE_RUNTIME_DIR", self.path().join("run")).env_remove("SLUICE_SOCKET");
        command
    }

    fn sluice(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, line: &str) {
        let output = self.sluice(&line.split_whitespace().collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Serves the page; its address.
    fn serve(&self, more: &[&str]) -> (Served, String) {
        let words = [&["lab", "graph", "page", "--serve", "127.0.0.1:0"], more].concat();
        let mut served = Served(self.command(&words).stdout(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        BufReader::new(served.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let url = said.split_whitespace().find(|word| word.starts_with("http://"));
        let address = url.and_then(|url| url.strip_prefix("http://")).unwrap_or_else(|| panic!("{said}"));
        (served, address.trim_end_matches('/').to_owned())
    }
}

/// A process that is ended when dropped.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The answer to a request, written out; its code, and all of it.
fn request(address: &str, head: &str, body: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("{text}")), answer)
}

fn get(address: &str, path: &str) -> (u16, String) {
    let (code, answer) = fetch(address, path);
    (code, String::from_utf8(answer).unwrap())
}

fn fetch(address: &str, path: &str) -> (u16, Vec<u8>) {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"), "")
}

/// The packets of a pcapng file behind the head of an answer: the name of the interface, the comment, the bytes.
fn packets(answer: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut reader = PcapNgReader::new(&answer[head + 4..]).unwrap();
    let (mut names, mut found) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap().0 {
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                names.push(name.unwrap());
            }
            Block::EnhancedPacket(block) => {
                let comment = block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Common(CommonOption::Comment(text)) => Some(text.to_string()),
                    _ => None,
                });
                found.push((names[block.interface_id as usize].clone(), comment.unwrap(), block.data.to_vec()));
            }
            _ => {}
        }
    }
    found
}

/// A Chromium without a window, spoken to by the DevTools protocol over pipes: JSON with a zero byte behind each message.
struct Browser {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// What the browser complained of.
    complaints: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when nobody speaks to it any more.
        drop(self.input.take());
        _ = self.child.wait();
    }
}

impl Browser {
    /// Opens a page; `None` where there is no Chromium.
    fn open(folder: &Path, url: &str) -> Option<Self> {
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: chromium is not installed; `cargo xtask setup` does that");
            return None;
        }
        let script = "exec timeout -k 5 150 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --no-first-run --user-data-dir=\"$0\" --remote-debugging-pipe about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(folder.join("chromium"))
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, input, output, session: None, calls: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Log.enable", json!({}));
        browser.call("Page.navigate", json!({"url": url}));
        Some(browser)
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            let read = self.output.read_until(0, &mut bytes).unwrap();
            assert!(read > 0, "the browser has ended before it answered {method}");
            bytes.pop();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["method"] == "Log.entryAdded" {
                self.complaints.push(answer["params"]["entry"].to_string());
            }
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What an expression comes to, once that is something.
    #[track_caller]
    fn wait(&mut self, expression: &str) -> Value {
        let script = format!(
            "new Promise((done, failed) => {{ const until = Date.now() + 30000; (function look() {{ let value; \
             try {{ value = {expression}; }} catch {{}} if (value) return done(value); \
             if (Date.now() > until) return failed(new Error(document.body.innerText)); setTimeout(look, 50); }})(); }})"
        );
        let evaluated = json!({"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", evaluated);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}; {:?}", self.complaints);
        answer["result"]["value"].clone()
    }

    /// Clicks on what is found so.
    #[track_caller]
    fn click(&mut self, selector: &str) {
        let event = "new MouseEvent('click', { bubbles: true })";
        self.wait(&format!("document.querySelector('{selector}').dispatchEvent({event}) || true"));
    }
}

#[test]
fn a_browser_shows_drops_by_the_names_of_rules_and_follows_links() {
    let Some(lab) = Lab::up(LAB) else { return };
    lab.ok("lab ping");
    // It is dropped, so nothing comes back in that second.
    lab.sluice(&["lab", "exec", "h1", "--", "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/10.0.0.2/22"]);
    let (_served, address) = lab.serve(&["--ui-write"]);
    let Some(mut page) = Browser::open(lab.path(), &format!("http://{address}/")) else { return };

    assert_eq!(page.wait("document.querySelectorAll('[data-node]').length"), 4);
    let row = page.wait("document.querySelector('[data-drop=\"no-ssh\"]').innerText");
    assert!(row.as_str().unwrap().contains("rule_drop"), "{row}");
    page.click("[data-drop=\"no-ssh\"]");
    page.wait("document.querySelector('#panel').innerText.includes('tp_dst=22')");
    page.wait("getComputedStyle(document.querySelector('header')).borderBottomStyle === 'solid'");

    // Links go down and come up while the page is open.
    let wan = |up| format!("document.querySelector('[data-link=\"wan\"][data-up=\"{up}\"]') && true");
    page.wait(&wan(true));
    page.wait("document.querySelector('#map').textContent.includes('wan delay 5ms')");
    lab.ok("lab link down wan");
    page.wait(&wan(false));
    page.click("[data-tab=\"links\"]");
    page.click("[data-row=\"wan\"]");
    page.click("#carrier");
    page.wait(&wan(true));

    // A trace between two hosts, and one that is dropped.
    page.click("[data-node=\"h1\"]");
    page.click("[data-node=\"h2\"]");
    page.wait("document.querySelector('#trace-head').textContent.startsWith('DELIVERED  h1 -> ')");
    page.wait("document.querySelectorAll('.link.on-way').length === 3");
    page.wait("(document.querySelector('#protocol').value = 'tcp', document.querySelector('#to-port').value = 22)");
    page.click("[data-node=\"h1\"]");
    page.click("[data-node=\"h2\"]");
    page.wait("document.querySelector('#trace-head').textContent.startsWith('DROPPED  h1 -> h2: rule_drop')");

    // Who talks to whom.
    lab.ok("lab ping");
    page.click("#show-talks");
    page.wait("document.querySelector('.talk.forward[data-talk=\"h1 h2\"]') && true");
    page.wait("document.querySelector('.talk.drop[data-talk=\"h1 h2\"]') && true");

    // Another page that is opened later looks back as far as the page is served.
    page.call("Page.reload", json!({}));
    page.wait("state.history.length > 3 && state.history.some(view => view.links.some(link => !link.up))");

    // On a phone nothing sticks out, and every panel can be drawn.
    let phone = json!({"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true});
    page.call("Emulation.setDeviceMetricsOverride", phone);
    for tab in ["connections", "services", "talks", "health", "links", "drops"] {
        page.click(&format!("[data-tab=\"{tab}\"]"));
        page.wait(&format!("document.querySelector('[data-tab=\"{tab}\"][aria-selected=true]') && true"));
        page.wait("document.documentElement.scrollWidth <= 390");
    }

    // What the lab's end looks like.
    lab.ok("lab down");
    page.wait("document.querySelector('#live.bad') && true");
    // The answer to that is no 200, which the browser logs; nothing else went wrong.
    let others: Vec<_> = page.complaints.iter().filter(|entry| !entry.contains("status of 503")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Two hundred hosts are shown by how many there are behind each switch until somebody wants to see them.
#[test]
fn a_large_lab_is_shown_collapsed_and_whole_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab(folder);
    let up = lab.sluice(&["lab", "up", "--topo", "tree,2,14", "--name", "page"]);
    if up.status.code() == Some(77) {
        eprintln!("skipped: no lab can be made here: {}", String::from_utf8_lossy(&up.stderr));
        return;
    }
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let (_served, address) = lab.serve(&[]);
    let Some(mut page) = Browser::open(lab.path(), &format!("http://{address}/")) else { return };
    page.wait("document.querySelector('#collapse').checked");
    assert_eq!(page.wait("document.querySelectorAll('[data-node]').length"), 15);
    page.wait("document.querySelector('[data-node=\"s2\"]').textContent.includes('14 hosts')");
    let drawn = "(() => { const from = performance.now(); draw(); return performance.now() - from + 0.001; })()";
    let collapsed = page.wait(drawn);
    page.click("#collapse");
    assert_eq!(
        page.wait(
            "document.querySelectorAll('[data-node]').length > 15 && document.querySelectorAll('[data-node]').length"
        ),
        211
    );
    let whole = page.wait(drawn);
    // No two nodes lie on each other.
    let boxes = "(() => { const all = [...document.querySelectorAll('[data-node] rect')].map(rect => rect.getBoundingClientRect()); \
                 return all.filter((a, at) => all.slice(at + 1).some(b => a.left < b.right && b.left < a.right && a.top < b.bottom \
                 && b.top < a.bottom)).length + 1; })()";
    assert_eq!(page.wait(boxes), 1);
    let bytes = get(&address, "/api/state").1.len();
    eprintln!("211 nodes: drawn in {whole} ms, collapsed in {collapsed} ms, of {bytes} bytes");
}

#[test]
fn a_lab_tells_its_page_to_this_machine_alone_and_is_changed_only_if_that_was_allowed() {
    let Some(lab) = Lab::up(LAB) else { return };
    let (_served, address) = lab.serve(&[]);
    let (code, state) = get(&address, "/api/state");
    assert!(code == 200 && state.contains("\"lab\":\"page\"") && state.contains("\"name\":\"wan\""), "{state}");
    let change = format!(
        "POST /api/link HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nContent-Type: application/json"
    );
    let down = json!({"link": "wan", "up": false}).to_string();
    assert_eq!(request(&address, &change, &down).0, 403);
    for (head, code) in [
        ("GET /api/state HTTP/1.1\r\nHost: evil.example".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: evil.example:80".to_owned(), 421),
        (format!("GET /api/state HTTP/1.1\r\nHost: {address}\r\nOrigin: http://evil.example"), 403),
        (format!("PUT /api/state HTTP/1.1\r\nHost: {address}"), 405),
        (format!("OPTIONS /api/link HTTP/1.1\r\nHost: {address}"), 405),
    ] {
        assert_eq!(request(&address, &head, "").0, code, "{head}");
    }

    let (_served, address) = lab.serve(&["--ui-write"]);
    let change = format!(
        "POST /api/link HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nContent-Type: application/json"
    );
    assert_eq!(request(&address, &change, &down).0, 200);
    let set = json!({"link": "wan", "set": {"delay": "9ms"}}).to_string();
    assert_eq!(request(&address, &change, &set).0, 200);
    for wrong in [json!({"link": "wann", "up": true}), json!({"link": "h1-s1", "set": {"delya": "9ms"}})] {
        assert_eq!(request(&address, &change, &wrong.to_string()).0, 422, "{wrong}");
    }
    assert_eq!(request(&address, &change, "{}").0, 400);
    let shown = lab.sluice(&["lab", "link", "show", "wan", "-o", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["links"][0]["up"], &shown["links"][0]["delay_ns"]), (&json!(false), &json!(9_000_000)));

    // Packets of a link as a file.
    lab.ok("lab link up wan");
    let recorded = std::thread::scope(|scope| {
        let recording = scope.spawn(|| fetch(&address, "/api/capture/wan"));
        while !recording.is_finished() {
            lab.ok("lab ping");
        }
        recording.join().unwrap()
    });
    assert_eq!(recorded.0, 200);
    let recorded = packets(&recorded.1);
    let icmp = recorded.iter().filter(|(name, comment, bytes)| {
        let is_icmp = bytes[12..14] == [8, 0] && bytes[23] == 1;
        is_icmp && name == "wan" && comment.starts_with("verdict=forward to=")
    });
    assert!(icmp.count() >= 2, "{recorded:?}");
    assert_eq!(fetch(&address, "/api/capture/wann").0, 422);

    let far = lab.sluice(&["lab", "graph", "--serve", "0.0.0.0:0"]);
    assert_eq!(far.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&far.stderr).contains("--ui-remote"), "{far:?}");
}

#[test]
fn a_switch_has_the_same_page_and_is_never_changed_from_it() {
    let folder = tempfile::tempdir().unwrap();
    if sluice_tests::netns::skipped("a_switch_has_the_same_page_and_is_never_changed_from_it") {
        return;
    }
    let netns = Netns::new().unwrap();
    let config = folder.path().join("sluiced.toml");
    let text = "[bridges.br0]\nlocal_port = false\n[bridges.br0.ports.p1]\ntype = \"null\"\n";
    std::fs::write(&config, text).unwrap();
    let command = |ui: &str| {
        let mut command = Command::new(sluiced());
        command.arg("--config").arg(&config).arg("--socket").arg(folder.path().join("s.sock")).args(["--ui", ui]);
        command
    };
    let far = netns.run(|| command("0.0.0.0:8484").output()).unwrap();
    assert_eq!(far.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&far.stderr).contains("--ui-remote"), "{far:?}");

    let log = folder.path().join("log");
    let _daemon = Daemon::start(&netns, command("127.0.0.1:8484"), log);
    netns.run(|| {
        let address = "127.0.0.1:8484";
        let (code, page) = get(address, "/");
        assert!(code == 200 && page.contains("content-security-policy: default-src 'none';"), "{page}");
        let (code, state) = get(address, "/api/state");
        assert!(code == 200 && state.contains("\"name\":\"br0\"") && state.contains("\"name\":\"p1\""), "{state}");
        let (code, trace) = get(address, "/api/packet/br0/in_port%3D1%2Cicmp%2Cnw_dst%3D10.0.0.2");
        assert!(code == 200 && trace.contains("\"headline\""), "{trace}");
        let change = format!(
            "POST /api/link HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nContent-Type: application/json"
        );
        assert_eq!(request(address, &change, "{\"link\":\"p1\",\"up\":false}").0, 403);
    });
}
