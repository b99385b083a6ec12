//! `sluice-cni`, the CNI plugin: see the library.

fn main() -> std::process::ExitCode {
    sluice_cni::command::main()
}
