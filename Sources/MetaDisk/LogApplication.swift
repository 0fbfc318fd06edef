import Support

// apply-al: drbd-metadata.md, section 7.7 with its rules, and the messages of section 14.7.

/// Turns what was hot at a crash into bits, so that the disk can be attached.
///
/// The order bitmap, flush, log, flush, super block, flush lets a second crash find either the old
/// log or the finished bitmap.
package struct LogApplication: Equatable, Sendable {
    package enum Action: Equatable, Sendable {
        /// The node was not Primary: nothing can have been in flight.
        case notPrimary
        case nothingHot
        case marked(extents: [UInt32])
        /// The log cannot be trusted: every bit was set.
        case markedAll(reason: String)
    }

    package let action: Action
    /// Bits that were not set before.
    package let newlySetBits: UInt64
    package let corruptBlocks: Int
    /// Hot extents that lie behind the end of the bitmap; they are skipped.
    package let beyondEnd: [UInt32]
    /// As it is on the disk now.
    package let superblock: Superblock
    /// One line each, in the words of the tool where it has them.
    package let messages: [String]

    /// Reads log and bitmap, and writes what has to change; safe to run twice.
    ///
    /// - Parameter location: what `superblock.validate` said.
    package static func apply<Access: MetaAccess & ~Copyable>(
        to access: inout Access, superblock: Superblock, location: MetaLocation
    ) throws(Access.Failure) -> LogApplication {
        var recovery = LogRecovery(superblock: superblock)
        for index in 0..<location.logBlockCount {
            let offset = location.logOffset + UInt64(index * LogTransaction.encodedSize)
            let block = try access.readBlock(at: offset)
            recovery.add(block: block.rawBytes, at: index)
        }
        let plan = Plan(recovery: recovery, superblock: superblock)
        var set: UInt64 = 0
        for page in plan.pages {
            set += try mark(page, superblock.lastAgreedSize, location, &access)
        }
        if !plan.pages.isEmpty { try access.flush() }
        if plan.mustInitialiseLog {
            try access.initialiseLog(location)
            try access.flush()
        }
        var after = superblock
        after.flags.insert(.logClean)
        after.isUnclean = false
        if after != superblock {
            try access.writeSuperblock(after, at: location.superblockOffset)
            try access.flush()
        }
        return LogApplication(plan, newlySetBits: set, superblock: after)
    }

    /// The bits to set in one page of the bitmap.
    fileprivate struct Page {
        let index: Int
        let bits: [Range<UInt64>]
    }

    fileprivate struct Plan {
        let action: Action
        let corruptBlocks: Int
        let beyondEnd: [UInt32]
        let pages: [Page]
        let mustInitialiseLog: Bool
        let bitCount: UInt64
    }
}

extension LogApplication.Plan {
    fileprivate init(recovery: LogRecovery, superblock: Superblock) {
        bitCount = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        corruptBlocks = recovery.corruptBlocks
        let verdict = recovery.result()
        var isUnusable = false
        if case .unusable = verdict { isUnusable = true }
        mustInitialiseLog = isUnusable || recovery.style != .blocks || recovery.holdsTransactions
        var beyondEnd: [UInt32] = []
        var pages: [LogApplication.Page] = []
        if !superblock.flags.contains(.primaryIndicator) {
            action = .notPrimary
        } else if recovery.needsFullSync(flags: superblock.flags) {
            action = .markedAll(reason: Self.reason(verdict, recovery, superblock))
            let perPage = BitmapLayout.bitsPerPage
            for first in stride(from: 0, to: bitCount, by: Int(perPage)) {
                let bits = first..<min(first + perPage, bitCount)
                pages.append(LogApplication.Page(index: Int(first / perPage), bits: [bits]))
            }
        } else if case .hot(let extents) = verdict {
            let bitCount = bitCount
            let inside = extents.filter { ExtentIndex($0).firstBlock.number < bitCount }
            beyondEnd = extents.filter { ExtentIndex($0).firstBlock.number >= bitCount }
            action = .marked(extents: inside)
            for extent in inside.map(ExtentIndex.init) {
                let bits = BitmapLayout.bits(of: extent, bitCount: bitCount)
                let earlier = pages.last?.index == extent.page ? pages.removeLast().bits : []
                pages.append(LogApplication.Page(index: extent.page, bits: earlier + [bits]))
            }
        } else {
            action = .nothingHot
        }
        self.beyondEnd = beyondEnd
        self.pages = pages
    }

    private static func reason(
        _ verdict: LogVerdict, _ recovery: LogRecovery, _ superblock: Superblock
    ) -> String {
        if superblock.flags.contains(.logDisabled) { return "it was switched off" }
        if case .unusable(let reason) = verdict { return reason }
        return "\(recovery.corruptBlocks) corrupt blocks, not just the newest"
    }
}

extension LogApplication {
    private init(_ plan: Plan, newlySetBits: UInt64, superblock: Superblock) {
        action = plan.action
        self.newlySetBits = newlySetBits
        corruptBlocks = plan.corruptBlocks
        beyondEnd = plan.beyondEnd
        self.superblock = superblock
        var messages: [String] = []
        switch plan.action {
        case .notPrimary: break
        case .nothingHot: messages.append("Nothing to do.")
        case .marked:
            if corruptBlocks > 0 {
                messages.append("\(corruptBlocks) corrupt AL transactions found")
            }
            for extent in beyondEnd {
                let start = UInt64(extent) * UInt64(BitmapLayout.bitmapBytesPerExtent)
                let pages =
                    (plan.bitCount + BitmapLayout.bitsPerPage - 1) / BitmapLayout.bitsPerPage
                let end = pages * UInt64(BitmapLayout.pageBytes)
                messages.append("extent \(extent) beyond end of bitmap! (\(start) >= \(end))")
            }
            messages.append(
                "Marked additional \(prettySize(kibibytes: newlySetBits * 4)) "
                    + "as out-of-sync based on AL.")
        case .markedAll(let reason):
            messages.append("activity log not usable: \(reason)")
            messages.append(
                "Marked all \(prettySize(kibibytes: plan.bitCount * 4)) as out-of-sync.")
        }
        self.messages = messages
    }

    /// Sets bits in one page and clears those behind the end of the storage.
    ///
    /// - Returns: how many were not set before.
    private static func mark<Access: MetaAccess & ~Copyable>(
        _ page: Page, _ size: UInt64, _ location: MetaLocation, _ access: inout Access
    ) throws(Access.Failure) -> UInt64 {
        let offset = location.bitmapOffset + UInt64(page.index * BitmapLayout.pageBytes)
        let old = try access.readBlock(at: offset)
        let first = UInt64(page.index) * BitmapLayout.bitsPerPage
        var words = (0..<BitmapLayout.pageBytes / 8).map {
            old.rawBytes[LittleField<UInt64>(at: 8 * $0)]
        }
        var set: UInt64 = 0
        for bit in page.bits.joined() {
            let (word, mask) = (Int((bit - first) / 64), UInt64(1) << (bit % 64))
            if words[word] & mask == 0 { set += 1 }
            words[word] |= mask
        }
        let end = BitmapLayout.bitCount(sectors: size)
        for word in words.indices {
            let start = first + UInt64(word) * 64
            if start + 64 > end {
                words[word] &= start >= end ? 0 : (1 << (end - start)) - 1
            }
        }
        var block = [UInt8](repeating: 0, count: BitmapLayout.pageBytes)
        block.withMutableRawBytes { bytes in
            for (index, word) in words.enumerated() {
                bytes[LittleField<UInt64>(at: 8 * index)] = word
            }
        }
        if block != old { try access.write(block.rawBytes, at: offset) }
        return set
    }
}

/// As the tools print sizes: at most 9999 of a unit, rounded half up.
package func prettySize(kibibytes: UInt64) -> String {
    var value = kibibytes
    var units = ["KB", "MB", "GB", "TB", "PB", "EB"][...]
    while value >= 10000, units.count > 1 {
        value = value >> 10 + (value >> 9 & 1)
        units.removeFirst()
    }
    return "\(value) \(units.first ?? "KB")"
}
