//! Images for containers of tests.

pub use xtask::toolbox::write;
