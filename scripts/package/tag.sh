#!/usr/bin/env bash
# Whether everything says the version that this tag (v1.2.3) says: package.json, the crates, the C++ addon, ts/version.ts and the changelog. Usage: tag.sh TAG
source "$(dirname "$0")/../common.sh"
version=${1#v}
wrong=0
# says FILE PATTERN: the file has the version where the pattern has @.
says() {
  grep -qE -- "${2//@/${version//./\\.}}" "$1" || { say "$1 doesn't say $version"; wrong=1; }
}
says package.json '^  "version": "@",$'
says native/Cargo.toml '^version = "@"$'
says wasm/Cargo.toml '^version = "@"$'
says CMakeLists.txt 'THICKET_VERSION="@"'
says ts/version.ts "version = '@'"
says CHANGELOG.md '^## @ \(20[0-9]{2}-[0-9]{2}-[0-9]{2}\)$'
exit "$wrong"
