#!/usr/bin/env bash
# npm run demo: installs and builds what is missing, then shows Thicket at work in network namespaces of this machine, or on its loopback.
source "$(dirname "$0")/common.sh"
need_apt build demo
build_native
build_ts
build_programs
say "running the scenario"
exec node build/programs/demo/main.js
