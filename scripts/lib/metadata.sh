# Meta data of disks that nobody uses, read and made by drbdmeta, the judge. Sourced, not run.
# shellcheck shell=bash
# $nodes is set by whoever sources this.
# shellcheck disable=SC2154

# drbdmeta_of DISK COMMAND...: drbdmeta remembers the last device of "no minor", which is none.
drbdmeta_of() {
    local disk=$1
    shift
    rm -f /var/lib/drbd/drbd-minor--*.lkbd
    drbdmeta --force - v08 "$disk" internal "$@" </dev/null
}

# data_size DISK: bytes before internal meta data as create-md lays it out (8 blocks of log).
data_size() {
    local size
    if [[ -b $1 ]]; then size=$(blockdev --getsize64 "$1"); else size=$(stat -Lc %s "$1"); fi
    echo $(((size - 4096) / 4096 * 4096 - 32768 - 4096 * ((size / 512 + 262143) / 262144)))
}

# same_data DISK DISK: whether the data in front of the meta data is the same on both. What was read
# of devices before is forgotten first: who writes below them leaves the kernel's cache as it is.
same_data() {
    local disk
    for disk in "$@"; do [[ ! -b $disk ]] || blockdev --flushbufs "$disk"; done
    cmp --bytes="$(data_size "$1")" "$1" "$2"
}

# metadata DISK: "UUIDs flags bits", the bit "held by a Primary" of each UUID cleared.
metadata() {
    local generation dump parts
    generation=$(drbdmeta_of "$1" get-gi 2>/dev/null)
    dump=$(drbdmeta_of "$1" dump-md 2>/dev/null)
    [[ ${generation##*$'\n'} == *:*:*:* && $dump =~ '# bits-set '([0-9]+) ]] ||
        fail "drbdmeta finds no meta data on $1"
    IFS=: read -r -a parts <<<"${generation##*$'\n'}"
    printf '%016X:%016X:%016X:%016X ' $((0x${parts[0]} & ~1)) $((0x${parts[1]} & ~1)) \
        $((0x${parts[2]} & ~1)) $((0x${parts[3]} & ~1))
    (IFS=: && printf '%s %s\n' "${parts[*]:4}" "${BASH_REMATCH[1]}")
}

# same_metadata DISK DISK: the state of two nodes in sync after `down`: UUIDs equal, both Consistent
# and UpToDate, nobody Primary or crashed, no full sync wanted, no bit set.
same_metadata() {
    local first second
    first=$(metadata "$1")
    second=$(metadata "$2")
    [[ ${first%% *} == "${second%% *}" ]] || fail "UUIDs differ: $first and $second"
    for first in "$first" "$second"; do
        [[ $first =~ ^[0-9A-F:]+\ 1:1:0:[01]:0:0:0\ 0$ ]] || fail "meta data at rest: $first"
    done
}

# make_equal_metadata DISK [WORD...]: UpToDate, of one generation whoever is given the same, and the
# words are the beginning of the bitmap: nothing has to be synced before two such disks are used.
make_equal_metadata() {
    local disk=$1 text=$nodes/metadata.text output word
    shift
    [[ $# -gt 0 ]] || set -- 0
    drbdmeta_of "$disk" create-md >/dev/null 2>&1 || fail "create-md of $disk"
    {
        echo 'version "v08";'
        echo 'uuid { 0x1122334455667788; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;'
        echo 'flags 0x00000091; }'
        echo "la-size-sect $(($(data_size "$disk") / 512));"
        echo 'bm-byte-per-bit 4096; device-uuid 0x0000000000000000; la-peer-max-bio-size 1048576;'
        echo 'al-stripes 1; al-stripe-size-4k 8;'
        printf 'bm {'
        for word in "$@"; do printf ' 0x%016X;' "$word"; done
        printf ' }\n'
    } >"$text"
    output=$(drbdmeta_of "$disk" restore-md "$text" 2>&1) || fail "restore-md of $disk: $output"
}
