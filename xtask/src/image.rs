//! The container image: the four programs and the `nft` that the switch has the host's rules made by, and nothing else.
//!
//! No shell, no package, no registry and no Docker: `target/dist`'s static programs, and Debian's `nft` with its libraries, as this
//! machine has them. `--debug` takes programs of the dev profile as they are, with the libraries of this machine: built in
//! seconds beside what the tests build anyway, and for clusters on this machine only.

use crate::command::{cargo, target_dir};
use crate::dist;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::oci::{Start, Tree};

/// The name that manifests know the image by.
pub(crate) const NAME: &str = "localhost/sluice:dev";
/// Where programs are looked for in the image.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Debian has `nft`.
const NFT: &str = "/usr/sbin/nft";

/// Writes the image as an archive, as a folder, or as both.
pub(crate) fn image(archive: Option<&Path>, folder: Option<&Path>, name: &str, debug: bool) -> Result<()> {
    ensure!(Path::new(NFT).exists(), "{NFT} is not there: install Debian's nftables (`cargo xtask setup`)");
    let built = if debug { dev_programs()? } else { dist::dist()? };
    let tree = tree(&built)?;
    if let Some(folder) = folder {
        tree.write_folder(folder).context("cannot write the image's files")?;
        println!("{}: the files of {name}", folder.display());
    }
    if let Some(archive) = archive {
        tree.write_archive(archive, name, Start { path: PATH, command: &[] }).context("cannot write the image")?;
        let len = fs::metadata(archive).with_context(|| format!("cannot read {}", archive.display()))?.len();
        println!("{}: {name}, {:.1} MB", archive.display(), len as f64 / 1e6);
    }
    Ok(())
}

fn tree(programs: &[PathBuf]) -> Result<Tree> {
    let mut tree = Tree::default();
    for (folder, mode) in
        [("dev", 0o755), ("etc", 0o755), ("proc", 0o755), ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777)]
    {
        tree.folder(folder, mode);
    }
    for program in programs {
        let name = program.file_name().with_context(|| format!("{} has no name", program.display()))?;
        tree.program(program, Path::new("usr/bin").join(name)).context("cannot read what was built")?;
    }
    // Runtimes name network namespaces by either path.
    tree.link("var/run", "../run");
    tree.program(Path::new(NFT), NFT).context("cannot read nft")?;
    tree.file("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n", 0o644);
    tree.file("etc/group", "root:x:0:\n", 0o644);
    tree.file("etc/nsswitch.conf", "hosts: files dns\n", 0o644);
    Ok(tree)
}

/// The programs of the dev profile, without what only a debugger reads.
fn dev_programs() -> Result<Vec<PathBuf>> {
    // The whole workspace, as for the tests: other selections have other features, and much would be built twice.
    cargo(&["build", "--workspace", "--bins", "--locked"])?;
    let folder = target_dir().join("debug/image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stripped = |binary: &str| {
        let (from, to) = (target_dir().join("debug").join(binary), folder.join(binary));
        let status = Command::new("strip").arg("-o").arg(&to).arg(&from).status().context("cannot start strip")?;
        ensure!(status.success(), "`strip {}` failed ({status})", from.display());
        Ok(to)
    };
    dist::BINARIES.iter().map(|(_, binary, _)| stripped(binary)).collect()
}
