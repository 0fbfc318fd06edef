import DRBDWire
import Support

/// The sender's side of epochs: when they are closed, when they are stable (safety.md S5, S6).
extension ReplicationEngine {
    /// Sends the barrier behind the open epoch's writes; they are settled when it is stable.
    mutating func closeEpoch() {
        guard transfer.open.count > 0, transfer.canClose, link.data != PeerLink.none else { return }
        let epoch = transfer.close()
        link.filter.clear()
        output.packet(.barrier, link: link.data, length: Barrier.encodedSize)
        var bytes = output.bytes.append(Barrier.encodedSize)
        Barrier(number: epoch.number).encode(into: &bytes)
    }

    mutating func barrierAcknowledged(_ ack: BarrierAck) {
        guard !oldestLacksAcks else {
            malformed(false, "P_BARRIER_ACK \(ack.number) before the acks of its writes")
            return
        }
        guard transfer.acknowledge(barrier: ack.number, count: ack.writeCount) else {
            malformed(
                false,
                "P_BARRIER_ACK \(ack.number) for \(ack.writeCount) writes, which is not the oldest")
            return
        }
        settleEpochs()
    }

    /// A write of the oldest unacknowledged epoch still waits for the ack that was asked for.
    private var oldestLacksAcks: Bool {
        for index in 0..<transfer.epochCount where !transfer[epoch: index].acknowledged {
            var id = transfer[epoch: index].head
            while id != none {
                let entry = transfer.entries[Int(id)]
                if entry.slot != none, slots[Int(entry.slot)].ackPending { return true }
                id = entry.next
            }
            return false
        }
        return false
    }

    mutating func proveThrough(_ number: UInt32) {
        guard !peer.isRepd else { return }
        transfer.prove(through: number)
        settleEpochs()
    }

    private mutating func settleEpochs() {
        while let epoch = transfer.takeStable(peerFlushesFirst: peer.isRepd) {
            var id = epoch.head
            while id != none {
                let entry = transfer.entries[Int(id)]
                transfer.entries[Int(id)].settled = true
                endEntryIfDone(id)
                id = entry.next
            }
        }
    }

    /// Somebody waits for stability: a flush, a demotion, a full log or a full table.
    private var wantsStability: Bool {
        if order.demoting || logQueue.count > 0 || flushing.count > 0 { return true }
        return held.count > 0 && transfer.freeCount == 0 || transfer.freeCount < 1024
    }

    /// Closes the epoch and, with a peer that acknowledges before it flushes, asks for the proof.
    mutating func wantStability() {
        guard link.stage == .running, transfer.epochCount > 1 || transfer.open.count > 0 else {
            return
        }
        let waits = wantsStability
        let open = transfer.open
        let idle = now >= link.lastDataSent + pace.idleTime
        if open.count > 0, waits || idle || now >= open.opened + pace.epochAge { closeEpoch() }
        guard !peer.isRepd, waits || idle, transfer.epochCount > 1, link.probe == nil,
            transfer.open.count == 0, !sabotaged(.asksForNoProof)
        else { return }
        let newest = transfer.open.number &- 1
        guard Int32(bitPattern: newest &- transfer.proven) > 0, size > 0 else { return }
        link.probe = newest
        output.packet(.dataRequest, link: link.data, length: BlockRequest.encodedSize)
        let request = BlockRequest(sector: 0, blockID: probeID(newest), size: 512)
        var bytes = output.bytes.append(BlockRequest.encodedSize)
        request.encode(into: &bytes)
    }

    /// The newest epoch was sent to a peer that acknowledges before it flushes, and no proof is on
    /// the way.
    var needsProof: Bool {
        !peer.isRepd && link.probe == nil
            && Int32(bitPattern: transfer.open.number &- 1 &- transfer.proven) > 0
    }

    private func probeID(_ epoch: UInt32) -> UInt64 { 0x7270_6400_0000_0000 | UInt64(epoch) }

    mutating func probeAnswered(_ blockID: UInt64) {
        guard let epoch = link.probe, blockID == probeID(epoch) else {
            malformed(false, "an answer to a read that was not asked for")
            return
        }
        link.probe = nil
        proveThrough(epoch)
    }

    /// Whether nothing that was sent is without proof of stability.
    package var everythingIsStable: Bool { transfer.epochCount == 1 && transfer.open.count == 0 }
}
