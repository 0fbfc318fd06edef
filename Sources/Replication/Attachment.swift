import DRBDWire
import MetaDisk
package import Support

/// Attach: every check, the recovery of the extents that were active at a crash, then the states
/// (reference, meta data sections 7.6, 7.7, 8). Detach: the reverse, clean.
///
///     superblock ─▶ log ─▶ bitmap ─▶ [full sync flag] ─▶ pages ─▶ fresh log ─▶ superblock ─▶ done
struct Attachment {
    enum Stage: Equatable {
        case none, superblock
        /// No super block was found: perhaps one of format v07 lies where only that had it.
        case olderFormat(MetaDiskError)
        case log, bitmap
        case flagging(UInt32), pages(UInt32), freshLog(UInt32), storing(UInt32)
    }

    static let readSize = 256 << 10
    static let readLimit = 4

    var stage = Stage.none
    /// Cheaper to ask than `stage != .none`.
    var isUnderWay: Bool {
        if case .none = stage { false } else { true }
    }
    var id: UInt32 = 0
    /// Bytes of the data's device, and what holds the meta data if that is another one.
    var deviceSize: UInt64 = 0
    var metadata: ExternalMetadata?
    /// What the disk is by its own meta data; in force when the peer has been compared with.
    var found = DiskState.diskless
    var recovery = LogRecovery(stripes: 1, stripeBlocks: 8)
    var cursor = 0
    var outstanding = 0
    var failed: String?
    var setAll = false
    /// For a clean detach: after the pages and the log a super block that says clean.
    var detachStage = Stage.none

    var placement: MetaLocation.Placement { metadata?.placement ?? .internalData }
    var metaDeviceSize: UInt64 { metadata?.deviceSize ?? deviceSize }
}

extension ReplicationEngine {
    mutating func startAttach(
        _ id: UInt32, _ deviceSize: UInt64, _ blockSize: Int, _ metadata: ExternalMetadata?
    ) {
        guard state.disk == .diskless, !diskInUse, attachment.stage == .none else {
            fail(id, 124, "Device is attached to a disk (use detach first)")
            return
        }
        guard transfer.freeCount == TransferLog.entryLimit, log.referencedCount == 0 else {
            finish(id, .inTransientState)
            return
        }
        guard state.role == .secondary else {
            finish(id, .noUpToDateDisk, "a Primary without a disk cannot attach one yet")
            return
        }
        guard book.blockSize == blockSize || book.isEmpty else {
            finish(id, .inTransientState)
            return
        }
        book.blockSize = blockSize
        beginDiskWatch()
        passedOn = 0
        attachment = Attachment()
        attachment.id = id
        attachment.deviceSize = deviceSize
        attachment.metadata = metadata
        meta = MetaWriter()
        order.generationVersion = 0
        // What the disk that failed had still to write is none of this one's business.
        log = ActivityLog(slotCount: 1, extentCount: 1)
        (resync.fullStage, resync.fullVersion) = (0, 0)
        (resync.pagesVersion, resync.superblockVersion) = (0, 0)
        diskInUse = true
        location = nil
        change("attach") { $0.disk = .attaching }
        do {
            let offset = try MetaLocation.superblockOffset(
                placement: attachment.placement, deviceSize: attachment.metaDeviceSize)
            attachment.stage = .superblock
            readMeta(0, Superblock.encodedSize, offset)
        } catch {
            failAttach(112, "\(error)")
        }
    }

    private mutating func readMeta(_ id: Int, _ length: Int, _ offset: UInt64) {
        attachment.outstanding += 1
        output.commands.append(
            .metaRead(id: UInt16(id), length: UInt32(length), offset: offset))
    }

    private mutating func failAttach(_ number: Int32, _ text: String) {
        attachment.failed = text
        guard attachment.outstanding == 0 else { return }
        let id = attachment.id
        attachment = Attachment()
        fail(id, number, text)
        closeDisk("attach failed: \(text)")
    }

    mutating func attachmentReadFailed(_ errno: UInt8) {
        attachment.outstanding -= 1
        failAttach(118, "IO error(s) occurred during initial access to meta-data (errno \(errno)).")
    }

    /// A write or flush of the attach failed.
    mutating func attachmentFailed(_ cause: String) {
        guard attachment.stage != .none else { return }
        attachment.failed = cause
    }

    /// What `metaRead` asked for.
    package mutating func metaRead(id: UInt16, bytes: RawSpan, now: Instant) {
        self.now = now
        attachment.outstanding -= 1
        if let failed = attachment.failed {
            failAttach(118, failed)
            return
        }
        switch attachment.stage {
        case .superblock: readSuperblock(bytes)
        case .olderFormat(let error): readOlderFormat(bytes, error)
        case .log: readLog(bytes)
        case .bitmap: readBitmap(Int(id), bytes)
        case .none, .flagging, .pages, .freshLog, .storing:
            invariantFailed("a read in attach stage \(attachment.stage)")
        }
    }

    private mutating func readSuperblock(_ bytes: RawSpan) {
        do {
            superblock = try Superblock(decoding: bytes)
            let place = try superblock.validate(
                deviceSize: attachment.metaDeviceSize, placement: attachment.placement)
            capacity = place.usableCapacity(dataSectors: attachment.deviceSize / 512)
            guard superblock.lastAgreedSize <= capacity else {
                failAttach(
                    170,
                    "the size in use (\(superblock.lastAgreedSize) sectors) is larger than the "
                        + "disk offers (\(capacity)): the backing disk shrank")
                return
            }
            guard capacity > 0 else {
                failAttach(112, "the backing disk has \(attachment.deviceSize) bytes, no sector")
                return
            }
            location = place
            attachment.recovery = LogRecovery(superblock: superblock)
            attachment.cursor = 0
            attachment.stage = .log
            readNextLog()
        } catch {
            guard case .noSuperblock = error,
                let offset = MetaLocation.fixedInternalOffset(
                    placement: attachment.placement, deviceSize: attachment.metaDeviceSize)
            else {
                failAttach(119, "\(error)")
                return
            }
            attachment.stage = .olderFormat(error)
            readMeta(0, Superblock.encodedSize, offset)
        }
    }

    private mutating func readOlderFormat(_ bytes: RawSpan, _ error: MetaDiskError) {
        let format = Superblock.olderFormat(bytes).map { MetaDiskError.otherFormat($0) }
        failAttach(119, "\(format ?? error)")
    }

    private mutating func readNextLog() {
        guard let location else { return }
        let blocks = min(Attachment.readSize / 4096, location.logBlockCount - attachment.cursor)
        readMeta(0, blocks * 4096, location.logOffset + UInt64(attachment.cursor) * 4096)
    }

    private mutating func readLog(_ bytes: RawSpan) {
        guard let location else { return }
        for index in 0..<bytes.byteCount / 4096 {
            attachment.recovery.add(
                block: bytes.extracting(index * 4096..<(index + 1) * 4096),
                at: attachment.cursor + index)
        }
        attachment.cursor += bytes.byteCount / 4096
        if attachment.cursor < location.logBlockCount {
            readNextLog()
            return
        }
        prepareMemory(location)
        attachment.cursor = 0
        attachment.stage = .bitmap
        readMoreBitmap()
    }

    /// Bitmap and log for the largest size the disk can offer.
    private mutating func prepareMemory(_ place: MetaLocation) {
        let extents = Int(BitmapLayout.extentCount(sectors: capacity))
        let most = LogTransaction.maximumSlots(blockCount: place.logBlockCount)
        // A write may lie across the border of two extents.
        let wanted = max(2, options.logExtents ?? most)
        log = ActivityLog(
            slotCount: max(1, min(wanted, most, max(extents, 1))), extentCount: extents)
        if superblock.lastAgreedSize == 0 {
            size = capacity
            attachment.setAll = true
        } else {
            size = superblock.lastAgreedSize
        }
        bitmap = DirtyBitmap(
            capacity: Int(BitmapLayout.bitCount(sectors: capacity)),
            bitCount: Int(BitmapLayout.bitCount(sectors: size)))
        crashedPrimary =
            superblock.flags.contains(.primaryIndicator)
            || superblock.flags.contains(.crashedPrimary)
        crashedConnected = superblock.flags.contains(.connectedIndicator)
        resumption.foundIndicator = superblock.flags.contains(.primaryIndicator)
        if sabotaged(.forgetsCrash) {
            crashedPrimary = false
            superblock.flags.remove(.primaryIndicator)
        }
    }

    private mutating func readMoreBitmap() {
        guard let location else { return }
        let total = bitmap.pageCount
        let pages = Attachment.readSize / 4096
        while attachment.cursor < total, attachment.outstanding < Attachment.readLimit {
            let count = min(pages, total - attachment.cursor)
            readMeta(
                attachment.cursor / pages, count * 4096,
                location.bitmapOffset + UInt64(attachment.cursor) * 4096)
            attachment.cursor += count
        }
        if attachment.outstanding == 0 { recover() }
    }

    private mutating func readBitmap(_ id: Int, _ bytes: RawSpan) {
        let first = id * (Attachment.readSize / 4096)
        for index in 0..<bytes.byteCount / 4096 {
            bitmap.load(
                page: first + index, from: bytes.extracting(index * 4096..<(index + 1) * 4096))
        }
        readMoreBitmap()
    }

    // MARK: recovery

    private mutating func recover() {
        let flags = superblock.flags
        if flags.contains(.fullSync) { attachment.setAll = true }
        if crashedPrimary, flags.contains(.logDisabled) { attachment.setAll = true }
        if attachment.recovery.needsFullSync(flags: flags) {
            record("the activity log of a crashed Primary is unusable: full sync", .warning)
            attachment.setAll = true
        } else if flags.contains(.primaryIndicator),
            case .hot(let extents) = attachment.recovery.result()
        {
            var marked = 0
            for extent in extents where UInt64(extent) < UInt64(bitmap.bitCount + 1023) / 1024 {
                let first = Int(extent) * 1024
                marked += bitmap.set(first, through: first + 1023)
            }
            record("marked additional \(marked * 4) KiB as out of sync based on the activity log")
        }
        superblock.lastAgreedSize = size
        superblock.logExtents = UInt32(log.slotCount)
        superblock.isUnclean = true
        superblock.flags.remove(.logClean)
        if attachment.setAll {
            bitmap.set(0, through: bitmap.bitCount - 1)
            bitmap.markAllChanged()
            superblock.flags.insert(.fullSync)
            attachment.stage = .flagging(touchSuperblock())
        } else {
            attachment.stage = .pages(writeOutBitmap())
        }
    }

    mutating func advanceAttachment() {
        if let failed = attachment.failed, attachment.stage != .none {
            guard attachment.outstanding == 0, meta.outstanding == 0, !meta.flushing else { return }
            failAttach(118, failed)
            return
        }
        switch attachment.stage {
        case .none, .superblock, .olderFormat, .log, .bitmap: break
        case .flagging(let version):
            guard meta.superblockDurable >= version else { return }
            attachment.stage = .pages(writeOutBitmap())
        case .pages(let version):
            guard meta.bitmapDurable >= version else { return }
            attachment.stage = .freshLog(initialiseLog())
        case .freshLog(let version):
            guard meta.logDurable >= version else { return }
            superblock.flags.remove(.fullSync)
            // From here on the crash mark stands for it; the bitmap is complete.
            if !isResuming { superblock.flags.remove(.primaryIndicator) }
            if crashedPrimary { superblock.flags.insert(.crashedPrimary) }
            attachment.stage = .storing(touchSuperblock())
        case .storing(let version):
            // A handshake that began without this disk ends without it.
            guard meta.superblockDurable >= version, link.stage != .parameters else { return }
            attached()
        }
    }

    private mutating func attached() {
        let flags = superblock.flags
        if !flags.contains(.consistent) {
            attachment.found = .inconsistent
        } else {
            attachment.found = flags.contains(.wasUpToDate) ? .upToDate : .outdated
        }
        attachment.stage = .none
        let found = attachment.found
        let uuids = superblock.uuids
        let summary =
            "attached: \(size) sectors, \(bitmap.setCount) blocks out of sync, UUIDs "
            + "\(hex(uuids.current)):\(hex(uuids.bitmap)):\(hex(uuids.history0)):"
            + hex(uuids.history1)
        // What the meta data knew of the peer's disk is in force again.
        let peerOutdated = flags.contains(.peerOutdated) && state.connection < .connected
        if state.connection >= .connected {
            change(summary) { $0.disk = .negotiating }
            agreeOnSize()
            sendSizes()
            sendUUIDs()
            sendState()
        } else {
            change(summary) {
                $0.disk = found
                if peerOutdated { $0.peerDisk = .outdated }
            }
        }
        refreshFlags()
        finish(attachment.id, .success)
    }

    /// The peer's state was compared with a disk that was attached while connected.
    mutating func attachmentDecided() { refreshFlags() }

    // MARK: detach

    mutating func startDetach(_ id: UInt32, force: Bool) {
        guard diskInUse else {
            finish(id, .nothingToDo)
            return
        }
        guard attachment.stage == .none else {
            finish(id, .inTransientState)
            return
        }
        if state.role == .primary {
            finish(
                id, .noUpToDateDisk,
                "Need access to UpToDate data: a Primary without a disk is not supported yet; "
                    + "make it Secondary first")
            return
        }
        beginOrder(id, .detach(force: force), .closing, within: options.requestDeadline)
        if state.connection >= .connected, !force {
            ask(mask: 0x1e00, value: 0x400)
        } else {
            detachAnswered(true, 1)
        }
    }

    mutating func detachAnswered(_ accepted: Bool, _ code: Int32) {
        guard let current = order.current else { return }
        guard accepted else {
            endOrder(.failedByPeer, "the peer refuses to lose this disk (\(code))")
            return
        }
        order.detach = current.id
        order.current?.stage = .closing
        if state.disk > .failed { change("detach") { $0.disk = .failed } }
        attachment.detachStage = .none
        failWaiting()
    }

    mutating func advanceDetach(_ current: PendingOrders.Order) {
        guard current.stage == .closing, order.detach == current.id else { return }
        guard !meta.dead else {
            guard diskOperations == 0, flushOperations == 0, meta.outstanding == 0 else { return }
            detached()
            return
        }
        switch attachment.detachStage {
        case .none:
            guard diskOperations == 0, receiver.operations == 0 else { return }
            attachment.detachStage = .pages(writeOutBitmap())
        case .pages(let version):
            guard meta.bitmapDurable >= version else { return }
            attachment.detachStage = .freshLog(initialiseLog())
        case .freshLog(let version):
            guard meta.logDurable >= version else { return }
            superblock.isUnclean = false
            superblock.flags.insert(.logClean)
            superblock.flags.remove(.primaryIndicator)
            superblock.flags.remove(.connectedIndicator)
            attachment.detachStage = .storing(touchSuperblock())
        case .storing(let version):
            guard meta.superblockDurable >= version, diskOperations == 0, flushOperations == 0
            else { return }
            detached()
        case .superblock, .olderFormat, .log, .bitmap, .flagging:
            invariantFailed("detach in stage \(attachment.detachStage)")
        }
    }

    private mutating func detached() {
        attachment.detachStage = .none
        order.detach = nil
        closeDisk("detached")
        endOrder(.success)
    }
}
