//! Benches of Sluice; each is a file under `benches/`.
