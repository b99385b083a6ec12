//! Makes the Rust types from the protobuf files, without a `protoc`: protox reads them, and its descriptors go to tonic's
//! generator and, as they are, to the reflection service.

use prost::Message;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// One file for each area of the API.
const AREAS: [&str; 20] = [
    "bridge",
    "port",
    "flow",
    "group",
    "meter",
    "table",
    "stats",
    "fdb",
    "trace",
    "packet",
    "event",
    "status",
    "ct",
    "capture",
    "tunnel",
    "mirror",
    "gateway",
    "router",
    "attachment",
    "policy",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=sluice");
    let files = AREAS.map(|area| format!("sluice/v1/{area}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("sluice.bin"), descriptors.encode_to_vec())?;
    // Without the transport feature the clients and servers are plain types over any channel, and this crate needs no
    // runtime.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
