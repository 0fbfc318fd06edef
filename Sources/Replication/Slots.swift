import DRBDWire
import Support

let none = UInt16.max

/// One operation that uses the disk, from the moment its packet or request is decoded.
package struct Slot: BitwiseCopyable {
    enum Kind: UInt8 {
        case free
        /// Of a client of this Primary.
        case write, read, zero
        /// Of the peer: its P_DATA, its P_TRIM or P_ZEROES, its P_DATA_REQUEST.
        case peerWrite, peerZero, peerRead
        /// A read that answers P_RS_DATA_REQUEST; it waits for P_RS_WRITE_ACK afterwards.
        case resyncRead
        /// Our own P_RS_DATA_REQUEST, and the write of its answer.
        case resyncWrite
    }

    /// Where an operation of the peer, or of the resync, is.
    enum Stage: UInt8 {
        /// Its payload is coming in.
        case arriving
        /// It waits for its turn, for the log, or for the disk.
        case working
        /// Our P_RS_DATA_REQUEST is out.
        case requested
        /// The disk is done, but bits may not be cleared at this moment.
        case deferred
        /// Answered: its payload is leaving, or the ack of resync data is awaited.
        case answered
    }

    var kind = Kind.free
    var stage = Stage.working
    /// Bytes.
    var offset: UInt64 = 0
    var length: UInt32 = 0
    var buffer: BufferID = none
    /// The client request it is a part of.
    var request: UInt16 = none
    /// The next segment of the same read.
    var next: UInt16 = none
    /// Its line in the books, for a write of a client.
    var entry: UInt16 = none
    /// Place in the order of arrival; operations that overlap follow it.
    var order: UInt64 = 0
    /// How many overlapping operations with an earlier place are not done.
    var conflicts: UInt16 = 0
    /// Its index in the order book, or `none`.
    var place: UInt16 = none
    /// The peer's block_id, to be echoed.
    var blockID: UInt64 = 0
    /// Which connection its packet belongs to; an old one is not answered.
    var connection: UInt32 = 0
    var flags: DataFlags = []
    var durable = false
    var keepsAllocation = false
    var mirrored = false
    /// The activity log holds references for it.
    var logged = false
    /// The version of the bitmap on disk that has its bits, in place of extents in the log; 0: none.
    var bitsVersion: UInt32 = 0
    var diskPending = false
    var sendPending = false
    var ackPending = false
    /// The request or packet was answered (or the answer is waiting for the generation).
    var settled = false
    var failed = false
    /// The peer may lack it.
    var missed = false
    /// The peer answered with P_RS_WRITE_ACK: it cleared its bits, and so may we.
    var confirmedInSync = false
    /// A write of a peer without a disk: ours is the only copy.
    var isSole = false
    /// Resync data that must not clear its bits: they were set again meanwhile.
    var keepsBits = false
    /// It was at the disk already when that was looked at (disk-timeout).
    var wasSeenAtDisk = false
    /// Nobody waits for the disk's answer any more.
    var isDisowned = false

    var end: UInt64 { offset + UInt64(length) }
    var firstBlock: Int { Int(offset >> 12) }
    var lastBlock: Int { Int((end - 1) >> 12) }
    var firstExtent: UInt32 { UInt32(offset >> 22) }
    var lastExtent: UInt32 { UInt32((end - 1) >> 22) }
    var sector: UInt64 { offset >> 9 }
}

/// Everything that changes the disk and is not done, in the order of arrival (safety.md S1, S2).
///
/// A dense list: with the few dozen operations that are ever in flight, looking at all of them is
/// cheaper than any index.
package struct OrderBook: ~Copyable {
    private var starts: Table<UInt64>
    private var ends: Table<UInt64>
    private var owners: Table<UInt16>
    private(set) var count = 0
    private var waiting: Table<UInt16>
    private(set) var waitingCount = 0
    private var nextOrder: UInt64 = 0
    /// Of the disk's blocks less one: what lies in the same block overlaps, because a part of it is
    /// read, changed and written back (safety.md S1).
    private var mask: UInt64 = 511

    init(capacity: Int) {
        starts = Table(repeating: 0, count: capacity)
        ends = Table(repeating: 0, count: capacity)
        owners = Table(repeating: 0, count: capacity)
        waiting = Table(repeating: 0, count: capacity)
    }

    var isEmpty: Bool { count == 0 && waitingCount == 0 }

    /// Bytes; changes only while the book is empty.
    var blockSize: Int {
        get { Int(mask) + 1 }
        set { mask = UInt64(newValue) - 1 }
    }

    @inline(__always)
    private func range(_ slot: Slot) -> (start: UInt64, end: UInt64) {
        (slot.offset & ~mask, (slot.end + mask) & ~mask)
    }

    /// Gives `slot` the next place. - Returns: whether it may start at once.
    mutating func enter(_ id: SlotID, _ slots: inout Table<Slot>) -> Bool {
        let slot = slots[Int(id)]
        var conflicts: UInt16 = 0
        let (start, end) = range(slot)
        for index in 0..<count where starts[index] < end && start < ends[index] {
            conflicts += 1
        }
        nextOrder += 1
        slots[Int(id)].order = nextOrder
        slots[Int(id)].conflicts = conflicts
        // Plain reads hold nobody back; they only wait themselves.
        if slot.kind != .read, slot.kind != .peerRead {
            starts[count] = start
            ends[count] = end
            owners[count] = id
            slots[Int(id)].place = UInt16(count)
            count += 1
        }
        guard conflicts > 0, !sabotaged(.ignoresOverlap) else { return true }
        waiting[waitingCount] = id
        waitingCount += 1
        return false
    }

    /// The operation is done: its place is free. Those that waited for it alone come to `ready`.
    mutating func leave(_ id: SlotID, _ slots: inout Table<Slot>, ready: inout Queue<SlotID>) {
        let place = Int(slots[Int(id)].place)
        guard slots[Int(id)].place != none else { return }
        slots[Int(id)].place = none
        let (start, end, order) = (starts[place], ends[place], slots[Int(id)].order)
        count -= 1
        if place < count {
            starts[place] = starts[count]
            ends[place] = ends[count]
            owners[place] = owners[count]
            slots[Int(owners[place])].place = UInt16(place)
        }
        guard waitingCount > 0 else { return }
        var kept = 0
        for index in 0..<waitingCount {
            let waiter = waiting[index]
            let other = slots[Int(waiter)]
            let (otherStart, otherEnd) = range(other)
            if other.order > order, start < otherEnd, otherStart < end {
                slots[Int(waiter)].conflicts -= 1
                if slots[Int(waiter)].conflicts == 0 {
                    ready.append(waiter)
                    continue
                }
            }
            waiting[kept] = waiter
            kept += 1
        }
        waitingCount = kept
    }

    /// Takes a waiting operation off the list without starting it.
    mutating func forget(_ id: SlotID) {
        var kept = 0
        for index in 0..<waitingCount where waiting[index] != id {
            waiting[kept] = waiting[index]
            kept += 1
        }
        waitingCount = kept
    }

    subscript(index: Int) -> SlotID { owners[index] }
}

/// A ring of ids, first in, first out.
struct Ring: ~Copyable {
    private var items: Table<UInt16>
    private var first = 0
    private(set) var count = 0

    init(capacity: Int) { items = Table(repeating: 0, count: capacity) }

    mutating func append(_ item: UInt16) {
        invariant(count < items.count, "ring of \(items.count) is full")
        items[(first + count) % items.count] = item
        count += 1
    }

    mutating func take() -> UInt16? {
        guard count > 0 else { return nil }
        let item = items[first]
        first = (first + 1) % items.count
        count -= 1
        return item
    }

    subscript(index: Int) -> UInt16 { items[(first + index) % items.count] }
}
