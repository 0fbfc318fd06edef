import DRBDWire
import Support

/// The source's answers (reference, wire 12.3; safety.md S2).
extension ReplicationEngine {
    /// A read for the resync counts as a write: it has its place in the order until its answer is queued.
    mutating func receiveResyncRequest(_ request: BlockRequest) -> Bool {
        guard isLegal(sector: request.sector, bytes: request.size) else {
            malformed(
                false, "P_RS_DATA_REQUEST of \(request.size) bytes at sector \(request.sector)")
            return true
        }
        guard freePeerSlots.count > 0, let buffer = pool.take(request.size, client: false),
            let slot = takePeerSlot()
        else {
            pauseData(for: request.size)
            return false
        }
        slots[Int(slot)] = Slot(
            kind: .resyncRead, offset: request.sector << 9, length: request.size, buffer: buffer,
            blockID: BlockRequest.syncerBlockID, connection: link.serial)
        receiver.operations += 1
        if sabotaged(.readsUnordered) || book.enter(slot, &slots) { begin(slot) }
        return true
    }

    mutating func beginResyncRead(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard diskUsable, state.disk == .upToDate, slot.connection == link.serial else {
            resyncReadDone(id, failed: true, 0)
            return
        }
        slots[Int(id)].diskPending = true
        diskOperations += 1
        output.commands.append(
            .read(slot: id, buffer: slot.buffer, length: slot.length, offset: slot.offset))
    }

    mutating func resyncReadDone(_ id: SlotID, failed: Bool, _ errno: UInt8) {
        let slot = slots[Int(id)]
        receiver.operations -= 1
        counters.diskRead += UInt64(slot.length >> 9)
        if failed, errno != 0 { dataFailed("read error \(errno) at sector \(slot.sector)") }
        let wanted = slot.connection == link.serial && resync.stage == .sourceRunning
        guard wanted, !failed else {
            // A resync that is over gets no answer any more (wire 12.3).
            if wanted { sendAck(.negativeResyncReply, slot) }
            book.leave(id, &slots, ready: &ready)
            release(id)
            advanceReconnect()
            return
        }
        slots[Int(id)].stage = .answered
        if sabotaged(.clearsAtSend) { clearCovered(slot.offset, slot.length) }
        sendReply(.resyncDataReply, id)
        resync.awaiting[resync.awaitingCount] = id
        resync.awaitingCount += 1
        // Queued: what is sent from here on is newer.
        book.leave(id, &slots, ready: &ready)
    }

    /// The buffer is free; the slot stays until the ack, which only it may claim.
    mutating func resyncReadSent(_ id: SlotID) {
        pool.give(slots[Int(id)].buffer)
        slots[Int(id)].buffer = none
        if slots[Int(id)].connection != link.serial || !isAwaited(id) { release(id) }
    }

    private func isAwaited(_ id: SlotID) -> Bool {
        for index in 0..<resync.awaitingCount where resync.awaiting[index] == id { return true }
        return false
    }

    /// P_RS_WRITE_ACK or P_NEG_ACK for resync data: only for what was sent and not yet answered.
    mutating func resyncWritten(_ ack: BlockAck, failed: Bool) {
        var found: Int?
        for index in 0..<resync.awaitingCount {
            let slot = slots[Int(resync.awaiting[index])]
            if slot.sector == ack.sector, slot.length == ack.size {
                found = index
                break
            }
        }
        guard let found else {
            if resync.wasAbandoned { return }
            malformed(true, "an ack for resync data that was not sent (sector \(ack.sector))")
            return
        }
        let id = resync.awaiting[found]
        resync.awaitingCount -= 1
        for index in found..<resync.awaitingCount {
            resync.awaiting[index] = resync.awaiting[index + 1]
        }
        let slot = slots[Int(id)]
        if failed {
            resync.failedBlocks += slot.lastBlock - slot.firstBlock + 1
        } else {
            counters.resyncSent += UInt64(slot.length >> 12)
            if resyncing { clearCovered(slot.offset, slot.length) }
        }
        if !slot.sendPending { release(id) }
    }
}
