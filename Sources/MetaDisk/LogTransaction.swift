package import Support

// Blocks of the activity log, 8.4 style: drbd-metadata.md, sections 7.2 to 7.4.

/// One slot of the activity log that changes its extent.
@frozen @usableFromInline
package struct LogUpdate: Equatable, Sendable, BitwiseCopyable {
    @usableFromInline package var slot: UInt16
    /// The extent it holds from now on.
    @usableFromInline package var extent: UInt32

    @inlinable package init(slot: UInt16, extent: UInt32) {
        self.slot = slot
        self.extent = extent
    }
}

/// A block of the activity log, as read; written without such a value by `encode`.
package struct LogTransaction: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        case update
        /// What create-md and apply-al fill the ring with; it says nothing.
        case initialised
    }

    package let kind: Kind
    package let number: UInt32
    /// Slots in use by the writer.
    package let contextSize: UInt16
    package let contextStart: UInt16
    package let updates: [LogUpdate]
    /// What slot `contextStart + i` held before the updates; `contextCount` entries.
    package let context: [UInt32]

    package static let encodedSize = 4096
    package static let maximumUpdates = 64
    package static let contextCount = 919
    /// Nothing in this slot.
    package static let freeExtent = UInt32.max
    /// Unused entry of the update list.
    package static let freeSlot = UInt16.max
    /// More slots than a number can name; what a block says of them is ignored.
    package static let maximumSlots = 65534

    /// The largest number of slots that a ring of `blockCount` blocks keeps recoverable.
    ///
    /// One round of context must fit into the ring without its newest block, which may be torn.
    package static func maximumSlots(blockCount: Int) -> Int {
        min(maximumSlots, (blockCount - 1) * contextCount)
    }
}

extension LogTransaction {
    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let number = Field<UInt32>(at: 4)
        static let checksum = Field<UInt32>(at: 8)
        static let kind = Field<UInt16>(at: 12)
        static let updateCount = Field<UInt16>(at: 14)
        static let contextSize = Field<UInt16>(at: 16)
        static let contextStart = Field<UInt16>(at: 18)
        // 16 reserved bytes, written as zero, ignored when read.
        static let updateSlots = 36
        static let updateExtents = 164
        static let context = 420

        static func updateSlot(_ index: Int) -> Field<UInt16> {
            Field(at: updateSlots + 2 * index)
        }
        static func updateExtent(_ index: Int) -> Field<UInt32> {
            Field(at: updateExtents + 4 * index)
        }
        static func context(_ index: Int) -> Field<UInt32> { Field(at: context + 4 * index) }
    }

    package static let magic: UInt32 = 0x69CB_65A2
    private static let kindUpdate: UInt16 = 0
    private static let kindInitialised: UInt16 = 0xFFFF

    /// Writes a whole block; allocates nothing.
    ///
    /// - Parameters:
    ///   - contextSize: slots in use, at most `extents.count`.
    ///   - contextStart: the first slot whose extent this block repeats.
    ///   - extents: the extent of each slot *before* the updates, `freeExtent` if it has none.
    package static func encode(
        number: UInt32, contextSize: UInt16, contextStart: UInt16,
        updates: borrowing Table<LogUpdate>, updateCount: Int,
        extents: borrowing Table<UInt32>, into bytes: inout MutableRawSpan
    ) {
        invariant(bytes.byteCount == encodedSize, "log block into \(bytes.byteCount) bytes")
        invariant(updateCount <= maximumUpdates, "\(updateCount) updates in one transaction")
        invariant(Int(contextSize) <= extents.count, "\(contextSize) slots of \(extents.count)")
        invariant(contextStart < contextSize, "context at \(contextStart) of \(contextSize)")
        bytes[Layout.magic] = magic
        bytes[Layout.number] = number
        bytes[Layout.checksum] = 0
        bytes[Layout.kind] = kindUpdate
        bytes[Layout.updateCount] = UInt16(updateCount)
        bytes[Layout.contextSize] = contextSize
        bytes[Layout.contextStart] = contextStart
        for offset in stride(from: Layout.contextStart.end, to: Layout.updateSlots, by: 4) {
            bytes[Field<UInt32>(at: offset)] = 0
        }
        for index in 0..<maximumUpdates {
            let used = index < updateCount
            bytes[Layout.updateSlot(index)] = used ? updates[index].slot : freeSlot
            bytes[Layout.updateExtent(index)] = used ? updates[index].extent : freeExtent
        }
        let first = Int(contextStart)
        let count = min(contextCount, Int(contextSize) - first)
        for index in 0..<count { bytes[Layout.context(index)] = extents[first + index] }
        for index in count..<contextCount { bytes[Layout.context(index)] = freeExtent }
        bytes[Layout.checksum] = checksum(bytes.bytes)
    }

    /// Writes the block that says nothing.
    package static func encodeInitialised(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == encodedSize, "log block into \(bytes.byteCount) bytes")
        fillZero(&bytes)
        bytes[Layout.magic] = magic
        bytes[Layout.kind] = kindInitialised
        bytes[Layout.checksum] = checksum(bytes.bytes)
    }

    /// Nil if this is no intact block: wrong magic, checksum, kind or number of updates.
    package init?(decoding bytes: RawSpan) {
        guard bytes.byteCount == Self.encodedSize, bytes[Layout.magic] == Self.magic,
            bytes[Layout.checksum] == Self.checksum(bytes)
        else { return nil }
        switch bytes[Layout.kind] {
        case Self.kindUpdate: kind = .update
        case Self.kindInitialised: kind = .initialised
        default: return nil
        }
        number = bytes[Layout.number]
        contextSize = bytes[Layout.contextSize]
        contextStart = bytes[Layout.contextStart]
        // An entry counts if the header says so, or if it names a slot: readers take both.
        let count = Int(bytes[Layout.updateCount])
        updates = (0..<Self.maximumUpdates).compactMap { index in
            let update = LogUpdate(
                slot: bytes[Layout.updateSlot(index)],
                extent: bytes[Layout.updateExtent(index)])
            return index < count || update.slot != Self.freeSlot ? update : nil
        }
        context = (0..<Self.contextCount).map { bytes[Layout.context($0)] }
    }

    /// With the checksum field counted as zero.
    private static func checksum(_ bytes: RawSpan) -> UInt32 {
        var crc = CRC32C()
        crc.update(bytes.extracting(0..<Layout.checksum.offset))
        crc.updateZeros(count: MemoryLayout<UInt32>.size)
        crc.update(bytes.extracting(Layout.checksum.end..<encodedSize))
        return crc.register
    }
}

/// Where the transactions of a ring lie: drbd-metadata.md, section 7.3.
package struct LogRing: Equatable, Sendable {
    package let stripes: UInt32
    package let stripeBlocks: UInt32

    package init(stripes: UInt32, stripeBlocks: UInt32) {
        self.stripes = stripes
        self.stripeBlocks = stripeBlocks
    }

    package var blockCount: Int { Int(stripes) * Int(stripeBlocks) }

    /// The place of a transaction in the order of writing, 0 to `blockCount - 1`.
    package func position(transaction: UInt32) -> Int { Int(transaction) % blockCount }

    /// The block of the log area at a place in the order of writing: round-robin over the stripes.
    package func blockIndex(position: Int) -> Int {
        position % Int(stripes) * Int(stripeBlocks) + position / Int(stripes)
    }
}

/// The block of the log area that takes transaction number `transaction`.
package func blockIndex(transaction: UInt32, stripes: UInt32, stripeBlocks: UInt32) -> Int {
    let ring = LogRing(stripes: stripes, stripeBlocks: stripeBlocks)
    return ring.blockIndex(position: ring.position(transaction: transaction))
}
