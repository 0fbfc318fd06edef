import DRBDWire
import Support

/// The life of a client's write: place, log, disk and peer, answer, entry.
///
///     enter ─▶ begin ─▶ [held] ─▶ acquire extents ─▶ [transaction] ─▶ submit ─▶ disk, ack ─▶ settle
///                                                                        │
///                                  entry ◀───────────────────────────────┘ ─▶ epoch stable ─▶ ended
extension ReplicationEngine {
    /// The operation has its turn: nothing earlier overlaps it.
    mutating func begin(_ id: SlotID) {
        switch slots[Int(id)].kind {
        case .write, .zero: admit(id)
        case .read: submitRead(id)
        case .peerWrite, .peerZero: beginPeerWrite(id)
        case .peerRead: beginPeerRead(id)
        case .resyncRead: beginResyncRead(id)
        case .resyncWrite: writeResyncData(id)
        case .free: invariantFailed("slot \(id) begins without an operation")
        }
    }

    /// New writes wait: the bitmap is being exchanged, or the role is changing (wire 9.2; S10).
    var holdsWrites: Bool {
        state.connection == .wfBitMapS || state.connection == .startingSyncS || order.demoting
            || resync.startsAsSource
    }

    private mutating func admit(_ id: SlotID) {
        // What a demotion overtook is not done any more.
        guard hasGoodData, state.role == .primary else {
            fail(id)
            return
        }
        guard !holdsWrites else {
            held.append(id)
            return
        }
        acquireExtents(id)
    }

    /// References the write's extents in the activity log; no data write before they are durable.
    mutating func acquireExtents(_ id: SlotID) {
        let slot = slots[Int(id)]
        switch log.acquire(slot.firstExtent, through: slot.lastExtent) {
        case .active:
            slots[Int(id)].logged = true
            extentsActive(id)
        case .pending:
            slots[Int(id)].logged = true
            if sabotaged(.skipsLogWait) {
                extentsActive(id)
            } else {
                logWaiting.append(id)
            }
        case .unavailable:
            logQueue.append(id)
        }
    }

    private mutating func extentsActive(_ id: SlotID) {
        switch slots[Int(id)].kind {
        case .write, .zero: submit(id)
        case .peerWrite, .peerZero: submitPeerWrite(id)
        case .free, .read, .peerRead, .resyncRead, .resyncWrite:
            invariantFailed("\(slots[Int(id)].kind) has no extents")
        }
    }

    /// The transaction is durable: who waited for it goes on, and who found no room tries again.
    mutating func transactionCommitted() {
        for _ in 0..<logWaiting.count {
            guard let id = logWaiting.take() else { break }
            extentsActive(id)
        }
        retryLogQueue()
    }

    mutating func retryLogQueue() {
        guard !log.writing else { return }
        for _ in 0..<logQueue.count {
            guard let id = logQueue.take() else { break }
            if diskUsable { acquireExtents(id) } else { failUnlogged(id) }
            // Whoever found no room went to the end; the order of the others does not matter, since
            // operations that overlap never wait here together.
        }
    }

    private mutating func failUnlogged(_ id: SlotID) {
        failWaiting(id)
    }

    /// The write can never be done here: the disk is gone.
    private mutating func fail(_ id: SlotID) {
        slots[Int(id)].failed = true
        settleWrite(id)
    }

    func isOfPeer(_ id: SlotID) -> Bool { Int(id) >= Self.clientSlots }

    mutating func releaseHeld() {
        for _ in 0..<held.count {
            guard let id = held.take() else { break }
            if isOfPeer(id) {
                beginPeerWrite(id)
            } else if holdsWrites {
                held.append(id)
            } else if slots[Int(id)].logged {
                submit(id)
            } else {
                admit(id)
            }
        }
    }

    // MARK: submission

    /// A resync runs or is paused (16...21 of wire 6.1).
    package var resyncing: Bool {
        state.connection >= .syncSource && state.connection <= .pausedSyncT
            && state.connection != .verifyS && state.connection != .verifyT
    }

    /// Whether a write is mirrored now (wire 10.1). One look at the state per write.
    private var mirrors: Bool {
        state.peerDisk == .upToDate && state.connection >= .connected
            || state.peerDisk >= .inconsistent && state.peerDisk != .unknown
                && state.connection >= .wfBitMapT && state.connection < .ahead
    }

    private mutating func submit(_ id: SlotID) {
        guard hasGoodData, state.role == .primary else {
            fail(id)
            return
        }
        guard !holdsWrites, transfer.freeCount > 0 else {
            held.append(id)
            return
        }
        let slot = slots[Int(id)]
        let mirrored = mirrors
        if mirrored { separateOverlaps(slot) }
        guard
            let entry = transfer.take(
                offset: slot.offset, length: slot.length, slot: id, mirrored: mirrored, now: now)
        else { invariantFailed("no entry") }
        slots[Int(id)].entry = entry
        slots[Int(id)].mirrored = mirrored
        slots[Int(id)].diskPending = true
        diskOperations += 1
        writesAtDisk += 1
        if slot.kind == .write {
            output.commands.append(
                .write(
                    slot: id, buffer: slot.buffer, length: slot.length, offset: slot.offset,
                    durable: slot.durable))
        } else {
            output.commands.append(
                .zero(
                    slot: id, length: slot.length, offset: slot.offset,
                    keep: slot.keepsAllocation))
        }
        if mirrored {
            mirror(id, entry)
        } else {
            slots[Int(id)].missed = true
            transfer.entries[Int(entry)].missed = true
            transfer.entries[Int(entry)].settled = true
            requests[Int(slot.request)].missed = true
        }
    }

    /// Sends the write to the peer; closes the epoch when it is full.
    private mutating func mirror(_ id: SlotID, _ entry: UInt16) {
        let slot = slots[Int(id)]
        let data = link.data
        var flags: DataFlags = []
        if resyncing { flags.insert(.maySetInSync) }
        if options.replicationProtocol == .c || resyncing || state.disk < .upToDate {
            flags.insert(.wantsWriteAck)
        } else if options.replicationProtocol == .b {
            flags.insert(.wantsReceiveAck)
        }
        if slot.durable { flags.insert(.fua) }
        slots[Int(id)].flags = flags
        slots[Int(id)].ackPending =
            flags.contains(.wantsWriteAck) || flags.contains(.wantsReceiveAck)
        if slot.kind == .write {
            output.packet(
                .data, link: data, length: DataPacket.encodedSize, payload: Int(slot.length))
            appendDataPacket(slot, entry, flags)
            slots[Int(id)].sendPending = true
            output.commands.append(
                .sendPayload(link: data, slot: id, buffer: slot.buffer, length: slot.length))
            filterAdd(slot)
        } else {
            mirrorZero(slot, entry, flags)
        }
        // As the kernel counts: what a discard covers does not travel.
        if slot.kind == .write { counters.sent += UInt64(slot.length >> 9) }
        link.dataSent(now)
        if transfer.open.count >= UInt32(options.maximumEpochSize) { closeEpoch() }
    }

    private mutating func appendDataPacket(_ slot: Slot, _ entry: UInt16, _ flags: DataFlags) {
        let packet = DataPacket(
            sector: slot.sector, blockID: transfer.blockID(entry), sequence: link.nextSequence(),
            flags: flags)
        var bytes = output.bytes.append(DataPacket.encodedSize)
        packet.encode(into: &bytes)
    }

    /// Zeroes that may be deallocated: P_ZEROES where agreed, else P_TRIM, which then zeroes (wire 15).
    private mutating func mirrorZero(_ slot: Slot, _ entry: UInt16, _ base: DataFlags) {
        let knowsZeroes = peer.features.contains(.writeZeroes)
        var flags = base
        if knowsZeroes { flags.insert(.zeroes) }
        if !slot.keepsAllocation || !knowsZeroes { flags.insert(.discard) }
        output.packet(
            knowsZeroes ? .zeroes : .trim, link: link.data, length: DiscardPacket.encodedSize)
        let packet = DiscardPacket(
            sector: slot.sector, blockID: transfer.blockID(entry), sequence: link.nextSequence(),
            flags: flags, size: slot.length)
        var bytes = output.bytes.append(DiscardPacket.encodedSize)
        packet.encode(into: &bytes)
        filterAdd(slot)
    }

    // MARK: overlap on a peer that does not order what it receives

    /// Only a repd peer keeps overlapping writes of one epoch in order; under C the answer of the
    /// earlier one has been waited for. Otherwise a barrier must stand between the two (law 4).
    private mutating func separateOverlaps(_ slot: Slot) {
        guard !peer.isRepd, options.replicationProtocol != .c, transfer.open.count > 0 else {
            return
        }
        if link.filter.mayContain(slot.firstBlock, through: slot.lastBlock) { closeEpoch() }
    }

    private mutating func filterAdd(_ slot: Slot) {
        guard !peer.isRepd, options.replicationProtocol != .c else { return }
        link.filter.add(slot.firstBlock, through: slot.lastBlock)
    }

    // MARK: reads

    private mutating func submitRead(_ id: SlotID) {
        let slot = slots[Int(id)]
        // Reads from the peer do not exist yet: a block that failed here is an error.
        guard hasGoodData,
            state.disk == .upToDate || !bitmap.hasAny(slot.firstBlock, through: slot.lastBlock)
        else {
            requests[Int(slot.request)].error = ReplyError.io
            segmentDone(slot.request)
            return
        }
        slots[Int(id)].diskPending = true
        diskOperations += 1
        output.commands.append(
            .read(slot: id, buffer: slot.buffer, length: slot.length, offset: slot.offset))
    }

    /// Of a client or the peer. What cannot be read here is to be written again from the peer's copy.
    mutating func readFailed(_ id: SlotID, _ errno: UInt8) {
        let slot = slots[Int(id)]
        dataFailed("read error \(errno) at sector \(slot.sector)")
        guard state.disk == .inconsistent else { return }
        bitmap.set(slot.firstBlock, through: slot.lastBlock)
    }

    // MARK: completions

    mutating func diskDone(_ id: SlotID, _ errno: UInt8) {
        let slot = slots[Int(id)]
        invariant(slot.diskPending, "slot \(id) was not at the disk")
        if errno == 0, slot.durable, slot.kind == .zero || slot.kind == .peerZero, diskUsable {
            flushOperations += 1
            output.commands.append(.flush(.zeroes, index: id))
            return
        }
        finishDisk(id, failed: errno != 0 && !sabotaged(.hidesWriteErrors), errno)
    }

    mutating func finishDisk(_ id: SlotID, failed: Bool, _ errno: UInt8) {
        let slot = slots[Int(id)]
        slots[Int(id)].diskPending = false
        diskOperations -= 1
        switch slot.kind {
        case .write, .zero:
            guard !slot.isDisowned else {
                releaseIfDone(id)
                return
            }
            writesAtDisk -= 1
            counters.diskWritten += UInt64(slot.length >> 9)
            slots[Int(id)].failed = failed
            if failed { dataFailed("write error \(errno) at sector \(slot.sector)") }
            localDone(slot.entry)
            settleWrite(id)
            // The target of a resync has this write, and would not ask for the block again.
            if failed, diskUsable, state.disk == .upToDate, state.connection > .connected {
                connectionLost(.networkFailure, "a block failed at the source of a resync")
            }
        case .read:
            counters.diskRead += UInt64(slot.length >> 9)
            guard !slot.isDisowned else {
                release(id)
                return
            }
            if failed {
                readFailed(id, errno)
                requests[Int(slot.request)].error = ReplyError.io
            }
            segmentDone(slot.request)
        case .peerWrite, .peerZero:
            counters.diskWritten += UInt64(slot.length >> 9)
            peerWriteDone(id, failed: failed, errno)
        case .peerRead: peerReadDone(id, failed: failed, errno)
        case .resyncRead: resyncReadDone(id, failed: failed, errno)
        case .resyncWrite: resyncWriteDone(id, failed: failed, errno)
        case .free: invariantFailed("slot \(id) is free")
        }
    }

    /// Answers the write when the disk and, if asked for, the peer are done with it.
    mutating func settleWrite(_ id: SlotID) {
        let slot = slots[Int(id)]
        let isLocal = !slot.diskPending || slot.isDisowned || sabotaged(.acksBeforeLocal)
        guard isLocal, !slot.ackPending, !slot.settled else {
            releaseIfDone(id)
            return
        }
        slots[Int(id)].settled = true
        if slot.entry != none {
            if slot.missed || slot.failed {
                bitmap.set(slot.firstBlock, through: slot.lastBlock)
                // What only this disk lacks is no loss of the peer's.
                if slot.missed { requests[Int(slot.request)].missed = true }
            } else if slot.confirmedInSync, resyncing {
                clearCovered(slot.offset, slot.length)
            }
        }
        book.leave(id, &slots, ready: &ready)
        // A failed disk gets no second answer from the peer's copy: diskless operation is not there.
        if slot.failed { requests[Int(slot.request)].error = ReplyError.io }
        segmentDone(slot.request)
        releaseIfDone(id)
    }

    private mutating func releaseIfDone(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard slot.settled, !slot.sendPending, !slot.diskPending || slot.isDisowned else { return }
        if slot.entry != none {
            // The entry may belong to another slot before the disk gives this one back.
            slots[Int(id)].entry = none
            slots[Int(id)].logged = false
            transfer.entries[Int(slot.entry)].slot = none
            endEntryIfDone(slot.entry)
        } else if slot.logged {
            log.release(slot.firstExtent, through: slot.lastExtent)
            slots[Int(id)].logged = false
        }
        if !slot.diskPending { release(id) }
    }

    mutating func sent(_ id: SlotID) {
        let slot = slots[Int(id)]
        invariant(slot.sendPending, "slot \(id) was not being sent")
        slots[Int(id)].sendPending = false
        switch slot.kind {
        case .write: releaseIfDone(id)
        case .read: release(id)
        case .peerRead: release(id)
        case .resyncRead: resyncReadSent(id)
        case .zero, .peerWrite, .peerZero, .resyncWrite, .free:
            invariantFailed("\(slot.kind) sends no payload")
        }
    }

    /// Bits of the blocks that lie wholly in the range; the volume's partial last one counts (12.7).
    mutating func clearCovered(_ offset: UInt64, _ length: UInt32) {
        let first = Int((offset + 4095) >> 12)
        let end = offset + UInt64(length)
        let last = end == size << 9 ? bitmap.bitCount : Int(end >> 12)
        guard first < last else { return }
        bitmap.clear(first, through: last - 1)
    }

    // MARK: entries

    mutating func localDone(_ id: UInt16) {
        transfer.entries[Int(id)].localDone = true
        endEntryIfDone(id)
    }

    /// An entry ends when the local disk is done and its epoch is stable (or it has become bits).
    mutating func endEntryIfDone(_ id: UInt16) {
        let entry = transfer.entries[Int(id)]
        guard entry.used, entry.localDone, entry.settled, entry.slot == none else { return }
        log.release(entry.firstExtent, through: entry.lastExtent)
        transfer.give(id)
        if logQueue.count > 0 { retryLogQueue() }
    }

    /// The peer has not written it, and nobody waits for its ack any longer.
    mutating func refuseEntry(_ id: UInt16) {
        entryMissed(id)
        let slot = transfer.entries[Int(id)].slot
        guard slot != none, slots[Int(slot)].ackPending else { return }
        slots[Int(slot)].ackPending = false
        settleWrite(slot)
    }

    /// The peer has lost its disk. What was sent to it and is not stable there becomes bits now: its
    /// refusals come on the other socket, perhaps after it has attached and the bitmaps were exchanged.
    mutating func missUnstableWrites() {
        for index in 0..<transfer.epochCount {
            var id = transfer[epoch: index].head
            while id != none {
                let next = transfer.entries[Int(id)].next
                refuseEntry(id)
                id = next
            }
        }
    }

    /// The peer may lack the entry's blocks: bits first, then whatever waits for it.
    mutating func entryMissed(_ id: UInt16) {
        let entry = transfer.entries[Int(id)]
        let forgotten = sabotaged(.forgetsAcknowledged) && entry.acknowledged
        if !sabotaged(.noBitsAtTheCut), !forgotten {
            bitmap.set(entry.firstBlock, through: entry.lastBlock)
        }
        transfer.entries[Int(id)].missed = true
        guard entry.slot != none else { return }
        let slot = Int(entry.slot)
        slots[slot].missed = true
        if !slots[slot].settled { requests[Int(slots[slot].request)].missed = true }
    }
}
