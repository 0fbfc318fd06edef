#!/usr/bin/env bash
# The demo, as an ordinary reader starts it and in a pipe; it ends with equal disks and leaves nothing.
# timeout: 400
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
mkdir "$scratch/place"
"$REPD_ROOT/scripts/demo" --no-build --dir "$scratch/place" | tee "$scratch/demo.log" ||
    fail "the demo failed: $(tail -n 30 "$scratch/demo.log")"
grep -q 'both disks are equal, all [1-9][0-9]* bytes' "$scratch/demo.log" || fail "the disks were not compared"
grep -q 'short resync: [1-9][0-9]* blocks' "$scratch/demo.log" || fail "there was no short resync"
if grep -q $'\e' "$scratch/demo.log"; then fail "escapes in a pipe"; fi
[[ -z $(ls -A "$scratch/place") ]] || fail "left behind: $(ls -A "$scratch/place")"
