//! Images for containers of tests: a static busybox, and programs of this machine with the libraries that they need.

use crate::oci::{Start, Tree};
use std::io;
use std::path::Path;
use std::process::Command;

/// Where Debian's busybox-static has it.
const BUSYBOX: &str = "/bin/busybox";

/// Writes the archive of an image with busybox and these programs to `path`; `name` is what a runtime knows it by. A program is a
/// path, or `FROM:PATH` for another one in the image. Its containers sleep unless they are told otherwise.
///
/// # Errors
/// A program is not there, or the archive cannot be written.
pub fn write(path: &Path, name: &str, programs: &[&str]) -> io::Result<()> {
    let mut tree = Tree::default();
    for folder in ["bin", "etc", "proc", "sys", "dev", "root", "run"] {
        tree.folder(folder, 0o755);
    }
    tree.folder("tmp", 0o1777);
    for program in programs {
        let (from, to) = program.split_once(':').unwrap_or((program, program));
        tree.program(Path::new(from), to)?;
    }
    tree.program(Path::new(BUSYBOX), BUSYBOX)?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?.stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        tree.link(format!("bin/{applet}"), BUSYBOX);
    }
    tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644);
    tree.file("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
    tree.file("etc/nsswitch.conf", "hosts: files dns\n", 0o644);
    tree.write_archive(path, name, Start { path: "/bin:/usr/bin:/sbin:/usr/sbin", command: &["sleep", "1000000"] })
}
