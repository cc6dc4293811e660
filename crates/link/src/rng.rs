//! Randomness of the operating system, or of the world that a simulation plays.

pub use farhelm_world::random;

/// The random source.
///
/// # Panics
///
/// When the operating system has none: nothing secure can be done on such a machine.
pub fn os_rng() -> impl rand_core::CryptoRng {
    farhelm_world::Random
}
