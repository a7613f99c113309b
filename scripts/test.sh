#!/usr/bin/env bash
# npm test: builds what is out of date and runs every test; ends with one line «N passed, N failed» summed over jest, cargo and ctest.
source "$(dirname "$0")/common.sh"
if ((EUID != 0)); then
  say "the tests make network namespaces: run them as root"
  exit 1
fi
need_apt build demo test
build_native
build_kernel_tests
build_ts
build_wasm
build_programs
build_bench
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
