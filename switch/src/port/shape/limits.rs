//! What is set: rates and bursts, and how options write them.

/// A rate, and how much may go at once after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Bits a second; 0 is no limit.
    pub bits_per_s: u64,
    /// Bits that may go at once after a pause; 0 takes what goes in 10 ms at the rate.
    pub burst_bits: u64,
}

/// Limits of what a port carries, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Of what the switch receives by the port: from a container.
    pub rx: Option<Rate>,
    /// Of what the switch sends by the port: to a container.
    pub tx: Option<Rate>,
}
