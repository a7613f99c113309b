#!/usr/bin/env bash
# Makes every package: addons for all rows of scripts/package/table.mjs, the main package, tarballs, their checksums and the list of their parts (SBOM), in
# build/packages. Equal commits give equal bytes (RELEASING.md). With triples as arguments, only these platforms' packages and the main one.
source "$(dirname "$0")/common.sh"
source scripts/package/cross.sh
source scripts/package/pack.sh
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
build_cross "$@"
build_wasm
build_ts
pack_all "$@"
