#!/usr/bin/env bash
# npm test: builds what is out of date and runs every test; ends with one line «N passed, N failed» summed over jest, cargo and ctest.
source "$(dirname "$0")/common.sh"
source scripts/package/cross.sh
source scripts/package/pack.sh
source scripts/package/foreign.sh
# Platforms whose packages are made and tried each time; a release does so with all (scripts/package/test.sh). One for the installs, one for musl, one for another
# processor, of 32 bits.
PACKED=(linux-x64-gnu linux-x64-musl linux-arm-gnueabihf)
if ((EUID != 0)); then
  say "the tests make network namespaces: run them as root"
  exit 1
fi
need_apt build demo test package foreign
build_native
build_kernel_tests
build_ts
build_wasm
build_programs
build_bench
build_cross "${PACKED[@]}"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) pack_all "${PACKED[@]}"
need_foreign
need_managers
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
say "cargo test"
cargo test --manifest-path native/Cargo.toml --locked --workspace --features thicket-core/simd 2>&1 | tee "$results/cargo.txt" >&2 || true
say "ctest"
ctest --test-dir build/kernel-tests --no-tests=error --output-junit "$results/ctest.xml" >&2 || true
say "jest, unit"
NODE_OPTIONS=--experimental-vm-modules npx jest --selectProjects unit --json --outputFile="$results/unit.json" >&2 || true
say "jest, integration"
NODE_OPTIONS=--experimental-vm-modules npx jest --selectProjects integration --maxWorkers=2 --json --outputFile="$results/integration.json" >&2 || true
node scripts/sum-results.mjs "$results"
