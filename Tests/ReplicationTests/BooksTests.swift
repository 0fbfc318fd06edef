import MetaDisk
import Support
import Testing

@testable import Replication

/// Macros cannot hold what is not copyable: the values are taken first.
private func same<Value: Equatable>(
    _ value: Value, _ expected: Value, _ location: SourceLocation = #_sourceLocation
) {
    #expect(value == expected, sourceLocation: location)
}

@Suite struct DirtyBitmapTests {
    @Test func `set and clear count what changed`() {
        var bitmap = DirtyBitmap(capacity: 100_000, bitCount: 70_000)
        same(bitmap.set(60, through: 130), 71)
        same(bitmap.set(100, through: 140), 10)
        same(bitmap.clear(0, through: 63), 4)
        same(bitmap.setCount, 77)
        same(bitmap.next(from: 0), 64)
        same(bitmap.nextClear(from: 64), 141)
        same(bitmap.next(from: 141), nil)
    }

    @Test func `bits behind the end are never set`() {
        var bitmap = DirtyBitmap(capacity: 200, bitCount: 100)
        same(bitmap.set(90, through: 199), 10)
        bitmap.merge(.max, intoWord: 1)
        same(bitmap.setCount, 36)
        same(bitmap.nextClear(from: 64), 100)
    }

    @Test func `a page that was written differs again after the next change`() {
        var bitmap = DirtyBitmap(capacity: 100_000, bitCount: 100_000)
        bitmap.set(40_000, through: 40_000)
        same(bitmap.isChanged(page: 1), true)
        bitmap.markWritten(page: 1)
        same(bitmap.changedPageCount, 0)
        bitmap.clear(40_000, through: 40_000)
        same(bitmap.isChanged(page: 1), true)
    }

    /// Against a plain array, over pages that are empty, full and mixed.
    @Test(arguments: 0..<6 as Range<UInt64>)
    func `searches over empty and full pages find what is there`(seed: UInt64) {
        let count = 5 * DirtyBitmap.bitsPerPage + 700
        var source = RandomSource(seed: seed)
        var bitmap = DirtyBitmap(capacity: count + 40_000, bitCount: count)
        var model = [Bool](repeating: false, count: count)
        for _ in 0..<40 {
            let first = Int(source.next() % UInt64(count))
            let length = [1, 64, 5000, 33_000, 70_000][Int(source.next() % 5)]
            let last = min(first + length, count) - 1
            let sets = source.chance(1, in: 2)
            if sets { bitmap.set(first, through: last) } else { bitmap.clear(first, through: last) }
            for index in first...last { model[index] = sets }
            let start = Int(source.next() % UInt64(count))
            same(bitmap.next(from: start), model[start...].firstIndex(of: true))
            same(bitmap.nextClear(from: start), model[start...].firstIndex(of: false) ?? count)
            same(bitmap.setCount, model.count { $0 })
        }
    }

    @Test func `a page of zeros is loaded over bits, and bits over zeros`() {
        var bitmap = DirtyBitmap(capacity: 100_000, bitCount: 100_000)
        var page = [UInt8](repeating: 0, count: 4096)
        page[8] = 0x81
        bitmap.load(page: 2, from: page.rawBytes)
        same(bitmap.setCount, 2)
        same(bitmap.next(from: 0), 65_536 + 64)
        page[8] = 0
        bitmap.load(page: 2, from: page.rawBytes)
        same(bitmap.setCount, 0)
        same(bitmap.next(from: 0), nil)
        same(bitmap.changedPageCount, 0)
    }

    @Test func `growing sets the new bits and shrinking forgets`() {
        var bitmap = DirtyBitmap(capacity: 1000, bitCount: 100)
        bitmap.resize(bitCount: 150)
        same(bitmap.setCount, 50)
        bitmap.resize(bitCount: 120)
        same(bitmap.setCount, 20)
    }
}

@Suite struct ActivityLogTests {
    private func commit(_ log: inout ActivityLog) {
        log.beginTransaction()
        log.commit()
    }

    @Test func `an extent is active only after its transaction`() {
        var log = ActivityLog(slotCount: 2, extentCount: 10)
        same(log.acquire(3, through: 3), .pending)
        same(log.isActive(3), false)
        commit(&log)
        same(log.isActive(3), true)
        same(log.acquire(3, through: 3), .active)
    }

    @Test func `a referenced extent is never evicted`() {
        var log = ActivityLog(slotCount: 2, extentCount: 10)
        _ = log.acquire(0, through: 1)
        commit(&log)
        same(log.acquire(2, through: 2), .unavailable)
        log.release(0, through: 0)
        same(log.acquire(2, through: 2), .pending)
        same(log.evicted(0), 0)
        commit(&log)
        same(log.isActive(1), true)
        same(log.isActive(2), true)
        same(log.isActive(0), false)
    }

    @Test func `the extent of a request is not evicted by the same request`() {
        var log = ActivityLog(slotCount: 2, extentCount: 10)
        _ = log.acquire(4, through: 5)
        commit(&log)
        log.release(4, through: 5)
        // 5 and 6: only 4 may go.
        same(log.acquire(5, through: 6), .pending)
        same(log.evicted(0), 4)
    }

    @Test func `nothing is added while a transaction is written`() {
        var log = ActivityLog(slotCount: 4, extentCount: 10)
        _ = log.acquire(0, through: 0)
        log.beginTransaction()
        same(log.acquire(1, through: 1), .unavailable)
        same(log.acquire(0, through: 0), .pending)
        log.commit()
        same(log.acquire(1, through: 1), .pending)
    }
}

@Suite struct TransferLogTests {
    @Test func `an answer to an earlier occupant of an entry does not fit`() {
        var log = TransferLog()
        let now = Instant(nanoseconds: 1)
        let first = log.take(offset: 512, length: 512, slot: 0, mirrored: true, now: now) ?? none
        let stale = log.blockID(first)
        same(log.entry(blockID: stale, sector: 1), Optional(first))
        same(log.entry(blockID: stale, sector: 2), nil)
        log.give(first)
        let second = log.take(offset: 512, length: 512, slot: 0, mirrored: true, now: now) ?? none
        same(second, first)
        same(log.entry(blockID: stale, sector: 1), nil)
    }

    @Test func `a barrier ack with another size or out of turn is refused`() {
        var log = TransferLog()
        let now = Instant(nanoseconds: 1)
        _ = log.take(offset: 0, length: 512, slot: 0, mirrored: true, now: now)
        let epoch = log.close()
        same(log.acknowledge(barrier: epoch.number, count: 2), false)
        same(log.acknowledge(barrier: epoch.number + 1, count: 1), false)
        same(log.acknowledge(barrier: epoch.number, count: 1), true)
    }

    @Test func `an epoch of a peer that acknowledges first is stable only with a proof`() {
        var log = TransferLog()
        let now = Instant(nanoseconds: 1)
        _ = log.take(offset: 0, length: 512, slot: 0, mirrored: true, now: now)
        let epoch = log.close()
        _ = log.acknowledge(barrier: epoch.number, count: 1)
        same(log.takeStable(peerFlushesFirst: false)?.number, nil)
        log.prove(through: epoch.number)
        same(log.takeStable(peerFlushesFirst: false)?.number, epoch.number)
    }

    @Test func `a lost connection gives back every epoch, the open one too`() {
        var log = TransferLog()
        let now = Instant(nanoseconds: 1)
        _ = log.take(offset: 0, length: 512, slot: 0, mirrored: true, now: now)
        _ = log.close()
        _ = log.take(offset: 512, length: 512, slot: 0, mirrored: true, now: now)
        same(log.takeLost()?.count, 1)
        same(log.takeLost()?.count, 1)
        same(log.takeLost()?.count, nil)
    }
}

@Suite struct OrderBookTests {
    @Test func `what overlaps waits for all that came before it, in order`() {
        var slots = Table<Slot>(repeating: Slot(), count: 8)
        var book = OrderBook(capacity: 8)
        var ready = Queue<SlotID>(capacity: 8)
        for (id, range) in [(0, 0..<8192), (1, 4096..<8192), (2, 0..<4096), (3, 8192..<9000)] {
            slots[id] = Slot(
                kind: .write, offset: UInt64(range.lowerBound), length: UInt32(range.count))
        }
        same(book.enter(0, &slots), true)
        same(book.enter(1, &slots), false)
        same(book.enter(2, &slots), false)
        same(book.enter(3, &slots), true)
        slots[4] = Slot(kind: .read, offset: 0, length: 8192)
        same(book.enter(4, &slots), false)
        book.leave(0, &slots, ready: &ready)
        same(ready.count, 2)
        same(ready[0], 1)
        same(ready[1], 2)
        ready.removeAll()
        book.leave(1, &slots, ready: &ready)
        same(ready.count, 0)
        book.leave(2, &slots, ready: &ready)
        same(ready.count, 1)
        same(ready[0], 4)
    }
}

@Suite struct SizeTests {
    @Test func `events and commands fit into 32 bytes`() {
        #expect(MemoryLayout<Event>.size <= 32)
        #expect(MemoryLayout<Command>.size <= 32)
    }
}
