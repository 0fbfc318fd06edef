import DRBDWire
import MetaDisk
import Support

/// A resync from its decision to its end, on either side (reference, wire sections 9 and 12).
///
///     source: quiescing ─▶ sendingBitmap ─▶ receivingBitmap ─▶ starting ─▶ running
///     target: receivingBitmap ─▶ storing ─▶ sendingBitmap ─▶ waitingUUID ─▶ beginning ─▶ running
///             ─▶ flushing ─▶ pages ─▶ pinging ─▶ superblock ─▶ done
struct Resync: ~Copyable {
    enum Stage: UInt8 {
        case idle
        // Source.
        case leading, quiescing, sourceSending, sourceReceiving, sourceStoring, sourceStarting
        case sourceAnnouncing, sourceRunning
        // Target.
        case targetReceiving, targetStoring, targetSending, targetWaiting, targetBeginning
        case targetRunning, targetFlushing, targetPages, targetPinging, targetEnding
    }

    /// Requests out at most, and how many blocks each.
    static let requestLimit = 32
    static let requestBlocks = 64
    /// How long our own disk may lag behind the target at the end.
    static let finishTime = Duration.seconds(5)
    static let writeOutInterval: Duration = .seconds(2)

    var stage = Stage.idle
    /// Set all bits, or leave that to the exchange.
    var full = false
    /// The full sync's flag on disk: 0 none, 1 flag being written, 2 pages, 3 flag being cleared.
    var fullStage = 0
    var fullVersion: UInt32 = 0
    /// What has to be durable before the next step.
    var superblockVersion: UInt32 = 0
    var pagesVersion: UInt32 = 0
    var pings: UInt32 = 0

    /// The target pinged us when it had everything: from then on it may have ended the resync, and
    /// hold our generation as UpToDate, before we hear of it.
    var targetMayBeDone = false

    // Bitmap exchange.
    /// When the peer has to be done with it, because writes wait for that.
    var exchangeLimit = Instant.never
    var sendBit = 0
    var sendWaits = false
    var receiveBit = 0
    var receiveWord = 0
    var syncUUID: UInt64?
    /// What our own P_SYNC_UUID will carry.
    var announcedUUID: UInt64 = 0

    // Target.
    var cursor = 0
    var outstanding = Table<UInt16>(repeating: 0, count: requestLimit)
    var outstandingCount = 0
    var deferredCount = 0
    /// Blocks that could not be transferred, which ends the resync without success.
    var failedBlocks = 0
    var allowance: Int64 = 0
    var allowanceAt = Instant(nanoseconds: 0)
    var nextWriteOut = Instant.never

    // Source: answers whose ack is not in.
    var awaiting = Table<UInt16>(repeating: 0, count: ReplicationEngine.peerSlots)
    var awaitingCount = 0

    /// One was given up in this connection: answers to it may still come in, and mean nothing.
    var wasAbandoned = false

    // For /proc/drbd.
    /// The target has said that it is done; our own last writes have until then.
    var finishBefore = Instant.never
    var total = 0
    var started = Instant(nanoseconds: 0)

    /// New writes wait: the full resync that makes us source has not set its bits yet.
    @inline(__always) var startsAsSource: Bool {
        stage == .sourceStoring || stage == .sourceStarting || stage == .sourceAnnouncing
    }
}

extension ReplicationEngine {
    // MARK: ways in

    mutating func prepareSource(full: Bool) {
        resync.stage = .quiescing
        resync.full = full
        if full { setAllBits() }
    }

    mutating func prepareTarget(full: Bool) {
        resync.stage = .targetReceiving
        resync.full = full
        resync.receiveBit = 0
        resync.receiveWord = 0
        resync.syncUUID = nil
        if full { setAllBits() }
    }

    /// A kernel Secondary with our generation and our bits: a new generation makes it follow.
    mutating func leadKernel() {
        beginGeneration("equal generations with out-of-sync blocks")
        resync.stage = .leading
        resync.superblockVersion = order.generationVersion
    }

    /// invalidate: no bitmap is exchanged, both set every bit (wire 12.1).
    mutating func prepareStartingSource() {
        setAllBits()
        resync.stage = .sourceStoring
    }

    mutating func prepareStartingTarget() {
        setAllBits()
        resync.stage = .targetStoring
        resync.syncUUID = nil
        resync.full = true
    }

    /// Every block is out of sync; a crash before the pages are written finds the flag (section 6.1).
    mutating func setAllBits() {
        bitmap.set(0, through: bitmap.bitCount - 1)
        bitmap.markAllChanged()
        superblock.flags.insert(.fullSync)
        resync.fullVersion = touchSuperblock()
        resync.fullStage = 1
    }

    private mutating func advanceFullSync() {
        switch resync.fullStage {
        case 1 where meta.superblockDurable >= resync.fullVersion:
            resync.fullVersion = writeOutBitmap()
            resync.fullStage = 2
        case 2 where meta.bitmapDurable >= resync.fullVersion:
            superblock.flags.remove(.fullSync)
            resync.fullVersion = touchSuperblock()
            resync.fullStage = 3
        case 3 where meta.superblockDurable >= resync.fullVersion:
            resync.fullStage = 0
        default: break
        }
    }

    // MARK: steps

    mutating func advanceResync() {
        guard diskInUse, !meta.dead else { return }
        advanceFullSync()
        switch resync.stage {
        case .idle, .sourceReceiving, .targetReceiving, .targetWaiting: break
        case .leading: advanceLeading()
        case .quiescing:
            // The bitmap is complete when no write is at the disk whose bit is still to be set.
            guard writesAtDisk == 0 else { break }
            distrustLastBits()
            resync.sendBit = 0
            resync.sendWaits = false
            resync.receiveBit = 0
            resync.receiveWord = 0
            resync.stage = .sourceSending
            if let limit = pace.slowPeer { resync.exchangeLimit = now + limit }
            sendBitmap()
        case .sourceSending, .targetSending: sendBitmap()
        case .sourceStoring:
            guard resync.fullStage == 0, writesAtDisk == 0 else { break }
            startAsSource()
        case .sourceStarting:
            guard resync.fullStage == 0 else { break }
            startAsSource()
        case .sourceAnnouncing: announceAsSource()
        case .sourceRunning:
            writeOutSometimes()
            finishSourceIfDone()
        case .targetStoring: advanceStoring()
        case .targetBeginning: advanceBeginning()
        case .targetRunning:
            request()
            writeOutSometimes()
            finishTargetIfDone()
        case .targetFlushing, .targetPages, .targetPinging, .targetEnding: advanceFinishing()
        }
    }

    private mutating func advanceLeading() {
        guard state.connection == .connected else {
            resync.stage = .idle
            return
        }
        guard meta.superblockDurable >= resync.superblockVersion else { return }
        prepareSource(full: false)
        sendUUIDs()
        change("making the kernel peer the target") { $0.connection = .wfBitMapS }
        sendState()
    }

    /// Of a kernel's bitmap the last 64 bits may be missing (safety.md S13).
    private mutating func distrustLastBits() {
        guard !peer.isRepd, bitmap.bitCount & 63 == 0, bitmap.bitCount > 0,
            !sabotaged(.trustsLastBits)
        else { return }
        bitmap.set(bitmap.bitCount - 64, through: bitmap.bitCount - 1)
    }

    private mutating func writeOutSometimes() {
        guard now >= resync.nextWriteOut, meta.bitmapWanted == meta.bitmapDurable else { return }
        resync.nextWriteOut = now + Resync.writeOutInterval
        if bitmap.changedPageCount > 0 { _ = writeOutBitmap() }
    }

    // MARK: bitmap exchange (wire section 9)

    mutating func sendBitmap() {
        var packets = 0
        while resync.sendBit < bitmap.bitCount || bitmap.bitCount == 0 {
            guard !resync.sendWaits else { return }
            if packets == 16 {
                resync.sendWaits = true
                output.commands.append(.reportDrained(link: link.data))
                return
            }
            packets += 1
            if !options.compressesBitmap || !sendCompressed() { sendPlain() }
            if bitmap.bitCount == 0 { break }
        }
        bitmapSent()
    }

    /// - Returns: false when the code would be longer than the bits.
    private mutating func sendCompressed() -> Bool {
        let start = resync.sendBit
        let first = bitmap[start]
        var encoder = RunLengthEncoder(firstValue: first, limit: Packet.maximumBitmap)
        var value = first
        var bit = start
        while bit < bitmap.bitCount {
            let next =
                value ? bitmap.nextClear(from: bit) : bitmap.next(from: bit) ?? bitmap.bitCount
            guard encoder.append(run: UInt64(next - bit)) else { break }
            bit = next
            value.toggle()
        }
        guard bit - start >= min(encoder.codeBitCount, bitmap.bitCount - start), bit > start else {
            return false
        }
        let payload = encoder.payload
        output.packet(.compressedBitmap, link: link.data, length: payload.count)
        var bytes = output.bytes.append(payload.count)
        for index in 0..<payload.count {
            bytes.storeBytes(of: payload[index], toByteOffset: index, as: UInt8.self)
        }
        resync.sendBit = bit
        return true
    }

    private mutating func sendPlain() {
        let word = resync.sendBit >> 6
        let count = min(Packet.maximumBitmap / 8, bitmap.wordCount - word)
        output.packet(.bitmap, link: link.data, length: count * 8)
        output.append(wordsOf: bitmap, word..<word + count)
        resync.sendBit = min((word + count) << 6, bitmap.bitCount)
        // The last bits went plain: an empty packet says so.
        if resync.sendBit == bitmap.bitCount { output.packet(.bitmap, link: link.data) }
    }

    mutating func linkDrained(_ id: UInt8) {
        guard id == link.data else { return }
        resync.sendWaits = false
    }

    private mutating func bitmapSent() {
        if resync.stage == .sourceSending {
            resync.stage = .sourceReceiving
            if resync.receiveBit == bitmap.bitCount, bitmap.bitCount > 0 { bitmapReceived() }
        } else {
            resync.stage = .targetWaiting
            change("own bitmap sent") { $0.connection = .wfSyncUUID }
            applySyncUUID()
        }
    }

    mutating func receiveBitmap(_ body: RawSpan, compressed: Bool) {
        let complete: Bool?
        if compressed {
            complete = mergeCompressed(body)
        } else {
            complete = mergePlain(body)
        }
        guard let complete else {
            malformed(false, "a bitmap packet that does not fit the bitmap")
            return
        }
        if complete { bitmapReceived() }
    }

    private mutating func mergePlain(_ body: RawSpan) -> Bool? {
        let left = bitmap.wordCount - resync.receiveWord
        let expected = min(Packet.maximumBitmap / 8, left)
        guard body.byteCount == expected * 8 else { return nil }
        for index in 0..<expected {
            bitmap.merge(
                body[LittleField<UInt64>(at: index * 8)], intoWord: resync.receiveWord + index)
        }
        resync.receiveWord += expected
        resync.receiveBit = min(resync.receiveWord << 6, bitmap.bitCount)
        // Plain bits end with a packet of length 0.
        return expected == 0
    }

    private mutating func mergeCompressed(_ body: RawSpan) -> Bool? {
        guard var decoder = RunLengthDecoder(body) else { return nil }
        var value = decoder.firstValue
        var bit = resync.receiveBit
        do {
            while let run = try decoder.next() {
                guard run <= UInt64(bitmap.bitCount - bit) else { return nil }
                if value { bitmap.set(bit, through: bit + Int(run) - 1) }
                bit += Int(run)
                value.toggle()
            }
        } catch {
            return nil
        }
        resync.receiveBit = bit
        resync.receiveWord = bit >> 6
        return bit == bitmap.bitCount
    }

    private mutating func bitmapReceived() {
        switch resync.stage {
        case .targetReceiving:
            distrustLastBits()
            if !sabotaged(.forgetsMergedBitmap) { resync.pagesVersion = writeOutBitmap() }
            resync.stage = .targetStoring
        case .sourceReceiving:
            resync.stage = .sourceStarting
            resync.exchangeLimit = .never
        case .sourceSending: resync.receiveBit = bitmap.bitCount
        default: record("a bitmap came in state \(state.connection.name): merged")
        }
        resync.receiveBit = resync.stage == .sourceSending ? resync.receiveBit : 0
        resync.receiveWord = 0
    }

    // MARK: source

    /// A new sync UUID makes a missed start visible (rules 51, 71): durable before anybody hears of it.
    private mutating func startAsSource() {
        // Without a handshake the target does not know what we are now.
        if resync.stage == .sourceStoring { sendUUIDs() }
        resync.announcedUUID = superblock.uuids.beginSource(random: random.next() | 8)
        resync.superblockVersion = touchSuperblock()
        // From here on it is this bitmap UUID that a write without the peer relies on (S8).
        order.generationVersion = resync.superblockVersion
        resync.stage = .sourceAnnouncing
    }

    private mutating func announceAsSource() {
        guard meta.superblockDurable >= resync.superblockVersion else { return }
        resync.stage = .sourceRunning
        beginProgress()
        change("began resync as source: \(bitmap.setCount) blocks of 4 KiB") {
            $0.connection = .syncSource
        }
        output.packet(.syncUUID, link: link.data, length: SyncUUIDPacket.encodedSize)
        let packet = SyncUUIDPacket(uuid: resync.announcedUUID)
        var bytes = output.bytes.append(SyncUUIDPacket.encodedSize)
        packet.encode(into: &bytes)
    }

    mutating func beginProgress() {
        resync.total = bitmap.setCount
        resync.started = now
        resync.failedBlocks = 0
        resync.nextWriteOut = now + Resync.writeOutInterval
    }

    /// The target's P_STATE: it has everything, or it could not write some of it (12.6, trap 13).
    mutating func targetFinished(failed: Bool) {
        if failed {
            resync.targetMayBeDone = false
            change("the target could not store every block", .warning) {
                $0.connection = .connected
                $0.peerDisk = .inconsistent
            }
            return
        }
        if bitmap.setCount > 0, resync.finishBefore == .never, writesAtDisk > 0 {
            // The peer has confirmed mirrored writes that this disk has not done yet.
            resync.finishBefore = now + Resync.finishTime
            return
        }
        guard bitmap.setCount == 0 else {
            // A set bit is sacred: the next handshake resyncs these blocks (rule 34).
            connectionLost(
                .protocolError,
                "the target is done, but \(bitmap.setCount) blocks are out of sync here")
            return
        }
        resync.targetMayBeDone = false
        superblock.uuids.clearBitmap()
        adoptPeerGenerations()
        touchSuperblock()
        _ = writeOutBitmap()
        resync.stage = .idle
        resync.finishBefore = .never
        change("resync done: the peer is UpToDate") {
            $0.connection = .connected
            $0.peerDisk = .upToDate
        }
    }

    /// The target pings when it has everything, and goes on only with our answer (wire 12.6). Its acks
    /// came before: what is still set here belongs to writes that are not settled.
    mutating func targetPinged() {
        guard resync.stage == .sourceRunning else { return }
        var block = bitmap.next(from: 0)
        while let found = block {
            guard isBeingWritten(found) else { return }
            block = bitmap.next(from: found + 1)
        }
        resync.targetMayBeDone = true
    }

    private func isBeingWritten(_ block: Int) -> Bool {
        for index in 0..<book.count {
            let slot = slots[Int(book[index])]
            let writes = slot.kind == .write || slot.kind == .zero
            if writes, slot.firstBlock <= block, block <= slot.lastBlock { return true }
        }
        return false
    }

    /// The resync is cut off where its target may have ended it: what is written here from now on
    /// needs a generation of its own. A target that did not end it is resynced as a whole (rule 80).
    mutating func distrustTarget(_ old: StateWord, _ new: StateWord) {
        let wasSource = old.connection == .syncSource || old.connection == .pausedSyncS
        guard resync.targetMayBeDone, wasSource, new.connection != .syncSource,
            new.connection != .pausedSyncS, diskInUse, !sabotaged(.trustsTarget)
        else { return }
        resync.targetMayBeDone = false
        superblock.uuids.clearBitmap()
        touchSuperblock()
        record("the peer may have ended the resync: it counts as done")
    }

    /// After a resync both nodes hold the same four values (wire 8.3). Nobody announces them: a later
    /// resync without a handshake would go by what the peer had before.
    mutating func adoptPeerGenerations() {
        let own = superblock.uuids
        peer.uuids.current = own.current
        peer.uuids.bitmap = own.bitmap
        peer.uuids.history0 = own.history0
        peer.uuids.history1 = own.history1
        peer.uuids.bitCount = 0
    }

    /// The target is done, and what is still set here belongs to writes whose local part is not.
    private mutating func finishSourceIfDone() {
        guard resync.finishBefore != .never else { return }
        guard bitmap.setCount == 0 || now >= resync.finishBefore else { return }
        targetFinished(failed: false)
    }

    // MARK: the end of it without success

    /// Connection or disk gone, or aborted: bits stay, requests in flight are forgotten.
    mutating func abandonResync() {
        resync.stage = .idle
        resync.finishBefore = .never
        resync.exchangeLimit = .never
        resync.targetMayBeDone = false
        resync.sendWaits = false
        resync.syncUUID = nil
        resync.receiveBit = 0
        resync.receiveWord = 0
        for index in 0..<resync.outstandingCount {
            let id = resync.outstanding[index]
            if slots[Int(id)].stage == .requested { release(id) }
        }
        resync.outstandingCount = 0
        resync.wasAbandoned = true
        for index in 0..<resync.awaitingCount {
            let id = resync.awaiting[index]
            slots[Int(id)].connection = 0
            if !slots[Int(id)].sendPending { release(id) }
        }
        resync.awaitingCount = 0
        if bitmap.changedPageCount > 0, diskUsable { _ = writeOutBitmap() }
    }
}
