//! Randomness of the operating system.

use rand_core::UnwrapErr;

/// The operating system's random source.
///
/// # Panics
///
/// When the operating system has none: nothing secure can be done on such a machine.
pub fn os_rng() -> impl rand_core::CryptoRng {
    UnwrapErr(getrandom::SysRng)
}

/// Fresh random bytes.
///
/// # Panics
///
/// When the operating system has no random source.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("an operating system gives random bytes");
    bytes
}
