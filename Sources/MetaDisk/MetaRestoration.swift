import Support

// restore-md: drbd-metadata.md, section 14.8, in the order that safety rule S14 demands.

/// Meta data made from the text of a dump.
///
///     super block with FULL_SYNC ─▶ flush ─▶ log, bitmap ─▶ flush ─▶ super block ─▶ flush
///
/// Died anywhere in between, the device has its old meta data, or new ones that count every block as
/// out of sync: never generations with a bitmap that is not theirs.
package struct MetaRestoration {
    /// Collected for one write.
    private static let chunkBytes = 1 << 20

    package let location: MetaLocation
    /// As it is written last.
    package let superblock: Superblock
    /// The text has more bitmap than there is room for; the rest was left out.
    package private(set) var isCut = false
    /// Bytes of bitmap that the text had room for, so far.
    package private(set) var bitmapBytes: UInt64 = 0
    private var chunk: [UInt8] = []

    /// - Parameter shape: another shape of the log than the text says.
    /// - Throws: if what the text says does not fit on the device.
    package init(
        _ header: DumpHeader, placement: MetaLocation.Placement, deviceSize: UInt64,
        shape: (stripes: UInt32, stripeBlocks: UInt32)? = nil
    ) throws(MetaDiskError) {
        location = try MetaLocation(
            placement: placement, deviceSize: deviceSize,
            stripes: shape?.stripes ?? header.stripes,
            stripeBlocks: shape?.stripeBlocks ?? header.stripeBlocks)
        guard MetaLocation.createdLogBlockLimits.contains(UInt64(location.logBlockCount)) else {
            throw .logShape(
                stripes: location.stripes, stripeBlocks: location.stripeBlocks,
                reason: "\(location.logBlockCount) blocks, restore-md makes at most 8192")
        }
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = min(
            header.lastAgreedSize, location.usableCapacity(dataSectors: .max))
        superblock.uuids = header.uuids
        superblock.flags = header.flags
        superblock.deviceUUID = header.deviceUUID
        superblock.peerMaximumRequest = header.peerMaximumRequest
        self.superblock = superblock
    }

    /// The first step. From now on every block counts as out of sync.
    package func begin<Access: MetaAccess & ~Copyable>(
        on access: inout Access
    ) throws(Access.Failure) {
        var interim = superblock
        interim.flags.insert(.fullSync)
        try access.writeSuperblock(interim, at: location.superblockOffset)
        try access.flush()
        try access.initialiseLog(location)
    }

    /// The next words of the bitmap.
    package mutating func add<Access: MetaAccess & ~Copyable>(
        _ run: DumpRun, to access: inout Access
    ) throws(Access.Failure) {
        var left = run.count
        while left > 0 {
            let room = location.bitmapCapacityBytes - bitmapBytes - UInt64(chunk.count)
            // A device of whole sectors has room for whole words.
            guard room >= 8 else {
                isCut = true
                return
            }
            let place = UInt64(Self.chunkBytes - chunk.count)
            let count = min(left, room / 8, place / 8)
            append(run.word, count: Int(count))
            left -= count
            if chunk.count == Self.chunkBytes { try writeChunk(&access) }
        }
    }

    private mutating func append(_ word: UInt64, count: Int) {
        let start = chunk.count
        let first = (bitmapBytes + UInt64(start)) * 8
        chunk.append(contentsOf: repeatElement(0, count: count * 8))
        let bits = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        chunk.withMutableRawBytes { bytes in
            for index in 0..<count {
                let bit = first + UInt64(index) * 64
                // What lies behind the end of the storage means nothing and stays 0.
                guard bit < bits else { return }
                let mask = bits - bit < 64 ? (UInt64(1) << (bits - bit)) - 1 : .max
                bytes[LittleField<UInt64>(at: start + 8 * index)] = word & mask
            }
        }
    }

    private mutating func writeChunk<Access: MetaAccess & ~Copyable>(
        _ access: inout Access
    ) throws(Access.Failure) {
        try access.write(chunk.rawBytes, at: location.bitmapOffset + bitmapBytes)
        bitmapBytes += UInt64(chunk.count)
        chunk.removeAll(keepingCapacity: true)
    }

    /// The last step; what the text did not have of the bitmap becomes zero.
    package mutating func finish<Access: MetaAccess & ~Copyable>(
        on access: inout Access
    ) throws(Access.Failure) {
        let odd = chunk.count % 512
        if odd > 0 { chunk.append(contentsOf: repeatElement(0, count: 512 - odd)) }
        if !chunk.isEmpty { try writeChunk(&access) }
        let rest = location.bitmapOffset + bitmapBytes
        try access.zero(rest..<location.bitmapOffset + location.bitmapCapacityBytes)
        try access.flush()
        try access.writeSuperblock(superblock, at: location.superblockOffset)
        try access.flush()
    }
}
