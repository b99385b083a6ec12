//! The networks of a host: the entries of type `sluice-cni` in the configuration files of its container runtimes.

use crate::failure::Failure;
use crate::output::Exit;
use clap::Args;
use serde_json::Value;
use sluice_cni::spec::{Base, Config};
use std::fs;
use std::path::{Path, PathBuf};

/// The type of our plugin in a configuration.
const PLUGIN: &str = "sluice-cni";
/// Where container runtimes look for networks unless told otherwise.
const FOLDER: &str = "/etc/cni/net.d";
/// What libcni takes for a configuration.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Which networks, and where they are described.
#[derive(Clone, Debug, Args)]
pub(crate) struct NetworksArg {
    /// Only this network
    network: Option<String>,
    /// Configuration file of a container runtime, or the folder of them
    #[arg(long, value_name = "PATH", default_value = FOLDER)]
    conf: PathBuf,
    /// Folders of plugins, for addresses that another plugin manages
    #[arg(long, value_name = "PATH", default_value = "/opt/cni/bin:/usr/lib/cni", hide = true)]
    cni_path: String,
}

/// A network as its file describes it.
#[derive(Debug)]
pub(crate) struct Network {
    /// The file.
    pub(crate) file: PathBuf,
    /// What names things.
    pub(crate) base: Base,
    /// What a runtime would send to the plugin.
    pub(crate) input: Vec<u8>,
    /// Whether a controller declares it, so that the plugin does not.
    pub(crate) declared: bool,
}

impl NetworksArg {
    /// The networks that are meant, in the order of their files.
    ///
    /// # Errors
    /// A file cannot be read or is wrong, or there is no such network.
    pub(crate) fn read(&self) -> Result<Vec<Network>, Failure> {
        let mut found = Vec::new();
        for file in files(&self.conf)? {
            found.extend(networks(&file)?);
        }
        if let Some(name) = &self.network {
            let known: Vec<_> = found.iter().map(|n| n.base.name.clone()).collect();
            found.retain(|network| network.base.name == *name);
            if found.is_empty() {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Failure::usage(format!("{} has no network {name} of ours", self.conf.display()))
                    .why(format!("networks of type {PLUGIN}: {known}")));
            }
        }
        if found.is_empty() {
            return Err(Failure::new(format!("{} has no network of type {PLUGIN}", self.conf.display()))
                .next("write a conflist there (docs/cni.md begins with one), or say where with --conf"));
        }
        Ok(found)
    }

    /// Whether networks of this host are meant: a place is said, or there is one of ours where they usually are.
    pub(crate) fn is_of_host(&self) -> bool {
        let usual = self.conf == Path::new(FOLDER);
        !usual
            || files(&self.conf).is_ok_and(|files| files.iter().any(|file| networks(file).is_ok_and(|n| !n.is_empty())))
    }

    /// The network that is meant, if one is named.
    pub(crate) fn name(&self) -> Option<&str> {
        self.network.as_deref()
    }

    /// Where plugins are.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        self.cni_path.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect()
    }
}

/// The configuration files at a place, sorted as runtimes read them.
fn files(place: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("cannot read {}: {error}", place.display()))
            .next("say where the configuration is with --conf")
            .exit(if error.kind() == std::io::ErrorKind::PermissionDenied { Exit::NoPrivilege } else { Exit::No })
    };
    if !fs::metadata(place).map_err(unreadable)?.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(place).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.contains(&e)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The entries of ours in a file, each as a runtime sends it: with the list's name and version.
fn networks(file: &Path) -> Result<Vec<Network>, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", file.display()));
    let text = fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("is no JSON: {e}")))?;
    let entries = match value.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.clone(),
        None => vec![value.clone()],
    };
    let ours = entries.into_iter().filter(|entry| entry.get("type").and_then(Value::as_str) == Some(PLUGIN));
    ours.map(|mut entry| {
        if let Some(entry) = entry.as_object_mut() {
            for key in ["name", "cniVersion"] {
                if let Some(said) = value.get(key) {
                    entry.insert(key.to_owned(), said.clone());
                }
            }
        }
        let declared = entry.get("declared").and_then(Value::as_bool).unwrap_or_default();
        let input = entry.to_string().into_bytes();
        let base = Config::read_enough(&input).map_err(|failure| wrong(failure.to_string()))?;
        Ok(Network { file: file.to_owned(), base, input, declared })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(conf: &Path, network: Option<&str>) -> NetworksArg {
        NetworksArg { network: network.map(str::to_owned), conf: conf.to_owned(), cni_path: "/a:/b".to_owned() }
    }

    #[test]
    fn entries_of_ours_are_found_in_lists_and_plain_files_with_the_names_of_their_lists() {
        let folder = tempfile::tempdir().unwrap();
        let list = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[
            {"type":"sluice-cni","bridge":"br7","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}},{"type":"portmap"}]}"#;
        fs::write(folder.path().join("10-a.conflist"), list).unwrap();
        fs::write(folder.path().join("20-b.conf"), r#"{"cniVersion":"0.4.0","name":"b","type":"sluice-cni"}"#).unwrap();
        fs::write(folder.path().join("30-c.conf"), r#"{"cniVersion":"0.4.0","name":"c","type":"bridge"}"#).unwrap();
        fs::write(folder.path().join("notes.txt"), "nothing of CNI's").unwrap();
        let found = arg(folder.path(), None).read().unwrap();
        let names: Vec<_> = found.iter().map(|n| (n.base.name.as_str(), n.base.bridge.as_str())).collect();
        assert_eq!(names, [("pods", "br7"), ("b", "br0")]);
        assert_eq!(arg(folder.path(), Some("b")).read().unwrap().len(), 1);
    }

    #[test]
    fn a_network_that_is_not_there_is_told_with_those_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let conf = r#"{"cniVersion":"1.0.0","name":"pods","type":"sluice-cni"}"#;
        fs::write(folder.path().join("10-a.conf"), conf).unwrap();
        let told = arg(folder.path(), Some("pod")).read().unwrap_err().to_string();
        assert!(told.contains("pods"), "{told}");
        fs::write(folder.path().join("10-a.conf"), "{").unwrap();
        let told = arg(folder.path(), None).read().unwrap_err().to_string();
        assert!(told.contains("10-a.conf: is no JSON"), "{told}");
    }
}
