# What scripts/demo is made of: printing, the two nodes alice and bob, the cable between them, and their
# clients. Sourced, not run; the caller sets $dir, an empty directory,
# $REPD_BIN, and the sizes and places of what the clients write.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154

# libnbd's Python is that of the system's own interpreter.
python3=/usr/bin/python3
dir='' bold='' dim='' green='' red='' plain=''
step=0
claims=() children=() nodes=(alice bob)
declare -A port=() port_seen=()

# ---- What is printed

choose_colours() {
    [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]] || return 0
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
}

heading() {
    step=$((step + 1))
    printf '\n%s%s. %s%s\n' "$bold" "$step" "$*" "$plain"
}

note() { printf '   %s\n' "$*"; }

# claim TEXT: something was shown; all of them are listed again in the end.
claim() {
    claims+=("$*")
    printf '   %sok%s  %s\n' "$green" "$plain" "$*"
}

# fail TEXT: the end of the demo. On standard error, because it may be called in $( ).
fail() {
    local node
    exec >&2
    printf '\n%sFAILED%s: %s\n' "$red" "$plain" "$*"
    for node in "${nodes[@]}"; do
        [[ -s $dir/run-$node/r0/log ]] || continue
        printf '\nlog of %s, the last lines:\n' "$node"
        tail -n 12 "$dir/run-$node/r0/log" | sed 's/^/   /' | cut -c 1-240
    done
    exit 1
}

prompt() { printf '   %s%s$%s %s\n' "$dim" "$1" "$plain" "${*:2}"; }

# show_nodes: /proc/drbd of both, without its two lines of versions.
show_nodes() {
    local node line
    for node in "${nodes[@]}"; do
        if ! ctl "$node" role >/dev/null 2>&1; then
            printf '   %s%-5s | (no daemon)%s\n' "$dim" "$node" "$plain"
            continue
        fi
        # The state stands out from the counters.
        while IFS= read -r line; do
            if [[ $line == *' cs:'* ]]; then
                printf '   %s%-5s |%s%s\n' "$dim" "$node" "$plain" "$line"
            else
                printf '   %s%-5s |%s%s\n' "$dim" "$node" "${line//$'\t'/    }" "$plain"
            fi
        done < <(ctl "$node" proc | sed -e 1,2d -e '/^$/d')
    done
}

# ---- The nodes

# ctl NODE COMMAND [OPTION...]: what the operator of this node types.
ctl() {
    local node=$1
    shift
    "$REPD_BIN/repctl" --config-file "$dir/$node.conf" --run-dir "$dir/run-$node" \
        --node-name "$node" "$@" r0
}

# repctl_on NODE COMMAND [OPTION...]: shows the command and carries it out; its texts only if it fails.
repctl_on() {
    local output
    prompt "$1" "repctl ${*:2} r0"
    output=$(ctl "$@" 2>&1 </dev/null) || fail "'repctl ${*:2} r0' on $1: $output"
}

# wait_on NODE COMMAND: one that waits and shows its progress, here in the terminal as it is.
wait_on() {
    prompt "$1" "repctl $2 r0"
    if [[ -t 1 ]]; then
        ctl "$1" "$2" --timeout 60 2>&1
    else
        ctl "$1" "$2" --timeout 60 2>&1 | sed 's/^/   /'
    fi || fail "'repctl $2 r0' on $1 did not succeed in 60 s"
}

uri() { echo "nbd+unix:///r0?socket=$dir/run-$1/r0/nbd.sock"; }

node_log() { cat "$dir/run-$1/r0/log"; }

state_is() { [[ $(ctl "$1" proc 2>/dev/null) =~ $2 ]]; }

# expect_state NODE REGULAR_EXPRESSION [SECONDS]
expect_state() {
    wait_until "${3:-10}" state_is "$1" "$2" ||
        fail "$1 is not '$2' after ${3:-10} s but: $(ctl "$1" proc 2>&1 | tail -n 2 | head -n 1)"
}

in_sync() { expect_state "$1" 'cs:Connected ro:[A-Za-z/]+ ds:UpToDate/UpToDate' 10; }

# last_resync NODE: how many blocks it had to copy.
last_resync() {
    node_log "$1" | sed -n 's/.*began resync as [a-z]*: \([0-9]*\) blocks.*/\1/p' | tail -n 1
}

free_port() {
    "$python3" -c '
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])'
}

# write_configuration PROTOCOL CABLE RATE: of both nodes. CABLE: "pulled" through the proxy, that can
# be pulled, "direct" without it. Each node finds its peer at another port then.
write_configuration() {
    local node peer
    local -A address
    for node in "${nodes[@]}"; do
        if [[ $node == alice ]]; then peer=bob; else peer=alice; fi
        address[$node]=${port[$node]}
        address[$peer]=${port[$peer]}
        [[ $2 == direct ]] || address[$peer]=${port_seen[$peer]}
        cat >"$dir/$node.conf" <<CONFIGURATION
resource r0 {
    net { protocol $1; timeout 15; ping-int 2; connect-int 2; }
    disk { resync-rate $3; c-plan-ahead 0; }
    on alice {
        device /dev/drbd0; disk $dir/alice.img; meta-disk internal;
        address 127.0.0.1:${address[alice]};
    }
    on bob {
        device /dev/drbd1; disk $dir/bob.img; meta-disk internal;
        address 127.0.0.1:${address[bob]};
    }
}
CONFIGURATION
    done
}

# reconnect: with the configuration as it is now, and in sync again.
reconnect() {
    ctl alice disconnect >/dev/null 2>&1 || true
    ctl bob disconnect >/dev/null 2>&1 || true
    ctl alice connect || fail "alice cannot connect"
    ctl bob connect || fail "bob cannot connect"
    in_sync alice
    in_sync bob
}

# cable pass|stop|reset: see scripts/lib/proxy.py.
cable() { echo "$1" >"$dir/cable"; }

start_cable() {
    local node
    for node in "${nodes[@]}"; do
        port[$node]=$(free_port)
        port_seen[$node]=$(free_port)
    done
    cable pass
    "$python3" "$REPD_ROOT/scripts/lib/proxy.py" "$dir/cable" \
        "${port_seen[alice]}:${port[alice]}" "${port_seen[bob]}:${port[bob]}" >"$dir/proxy.log" 2>&1 &
    children+=("$!")
    wait_until 5 grep -q ready "$dir/proxy.log" || fail "the proxy: $(cat "$dir/proxy.log")"
}

# ---- The clients

# Both of them write and check: fio by checksums of its own, records.py by what was acknowledged.
run_fio() {
    local output
    output=$(cd "$dir" && fio --name=demo --ioengine=nbd --uri="$(uri "$1")" --rw=randwrite --bs=16k \
        --offset="${fio_at}M" --size="${fio_size}M" --iodepth=16 --randseed=8 --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 "${@:2}" 2>&1) || fail "fio: $output"
    [[ $output == *'err= 0'* ]] || fail "fio: $output"
}

# records WRITE_OR_VERIFY ARGUMENT...: see scripts/lib/records.py.
records() { "$python3" "$REPD_ROOT/scripts/lib/records.py" "$@"; }

# start_writer NODE FILE OPTION...: in the background; $writer is its pid.
start_writer() {
    # Not by the function: a signal has to reach the program itself.
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(uri "$1")" "$dir/$2" --rate 1000 \
        "${@:3}" >"$dir/$2.log" 2>&1 &
    writer=$!
    children+=("$writer")
    wait_until 5 writes_arrive "$1" || fail "the writer: $(cat "$dir/$2.log")"
}

# verify_records NODE FILE TEXT: every acknowledged write of a writer is there.
verify_records() {
    local output
    output=$(records verify "$(uri "$1")" "$dir/$2" 2>&1) ||
        fail "$1 lacks acknowledged writes of $3: $output"
    note "$3: $output"
}

written() { ctl "$1" proc 2>/dev/null | sed -n 's/.* dw:\([0-9]*\) .*/\1/p'; }
writes_arrive() {
    local before
    before=$(written "$1")
    sleep 0.1
    [[ $(written "$1") != "$before" ]]
}

# A file system with the sources in it, as an image that nbdcopy puts on the export.
make_filesystem() {
    truncate --size "${filesystem_size}M" "$dir/filesystem.img"
    PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d "$REPD_ROOT/Sources" "$dir/filesystem.img" \
        >"$dir/mke2fs.log" 2>&1 || fail "mke2fs: $(cat "$dir/mke2fs.log")"
}

# check_filesystem NODE: as a client of this node reads it.
check_filesystem() {
    nbdcopy "$(uri "$1")" "$dir/whole.img" || fail "nbdcopy from $1"
    cmp --bytes=$((filesystem_size << 20)) "$dir/filesystem.img" "$dir/whole.img" ||
        fail "the file system on $1 is not what was written"
    truncate --size "${filesystem_size}M" "$dir/whole.img"
    PATH=$PATH:/sbin:/usr/sbin e2fsck -fn "$dir/whole.img" >"$dir/e2fsck.log" 2>&1 ||
        fail "e2fsck: $(cat "$dir/e2fsck.log")"
    rm "$dir/whole.img"
}

# seconds_since MICROSECONDS: with one decimal.
now() { echo "${EPOCHREALTIME/./}"; }
seconds_since() {
    local tenths=$((($(now) - $1 + 50000) / 100000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

mebibytes() { echo "$(($1 / 256)).$(($1 % 256 * 10 / 256)) MiB"; }
