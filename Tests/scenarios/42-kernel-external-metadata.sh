#!/usr/bin/env bash
# Disks whose meta data are on another device change hands between repd and the kernel's DRBD.
# needs: vm
# timeout: 300
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 240 "$REPD_ROOT/Tests/scenarios/guest/external-metadata.sh"
