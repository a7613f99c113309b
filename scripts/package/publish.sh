#!/usr/bin/env bash
# Publishes what scripts/package.sh made, the platforms' packages before the one that names them. With --dry-run tells only what it would do.
source "$(dirname "$0")/../common.sh"
source scripts/package/cross.sh
out=build/packages
(cd "$out" && sha256sum --check --quiet SHA256SUMS)
version=$(node -p "require('./package.json').version")
while read -r name; do
  tarball=$out/$(tr -d @ <<<"${name/\//-}")-$version.tgz
  [[ -e $tarball ]] || { say "$tarball is missing: run scripts/package.sh"; exit 1; }
  say "publishing $name@$version"
  # Provenance: npm shows from which commit and workflow a package comes, signed by who runs the workflow.
  npm publish "$tarball" --access public --provenance "$@"
done < <(table name && echo thicket)
