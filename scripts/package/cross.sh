# Sourced by scripts/package.sh: both addons for every row of table.mjs, with zig as C and C++ compiler and as linker, so that one machine
# builds for all, against glibc 2.28 (what is linked here by itself needs the glibc that is here).

# Python's may be another than Debian's.
need_pip() {
  python3 -m pip --version >/dev/null 2>&1 || need_apt pip
}

# The cross compiler, into a folder named by what it is, so that another version is another folder.
need_cross() {
  need_apt build
  need_rust
  local wanted=scripts/package/requirements.txt stamp
  CROSS_TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/thicket/cross-$(sha256sum <$wanted | cut -c1-12)
  stamp=$CROSS_TOOLS/complete
  if [[ ! -e $stamp ]]; then
    say "installing zig and cargo-zigbuild"
    need_pip
    rm -rf "$CROSS_TOOLS"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$CROSS_TOOLS" -r "$wanted" >&2
    touch "$stamp"
  fi
  # What zig builds of its own (libc++, start-up files) is kept beside it; cargo-zigbuild finds zig by this variable.
  export ZIG_GLOBAL_CACHE_DIR=$CROSS_TOOLS/zig-cache ZIG_LOCAL_CACHE_DIR=$CROSS_TOOLS/zig-cache
  export CARGO_ZIGBUILD_ZIG_PATH=$CROSS_TOOLS/ziglang/zig
}

# table COLUMN...: rows of the table, the columns parted by spaces.
table() {
  node --input-type=module -e "
    import { TABLE } from './scripts/package/table.mjs';
    for (const row of TABLE) console.log(process.argv.slice(1).map((column) => row[column]).join(' '));" "$@"
}

# cross_rust TRIPLE LIBC RUST ZIG: the Rust addon.
cross_rust() {
  local triple=$1 libc=$2 rust=$3 zig=$4 floor='' crt=''
  [[ $zig == *.2.* ]] && floor=.${zig#*.}
  # An addon is loaded by a program that has its own libc.
  [[ $libc == musl ]] && crt=' -Ctarget-feature=-crt-static'
  RUSTFLAGS="${RUSTFLAGS:-}$(remap)$crt" "$CROSS_TOOLS/bin/cargo-zigbuild" zigbuild --release --locked --quiet \
    --manifest-path native/addon/Cargo.toml --target "$rust$floor"
  install -D -m 755 "native/target/$rust/release/libthicket_addon.so" "build/cross/$triple/thicket_addon.node"
}

# cross_kernel TRIPLE ZIG: the C++ addon.
cross_kernel() {
  local triple=$1 zig=$2 work=build/cross/$1.cmake
  mkdir -p "$work"
  # A command of one word, as CMake wants it.
  printf '#!/bin/sh\nexec "%s" c++ -target %s "$@"\n' "$CARGO_ZIGBUILD_ZIG_PATH" "$zig" >"$work/c++"
  chmod +x "$work/c++"
  # The flag that CMake would add says the same as the prefix map.
  cmake -S . -B "$work" -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="${zig%%-*}" -DCMAKE_CXX_COMPILER="$PWD/$work/c++" \
    -DCMAKE_CXX_FLAGS="-ffile-prefix-map=$PWD=/thicket" -DCMAKE_JS_INC="$PWD/node_modules/node-api-headers/include" \
    -DTHICKET_OUTPUT="$PWD/build/cross/$triple" >"$work/log" &&
    cmake --build "$work" --target thicket_kernel --parallel 2 >>"$work/log" || { tail -n 40 "$work/log" >&2; return 1; }
}

# build_cross [TRIPLE...]: into build/cross/TRIPLE; all of them without arguments.
build_cross() {
  need_cross
  need_npm
  local triple libc rust zig missing
  mapfile -t missing < <(comm -23 <(table rust | sort) <(rustup target list --installed | sort))
  if ((${#missing[@]})); then
    say "installing Rust's targets ${missing[*]}"
    rustup target add "${missing[@]}" >&2
  fi
  while read -r triple libc rust zig <&3; do
    (($# == 0)) || [[ " $* " == *" $triple "* ]] || continue
    say "building the addons for $triple"
    cross_rust "$triple" "$libc" "$rust" "$zig"
    cross_kernel "$triple" "$zig"
  done 3< <(table triple libc rust zig)
}
