import Support

// Internal meta data of a device that has grown: drbd-metadata.md, section 12.2, the rule.

/// Moves meta data from where they were to the end of the grown device.
///
/// The bits go along byte for byte: the tool (9.22) copies them from the wrong place where their
/// number of pages changes. Where the two places overlap, the new super block comes first and demands a
/// full sync until everything is there.
package struct MetaRelocation {
    /// Copied at once.
    private static let chunkBytes: UInt64 = 1 << 20

    package let old: MetaLocation
    package let new: MetaLocation
    /// As it is at the new place in the end.
    package let superblock: Superblock

    /// - Parameters:
    ///   - superblock: valid for `old`, its log applied.
    ///   - deviceSize: bytes of the device now.
    /// - Throws: if the device is too small to hold both the data in use and the meta data.
    package init(
        _ superblock: Superblock, from old: MetaLocation, deviceSize: UInt64
    ) throws(MetaDiskError) {
        invariant(old.placement == .internalData, "only internal meta data move")
        self.old = old
        new = try MetaLocation(
            placement: .internalData, deviceSize: deviceSize, stripes: old.stripes,
            stripeBlocks: old.stripeBlocks)
        guard superblock.lastAgreedSize <= new.capacity else {
            throw .shrunk(lastAgreedSize: superblock.lastAgreedSize, capacity: new.capacity)
        }
        var moved = superblock
        moved.mdSizeSectors = new.mdSizeSectors
        moved.alOffset = new.alOffset
        moved.bmOffset = new.bmOffset
        moved.stripes = new.stripes
        moved.stripeBlocks = new.stripeBlocks
        self.superblock = moved
    }

    private var overlaps: Bool { new.bitmapOffset < old.superblockOffset + 4096 }

    /// Does all of it.
    package func perform<Access: MetaAccess & ~Copyable>(
        on access: inout Access
    ) throws(Access.Failure) {
        if overlaps {
            var interim = superblock
            interim.flags.insert(.fullSync)
            try access.writeSuperblock(interim, at: new.superblockOffset)
            try access.flush()
        }
        let bytes = BitmapLayout.byteCount(sectors: superblock.lastAgreedSize)
        try copyBitmap(bytes, &access)
        let rest = new.bitmapOffset + bytes
        try access.zero(rest..<new.bitmapOffset + new.bitmapCapacityBytes)
        try access.initialiseLog(new)
        try access.flush()
        try access.writeSuperblock(superblock, at: new.superblockOffset)
        try access.flush()
        // In front of the new bitmap it would be found by who looks for an older size.
        if old.superblockOffset + 4096 <= new.bitmapOffset {
            try access.zero(old.superblockOffset..<old.superblockOffset + 4096)
            try access.flush()
        }
    }

    /// From the end if the new place lies behind, so that nothing is overwritten before it was read.
    private func copyBitmap<Access: MetaAccess & ~Copyable>(
        _ bytes: UInt64, _ access: inout Access
    ) throws(Access.Failure) {
        let count = (bytes + Self.chunkBytes - 1) / Self.chunkBytes
        for index in 0..<count {
            let place = new.bitmapOffset > old.bitmapOffset ? count - 1 - index : index
            let start = place * Self.chunkBytes
            let length = Int(min(Self.chunkBytes, bytes - start))
            var chunk = [UInt8](repeating: 0, count: length)
            try chunk.withMutableRawBytes { (span) throws(Access.Failure) in
                try access.read(at: old.bitmapOffset + start, into: &span)
            }
            try access.write(chunk.rawBytes, at: new.bitmapOffset + start)
        }
    }
}
