import DRBDWire
import MetaDisk
import Support

/// The target: what it stores before the first block, its requests, and its end (safety.md S9).
extension ReplicationEngine {
    /// The merged bitmap is the record on disk before anything is acknowledged.
    mutating func advanceStoring() {
        guard resync.fullStage == 0, meta.bitmapDurable >= resync.pagesVersion,
            meta.superblockDurable >= meta.superblockWanted
        else { return }
        if state.connection == .startingSyncT {
            resync.stage = .targetWaiting
            change("all blocks marked") { $0.connection = .wfSyncUUID }
            applySyncUUID()
            return
        }
        resync.sendBit = 0
        resync.sendWaits = false
        resync.stage = .targetSending
        sendBitmap()
    }

    mutating func receiveSyncUUID(_ uuid: UInt64) {
        resync.syncUUID = uuid
        switch state.connection {
        case .wfSyncUUID, .wfBitMapT, .startingSyncT: applySyncUUID()
        case .behind:
            resync.stage = .targetWaiting
            applySyncUUID()
        default: malformed(false, "P_SYNC_UUID in state \(state.connection.name)")
        }
    }

    /// From here on the data has the generation of the resync, and is Inconsistent: durably.
    mutating func applySyncUUID() {
        guard resync.stage == .targetWaiting, let uuid = resync.syncUUID else { return }
        resync.syncUUID = nil
        superblock.uuids.beginTarget(syncUUID: uuid, primary: state.role == .primary)
        resync.stage = .targetBeginning
        beginProgress()
        change("began resync as target: \(bitmap.setCount) blocks of 4 KiB") {
            $0.connection = .syncTarget
        }
        resync.superblockVersion = touchSuperblock()
        resync.cursor = 0
        resync.allowanceAt = now
        resync.allowance = 0
    }

    mutating func advanceBeginning() {
        guard meta.superblockDurable >= resync.superblockVersion else { return }
        resync.stage = .targetRunning
        request()
        finishTargetIfDone()
    }

    // MARK: requests

    /// Blocks that may be asked for now: window, buffers and the administrator's cap (wire 12.4).
    private mutating func roomForRequests() -> Bool {
        guard state.connection == .syncTarget, resync.outstandingCount < Resync.requestLimit,
            meta.bitmapDurable >= resync.pagesVersion, freePeerSlots.count > 64,
            resync.outstandingCount * Resync.requestBlocks < max(options.maximumBuffers, 64)
        else { return false }
        guard let limit = options.resyncRateLimit else { return true }
        let elapsed = min((now - resync.allowanceAt).inNanoseconds, 1_000_000_000)
        if elapsed >= 100_000_000 {
            resync.allowance = Int64(limit) * elapsed / 1_000_000_000
            resync.allowanceAt = now
        }
        return resync.allowance > 0
    }

    mutating func request() {
        while roomForRequests() {
            guard let first = bitmap.next(from: resync.cursor) else {
                resync.cursor = bitmap.bitCount
                return
            }
            let limit = first / Resync.requestBlocks * Resync.requestBlocks + Resync.requestBlocks
            let end = min(bitmap.nextClear(from: first), limit)
            resync.cursor = end
            guard let slot = takePeerSlot() else { return }
            let offset = UInt64(first) << 12
            let length = UInt32(min(UInt64(end) << 12, size << 9) - offset)
            slots[Int(slot)] = Slot(
                kind: .resyncWrite, stage: .requested, offset: offset, length: length,
                blockID: BlockRequest.syncerBlockID, connection: link.serial)
            resync.outstanding[resync.outstandingCount] = slot
            resync.outstandingCount += 1
            resync.allowance -= Int64(length >> 10)
            output.packet(.resyncDataRequest, link: link.data, length: BlockRequest.encodedSize)
            let request = BlockRequest(
                sector: offset >> 9, blockID: BlockRequest.syncerBlockID, size: length)
            var bytes = output.bytes.append(BlockRequest.encodedSize)
            request.encode(into: &bytes)
        }
    }

    private func outstandingIndex(sector: UInt64, length: UInt32) -> Int? {
        for index in 0..<resync.outstandingCount {
            let slot = slots[Int(resync.outstanding[index])]
            if slot.sector == sector, slot.length == length, slot.stage == .requested {
                return index
            }
        }
        return nil
    }

    mutating func receiveResyncData(_ packet: DataPacket, _ length: UInt32) -> Bool {
        guard let index = outstandingIndex(sector: packet.sector, length: length) else {
            if resync.wasAbandoned {
                output.commands.append(.skipFromPeer(link: link.data, length: length))
                return true
            }
            malformed(
                false, "resync data that was not asked for (\(length) bytes at \(packet.sector))")
            return true
        }
        guard let buffer = pool.take(length, client: false) else {
            pauseData(for: length)
            return false
        }
        let id = resync.outstanding[index]
        slots[Int(id)].buffer = buffer
        slots[Int(id)].stage = .arriving
        receiver.arriving = id
        receiver.arrivingLink = link.data
        output.commands.append(
            .receiveFromPeer(
                link: link.data, slot: id, buffer: buffer, length: length,
                large: length >= Self.largePayload))
        return true
    }

    mutating func writeResyncData(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard diskUsable else {
            endResyncWrite(id, failed: true)
            return
        }
        slots[Int(id)].diskPending = true
        diskOperations += 1
        output.commands.append(
            .write(
                slot: id, buffer: slot.buffer, length: slot.length, offset: slot.offset,
                durable: false))
    }

    mutating func resyncWriteDone(_ id: SlotID, failed: Bool, _ errno: UInt8) {
        let slot = slots[Int(id)]
        counters.diskWritten += UInt64(slot.length >> 9)
        counters.received += UInt64(slot.length >> 9)
        if failed { dataFailed("write error \(errno) at sector \(slot.sector)") }
        if !failed, meta.freezesClears, slot.connection == link.serial {
            slots[Int(id)].stage = .deferred
            resync.deferredCount += 1
            return
        }
        endResyncWrite(id, failed: failed)
    }

    mutating func endResyncWrite(_ id: SlotID, failed: Bool) {
        let slot = slots[Int(id)]
        receiver.operations -= 1
        book.leave(id, &slots, ready: &ready)
        if slot.connection == link.serial {
            forget(outstanding: id)
            if failed {
                resync.failedBlocks += slot.lastBlock - slot.firstBlock + 1
            } else if resyncing {
                clearDurably(slot)
                counters.resyncReceived += UInt64(slot.length >> 12)
            }
            sendAck(failed ? .negativeAck : .resyncWriteAck, slot)
        }
        release(id)
        advanceReconnect()
    }

    private mutating func forget(outstanding id: SlotID) {
        for index in 0..<resync.outstandingCount where resync.outstanding[index] == id {
            resync.outstandingCount -= 1
            resync.outstanding[index] = resync.outstanding[resync.outstandingCount]
            return
        }
    }

    /// The pages are copied: what had to wait is cleared and acknowledged now.
    mutating func clearDeferred() {
        guard resync.deferredCount > 0 else { return }
        for index in Self.clientSlots..<Self.clientSlots + Self.peerSlots
        where slots[index].kind != .free && slots[index].stage == .deferred {
            endDeferred(SlotID(index))
        }
    }

    mutating func endDeferred(_ id: SlotID) {
        resync.deferredCount -= 1
        slots[Int(id)].stage = .working
        if slots[Int(id)].kind == .resyncWrite {
            endResyncWrite(id, failed: false)
        } else {
            finishPeerWrite(id, failed: false)
        }
    }

    /// The source could not read it, or took the request back: the bits stay.
    mutating func resyncRequestFailed(_ ack: BlockAck, cancelled: Bool) {
        guard let index = outstandingIndex(sector: ack.sector, length: ack.size) else { return }
        let id = resync.outstanding[index]
        let slot = slots[Int(id)]
        forget(outstanding: id)
        if !cancelled { resync.failedBlocks += slot.lastBlock - slot.firstBlock + 1 }
        release(id)
    }

    /// A write of the source that was not sent: it differs from here on (wire 9.2, 14).
    mutating func receiveOutOfSync(_ packet: OutOfSync) {
        guard isLegal(sector: packet.sector, bytes: packet.size, limit: .max & ~511) else {
            malformed(false, "P_OUT_OF_SYNC behind the end")
            return
        }
        let start = packet.sector << 9
        let end = start + UInt64(packet.size)
        bitmap.set(Int(start >> 12), through: Int((end - 1) >> 12))
        for index in 0..<book.count {
            let id = Int(book[index])
            let clears = slots[id].kind == .resyncWrite || slots[id].kind == .peerWrite
            if clears, slots[id].offset < end, start < slots[id].end {
                slots[id].keepsBits = true
            }
        }
        for index in 0..<resync.outstandingCount {
            let id = Int(resync.outstanding[index])
            if slots[id].offset < end, start < slots[id].end { slots[id].keepsBits = true }
        }
        // Durable before any resync of these blocks is acknowledged.
        if diskUsable { resync.pagesVersion = writeOutBitmap() }
        resync.cursor = min(resync.cursor, Int(start >> 12))
    }

    // MARK: the end

    mutating func finishTargetIfDone() {
        // Behind: the source sends no data, but names what it writes.
        guard resync.stage == .targetRunning, resync.outstandingCount == 0,
            resync.deferredCount == 0, resyncing
        else { return }
        guard bitmap.setCount <= resync.failedBlocks else {
            // What was set behind the cursor, or cancelled; what failed is tried again with it.
            if bitmap.next(from: resync.cursor) == nil {
                resync.cursor = 0
                resync.failedBlocks = 0
            }
            return
        }
        resync.stage = .targetFlushing
        flushOperations += 1
        output.commands.append(
            .flush(.procedure, index: UInt16(truncatingIfNeeded: link.serial)))
    }

    mutating func resyncFlushed() {
        guard resync.stage == .targetFlushing else { return }
        resync.pagesVersion = writeOutBitmap()
        resync.stage = .targetPages
    }

    /// flush ─▶ pages and flush ─▶ ping round trip ─▶ super block ─▶ P_STATE
    mutating func advanceFinishing() {
        switch resync.stage {
        case .targetPages where meta.bitmapDurable >= resync.pagesVersion:
            sendPing()
            resync.pings = link.pings
            resync.stage = .targetPinging
        case .targetPinging
        where Int32(bitPattern: link.pingAnswers &- resync.pings) >= 0: endTarget()
        case .targetEnding where meta.superblockDurable >= resync.superblockVersion:
            resync.stage = .idle
            sendState()
        default: break
        }
    }

    private mutating func endTarget() {
        resync.stage = .targetEnding
        if bitmap.setCount == 0 {
            superblock.uuids.finishTarget(
                source: GenerationUUIDs(
                    current: peer.uuids.current, bitmap: peer.uuids.bitmap,
                    history0: peer.uuids.history0, history1: peer.uuids.history1),
                primary: state.role == .primary)
            adoptPeerGenerations()
            changeKeepingStage("resync done") {
                $0.connection = .connected
                $0.disk = .upToDate
            }
        } else {
            changeKeepingStage(
                "resync ended with \(resync.failedBlocks) blocks that could not be transferred"
            ) {
                $0.connection = .connected
                $0.disk = .inconsistent
            }
        }
        resync.superblockVersion = touchSuperblock()
    }

    /// `afterChange` forgets a resync that is over; this one still has its last step to do.
    private mutating func changeKeepingStage(_ cause: String, _ body: (inout StateWord) -> Void) {
        change(cause, .information, body)
        resync.stage = .targetEnding
    }

    mutating func sendPing() {
        guard link.meta != PeerLink.none else { return }
        link.pings &+= 1
        output.packet(.ping, link: link.meta)
        if link.pingSent == nil {
            link.pingSent = now
            link.pingDeadline = now + options.pingTimeout
        }
    }
}
