# Sourced by scripts/package.sh: from built files to tarballs.

# pack_all [TRIPLE...]: build/packages/*.tgz, SHA256SUMS and thicket-VERSION.cdx.json.
pack_all() {
  local out=build/packages staged=build/staged
  need_apt package
  say "laying the packages"
  node scripts/package/licences.mjs --check
  node scripts/package/stage.mjs "$staged" "$@"
  node scripts/package/check.mjs "$staged"/*
  rm -rf "$out"
  mkdir -p "$out"
  local folder tarball
  for folder in "$staged"/*; do
    tarball=$out/$(npm pack --silent --ignore-scripts --pack-destination "$out" "./$folder")
    # npm leaves out what it takes for rubbish, and adds what it takes for a licence.
    diff <(cd "$folder" && find . -type f | sed 's|^\.|package|' | sort) <(tar -tzf "$tarball" | sort) >&2 ||
      { say "$tarball has not exactly the files of $folder"; return 1; }
  done
  node scripts/package/sbom.mjs "$out"
  (cd "$out" && sha256sum -- *.tgz *.json >SHA256SUMS)
  say "$out: $(ls "$out" | wc -l) files"
}
