# Loads by fio on exports and devices; needs $nodes, and nodes.sh for nbd_of. Sourced, not run.
# shellcheck shell=bash
# $nodes is set by whoever sources this.
# shellcheck disable=SC2154

# fio_verify TARGET... : random writes under load, read back and compared by their checksums. TARGET
# is `--ioengine=nbd --uri=URI` or `--filename=DEVICE --ioengine=libaio --direct=1`; options follow.
fio_verify() {
    local output
    output=$(cd "$nodes" && fio --name=verify --rw=randwrite --bsrange=4k-64k --size=24M \
        --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_state_save=0 "$@" 2>&1) ||
        fail "fio: $output"
    [[ $output == *'err= 0'* ]] || fail "fio: $output"
}

# fio_blocks COUNT TARGET...: writes so many different blocks of 4 KiB, in random order.
fio_blocks() {
    local output count=$1
    shift
    output=$(cd "$nodes" && fio --name=blocks --rw=randwrite --bs=4k --size=24M \
        --io_size="$((count * 4))k" --iodepth=8 --randseed="$RANDOM" "$@" 2>&1) ||
        fail "fio: $output"
}

# nbd_of NODE: fio's options for its export.
nbd_of() { printf '%s\n' --ioengine=nbd "--uri=$(node_uri "$1")"; }

# fio_rate SECONDS TARGET...: 150 random writes a second, for this time.
fio_rate() {
    local output seconds=$1
    shift
    output=$(cd "$nodes" && fio --name=rate --rw=randwrite --bs=4k --size=24M --iodepth=4 \
        --rate_iops=150 --time_based --runtime="$seconds" "$@" 2>&1) || { echo "fio: $output"; return 1; }
    [[ $output == *'err= 0'* ]] || { echo "fio: $output"; return 1; }
}
