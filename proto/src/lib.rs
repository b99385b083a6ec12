//! The control API: the types, clients and servers that the protobuf files of package `sluice.v1` describe.
//!
//! The files in `sluice/v1` are the reference: every field says what it means and in which unit. They are compiled at
//! build time by [protox](https://docs.rs/protox), so no `protoc` has to be there.
//!
//! Rules of the API: unknown fields are ignored both ways; a field is never given another meaning or number; flows are
//! text in OVS's syntax; what can be long is a stream.

#[expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated: names are qualified so that no message clashes with them, and lints are switched off as needed"
)]
pub mod v1 {
    //! Package `sluice.v1`, as the generator makes it from the protobuf files.
    tonic::include_proto!("sluice.v1");
}

/// The descriptors of every file, as the reflection service and other tools take them: an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sluice.bin"));

/// Longest message in bytes that servers and clients of this API take. Bundles and dumps are sent in parts far below it.
pub const MAX_MESSAGE_LEN: usize = 16 << 20;

#[cfg(test)]
mod tests;
