//! The description of the Pods' network for the container runtime, which makes the node Ready: it is written when everything else
//! is in force, and never before.

use crate::config::Config;
use crate::copy::write_renamed;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::Path;

/// The network's name, in the switch and for CNI.
pub const NETWORK: &str = "sluice";
/// Its name in the folder.
pub const NAME: &str = "10-sluice.conflist";
/// What the plugin is called.
pub const PLUGIN: &str = "sluice-cni";

/// What is written.
#[must_use]
pub(super) fn text(config: &Config, pod_cidrs: &[IpNet], mtu: u16) -> String {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr.to_string()}])).collect();
    let plugin = json!({
        "type": PLUGIN,
        "bridge": config.bridge,
        "socket": config.socket.display().to_string(),
        "declared": true,
        "mtu": mtu,
        "ipam": {"ranges": ranges},
        "capabilities": {"portMappings": true, "bandwidth": true},
    });
    let list = json!({"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin]});
    format!("{list:#}\n")
}

/// Writes it if it is not there as it should be; whether it was written.
///
/// # Errors
/// What the system says.
pub(super) fn write(folder: &Path, text: &str) -> io::Result<bool> {
    let file = folder.join(NAME);
    if fs::read(&file).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(false);
    }
    fs::create_dir_all(folder)?;
    write_renamed(&file, text.as_bytes())?;
    Ok(true)
}

/// Whether a description is ours, by its plugin.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    let Ok(list) = serde_json::from_str::<Value>(text) else { return false };
    let plugins = list.get("plugins").and_then(Value::as_array);
    plugins.into_iter().flatten().any(|plugin| plugin.get("type").and_then(Value::as_str) == Some(PLUGIN))
}

/// The descriptions of others that the container runtime takes before ours, because their names come first. One that speaks of ours
/// is none of them: plugins that call others, as Multus does, have to come first.
#[must_use]
pub(super) fn before_ours(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let counts = |name: &String| {
        name.as_str() < NAME
            && [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end))
            && !name.starts_with('.')
            && !fs::read_to_string(folder.join(name)).is_ok_and(|text| text.contains(NETWORK))
    };
    let mut names: Vec<_> = names.filter(counts).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs() -> Vec<IpNet> {
        vec!["10.244.1.0/24".parse().unwrap(), "fd00:244:0:1::/64".parse().unwrap()]
    }

    #[test]
    fn it_has_a_set_of_ranges_for_each_family() {
        let text = text(&Config::default(), &cidrs(), 1450);
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("sluice"), &json!("1.0.0")));
        let plugin = &list["plugins"][0];
        let ranges = json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:0:1::/64"}]]);
        assert_eq!((&plugin["ipam"]["ranges"], &plugin["mtu"]), (&ranges, &json!(1450)));
        assert_eq!((&plugin["declared"], &plugin["bridge"]), (&json!(true), &json!("sluice0")));
        assert!(is_ours(&text));
    }

    #[test]
    fn it_is_written_when_it_differs_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("net.d");
        assert!(write(&place, "a").unwrap());
        assert!(!write(&place, "a").unwrap());
        assert!(write(&place, "b").unwrap());
        let names: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
    }

    #[test]
    fn what_comes_before_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["05-cilium.conflist", "10-calico.conflist", "10-sluice.conflist", "99-x.conf", "00-readme", ".1.conf"]
        {
            fs::write(folder.path().join(name), "{}").unwrap();
        }
        fs::write(folder.path().join("00-multus.conf"), r#"{"delegates": [{"type": "sluice-cni"}]}"#).unwrap();
        assert_eq!(before_ours(folder.path()), ["05-cilium.conflist", "10-calico.conflist"]);
        assert!(before_ours(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn another_plugins_is_not_ours() {
        assert!(!is_ours(r#"{"name": "sluice", "plugins": [{"type": "bridge"}]}"#));
        assert!(!is_ours("not json"));
    }
}
