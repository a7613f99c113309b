#!/usr/bin/env bash
# npm run lint: formatters in check mode, linters, types.
source "$(dirname "$0")/common.sh"
need_apt build test
need_npm
need_wasm_target
say "biome"
npx biome ci --error-on-warnings --reporter=summary . >&2
say "tsc"
npx tsc -p tsconfig.json --noEmit
npx tsc -p tsconfig.test.json
say "rustfmt, clippy"
cargo fmt --manifest-path native/Cargo.toml --all --check >&2
cargo clippy --manifest-path native/Cargo.toml --locked --workspace --all-targets --all-features --quiet -- -D warnings >&2
cargo fmt --manifest-path wasm/Cargo.toml --check >&2
cargo clippy --manifest-path wasm/Cargo.toml --target-dir wasm/target --locked --target wasm32-unknown-unknown --quiet -- -D warnings >&2
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+simd128" \
  cargo clippy --manifest-path wasm/Cargo.toml --target-dir wasm/target/simd128 --locked --target wasm32-unknown-unknown --quiet -- -D warnings >&2
say "clang-format"
find native/kernel -name '*.cc' -o -name '*.h' | xargs clang-format --dry-run -Werror
