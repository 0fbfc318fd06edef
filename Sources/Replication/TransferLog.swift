import Support

/// A write of a client that is not known to be safe on both sides (safety.md S4, wire 10.6).
package struct Entry: BitwiseCopyable {
    var offset: UInt64 = 0
    var length: UInt32 = 0
    var epoch: UInt32 = 0
    /// With the index the block_id; an answer to an earlier occupant does not fit.
    var generation: UInt32 = 1
    var next: UInt16 = none
    var slot: SlotID = none
    var used = false
    var mirrored = false
    /// The peer's ack that was asked for is in.
    var acknowledged = false
    /// The peer may lack it: its bits are set.
    var missed = false
    var localDone = false
    /// Its epoch is stable on the peer, or there is no peer to wait for.
    var settled = false

    var firstBlock: Int { Int(offset >> 12) }
    var lastBlock: Int { Int((offset + UInt64(length) - 1) >> 12) }
    var firstExtent: UInt32 { UInt32(offset >> 22) }
    var lastExtent: UInt32 { UInt32((offset + UInt64(length) - 1) >> 22) }
}

/// The writes between two barriers.
package struct Epoch: BitwiseCopyable {
    var number: UInt32 = 0
    var count: UInt32 = 0
    var head: UInt16 = none
    var tail: UInt16 = none
    var opened = Instant.never
    var barrierSent = false
    var acknowledged = false
}

/// The epochs that are not stable on the peer, oldest first; the last one is open.
///
///     open ──barrier sent──▶ closed ──P_BARRIER_ACK──▶ acknowledged ──proof──▶ stable (gone)
///
/// A repd peer's acknowledgement is the proof; any other peer has flushed only when something that was
/// sent behind the barrier is answered (safety.md S6).
package struct TransferLog: ~Copyable {
    static let epochLimit = 128
    static let entryLimit = 8192

    var entries: Table<Entry>
    private var free: FreeList
    private var epochs: Table<Epoch>
    private var first = 0
    private(set) var epochCount = 1
    /// Everything up to this epoch, if acknowledged, is stable.
    private(set) var proven: UInt32 = 0
    /// The number of the newest stable epoch.
    private(set) var stable: UInt32 = 0

    init() {
        entries = Table(repeating: Entry(), count: Self.entryLimit)
        free = FreeList(count: Self.entryLimit)
        epochs = Table(repeating: Epoch(), count: Self.epochLimit)
        epochs[0] = Epoch(number: 1)
    }

    var freeCount: Int { free.count }

    private func at(_ index: Int) -> Int { (first + index) % Self.epochLimit }

    var open: Epoch { epochs[at(epochCount - 1)] }
    var oldest: Epoch { epochs[first] }
    subscript(epoch index: Int) -> Epoch { epochs[at(index)] }
    /// Room for one more closed epoch.
    var canClose: Bool { epochCount < Self.epochLimit }

    /// The block_id that names the entry on the wire.
    func blockID(_ id: UInt16) -> UInt64 {
        UInt64(entries[Int(id)].generation) << 32 | UInt64(id)
    }

    /// The entry that the peer's answer names, if it still is that one.
    func entry(blockID: UInt64, sector: UInt64) -> UInt16? {
        let index = Int(truncatingIfNeeded: blockID & 0xffff_ffff)
        guard index < Self.entryLimit else { return nil }
        let entry = entries[index]
        guard entry.used, entry.mirrored, entry.generation == UInt32(blockID >> 32),
            entry.offset >> 9 == sector
        else { return nil }
        return UInt16(index)
    }

    mutating func take(offset: UInt64, length: UInt32, slot: SlotID, mirrored: Bool, now: Instant)
        -> UInt16?
    {
        guard let id = free.take() else { return nil }
        let index = Int(id)
        let generation = entries[index].generation
        entries[index] = Entry(
            offset: offset, length: length, epoch: open.number, generation: generation,
            slot: slot, used: true, mirrored: mirrored)
        guard mirrored else { return id }
        let last = at(epochCount - 1)
        if epochs[last].count == 0 { epochs[last].opened = now }
        epochs[last].count += 1
        if epochs[last].head == none {
            epochs[last].head = id
        } else {
            entries[Int(epochs[last].tail)].next = id
        }
        epochs[last].tail = id
        return id
    }

    mutating func give(_ id: UInt16) {
        entries[Int(id)].used = false
        // 0 is left out, so that a block_id of an idle table never fits.
        entries[Int(id)].generation = max(1, entries[Int(id)].generation &+ 1)
        free.give(id)
    }

    /// Ends the open epoch. - Returns: the one that was closed, whose barrier is to be sent.
    mutating func close() -> Epoch {
        invariant(canClose, "\(epochCount) epochs")
        epochs[at(epochCount - 1)].barrierSent = true
        let closed = open
        epochCount += 1
        epochs[at(epochCount - 1)] = Epoch(number: closed.number &+ 1)
        return closed
    }

    /// - Returns: false when no such barrier is the oldest unacknowledged one.
    mutating func acknowledge(barrier number: UInt32, count: UInt32) -> Bool {
        for index in 0..<epochCount where !epochs[at(index)].acknowledged {
            let epoch = epochs[at(index)]
            guard epoch.barrierSent, epoch.number == number, epoch.count == count else {
                return false
            }
            epochs[at(index)].acknowledged = true
            // The barrier before it was flushed before this one was looked at.
            prove(through: number &- 1)
            return true
        }
        return false
    }

    /// Something sent behind the barrier of epoch `number` was answered.
    mutating func prove(through number: UInt32) {
        if Int32(bitPattern: number &- proven) > 0 { proven = number }
    }

    /// The oldest epoch, if it is stable now; it is then forgotten, its chain of entries stays.
    mutating func takeStable(peerFlushesFirst: Bool) -> Epoch? {
        let epoch = oldest
        guard epochCount > 1, epoch.acknowledged else { return nil }
        guard peerFlushesFirst || Int32(bitPattern: proven &- epoch.number) >= 0 else { return nil }
        dropOldest()
        stable = epoch.number
        return epoch
    }

    private mutating func dropOldest() {
        first = at(1)
        epochCount -= 1
    }

    /// The connection is gone: every epoch comes back, oldest first, then a fresh one is open.
    mutating func takeLost() -> Epoch? {
        if epochCount == 1 {
            guard open.count > 0 else { return nil }
            let epoch = open
            epochs[first] = Epoch(number: epoch.number &+ 1)
            return epoch
        }
        let epoch = oldest
        dropOldest()
        return epoch
    }

    /// After `takeLost` returned `nil`: what is open now is the only epoch.
    mutating func restart() {
        stable = open.number &- 1
        proven = stable
    }
}
