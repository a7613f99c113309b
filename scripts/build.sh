#!/usr/bin/env bash
# npm run build: both addons and the TypeScript.
source "$(dirname "$0")/common.sh"
build_native
build_ts
