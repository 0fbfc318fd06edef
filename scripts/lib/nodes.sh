# Nodes of the resource r0 that repd serves, on this host or in a virtual machine. Sourced, not run:
#
#     nodes_configure C 64        # protocol, MiB: files $nodes/a.img and b.img, configurations
#     node_create_md a; node_up a
#     node_wait a 'cs:Connected .*ds:UpToDate/UpToDate' 30
#
# A node is called a or b; its peer may also be somebody else's (a kernel's). The caller sets $nodes,
# a directory; scenario.sh's $scenario_pids, if there, gets the daemons' pids.
# shellcheck shell=bash

# shellcheck source=scripts/lib/wait.sh
. "$(dirname "${BASH_SOURCE[0]}")/wait.sh"
# shellcheck source=scripts/lib/metadata.sh
. "$(dirname "${BASH_SOURCE[0]}")/metadata.sh"

REPCTL=${REPCTL:-$REPD_BIN/repctl}
# libnbd's Python is that of the system's own interpreter.
python3=/usr/bin/python3
declare -A node_pids=() node_ports=() node_disks=() node_hosts=([a]=127.0.0.1 [b]=127.0.0.1)
# Where a node's meta data are, if not on its disk: a statement of its host section without the semicolon.
declare -A node_metadata=()
# More options of the sections net, disk, repd and handlers, for nodes_configure.
nodes_net='' nodes_disk='' nodes_repd='' nodes_handlers=''
# How fast a node resyncs of which the other one is the source.
nodes_rate='resync-rate 200M;'
# Where each node finds the other one, if not at its own port: the ports of a proxy.
declare -A node_sees_peer_at=()

node_peer() { if [[ $1 == a ]]; then echo b; else echo a; fi; }

# nodes_configure [PROTOCOL [MIB]]: disks that do not exist are made; call it again to change options.
nodes_configure() {
    local node protocol=${1:-C} size=${2:-64}
    mkdir -p "$nodes"
    for node in a b; do
        mkdir -p "$nodes/$node"
        if [[ -z ${node_disks[$node]:-} ]]; then
            node_disks[$node]=$nodes/$node.img
            truncate --size "${size}M" "$nodes/$node.img"
        fi
        node_ports[$node]=${node_ports[$node]:-$(free_port)}
    done
    for node in a b; do node_write_configuration "$node" "$protocol"; done
}

# node_write_configuration NODE PROTOCOL: as this node reads it.
node_write_configuration() {
    local peer port_a=${node_ports[a]} port_b=${node_ports[b]}
    peer=$(node_peer "$1")
    if [[ -n ${node_sees_peer_at[$1]:-} ]]; then
        if [[ $peer == a ]]; then port_a=${node_sees_peer_at[$1]}; else port_b=${node_sees_peer_at[$1]}; fi
    fi
    cat >"$nodes/$1.conf" <<CONFIGURATION
resource r0 {
    net {
        protocol $2;
        ping-int 1;
        ping-timeout 20;
        connect-int 1;
        $nodes_net
    }
    disk {
        $nodes_rate
        c-plan-ahead 0;
        $nodes_disk
    }
    repd {
        $nodes_repd
    }
    handlers {
        $nodes_handlers
    }
    on a {
        device /dev/drbd0 minor 0;
        disk ${node_disks[a]};
        address ${node_hosts[a]}:$port_a;
        ${node_metadata[a]:-meta-disk internal};
    }
    on b {
        device /dev/drbd1 minor 1;
        disk ${node_disks[b]};
        address ${node_hosts[b]}:$port_b;
        ${node_metadata[b]:-meta-disk internal};
    }
}
CONFIGURATION
}

# node_ctl NODE COMMAND [OPTION...]: repctl about r0 of this node.
node_ctl() {
    local node=$1
    shift
    "$REPCTL" -c "$nodes/$node.conf" --run-dir "$nodes/$node" --node-name "$node" "$@" r0
}

# node_create_md NODE: fresh internal meta data, without questions.
node_create_md() {
    local output
    output=$(node_ctl "$1" create-md --force 2>&1 </dev/null) || fail "create-md of $1: $output"
}

# node_start NODE: the daemon alone, without disk and peer.
node_start() {
    "$REPD_BIN/repd" r0 --run-dir "$nodes/$1" --node-name "$1" >>"$nodes/$1.log" 2>&1 </dev/null &
    node_pids[$1]=$!
    scenario_pids+=("$!")
    wait_until 15 node_answers "$1" || fail "the daemon of $1 does not answer: $(node_log "$1")"
}

node_answers() { [[ -S $nodes/$1/r0/control.sock ]] && node_ctl "$1" role >/dev/null 2>&1; }

# node_up NODE: daemon, disk and network.
node_up() {
    node_start "$1"
    node_ctl "$1" up
}

# node_down NODE: and the daemon is gone.
node_down() {
    node_ctl "$1" down || return $?
    wait_until 15 process_is_gone "${node_pids[$1]}" || fail "the daemon of $1 outlives 'down'"
    wait "${node_pids[$1]}" 2>/dev/null || true
}

# node_kill NODE: kill -9.
node_kill() {
    kill -KILL "${node_pids[$1]}"
    wait "${node_pids[$1]}" 2>/dev/null || true
}

node_is_alive() { kill -0 "${node_pids[$1]}" 2>/dev/null; }

# node_status NODE: its two lines of `repctl proc`. (Programs are slow to start in a machine that is
# emulated, so this and what follows uses none but repctl.)
node_status() {
    local text
    text=$(node_ctl "$1" proc 2>/dev/null) || return 0
    [[ ! $text =~ (^|$'\n')(\ *[0-9]+:\ cs:[^$'\n']*($'\n'\ *ns:[^$'\n']*)?) ]] ||
        printf '%s\n' "${BASH_REMATCH[2]}"
}

# node_value NODE NAME: states (cs ro ds) and counters (ns nr dw oos ...).
node_value() {
    [[ ! " $(node_status "$1") " =~ [[:space:]]$2:([^[:space:]]*) ]] || echo "${BASH_REMATCH[1]}"
}

node_has_state() { [[ $(node_status "$1") =~ $2 ]]; }

# node_wait NODE REGULAR_EXPRESSION [SECONDS]: of the state line.
node_wait() {
    wait_until "${3:-30}" node_has_state "$1" "$2" && return 0
    echo "$1 did not become '$2' in ${3:-30} s; it is:"
    node_status "$1"
    node_log "$1"
    return 1
}

# node_expect NODE REGULAR_EXPRESSION: of the state line, at this moment.
node_expect() {
    node_has_state "$1" "$2" || fail "$1 is not '$2' but $(node_status "$1" | head -n 1)"
}

# node_refuses NODE EXIT_STATUS TEXT COMMAND...: it fails with this status and words that contain TEXT.
node_refuses() {
    local node=$1 expected=$2 text=$3 output status=0
    shift 3
    output=$(node_ctl "$node" "$@" 2>&1 </dev/null) || status=$?
    [[ $status == "$expected" ]] ||
        fail "'$*' on $node: exit status $status, not $expected: $output"
    [[ $output == *"$text"* ]] || fail "'$*' on $node says '$output', not '$text'"
}

# node_primary NODE [--force]: and says what was wrong if it does not work at once.
node_primary() {
    local output
    output=$(node_ctl "$1" primary "${@:2}" 2>&1) || fail "$1 is not promoted: $output"
}

node_uri() { echo "nbd+unix:///r0?socket=$nodes/$1/r0/nbd.sock"; }

# node_log NODE [LINES]: the last lines of its daemon.
node_log() { tail -n "${2:-12}" "$nodes/$1.log" | cut -c 1-240; }

# node_log_mark NODE: node_log_since looks behind it.
node_log_mark() { wc -l <"$nodes/$1.log" >"$nodes/$1.mark"; }

# node_log_since NODE REGULAR_EXPRESSION
node_log_since() {
    tail -n "+$(($(cat "$nodes/$1.mark" 2>/dev/null || echo 0) + 1))" "$nodes/$1.log" |
        { grep -E "$2" || true; }
}

# node_began_resync NODE: how many blocks the last resync since the mark set out to copy.
node_began_resync() {
    node_log_since "$1" 'began resync as' | sed -n 's/.*: \([0-9]*\) blocks.*/\1/p' | tail -n 1
}

# node_writes [NODE]: the disk of a, or of this node, has been written to since it was asked first.
node_writes() {
    local now
    now=$(node_value "${1:-a}" dw)
    [[ -n $now ]] || return 1
    [[ $now -gt ${node_wrote:-$now} ]] && { unset node_wrote; return 0; }
    node_wrote=${node_wrote:-$now}
    return 1
}

# records fill|write|verify ...: see records.py.
records() { "$python3" "$REPD_ROOT/scripts/lib/records.py" "$@"; }
