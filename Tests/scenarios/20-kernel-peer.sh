#!/usr/bin/env bash
# The kernel's DRBD 8.4 is a peer, in both roles: syncs, loads, cuts, counters, meta data, its log.
# needs: vm
# timeout: 1500
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
jobs=$REPD_ROOT/Tests/scenarios/guest
vm run --timeout 700 "$jobs/kernel-peer.sh"
vm run --timeout 700 - "$jobs/kernel-stability.sh" "$jobs/kernel-requests.sh" <<'JOB'
for job in "$@"; do bash "$job" || exit 1; done
JOB
