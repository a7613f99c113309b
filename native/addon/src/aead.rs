//! Which AEAD the worker's core seals with.

#[cfg(not(feature = "simd"))]
pub use thicket_core::aead::Ring as Sealer;
#[cfg(feature = "simd")]
pub use thicket_core::aead::Simd as Sealer;

/// Chooses for the whole process; the name of what trains will be sealed with.
#[cfg(feature = "simd")]
pub fn choose(ring: bool) -> &'static str {
    Sealer::choose(ring)
}

#[cfg(not(feature = "simd"))]
pub fn choose(_: bool) -> &'static str {
    "ring"
}
