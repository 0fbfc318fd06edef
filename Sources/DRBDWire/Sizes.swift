// How large the nodes' disks are: drbd-wire section 4.9.
import Support

/// P_SIZES. With `hasQueueLimits` it has 56 bytes, exactly if `FeatureFlags.writeSame` is agreed.
package struct Sizes: Equatable, Sendable, BitwiseCopyable {
    /// Sectors that the sender's backing disk can offer; 0 without a disk.
    package var diskSize: UInt64
    /// Sectors that the operator asked for; 0 if nothing.
    package var userSize: UInt64
    /// Sectors in use now; 0: nothing known, or "tell me your new size".
    package var currentSize: UInt64
    /// Bytes.
    package var maximumRequest: UInt32
    /// `forced`, `assumeClean`.
    package var flags: UInt16
    /// Whether the fields that follow are on the wire.
    package var hasQueueLimits: Bool
    package var physicalBlockSize: UInt32
    package var logicalBlockSize: UInt32
    package var minimumIO: UInt32
    package var optimalIO: UInt32
    /// The disk can discard.
    package var discards: Bool

    /// The operator insists on a smaller size.
    package static var forced: UInt16 { 1 }
    /// The new space needs no resync.
    package static var assumeClean: UInt16 { 2 }

    /// Without queue limits.
    package init(
        diskSize: UInt64, userSize: UInt64, currentSize: UInt64, maximumRequest: UInt32,
        flags: UInt16
    ) {
        self.diskSize = diskSize
        self.userSize = userSize
        self.currentSize = currentSize
        self.maximumRequest = maximumRequest
        self.flags = flags
        hasQueueLimits = false
        physicalBlockSize = 0
        logicalBlockSize = 0
        minimumIO = 0
        optimalIO = 0
        discards = false
    }

    /// With queue limits.
    package init(
        diskSize: UInt64, userSize: UInt64, currentSize: UInt64, maximumRequest: UInt32,
        flags: UInt16, physicalBlockSize: UInt32, logicalBlockSize: UInt32, minimumIO: UInt32,
        optimalIO: UInt32, discards: Bool
    ) {
        self.init(
            diskSize: diskSize, userSize: userSize, currentSize: currentSize,
            maximumRequest: maximumRequest, flags: flags)
        hasQueueLimits = true
        self.physicalBlockSize = physicalBlockSize
        self.logicalBlockSize = logicalBlockSize
        self.minimumIO = minimumIO
        self.optimalIO = optimalIO
        self.discards = discards
    }
}

extension Sizes {
    private enum Layout {
        static let diskSize = Field<UInt64>(at: 0)
        static let userSize = Field<UInt64>(at: 8)
        static let currentSize = Field<UInt64>(at: 16)
        static let maximumRequest = Field<UInt32>(at: 24)
        static let queueOrderType = Field<UInt16>(at: 28)
        static let flags = Field<UInt16>(at: 30)
        static let physicalBlockSize = Field<UInt32>(at: 32)
        static let logicalBlockSize = Field<UInt32>(at: 36)
        static let alignmentOffset = Field<UInt32>(at: 40)
        static let minimumIO = Field<UInt32>(at: 44)
        static let optimalIO = Field<UInt32>(at: 48)
        static let discards = Field<UInt8>(at: 52)
        static let discardZeroesData = Field<UInt8>(at: 53)
        static let writeSameCapable = Field<UInt8>(at: 54)
        static let reserved = Field<UInt8>(at: 55)
    }

    package static let sizeWithoutQueueLimits = 32  // Layout.flags.end
    package static let sizeWithQueueLimits = 56  // Layout.reserved.end

    package var encodedSize: Int {
        hasQueueLimits ? Self.sizeWithQueueLimits : Self.sizeWithoutQueueLimits
    }

    /// - Parameter bytes: the whole packet and nothing else: its size tells what is in it.
    package init(decoding bytes: RawSpan) {
        invariant(
            bytes.byteCount == Self.sizeWithoutQueueLimits
                || bytes.byteCount == Self.sizeWithQueueLimits,
            "sizes of \(bytes.byteCount) bytes")
        self.init(
            diskSize: bytes[Layout.diskSize], userSize: bytes[Layout.userSize],
            currentSize: bytes[Layout.currentSize], maximumRequest: bytes[Layout.maximumRequest],
            flags: bytes[Layout.flags])
        guard bytes.byteCount == Self.sizeWithQueueLimits else { return }
        hasQueueLimits = true
        physicalBlockSize = bytes[Layout.physicalBlockSize]
        logicalBlockSize = bytes[Layout.logicalBlockSize]
        minimumIO = bytes[Layout.minimumIO]
        optimalIO = bytes[Layout.optimalIO]
        discards = bytes[Layout.discards] != 0
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == encodedSize, "sizes into \(bytes.byteCount) bytes")
        bytes[Layout.diskSize] = diskSize
        bytes[Layout.userSize] = userSize
        bytes[Layout.currentSize] = currentSize
        bytes[Layout.maximumRequest] = maximumRequest
        bytes[Layout.queueOrderType] = 0
        bytes[Layout.flags] = flags
        guard hasQueueLimits else { return }
        bytes[Layout.physicalBlockSize] = physicalBlockSize
        bytes[Layout.logicalBlockSize] = logicalBlockSize
        bytes[Layout.alignmentOffset] = 0
        bytes[Layout.minimumIO] = minimumIO
        bytes[Layout.optimalIO] = optimalIO
        bytes[Layout.discards] = discards ? 1 : 0
        bytes[Layout.discardZeroesData] = 0
        bytes[Layout.writeSameCapable] = 0
        bytes[Layout.reserved] = 0
    }
}
