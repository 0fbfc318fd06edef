#!/usr/bin/env bash
# The kernel's DRBD 8.4 is a peer, in both roles: syncs, loads, cuts, counters, meta data, its log.
# needs: vm
# timeout: 840
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 560 "$REPD_ROOT/Tests/scenarios/guest/kernel-peer.sh"
vm run --timeout 240 "$REPD_ROOT/Tests/scenarios/guest/kernel-stability.sh"
