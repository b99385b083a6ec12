//! What the operations promise, over all modules: the cases of `host-local`, and ours beside them.

mod delegate;
mod host_local;
mod model;
mod own;
mod pools;
mod store;

use super::own::{Moment, Own};
use super::*;
use crate::spec::CniArgs;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A network's configuration in a folder of its own.
pub(super) struct Net {
    pub(super) dir: TempDir,
    pub(super) conf: Value,
    pub(super) args: String,
    pub(super) at: Moment,
}

impl Net {
    /// With this `ipam`; the time stands still at a million seconds.
    pub(super) fn new(ipam: Value) -> Self {
        // In memory, where the disk's time is not waited for.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "dataDir": dir.path().join("store"), "ipam": ipam});
        if conf["ipam"].get("dataDir").is_none() {
            conf["ipam"]["dataDir"] = json!(dir.path().join("networks"));
        }
        Self { dir, conf, args: String::new(), at: Moment { now_ms: 1_000_000_000, boot_id: "boot-1".into() } }
    }

    /// With one set of one range, that is one subnet.
    pub(super) fn subnet(subnet: &str) -> Self {
        Self::new(json!({"ranges": [[{"subnet": subnet}]]}))
    }

    pub(super) fn own(&self, id: &str) -> Result<Own, IpamError> {
        let args = CniArgs::parse(&self.args).expect("pairs");
        let conf = Conf::read(self.conf.to_string().as_bytes(), &args, id)?;
        match conf.kind {
            Kind::Own(settings) => Ok(Own { network: conf.network, settings: *settings }),
            other => panic!("addresses are not managed here but by {other:?}"),
        }
    }

    pub(super) fn who(&self, id: &str, ifname: &str) -> Attachment {
        Attachment { network: "net".into(), container_id: id.into(), ifname: ifname.into() }
    }

    pub(super) fn result(&self, id: &str) -> Result<AddResult, IpamError> {
        self.own(id)?.add(&self.who(id, "eth0"), "/run/netns/none", &self.at).map(|(result, _)| result)
    }

    /// ADD of `eth0`; its addresses in order of the sets.
    pub(super) fn add(&self, id: &str) -> Result<Vec<String>, IpamError> {
        Ok(self.result(id)?.ips.iter().map(|ip| ip.address.addr().to_string()).collect())
    }

    /// ADD that gives one address.
    pub(super) fn one(&self, id: &str) -> String {
        let mut ips = self.add(id).unwrap_or_else(|e| panic!("ADD of {id}: {e}"));
        assert_eq!(ips.len(), 1, "{ips:?}");
        ips.remove(0)
    }

    pub(super) fn del(&self, id: &str) -> Vec<IpAddr> {
        self.own(id).expect("a configuration").del(&self.who(id, "eth0"), &self.at).expect("DEL").0
    }

    pub(super) fn why(&self, id: &str) -> String {
        self.add(id).expect_err("ADD is refused").to_string()
    }

    pub(super) fn networks(&self) -> PathBuf {
        self.dir.path().join("networks/net")
    }
}

pub(super) fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    std::fs::write(path, text).expect("a file");
}
