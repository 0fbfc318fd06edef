import MetaDisk
import Support

/// The set of active 4 MiB extents and its on-disk log (reference, meta data sections 7 and 9.1).
///
///     free ──acquire──▶ pending ──commit──▶ in use ◀──acquire── lru
///                          ▲                  └──release──────▶ │
///                          └────────acquire (evicts)────────────┘
package struct ActivityLog: ~Copyable {
    package static let free = UInt32.max
    private static let none = UInt16.max

    package enum Acquisition { case active, pending, unavailable }

    package let slotCount: Int
    private var extents: Table<UInt32>
    private var pending: Table<UInt32>
    private var references: Table<UInt32>
    private var places: Table<UInt16>
    private var previous: Table<UInt16>
    private var next: Table<UInt16>
    private var freeSlots: FreeList
    private var lruCount = 0
    private var updates: Table<LogUpdate>
    /// Changes collected for the next transaction, or on their way in the present one.
    package private(set) var updateCount = 0
    /// A transaction is on its way to disk: no new extent can be added.
    package private(set) var writing = false
    private var transaction: UInt32 = 0
    private var cycle = 0
    /// Transactions written, as /proc/drbd counts them.
    package private(set) var written: UInt64 = 0

    /// - Parameters:
    ///   - slotCount: at least 1, at most what the format holds.
    ///   - extentCount: extents of the largest size the volume can have.
    package init(slotCount: Int, extentCount: Int) {
        self.slotCount = slotCount
        extents = Table(repeating: Self.free, count: slotCount)
        pending = Table(repeating: Self.free, count: slotCount)
        references = Table(repeating: 0, count: slotCount)
        places = Table(repeating: Self.none, count: max(1, extentCount))
        // The list's head is the place behind the last slot.
        previous = Table(repeating: UInt16(slotCount), count: slotCount + 1)
        next = Table(repeating: UInt16(slotCount), count: slotCount + 1)
        freeSlots = FreeList(count: slotCount)
        updates = Table(
            repeating: LogUpdate(slot: 0, extent: 0), count: LogTransaction.maximumUpdates)
    }

    private mutating func unlink(_ slot: UInt16) {
        let (before, after) = (previous[Int(slot)], next[Int(slot)])
        next[Int(before)] = after
        previous[Int(after)] = before
        lruCount -= 1
    }

    private mutating func linkFront(_ slot: UInt16) {
        let head = slotCount
        let first = next[head]
        next[Int(slot)] = first
        previous[Int(slot)] = UInt16(head)
        previous[Int(first)] = slot
        next[head] = slot
        lruCount += 1
    }

    /// References every extent of `first...last`, or none of them.
    ///
    /// - Returns: `active`: go on; `pending`: wait for the commit of the transaction;
    ///   `unavailable`: nothing was referenced, try again after a commit or a release.
    package mutating func acquire(_ first: UInt32, through last: UInt32) -> Acquisition {
        var misses = 0
        var idle = 0
        for extent in first...last {
            let place = places[Int(extent)]
            if place == Self.none {
                misses += 1
            } else if references[Int(place)] == 0 {
                // About to leave the lru list: not a candidate for eviction by the same request.
                idle += 1
            }
        }
        if misses > 0 {
            guard !writing, misses <= freeSlots.count + lruCount - idle,
                updateCount + misses <= LogTransaction.maximumUpdates
            else { return .unavailable }
        }
        var waits = false
        for extent in first...last where places[Int(extent)] != Self.none {
            let slot = Int(places[Int(extent)])
            if references[slot] == 0 { unlink(UInt16(slot)) }
            references[slot] += 1
            if pending[slot] != Self.free { waits = true }
        }
        guard misses > 0 else { return waits ? .pending : .active }
        for extent in first...last where places[Int(extent)] == Self.none { add(extent) }
        return .pending
    }

    private mutating func add(_ extent: UInt32) {
        let slot: UInt16
        if let unused = freeSlots.take() {
            slot = unused
        } else {
            slot = previous[slotCount]
            invariant(Int(slot) < slotCount, "an idle slot for extent \(extent)")
            unlink(slot)
            places[Int(extents[Int(slot)])] = Self.none
        }
        pending[Int(slot)] = extent
        references[Int(slot)] = 1
        places[Int(extent)] = slot
        updates[updateCount] = LogUpdate(slot: slot, extent: extent)
        updateCount += 1
    }

    /// Ends one reference of every extent; at zero the extent stays active until it is evicted.
    package mutating func release(_ first: UInt32, through last: UInt32) {
        for extent in first...last {
            let slot = places[Int(extent)]
            invariant(slot != Self.none, "release of extent \(extent), which is not active")
            invariant(references[Int(slot)] > 0, "reference of extent \(extent)")
            references[Int(slot)] -= 1
            if references[Int(slot)] == 0 { linkFront(slot) }
        }
    }

    /// The extent that the update will evict, whose bitmap page must be on disk first.
    package func evicted(_ update: Int) -> UInt32? {
        let old = extents[Int(updates[update].slot)]
        return old == Self.free ? nil : old
    }

    /// Whether a transaction should be written now.
    package var wantsTransaction: Bool { updateCount > 0 && !writing }

    /// From here to `commit` the collected changes are fixed.
    package mutating func beginTransaction() { writing = true }

    /// Writes the block of the transaction that was begun. - Returns: its number.
    package func encode(into bytes: inout MutableRawSpan) -> UInt32 {
        LogTransaction.encode(
            number: transaction, contextSize: UInt16(slotCount), contextStart: UInt16(cycle),
            updates: updates, updateCount: updateCount, extents: extents, into: &bytes)
        return transaction
    }

    /// The transaction is durable: its extents are active. References stay with those who wait.
    package mutating func commit() {
        invariant(writing, "commit without a transaction")
        for index in 0..<updateCount {
            let update = updates[index]
            extents[Int(update.slot)] = update.extent
            pending[Int(update.slot)] = Self.free
            // Waiters may have given up meanwhile; then the slot is on the lru list already.
        }
        updateCount = 0
        writing = false
        written += 1
        // Below 2^31, so that a reader which compares as signed numbers orders the ring (T6).
        transaction = transaction == 0x7fff_fffe ? 0 : transaction + 1
        cycle += LogTransaction.contextCount
        if cycle >= slotCount { cycle = 0 }
    }

    /// Whether the extent is in the log on disk: a write into it may begin.
    package func isActive(_ extent: UInt32) -> Bool {
        let slot = places[Int(extent)]
        return slot != Self.none && extents[Int(slot)] == extent
    }

    /// How many extents have writes in flight.
    package var referencedCount: Int { slotCount - freeSlots.count - lruCount }
}
