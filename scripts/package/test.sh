#!/usr/bin/env bash
# Installs and runs what scripts/package.sh made: offline and without compilers, by npm, Yarn and pnpm, and on foreign processors under qemu.
source "$(dirname "$0")/../common.sh"
source scripts/package/cross.sh
source scripts/package/foreign.sh
need_apt package
need_npm
need_foreign
need_managers
NODE_OPTIONS=--experimental-vm-modules npx jest --selectProjects integration --testPathPatterns integration/packages "$@"
