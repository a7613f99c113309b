#!/usr/bin/env bash
# npm run bench [micro|tunnel]...: measures; by default everything.
source "$(dirname "$0")/common.sh"
need_apt build demo test
build_native
build_ts
build_wasm
build_programs
for suite in "${@:-micro tunnel}"; do
  for one in $suite; do
    if [[ $one == micro ]]; then
      cargo build --manifest-path native/Cargo.toml --locked --release --quiet -p thicket-core --features ring --example seal
    fi
    say "bench/$one"
    node "build/programs/bench/$one/main.js"
  done
done
