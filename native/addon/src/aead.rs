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

/// Names of what [`choose_named`] knows, the fastest first.
#[cfg(feature = "simd")]
pub fn names() -> impl Iterator<Item = &'static str> {
    Sealer::names()
}

#[cfg(not(feature = "simd"))]
pub fn names() -> impl Iterator<Item = &'static str> {
    ["ring"].into_iter()
}

/// Chooses for the whole process, for tests and benches: `auto`, or one of [`names`]. `None`: there is no such.
#[cfg(feature = "simd")]
pub fn choose_named(name: &str) -> Option<&'static str> {
    match name {
        "auto" => Some(Sealer::choose(false)),
        name => Sealer::choose_exactly(name),
    }
}

#[cfg(not(feature = "simd"))]
pub fn choose_named(name: &str) -> Option<&'static str> {
    matches!(name, "auto" | "ring").then_some("ring")
}
