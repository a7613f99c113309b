# Sourced by the other scripts: installs what is missing and says so. Needs nothing but bash, node and cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '▸ %s\n' "$*" >&2; }

# need_apt WHAT...: Debian packages of these sections.
need_apt() {
  local missing=() name section wanted
  while read -r name section; do
    [[ -z $name || $name == \#* ]] && continue
    for wanted in "$@"; do
      if [[ $section == "$wanted" ]] && ! dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed'; then
        missing+=("$name")
      fi
    done
  done <scripts/apt-packages.txt
  ((${#missing[@]})) || return 0
  say "installing Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get failed: install these packages by hand and come again"
    return 1
  fi
  rm -f "$log"
}

need_npm() {
  local stamp=node_modules/.thicket-lock
  if [[ ! -e $stamp ]] || ! cmp -s package-lock.json "$stamp"; then
    say "installing npm packages"
    npm ci --no-audit --no-fund --loglevel=error >&2
    cp package-lock.json "$stamp"
  fi
}

need_rust() {
  command -v cargo >/dev/null || { say "cargo is missing: install Rust by rustup"; return 1; }
}

build_native() {
  need_apt build
  need_npm
  need_rust
  say "building the addons"
  local log
  log=$(mktemp)
  if ! npx cmake-js build --out build --loglevel error >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    return 1
  fi
  rm -f "$log"
}

# Tests of the C++ addon's parts, under the sanitizers.
build_kernel_tests() {
  need_apt build test
  say "building the C++ tests"
  local log
  log=$(mktemp)
  if ! { cmake -S native/kernel/test -B build/kernel-tests -DCMAKE_BUILD_TYPE=Debug && cmake --build build/kernel-tests --parallel 2; } >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    return 1
  fi
  rm -f "$log"
}

build_ts() {
  need_npm
  say "compiling TypeScript"
  rm -rf dist
  npx tsc -p tsconfig.json
  node scripts/bundle.mjs
  # The date of what is built, not of the building, so that two builds are equal (SOURCE_DATE_EPOCH: reproducible-builds.org).
  printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}" >dist/build-time
}

# cargo_tool NAME VERSION CRATE: a Rust program of exactly this version, built once.
cargo_tool() {
  # Some programs don't tell their version.
  [[ $("$1" --version 2>/dev/null) == "$1 $2" ]] || cargo install --list | grep -qx "$3 v$2:" && return 0
  say "installing $3 $2 (built from source: some minutes)"
  local log
  log=$(mktemp)
  # Its own lock file may name crates that a mirror lacks: then with what there is.
  # Unoptimised: they run for a second, and are built in a third of the time.
  local -x CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
  if ! cargo install --locked "$3" --version "$2" >"$log" 2>&1 && ! cargo install "$3" --version "$2" >>"$log" 2>&1; then
    tail -n 40 "$log" >&2
    return 1
  fi
  rm -f "$log"
}

need_wasm_target() {
  need_rust
  if ! rustup target list --installed | grep -qx wasm32-unknown-unknown; then
    say "installing Rust's target wasm32-unknown-unknown"
    rustup target add wasm32-unknown-unknown >&2
  fi
}

# For RUSTFLAGS: no path of this machine in what ships, neither of the sources nor of crates nor of the compiler's own.
remap() {
  local pair
  for pair in "$PWD=/thicket" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$(rustc --print sysroot)=/rust"; do
    [[ $pair == *' '* ]] || printf ' --remap-path-prefix=%s' "$pair"
  done
}

# The core for WebAssembly: for engines without vectors into wasm/pkg, for those with simd128 into wasm/pkg/simd128 (ts/dataplane/wasm/build.ts chooses).
build_wasm() {
  need_wasm_target
  cargo_tool wasm-bindgen "$(sed -n 's/^wasm-bindgen = "=\(.*\)"/\1/p' wasm/Cargo.toml)" wasm-bindgen-cli
  cargo_tool wasm-pack 0.13.1 wasm-pack
  say "building the WASM modules"
  wasm_module pkg "" --target-dir "$PWD/wasm/target"
  wasm_module pkg/simd128 "-C target-feature=+simd128" --target-dir "$PWD/wasm/target/simd128"
}

# wasm_module FOLDER RUSTFLAGS ARGUMENT...: one build, into this folder of wasm/.
wasm_module() {
  local log
  log=$(mktemp)
  if ! RUSTFLAGS="${RUSTFLAGS:-} $2$(remap)" \
    wasm-pack build wasm --target nodejs --mode no-install --out-dir "$1" -- --locked "${@:3}" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    return 1
  fi
  rm -f "$log"
}

# Programs that are no part of the product (demo, bench, the impolite client), and ts/ file by file for them and for tests of its parts, into build/programs.
build_programs() {
  need_npm
  say "compiling test programs"
  npx tsc -p tsconfig.programs.json
}

# The Rust and C programs of the bench: what is timed or counted there alone, and what makes a load.
build_bench() {
  need_apt build
  need_rust
  say "building the bench's programs"
  cargo build --manifest-path native/Cargo.toml --locked --release --quiet -p thicket-core --features simd --examples
  mkdir -p build/bench
  cc -O2 -std=c17 -Wall -Wextra -Werror -o build/bench/flood bench/isolation/flood.c
}

# The Rust addon with symbols and frame pointers, beside the one that ships, and what draws flame graphs.
build_profile() {
  need_apt bench
  need_rust
  cargo_tool inferno-flamegraph 0.12.3 inferno
  say "building the Rust addon with symbols"
  CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=1 RUSTFLAGS="-C force-frame-pointers=yes" \
    cargo build --manifest-path native/addon/Cargo.toml --target-dir native/target/profiled --locked --release --quiet
}
