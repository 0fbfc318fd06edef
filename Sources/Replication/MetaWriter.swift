import DRBDWire
import MetaDisk
import Support

/// One meta data job at a time, each with its order on disk (reference, meta data sections 7.4, 11, 13).
///
///     superblock:   flush ─▶ super block (durable)
///     transaction:  pages of evicted extents ─▶ flush ─▶ log block (durable) ─▶ commit
///     bitmap:       flush ─▶ changed pages ─▶ flush
///     fresh log:    flush ─▶ initialised blocks ─▶ flush
///
/// Whoever needs something durable keeps the version that `touch` or `writeOut` gave it and compares.
struct MetaWriter: BitwiseCopyable {
    enum Job: UInt8 { case none, superblock, transaction, bitmap, freshLog }
    enum Step: UInt8 { case preflush, writing, flushing, block }

    static let pagesPerWrite = 16
    static let writeLimit = 8

    var job = Job.none
    var step = Step.preflush
    var outstanding = 0
    var cursor = 0
    var flushing = false

    var superblockWanted: UInt32 = 0
    var superblockWriting: UInt32 = 0
    var superblockDurable: UInt32 = 0
    var bitmapWanted: UInt32 = 0
    var bitmapWriting: UInt32 = 0
    var bitmapDurable: UInt32 = 0
    var logWanted: UInt32 = 0
    var logWriting: UInt32 = 0
    var logDurable: UInt32 = 0

    /// Bits were cleared for resync writes that no flush covers: no page may be written before one.
    var clearedSinceFlush = false
    /// A flush in front of pages runs: bits of resync writes wait to be cleared until the pages are
    /// copied, so that no page holds a cleared bit which the flush does not cover (safety.md S9).
    var freezesClears = false
    /// The disk failed: nothing more is written.
    var dead = false
}

extension ReplicationEngine {
    /// The super block is to be written; durable when `meta.superblockDurable` reaches the result.
    @discardableResult
    mutating func touchSuperblock() -> UInt32 {
        meta.superblockWanted += 1
        return meta.superblockWanted
    }

    /// Every page that differs from disk now is to be written and flushed.
    mutating func writeOutBitmap() -> UInt32 {
        meta.bitmapWanted += 1
        return meta.bitmapWanted
    }

    /// The ring of the activity log is to hold nothing but initialised blocks.
    mutating func initialiseLog() -> UInt32 {
        meta.logWanted += 1
        return meta.logWanted
    }

    /// Starts the next job where none runs.
    mutating func pumpMeta() {
        guard meta.job == .none, diskInUse, !meta.dead, location != nil else { return }
        if meta.superblockWanted != meta.superblockDurable {
            meta.job = .superblock
            meta.step = .preflush
            metaFlush()
            return
        }
        if log.wantsTransaction {
            meta.job = .transaction
            log.beginTransaction()
            meta.cursor = 0
            beginPages(always: evictedPagesChanged && meta.clearedSinceFlush)
            return
        }
        if meta.bitmapWanted != meta.bitmapDurable {
            meta.job = .bitmap
            meta.bitmapWriting = meta.bitmapWanted
            meta.cursor = 0
            beginPages(always: meta.clearedSinceFlush)
            return
        }
        if meta.logWanted != meta.logDurable {
            meta.job = .freshLog
            meta.logWriting = meta.logWanted
            meta.cursor = 0
            beginPages(always: true)
        }
    }

    private var evictedPagesChanged: Bool {
        for index in 0..<log.updateCount {
            if let extent = log.evicted(index), bitmap.isChanged(page: Int(extent) / 32) {
                return true
            }
        }
        return false
    }

    private mutating func beginPages(always flushFirst: Bool) {
        // Until the last page is copied no bit may be cleared that the flush does not cover.
        if meta.job != .freshLog { meta.freezesClears = true }
        guard flushFirst, meta.job == .freshLog || !sabotaged(.clearsBeforeFlush) else {
            meta.step = .writing
            continueMeta()
            return
        }
        if meta.job != .freshLog { meta.clearedSinceFlush = false }
        meta.step = .preflush
        metaFlush()
    }

    /// The flush in front of the block, or of the pages: the caller has set `step`.
    private mutating func metaFlush() {
        meta.flushing = true
        flushOperations += 1
        output.commands.append(.flush(.meta, index: 0))
    }

    /// Issues what the present step has left to issue; goes on when all of it is done.
    private mutating func continueMeta() {
        switch meta.job {
        case .none: return
        case .superblock: return
        case .transaction: issueEvictedPages()
        case .bitmap: issueChangedPages()
        case .freshLog: issueFreshBlocks()
        }
        guard meta.outstanding == 0 else { return }
        unfreezeClears()
        if sabotaged(.logBeforePages), meta.job == .transaction {
            writeTransaction()
            return
        }
        meta.step = .flushing
        metaFlush()
    }

    private mutating func unfreezeClears() {
        guard meta.freezesClears else { return }
        meta.freezesClears = false
        clearDeferred()
    }

    private mutating func issueEvictedPages() {
        while meta.cursor < log.updateCount {
            if sabotaged(.forgetsPages) { return }
            guard let extent = log.evicted(meta.cursor), bitmap.isChanged(page: Int(extent) / 32)
            else {
                meta.cursor += 1
                continue
            }
            guard meta.outstanding < MetaWriter.writeLimit else { return }
            writePages(Int(extent) / 32, count: 1)
            meta.cursor += 1
        }
    }

    private mutating func issueChangedPages() {
        // A bitmap of 16 TiB has 131,072 pages, and seldom one that differs.
        if bitmap.changedPageCount == 0 { meta.cursor = bitmap.pageCount }
        while meta.cursor < bitmap.pageCount {
            guard bitmap.isChanged(page: meta.cursor) else {
                meta.cursor += 1
                continue
            }
            guard meta.outstanding < MetaWriter.writeLimit else { return }
            var count = 1
            while count < MetaWriter.pagesPerWrite, meta.cursor + count < bitmap.pageCount,
                bitmap.isChanged(page: meta.cursor + count)
            {
                count += 1
            }
            writePages(meta.cursor, count: count)
            meta.cursor += count
        }
    }

    private mutating func writePages(_ first: Int, count: Int) {
        guard let location else { return }
        let at = output.append(pagesOf: bitmap, from: first, count: count)
        for index in 0..<count { bitmap.markWritten(page: first + index) }
        counters.bitmapWrites += UInt64(count)
        metaWrite(at, count * 4096, location.bitmapOffset + UInt64(first) * 4096, durable: false)
    }

    private mutating func issueFreshBlocks() {
        guard let location else { return }
        while meta.cursor < location.logBlockCount {
            guard meta.outstanding < MetaWriter.writeLimit else { return }
            let count = min(MetaWriter.pagesPerWrite, location.logBlockCount - meta.cursor)
            let at = output.bytes.count
            for _ in 0..<count {
                var block = output.bytes.append(LogTransaction.encodedSize)
                LogTransaction.encodeInitialised(into: &block)
            }
            metaWrite(
                at, count * 4096, location.logOffset + UInt64(meta.cursor) * 4096, durable: false)
            meta.cursor += count
        }
    }

    private mutating func metaWrite(_ at: Int, _ length: Int, _ offset: UInt64, durable: Bool) {
        meta.outstanding += 1
        output.commands.append(
            .metaWrite(
                id: UInt16(meta.outstanding), at: UInt32(at), length: UInt32(length),
                offset: offset, durable: durable))
    }

    // MARK: completions

    mutating func metaFlushed(failed: Bool, _ errno: UInt8) {
        meta.flushing = false
        guard !failed else {
            metaFailed("flush error \(errno)")
            return
        }
        guard meta.job != .none, !meta.dead else {
            endMetaIfDead()
            return
        }
        switch (meta.job, meta.step) {
        case (.superblock, _): writeSuperblock()
        case (.transaction, .flushing): writeTransaction()
        case (.bitmap, .flushing):
            meta.bitmapDurable = meta.bitmapWriting
            meta.job = .none
        case (.freshLog, .flushing):
            meta.logDurable = meta.logWriting
            meta.job = .none
        case (_, .preflush):
            meta.step = .writing
            continueMeta()
        case (.none, _), (_, .writing), (_, .block):
            invariantFailed("flush in \(meta.job) \(meta.step)")
        }
    }

    private mutating func writeSuperblock() {
        guard let location else { return }
        meta.superblockWriting = meta.superblockWanted
        let at = output.append(superblock)
        meta.step = .block
        metaWrite(at, Superblock.encodedSize, location.superblockOffset, durable: true)
    }

    private mutating func writeTransaction() {
        guard let location else { return }
        let (at, number) = output.append(transactionOf: log)
        let index = blockIndex(
            transaction: number, stripes: superblock.effectiveStripes,
            stripeBlocks: superblock.effectiveStripeBlocks)
        meta.step = .block
        metaWrite(
            at, LogTransaction.encodedSize, location.logOffset + UInt64(index) * 4096,
            durable: true)
    }

    mutating func metaWritten(_ errno: UInt8) {
        meta.outstanding -= 1
        watch.answers &+= 1
        guard errno == 0 else {
            metaFailed("write error \(errno)")
            return
        }
        guard !meta.dead else {
            endMetaIfDead()
            return
        }
        switch (meta.job, meta.step) {
        case (.superblock, .block):
            meta.superblockDurable = meta.superblockWriting
            meta.job = .none
        case (.transaction, .block):
            meta.job = .none
            log.commit()
            transactionCommitted()
        case (.transaction, .writing), (.bitmap, .writing), (.freshLog, .writing):
            continueMeta()
        case (.none, _), (.superblock, _), (_, .block), (_, .preflush), (_, .flushing):
            invariantFailed("write in \(meta.job) \(meta.step)")
        }
    }

    /// No write that waits for the log may reach the disk or the peer (safety.md S11, I-24).
    private mutating func metaFailed(_ text: String) {
        diskFailed("meta data \(text)")
        endMetaIfDead()
    }

    private mutating func endMetaIfDead() {
        guard meta.dead, meta.outstanding == 0, !meta.flushing else { return }
        meta.job = .none
        unfreezeClears()
    }
}
