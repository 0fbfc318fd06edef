// create-md: drbd-metadata.md, section 14.3, in the order that safety rule S14 demands.

/// The steps that make new meta data, each to be done when the one before is done.
///
/// Died anywhere in between, the device has either its old super block with everything that belongs
/// to it, or none, or the new one with everything: never old generations with an empty bitmap.
package struct MetaCreation: Equatable, Sendable {
    package enum Step: Equatable, Sendable {
        case zero(Range<UInt64>)
        /// Every block of the log becomes `LogTransaction.encodeInitialised`.
        case initialiseLog(MetaLocation)
        case writeSuperblock(Superblock, offset: UInt64)
        case flush
    }

    package let steps: [Step]

    /// - Parameters:
    ///   - peerMaximumRequest: bytes, 0 to 1 MiB.
    ///   - deviceUUID: random, or 0 as the bare tool leaves it.
    /// - Throws: if the log is larger than create-md makes it.
    package init(
        location: MetaLocation, peerMaximumRequest: UInt32 = 0, deviceUUID: UInt64 = 0
    ) throws(MetaDiskError) {
        guard MetaLocation.createdLogBlockLimits.contains(UInt64(location.logBlockCount)) else {
            throw .logShape(
                stripes: location.stripes, stripeBlocks: location.stripeBlocks,
                reason: "\(location.logBlockCount) blocks, create-md makes at most 8192")
        }
        var superblock = Superblock.fresh(location: location)
        superblock.peerMaximumRequest = peerMaximumRequest
        superblock.deviceUUID = deviceUUID
        let end = location.superblockOffset + UInt64(Superblock.encodedSize)
        let bitmapEnd = location.bitmapOffset + location.bitmapCapacityBytes
        steps = [
            .zero(location.superblockOffset..<end),
            .flush,
            .initialiseLog(location),
            .zero(location.bitmapOffset..<bitmapEnd),
            .flush,
            .writeSuperblock(superblock, offset: location.superblockOffset),
            .flush,
        ]
    }

    /// Does all of it.
    package func perform<Access: MetaAccess & ~Copyable>(
        on access: inout Access
    ) throws(Access.Failure) {
        for step in steps {
            switch step {
            case .zero(let range): try access.zero(range)
            case .initialiseLog(let location): try access.initialiseLog(location)
            case .writeSuperblock(let superblock, let offset):
                try access.writeSuperblock(superblock, at: offset)
            case .flush: try access.flush()
            }
        }
    }
}
