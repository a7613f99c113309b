#!/usr/bin/env bash
# npm run demo: installs and builds what is missing, then shows Thicket at work in network namespaces of this machine.
source "$(dirname "$0")/common.sh"
if ((EUID != 0)); then
  say "the demo makes network namespaces: run it as root"
  exit 1
fi
need_apt build demo
build_native
build_ts
build_programs
say "running the scenario"
exec node build/programs/demo/main.js
