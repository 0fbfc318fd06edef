# The virtual machine's kernel and initramfs: fetched and built once, kept in the cache directory
# and checked before every use. Sourced by scripts/vm after lib.sh.
# shellcheck shell=bash

VM_CACHE=$REPD_CACHE/vm
VM_PACKAGES=(busybox-static cpio gzip kmod qemu-system-x86 util-linux iproute2)
# What must be there before the host's root is; everything else is loaded through it.
VM_MODULES=(virtio_pci 9pnet_virtio 9p overlay)

# The newest kernel of Debian 12 that apt lists.
vm_newest_kernel() {
    apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-amd64$' |
        awk '{print $1}' | sort -V | tail -n 1
}

# vm_fetch_kernel DIRECTORY: the package's file there.
vm_fetch_kernel() {
    local package attempt
    for attempt in 1 2; do
        package=$(vm_newest_kernel)
        if [[ -n $package ]]; then
            say "fetching $package"
            # apt drops its privileges if it can, and then cannot write into root's directory.
            (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2) && return 0
        fi
        [[ $attempt == 2 ]] || apt_get update >&2
    done
    die "cannot download a kernel package (linux-image-6.1.0-NN-amd64)"
}

# vm_make_initramfs VERSION ROOT OUTPUT
vm_make_initramfs() {
    local version=$1 root=$2 output=$3 tree file module busybox
    tree=$(mktemp -d "$VM_CACHE/initramfs.XXXXXX")
    mkdir -p "$tree/bin" "$tree/modules"
    busybox=$(dpkg-query -L busybox-static | grep '/bin/busybox$')
    cp "$busybox" "$tree/bin/busybox"
    install -m 755 "$REPD_ROOT/scripts/lib/vm-init" "$tree/init"
    for module in "${VM_MODULES[@]}"; do
        /sbin/modprobe --show-depends --dirname "$root" --set-version "$version" "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tree/files"
    while read -r file; do
        cp "$file" "$tree/modules/"
        basename "$file" >>"$tree/modules/order"
    done <"$tree/files"
    rm "$tree/files"
    (cd "$tree" && find . -print0 | cpio --null --create --quiet --format=newc) |
        gzip -1 >"$output"
    rm -rf "$tree"
}

# What the cached files were made from; another answer means they are made again.
vm_recipe() {
    { cat "$REPD_ROOT/scripts/lib/vm-init" "${BASH_SOURCE[0]}" && busybox --help; } |
        sha256sum | cut -c 1-16
}

# Whether the cache is complete, undamaged and made by this recipe.
vm_cache_is_good() {
    [[ $(cat "$VM_CACHE/current/recipe" 2>/dev/null) == "$1" ]] || return 1
    (cd "$VM_CACHE/current" && sha256sum --check --quiet sums >/dev/null 2>&1)
}

vm_build_cache() {
    local recipe=$1 work package version previous
    say "building the virtual machine's files in $VM_CACHE"
    work=$(mktemp -d "$VM_CACHE/machine.XXXXXX")
    if ! package=$(find "$VM_CACHE" -maxdepth 1 -name 'linux-image-*.deb' | sort -V | tail -n 1) ||
        [[ -z $package ]] || ! dpkg --info "$package" >/dev/null 2>&1 ||
        ! dpkg -x "$package" "$work/root" 2>/dev/null; then
        rm -rf "$work/root" "$VM_CACHE"/linux-image-*.deb
        vm_fetch_kernel "$VM_CACHE"
        package=$(find "$VM_CACHE" -maxdepth 1 -name 'linux-image-*.deb' | head -n 1)
        dpkg -x "$package" "$work/root" || die "cannot unpack $package"
    fi
    mv "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
    version=$(basename "$work"/root/lib/modules/*)
    rm -rf "$work/root/boot" "$work/root/usr/share"
    /sbin/depmod --basedir "$work/root" "$version"
    vm_make_initramfs "$version" "$work/root" "$work/initramfs"
    echo "$version" >"$work/version"
    echo "$recipe" >"$work/recipe"
    # The modules are too many to check each time: their index and the one that counts stand for all.
    (cd "$work" && sha256sum vmlinuz initramfs version "root/lib/modules/$version/modules.dep" \
        "root/lib/modules/$version/kernel/drivers/block/drbd/drbd.ko" >sums)
    # A guest that runs still reads its modules from the directory it was started with: that stays
    # until the files are built once more.
    previous=$(readlink "$VM_CACHE/current" || true)
    find "$VM_CACHE" -maxdepth 1 -name 'machine.*' ! -path "$work" ! -name "${previous:-none}" \
        -exec rm -rf {} +
    ln -s "$(basename "$work")" "$work.link"
    mv -T "$work.link" "$VM_CACHE/current"
}

# Leaves a good cache behind the link $VM_CACHE/current, whoever else runs at the same time.
vm_prepare() {
    local recipe
    need_packages "the virtual machine" "${VM_PACKAGES[@]}"
    mkdir -p "$VM_CACHE"
    recipe=$(vm_recipe)
    vm_cache_is_good "$recipe" && return 0
    (
        flock 9
        rm -rf "$VM_CACHE"/initramfs.*
        if ! vm_cache_is_good "$recipe"; then vm_build_cache "$recipe"; fi
    ) 9>"$VM_CACHE/lock"
}
