#!/usr/bin/env bash
# npm run bench [-- micro|tunnel]...: measures; by default everything.
source "$(dirname "$0")/common.sh"
(($#)) || set -- micro tunnel
build_wasm
build_programs
for suite in "$@"; do
  case $suite in
    micro)
      say "building the native core's example"
      cargo build --manifest-path native/Cargo.toml --locked --release --quiet -p thicket-core --features simd --example seal
      ;;
    tunnel)
      need_apt build demo test
      build_native
      build_ts
      ;;
    *)
      say "no such bench: $suite (there are micro and tunnel)"
      exit 2
      ;;
  esac
  say "bench/$suite"
  node "build/programs/bench/$suite/main.js"
done
