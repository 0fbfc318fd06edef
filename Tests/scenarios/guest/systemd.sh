# repd as services of systemd: the two units of packaging/.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/guest.sh"
. "$REPD_ROOT/scripts/lib/wait.sh"

run=/run/repd/r0
engine() { cat "$run/repd.pid" 2>/dev/null || true; }
supervisor() { cat "$run/supervisor.pid" 2>/dev/null || true; }
role_is() { [[ $(repctl role r0 2>/dev/null) == "$1/"* ]]; }
is_active() { systemctl is-active --quiet repd@r0.service; }
# another OLD FUNCTION: the process that FUNCTION prints is a new one.
another() { local now && now=$("$2") && [[ -n $now && $now != "$1" ]]; }
look() { systemctl status --no-pager repd@r0.service || true; }

ln -sf "$REPD_BIN/repd" /usr/sbin/repd
ln -sf "$REPD_BIN/repctl" /usr/sbin/repctl
cp "$REPD_ROOT"/packaging/*.service /etc/systemd/system/
systemctl daemon-reload
disk=$(make_disk 32)
cat >/etc/repd.conf <<CONFIGURATION
resource r0 {
    device /dev/drbd0 minor 0;
    disk $disk;
    meta-disk internal;
    on $(uname -n) { address 127.0.0.1:7788; }
    on other { address 127.0.0.1:7789; }
}
CONFIGURATION
repctl create-md --force r0 2>/dev/null

echo "up starts the unit"
repctl up r0
is_active || fail "the unit is not active: $(look)"
role_is Secondary || fail "the role is $(repctl role r0)"
repctl primary --force r0
uri=$(repctl status --json r0 | sed -n 's/.*"nbdURI" : "\(.*\)".*/\1/p')
printf 'what was written before' | dd of=/tmp/pattern bs=1M conv=sync status=none
nbdcopy /tmp/pattern "$uri"

echo "the engine is killed: its supervisor has it back as Primary, and the unit stays the same"
first=$(supervisor)
process=$(engine)
kill -KILL "$process"
wait_until 20 another "$process" engine || fail "no new engine: $(look)"
[[ $(repctl role r0) == Primary/* ]] || fail "the role is $(repctl role r0)"
[[ $(supervisor) == "$first" ]] || fail "another supervisor"
nbdcopy "$uri" /tmp/copy
cmp -n 1048576 /tmp/pattern /tmp/copy || fail "other data"

echo "the supervisor is killed: systemd has another one, with the same settings, Secondary"
kill -KILL "$first"
wait_until 30 another "$first" supervisor || fail "no new supervisor: $(look)"
wait_until 20 role_is Secondary || fail "the role is $(repctl role r0): $(look)"
wait_until 20 eval '[[ $(repctl dstate r0) == UpToDate/* ]]' || fail "the disk is $(repctl dstate r0)"
repctl primary r0

echo "stop demotes and detaches"
systemctl stop repd@r0.service
[[ ! -e $run/control.sock ]] || fail "the socket is left"
repctl down r0

echo "the service of all resources brings them up and takes them down"
systemctl start repd.service
is_active || fail "the unit is not active: $(look)"
role_is Secondary || fail "the role is $(repctl role r0)"
repctl primary r0
systemctl stop repd.service
if is_active; then fail "the unit is still active"; fi
if systemctl is-failed --quiet repd@r0.service; then fail "the unit has failed: $(look)"; fi
