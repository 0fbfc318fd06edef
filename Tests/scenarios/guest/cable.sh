# Job of both machines of a pair: they reach each other, and can wait for each other.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/guest.sh"
case $(uname -n) in
    alpha) peer=10.77.0.2 other=beta ;;
    beta) peer=10.77.0.1 other=alpha ;;
esac

# Listens once, sends its name.
python3=/usr/bin/python3
"$python3" -c '
import socket, os
listener = socket.create_server(("", 7788))
open("/tmp/listening", "w").close()
connection, _ = listener.accept()
connection.sendall(os.uname().nodename.encode())' &
wait_until 20 test -e /tmp/listening || fail "the server did not start"
pair_signal "$(uname -n)-listens"
pair_await "$other-listens"
busybox ping -c 1 -W 5 "$peer" >/dev/null || fail "no answer to a ping"
name=$("$python3" -c '
import socket, sys
print(socket.create_connection((sys.argv[1], 7788), 10).recv(64).decode())' "$peer")
[[ $name == "$other" ]] || fail "the peer is '$name', not $other"
wait
pair_signal "$(uname -n)-done"
pair_await "$other-done"
echo "$(uname -n) reached $name by ping and TCP"
