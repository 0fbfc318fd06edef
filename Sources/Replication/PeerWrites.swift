import DRBDWire
import Support

/// The receiving side of mirrored writes: place, disk, acks, and the epochs of the sender (wire 10.4, 10.5).
struct EpochReceiver: BitwiseCopyable {
    /// Writes since the last barrier, and those of them that are not done.
    var count: UInt32 = 0
    var inFlight: UInt32 = 0
    /// Those of them that were answered as done.
    var succeeded: UInt32 = 0
    /// The barrier that waits for the writes before it; nothing behind it is read meanwhile.
    var barrier: UInt32?
    var flushing = false
    /// Everything of the peer's that waits for the disk or is there, resync included.
    var operations = 0
    /// The write whose payload is coming in, and on which link.
    var arriving = none
    var arrivingLink = PeerLink.none
    /// The data link is paused for lack of a slot or buffer.
    var starved = false
    /// How large a buffer it waits for.
    var starvedFor: UInt32 = 0
}

extension ReplicationEngine {
    /// Whether the range lies in the volume; otherwise the connection is dropped (wire 18).
    func isLegal(sector: UInt64, bytes: UInt32, limit: UInt32 = 1 << 20) -> Bool {
        bytes > 0 && bytes & 511 == 0 && bytes <= limit && sector <= size
            && UInt64(bytes >> 9) <= size - sector
    }

    mutating func takePeerSlot() -> SlotID? {
        guard let slot = freePeerSlots.take() else { return nil }
        return slot + UInt16(Self.clientSlots)
    }

    mutating func receiveWrite(_ packet: DataPacket, _ length: UInt32) -> Bool {
        if length == 0 { return true }
        guard isLegal(sector: packet.sector, bytes: length) else {
            malformed(false, "P_DATA of \(length) bytes at sector \(packet.sector)")
            return true
        }
        guard freePeerSlots.count > 0, let buffer = pool.take(length, client: false),
            let slot = takePeerSlot()
        else {
            pauseData(for: length)
            return false
        }
        slots[Int(slot)] = Slot(
            kind: .peerWrite, stage: .arriving, offset: packet.sector << 9, length: length,
            buffer: buffer, blockID: packet.blockID, connection: link.serial,
            flags: packet.flags, durable: packet.flags.contains(.fua))
        noteSole(slot)
        receiver.count += 1
        receiver.inFlight += 1
        arrive(slot, large: length >= Self.largePayload)
        return true
    }

    private mutating func arrive(_ slot: SlotID, large: Bool) {
        receiver.arriving = slot
        receiver.arrivingLink = link.data
        output.commands.append(
            .receiveFromPeer(
                link: link.data, slot: slot, buffer: slots[Int(slot)].buffer,
                length: slots[Int(slot)].length, large: large))
    }

    mutating func peerPayloadArrived(_ id: SlotID) {
        receiver.arriving = none
        let slot = slots[Int(id)]
        guard slot.connection == link.serial else {
            release(id)
            return
        }
        slots[Int(id)].stage = .working
        receiver.operations += 1
        if slot.kind == .peerWrite {
            counters.received += UInt64(slot.length >> 9)
            if slot.flags.contains(.wantsReceiveAck) { sendAck(.receiveAck, slot) }
        }
        if book.enter(id, &slots) { begin(id) }
    }

    mutating func receiveZero(_ packet: DiscardPacket, trim: Bool) -> Bool {
        guard isLegal(sector: packet.sector, bytes: packet.size, limit: 128 << 20) else {
            malformed(
                false, "P_TRIM or P_ZEROES of \(packet.size) bytes at sector \(packet.sector)")
            return true
        }
        guard let slot = takePeerSlot() else {
            pauseData(for: 0)
            return false
        }
        slots[Int(slot)] = Slot(
            kind: .peerZero, offset: packet.sector << 9, length: packet.size,
            blockID: packet.blockID, connection: link.serial, flags: packet.flags,
            durable: packet.flags.contains(.fua),
            keepsAllocation: !trim && !packet.flags.contains(.discard))
        noteSole(slot)
        receiver.count += 1
        receiver.inFlight += 1
        receiver.operations += 1
        if packet.flags.contains(.wantsReceiveAck) { sendAck(.receiveAck, slots[Int(slot)]) }
        if book.enter(slot, &slots) { begin(slot) }
        return true
    }

    /// Its turn. Where the peer has no disk ours is the only copy: bits and log are kept here.
    mutating func beginPeerWrite(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard diskUsable, slot.isSole || state.peerDisk < .inconsistent else {
            submitPeerWrite(id)
            return
        }
        if state.disk == .upToDate {
            beginGenerationIfNeeded("a write of a peer without a disk")
            guard generationIsDurable, meta.superblockDurable >= sole.indicatorVersion else {
                held.append(id)
                return
            }
        }
        guard slot.lastExtent - slot.firstExtent >= UInt32(log.slotCount) else {
            acquireExtents(id)
            return
        }
        // A discard over more extents than the log has slots would wait for ever: its bits
        // themselves have to be on disk before it (safety.md S15).
        if slot.bitsVersion == 0 {
            bitmap.set(slot.firstBlock, through: slot.lastBlock)
            slots[Int(id)].bitsVersion = writeOutBitmap()
        }
        guard meta.bitmapDurable >= slots[Int(id)].bitsVersion else {
            held.append(id)
            return
        }
        submitPeerWrite(id)
    }

    mutating func submitPeerWrite(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard diskUsable else {
            endPeerWrite(id, failed: true)
            return
        }
        if slot.logged { bitmap.set(slot.firstBlock, through: slot.lastBlock) }
        slots[Int(id)].diskPending = true
        diskOperations += 1
        if slot.kind == .peerWrite {
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
    }

    mutating func peerWriteDone(_ id: SlotID, failed: Bool, _ errno: UInt8) {
        let slot = slots[Int(id)]
        if failed {
            bitmap.set(slot.firstBlock, through: slot.lastBlock)
            dataFailed("write error \(errno) at sector \(slot.sector)")
        }
        endPeerWrite(id, failed: failed)
    }

    private mutating func endPeerWrite(_ id: SlotID, failed: Bool) {
        let slot = slots[Int(id)]
        if !failed, slot.flags.contains(.maySetInSync), resyncing, slot.connection == link.serial,
            meta.freezesClears
        {
            slots[Int(id)].stage = .deferred
            resync.deferredCount += 1
            return
        }
        finishPeerWrite(id, failed: failed)
    }

    mutating func finishPeerWrite(_ id: SlotID, failed: Bool) {
        let slot = slots[Int(id)]
        receiver.operations -= 1
        if slot.logged { log.release(slot.firstExtent, through: slot.lastExtent) }
        if slot.connection == link.serial {
            receiver.inFlight -= 1
            if !failed { receiver.succeeded += 1 }
            if failed {
                sendAck(.negativeAck, slot)
            } else if slot.flags.contains(.maySetInSync), resyncing {
                clearDurably(slot)
                if slot.flags.contains(.wantsWriteAck) { sendAck(.resyncWriteAck, slot) }
            } else if slot.flags.contains(.wantsWriteAck) {
                sendAck(.writeAck, slot)
            }
        }
        book.leave(id, &slots, ready: &ready)
        release(id)
        finishBarrier()
        advanceReconnect()
    }

    /// Clears the bits of a write that is on this disk, where no flush covers it yet.
    mutating func clearDurably(_ slot: Slot) {
        guard !slot.keepsBits else { return }
        meta.clearedSinceFlush = true
        clearCovered(slot.offset, slot.length)
    }

    mutating func sendAck(_ packet: Packet, _ slot: Slot) {
        guard link.meta != PeerLink.none else { return }
        output.packet(packet, link: link.meta, length: BlockAck.encodedSize)
        let ack = BlockAck(
            sector: slot.sector, blockID: slot.blockID, size: slot.length,
            sequence: link.nextSequence())
        var bytes = output.bytes.append(BlockAck.encodedSize)
        ack.encode(into: &bytes)
    }

    // MARK: barriers

    /// Waits for the writes in flight, flushes, acknowledges, and only then goes on (safety.md S5).
    mutating func receiveBarrier(_ number: UInt32) {
        guard receiver.count > 0 else { return }
        guard receiver.barrier == nil else {
            malformed(false, "P_BARRIER behind a barrier that was not acknowledged")
            return
        }
        receiver.barrier = number
        output.commands.append(.pauseLink(link: link.data))
        finishBarrier()
    }

    mutating func finishBarrier() {
        guard receiver.barrier != nil, receiver.inFlight == 0, !receiver.flushing else { return }
        guard diskUsable else {
            // What was answered as done may have been in the cache of a disk that is gone now.
            if receiver.succeeded > 0 {
                connectionLost(.protocolError, "the disk failed before the barrier's flush")
            } else {
                acknowledgeBarrier()
            }
            return
        }
        if sabotaged(.acksBeforeFlush) {
            acknowledgeBarrier()
            return
        }
        receiver.flushing = true
        flushOperations += 1
        output.commands.append(
            .flush(.barrier, index: UInt16(truncatingIfNeeded: link.serial)))
    }

    mutating func barrierFlushed(_ index: UInt16, failed: Bool) {
        // A flush of an earlier connection says nothing to this one.
        guard index == UInt16(truncatingIfNeeded: link.serial), receiver.flushing else { return }
        receiver.flushing = false
        guard !failed else {
            // Nothing of this epoch is known to be stable: the sender must keep it as bits.
            connectionLost(.protocolError, "the flush for a barrier failed")
            return
        }
        acknowledgeBarrier()
    }

    private mutating func acknowledgeBarrier() {
        guard let number = receiver.barrier, link.meta != PeerLink.none else { return }
        output.packet(.barrierAck, link: link.meta, length: BarrierAck.encodedSize)
        let ack = BarrierAck(number: number, writeCount: receiver.count)
        var bytes = output.bytes.append(BarrierAck.encodedSize)
        ack.encode(into: &bytes)
        receiver.barrier = nil
        receiver.count = 0
        receiver.succeeded = 0
        output.commands.append(.resumeLink(link: link.data))
    }

    // MARK: reads for the peer

    mutating func receiveReadRequest(_ request: BlockRequest) -> Bool {
        guard isLegal(sector: request.sector, bytes: request.size) else {
            malformed(false, "P_DATA_REQUEST of \(request.size) bytes at \(request.sector)")
            return true
        }
        guard freePeerSlots.count > 0, let buffer = pool.take(request.size, client: false),
            let slot = takePeerSlot()
        else {
            pauseData(for: request.size)
            return false
        }
        slots[Int(slot)] = Slot(
            kind: .peerRead, offset: request.sector << 9, length: request.size, buffer: buffer,
            blockID: request.blockID, connection: link.serial)
        receiver.operations += 1
        if book.enter(slot, &slots) { begin(slot) }
        return true
    }

    mutating func beginPeerRead(_ id: SlotID) {
        let slot = slots[Int(id)]
        guard diskUsable, state.disk == .upToDate else {
            peerReadDone(id, failed: true, 0)
            return
        }
        slots[Int(id)].diskPending = true
        diskOperations += 1
        output.commands.append(
            .read(slot: id, buffer: slot.buffer, length: slot.length, offset: slot.offset))
    }

    mutating func peerReadDone(_ id: SlotID, failed: Bool, _ errno: UInt8) {
        let slot = slots[Int(id)]
        receiver.operations -= 1
        if failed, errno != 0 { readFailed(id, errno) }
        guard slot.connection == link.serial, !failed else {
            if slot.connection == link.serial { sendAck(.negativeDataReply, slot) }
            release(id)
            advanceReconnect()
            return
        }
        slots[Int(id)].stage = .answered
        sendReply(.dataReply, id)
    }

    /// P_DATA_REPLY or P_RS_DATA_REPLY with the slot's buffer.
    mutating func sendReply(_ packet: Packet, _ id: SlotID) {
        let slot = slots[Int(id)]
        output.packet(
            packet, link: link.data, length: DataPacket.encodedSize, payload: Int(slot.length))
        var bytes = output.bytes.append(DataPacket.encodedSize)
        DataPacket(sector: slot.sector, blockID: slot.blockID, sequence: 0, flags: [])
            .encode(into: &bytes)
        slots[Int(id)].sendPending = true
        output.commands.append(
            .sendPayload(link: link.data, slot: id, buffer: slot.buffer, length: slot.length))
        counters.sent += UInt64(slot.length >> 9)
    }

    // MARK: the end of the connection

    /// What was received completely is applied; what waits for the peer is forgotten (wire 19).
    mutating func dropReceived() {
        receiver.barrier = nil
        receiver.flushing = false
        receiver.starved = false
        receiver.count = 0
        receiver.succeeded = 0
        receiver.inFlight = 0
        for index in Self.clientSlots..<Self.clientSlots + Self.peerSlots {
            let id = SlotID(index)
            switch (slots[index].kind, slots[index].stage) {
            case (.resyncWrite, .requested): release(id)
            case (.peerWrite, .deferred), (.resyncWrite, .deferred): endDeferred(id)
            default: break
            }
        }
    }

    /// The link is closed: its payload can no longer come in.
    mutating func dropArriving(_ id: UInt8) {
        guard receiver.arriving != none, receiver.arrivingLink == id else { return }
        let slot = receiver.arriving
        receiver.arriving = none
        release(slot)
    }
}
