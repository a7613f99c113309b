#!/usr/bin/env bash
# npm run format
source "$(dirname "$0")/common.sh"
need_apt test
need_npm
npx biome check --write --error-on-warnings .
cargo fmt --manifest-path native/Cargo.toml --all
cargo fmt --manifest-path wasm/Cargo.toml
find native/kernel -name '*.cc' -o -name '*.h' | xargs clang-format -i
