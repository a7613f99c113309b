#!/usr/bin/env bash
# npm run bench [-- SUITE... --quick --record --gate]: measures; by default micro, tunnel, cameras, isolation and userspace, then writes tables and pictures.
#   micro     small parts, timed alone
#   tunnel    whole tunnels beside wireguard-go and nebula; --gate: fails when a ratio has fallen below half of what is recorded, twice
#   cameras   many RTP streams through one relay
#   isolation what floods through a relay and at it leave of one flow, of pings and of the event loops
#   userspace Thicket without kernel interfaces, on the addon and on WASM, beside hypertele
#   profile   flame graphs of Thicket's tunnels, into bench/results; --test='relay: tcp1 up' (may be repeated) chooses others than the usual
#   report    only writes tables and pictures of what was measured last
#   gates     instructions per packet and sizes, against bench/recorded.json
# --quick: everything within 4 minutes. --targets: of tunnel only what the targets are about, five rounds. --record: what is measured becomes the figures that the repository keeps, the README's among them.
source "$(dirname "$0")/common.sh"
suites=()
options=()
tests=()
for argument in "$@"; do
  case $argument in
    --quick | --record | --gate | --targets) options+=("$argument") ;;
    --test=*) tests+=("$argument") ;;
    micro | tunnel | cameras | isolation | userspace | profile | report | gates) suites+=("$argument") ;;
    *)
      say "no such bench: $argument (there are micro, tunnel, cameras, isolation, userspace, profile, report and gates; --quick, --record, --gate and --targets)"
      exit 2
      ;;
  esac
done
((${#suites[@]})) || suites=(micro tunnel cameras isolation userspace)
say "building"
need_apt build demo test
build_native
build_ts
build_wasm
build_programs
build_bench
[[ " ${suites[*]} " == *" profile "* ]] && build_profile
reported=
failed=0
for suite in "${suites[@]}"; do
  say "bench/$suite"
  own=()
  case $suite in
    profile) own=("${tests[@]}") ;;
    gates) ;;
    *) reported=yes ;;
  esac
  # What fails keeps nobody from seeing the rest.
  node "build/programs/bench/$suite/main.js" "${options[@]}" "${own[@]}" || failed=1
done
if ((failed)) && [[ " ${options[*]} " == *" --record "* ]]; then
  say "nothing is recorded of a bench that failed"
  exit 1
fi
if [[ $reported && ${suites[-1]} != report ]]; then
  say "bench/report"
  node build/programs/bench/report/main.js "${options[@]}"
fi
exit "$failed"
