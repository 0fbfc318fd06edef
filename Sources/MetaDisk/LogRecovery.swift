import Support

// Which extents were hot: drbd-metadata.md, sections 7.6, 7.8 and 7.9.

package enum LogVerdict: Equatable, Sendable {
    /// No extent can have had a write in flight.
    case nothingHot
    /// Writes may have been in flight here: ascending, each once.
    case hot([UInt32])
    /// The log does not say; why not.
    case unusable(String)
}

/// Reads an activity log, block by block in any order, and says what was hot.
package struct LogRecovery {
    package enum Style: Equatable, Sendable {
        /// Blocks of 4096 bytes, since 8.4.
        case blocks
        /// Sectors of 512 bytes, until 8.3.
        case sectors
        /// Only DRBD 9 writes it.
        case persistentMemory
    }

    private let ring: LogRing
    /// Nil: told from the blocks, as a super block that is not unclean demands.
    private let knownStyle: Style?
    private let logExtents: UInt32
    private var blocks: [LogTransaction?]
    /// The magics of blocks 0 and 1, by which the styles are told apart.
    private var magics: [UInt32] = [0, 0]
    private var sectors: OldLog

    /// For a log of 8.4 style.
    package init(stripes: UInt32, stripeBlocks: UInt32) {
        self.init(
            ring: LogRing(stripes: stripes, stripeBlocks: stripeBlocks), style: .blocks,
            logExtents: 0)
    }

    /// For the log that belongs to this super block, of whatever style.
    ///
    /// - Parameter superblock: one that `validate` took.
    package init(superblock: Superblock) {
        let ring = LogRing(
            stripes: superblock.effectiveStripes, stripeBlocks: superblock.effectiveStripeBlocks)
        let isBlocks =
            superblock.isUnclean
            || ring
                != LogRing(
                    stripes: MetaLocation.defaultStripes,
                    stripeBlocks: MetaLocation.defaultStripeBlocks)
        self.init(
            ring: ring, style: isBlocks ? .blocks : nil, logExtents: superblock.logExtents)
    }

    private init(ring: LogRing, style: Style?, logExtents: UInt32) {
        invariant(ring.blockCount > 0, "an activity log of no blocks")
        self.ring = ring
        self.logExtents = logExtents
        knownStyle = style
        blocks = Array(repeating: nil, count: ring.blockCount)
        sectors = OldLog(sectorCount: OldLog.sectorCount(logExtents: logExtents))
    }

    /// Takes the block at `index` of the log area; a block never given counts as corrupt.
    package mutating func add(block: RawSpan, at index: Int) {
        invariant(block.byteCount == LogTransaction.encodedSize, "\(block.byteCount) bytes of log")
        invariant(blocks.indices.contains(index), "log block \(index) of \(blocks.count)")
        blocks[index] = LogTransaction(decoding: block)
        if index < magics.count { magics[index] = block[Field<UInt32>(at: 0)] }
        if style != .blocks || index < magics.count { sectors.add(block: block, at: index) }
    }

    /// How the log is written; right only when blocks 0 and 1 were given.
    package var style: Style {
        if knownStyle == .blocks || magics.contains(LogTransaction.magic) {
            // The magic of block 0 tells the style of DRBD 9 apart.
            return magics[0] == Self.persistentMemoryMagic ? .persistentMemory : .blocks
        }
        return .sectors
    }

    private static let persistentMemoryMagic: UInt32 = 0x6AA6_67A6

    /// Blocks (old style: sectors in use) that are not intact.
    package var corruptBlocks: Int {
        switch style {
        case .blocks: blocks.count { $0 == nil }
        case .sectors: sectors.corruptSectors
        case .persistentMemory: 0
        }
    }

    /// The number of the newest intact transaction; nil if there is none.
    package var newestTransaction: UInt32? {
        switch style {
        case .blocks: newestPosition.flatMap { transaction(at: $0)?.number }
        case .sectors: sectors.newestTransaction
        case .persistentMemory: nil
        }
    }

    /// Some block or sector says more than "initialised".
    package var holdsTransactions: Bool { newestTransaction != nil }

    package func result() -> LogVerdict {
        switch style {
        case .blocks: blocksVerdict()
        case .sectors: Self.verdict(of: sectors.hotExtents())
        case .persistentMemory: .unusable("it is in the format for persistent memory of DRBD 9")
        }
    }

    /// Whether after a crash everything has to count as out of sync, because the log cannot be
    /// trusted: section 7.7, rule (a).
    ///
    /// One torn block is expected, but only where the transaction after the newest belongs.
    package func needsFullSync(flags: MetaFlags) -> Bool {
        guard flags.contains(.primaryIndicator) else { return false }
        if flags.contains(.logDisabled) { return true }
        if case .unusable = result() { return true }
        guard style == .blocks else { return !sectors.isTrustworthy }
        guard corruptBlocks > 0 else { return false }
        guard corruptBlocks == 1 else { return true }
        let torn = newestTransaction.map { ring.position(transaction: $0 &+ 1) } ?? 0
        return blocks[ring.blockIndex(position: torn)] != nil
    }
}

extension LogRecovery {
    /// The update transaction at a place in the order of writing.
    private func transaction(at position: Int) -> LogTransaction? {
        guard let block = blocks[ring.blockIndex(position: position)], block.kind == .update
        else { return nil }
        return block
    }

    private var newestPosition: Int? { extremePosition { $0 &- $1 } }
    private var oldestPosition: Int? { extremePosition { $1 &- $0 } }

    /// The update with the greatest `lead` over all others, a difference modulo 2^32: plain
    /// comparison would misorder a ring that straddles the wrap.
    private func extremePosition(lead: (UInt32, UInt32) -> UInt32) -> Int? {
        var best: (position: Int, number: UInt32)?
        for position in 0..<ring.blockCount {
            guard let number = transaction(at: position)?.number else { continue }
            guard let known = best else {
                best = (position, number)
                continue
            }
            if Int32(bitPattern: lead(number, known.number)) > 0 { best = (position, number) }
        }
        return best?.position
    }

    private func blocksVerdict() -> LogVerdict {
        guard blocks.contains(where: { $0 != nil }) else {
            return .unusable("none of its \(blocks.count) blocks is intact")
        }
        guard let oldest = oldestPosition, let newest = newestPosition else {
            // The very first transaction may be torn; then nothing was ever hot.
            let firstTorn = blocks[ring.blockIndex(position: 0)] == nil
            if corruptBlocks == 0 || (corruptBlocks == 1 && firstTorn) { return .nothingHot }
            return .unusable("\(corruptBlocks) blocks are corrupt and no transaction is left")
        }
        var slots = [UInt32](repeating: LogTransaction.freeExtent, count: 65536)
        var position = oldest
        while true {
            if let block = transaction(at: position) { Self.replay(block, into: &slots) }
            if position == newest { break }
            position = (position + 1) % ring.blockCount
        }
        return Self.verdict(of: slots[..<LogTransaction.maximumSlots])
    }

    /// `slots` has an entry for every slot number there can be; what lies beyond is ignored later.
    private static func replay(_ block: LogTransaction, into slots: inout [UInt32]) {
        for (index, extent) in block.context.enumerated() {
            let slot = Int(block.contextStart) + index
            // Past the writer's slots free means "no such slot", not "empty".
            if extent == LogTransaction.freeExtent && slot >= Int(block.contextSize) { continue }
            if slot < slots.count { slots[slot] = extent }
        }
        for update in block.updates { slots[Int(update.slot)] = update.extent }
    }

    private static func verdict(of extents: some Sequence<UInt32>) -> LogVerdict {
        var hot = extents.filter { $0 != LogTransaction.freeExtent }.sorted()
        var kept = 0
        for extent in hot where kept == 0 || hot[kept - 1] != extent {
            hot[kept] = extent
            kept += 1
        }
        hot.removeLast(hot.count - kept)
        return hot.isEmpty ? .nothingHot : .hot(hot)
    }
}
