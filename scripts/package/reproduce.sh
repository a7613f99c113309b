#!/usr/bin/env bash
# Makes all packages once more from the same commit, in another folder and with nothing built before, and compares their checksums with those in build/packages. With triples as
# arguments, as package.sh.
source "$(dirname "$0")/../common.sh"
first=$PWD/build/packages/SHA256SUMS
[[ -e $first ]] || { say "$first is missing: run scripts/package.sh first"; exit 1; }
git diff --quiet HEAD || { say "there are changes that are not committed: commit them, as what is compared is the commit"; exit 1; }
again=$(mktemp -d)
trap 'rm -rf "$again"' EXIT
git clone --quiet . "$again/thicket"
(cd "$again/thicket" && bash scripts/package.sh "$@")
if diff "$first" "$again/thicket/build/packages/SHA256SUMS" >&2; then
  say "equal: $(wc -l <"$first") files"
else
  say "not equal: these commits' packages depend on where or when they are built"
  exit 1
fi
