#!/usr/bin/env bash
# With systemd as PID 1: up starts the unit, the engine comes back by its supervisor, that by systemd.
# needs: vm
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --systemd --timeout 200 "$REPD_ROOT/Tests/scenarios/guest/systemd.sh"
