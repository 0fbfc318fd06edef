import MetaDisk
import Support

/// A byte image of a whole device; remembers which pages were touched, so that it is cheap to reset.
struct Image: ~Copyable {
    let bytes: Bytes
    private var touchedPages: [Bool]
    private(set) var touched: [Int32] = []

    init(capacity: Int) {
        bytes = Bytes(count: capacity)
        touchedPages = Array(repeating: false, count: capacity >> 12 + 1)
    }

    func isTouched(_ page: Int) -> Bool { touchedPages[page] }

    mutating func touch(_ offset: Int, _ length: Int) {
        guard length > 0 else { return }
        for page in offset >> 12...(offset + length - 1) >> 12 where !touchedPages[page] {
            touchedPages[page] = true
            touched.append(Int32(page))
        }
    }

    mutating func reset() {
        for page in touched {
            bytes.zero(Int(page) << 12, count: 4096)
            touchedPages[Int(page)] = false
        }
        touched.removeAll(keepingCapacity: true)
    }

    mutating func write(from source: borrowing Bytes, at start: Int, to offset: Int, count: Int) {
        touch(offset, count)
        bytes.copy(from: source, at: start, to: offset, count: count)
    }

    mutating func zero(_ offset: Int, _ length: Int) {
        touch(offset, length)
        bytes.zero(offset, count: length)
    }
}

/// A disk with a volatile cache: what is read, what would survive, and the writes between the two.
final class SimulatedDisk {
    static let capacity = 24 << 20

    /// A write that has ended, or landed, and that no finished flush covers.
    struct Volatile: BitwiseCopyable {
        var offset: Int
        var length: Int
        /// Where its bytes are in `log`; -1: zeros.
        var place: Int
        /// Never lost (FUA).
        var durable: Bool
        /// The epoch of the peer that it belongs to, or 0.
        var epoch: UInt32
        var number: UInt64
    }

    /// Bytes.
    var size = 0
    var hasCache = true
    var current = Image(capacity: SimulatedDisk.capacity)
    var stable = Image(capacity: SimulatedDisk.capacity)
    private(set) var volatile: [Volatile] = []
    private var log = Bytes(count: 1 << 20, zeroed: false)
    private var logEnd = 0
    private var nextNumber: UInt64 = 1
    /// Changes whenever something becomes stable.
    private(set) var stableVersion: UInt64 = 0
    /// Where the log of the meta data lies; `logVersion` changes when something there becomes stable.
    var activityLog: Range<Int> = 0..<0
    private(set) var logVersion: UInt64 = 0

    func reset(size: Int, hasCache: Bool) {
        invariant(size <= Self.capacity, "a disk of \(size) bytes")
        self.size = size
        self.hasCache = hasCache
        current.reset()
        stable.reset()
        volatile.removeAll(keepingCapacity: true)
        logEnd = 0
        stableVersion = 0
        logVersion &+= 1
        nextNumber = 1
    }

    /// Becomes a copy of the other one as it can be read now.
    func copy(_ other: SimulatedDisk) {
        invariant(size == other.size, "a copy of \(other.size) bytes on a disk of \(size)")
        let (size, hasCache) = (size, hasCache)
        reset(size: size, hasCache: hasCache)
        for page in other.current.touched {
            let offset = Int(page) << 12
            current.write(from: other.current.bytes, at: offset, to: offset, count: 4096)
            stable.write(from: other.current.bytes, at: offset, to: offset, count: 4096)
        }
    }

    /// What a flush that is issued now will cover.
    var horizon: UInt64 { nextNumber }

    /// A write lands: readable from now on, durable after the next flush, or at once if `durable`.
    func land(
        from source: borrowing Bytes, at start: Int, to offset: Int, count: Int, durable: Bool,
        epoch: UInt32 = 0
    ) {
        current.write(from: source, at: start, to: offset, count: count)
        let place = keep(source, start, count)
        note(offset, count, place, durable, epoch)
    }

    func landZeros(_ offset: Int, _ length: Int, epoch: UInt32 = 0) {
        current.zero(offset, length)
        note(offset, length, -1, false, epoch)
    }

    private func keep(_ source: borrowing Bytes, _ start: Int, _ count: Int) -> Int {
        if volatile.isEmpty { logEnd = 0 }
        if logEnd + count > log.count {
            let larger = Bytes(count: max(log.count * 2, (logEnd + count) * 2), zeroed: false)
            larger.copy(from: log, at: 0, to: 0, count: logEnd)
            log = larger
        }
        log.copy(from: source, at: start, to: logEnd, count: count)
        logEnd += count
        return logEnd - count
    }

    private func note(
        _ offset: Int, _ length: Int, _ place: Int, _ durable: Bool, _ epoch: UInt32
    ) {
        volatile.append(
            Volatile(
                offset: offset, length: length, place: place, durable: durable, epoch: epoch,
                number: nextNumber))
        nextNumber += 1
        // The oldest leave the cache by themselves when it is full.
        if !hasCache {
            stabilise(before: nextNumber)
        } else if logEnd > 12 << 20 {
            stabilise(before: volatile[volatile.count / 2].number)
        }
        if durable { settleDurable() }
    }

    /// A durable write is on stable storage at once; if older writes of the same place are in the
    /// cache they are too, as otherwise they could come over it later.
    private func settleDurable() {
        guard let write = volatile.last, write.durable else { return }
        for other in volatile.dropLast()
        where other.offset < write.offset + write.length
            && write.offset < other.offset + other.length
        {
            stabilise(before: nextNumber)
            return
        }
        apply(write, 0..<write.length)
        volatile.removeLast()
    }

    /// A flush that was issued at `horizon` has ended.
    func stabilise(before horizon: UInt64) {
        var index = 0
        while index < volatile.count, volatile[index].number < horizon {
            apply(volatile[index], 0..<volatile[index].length)
            index += 1
        }
        guard index > 0 else { return }
        volatile.removeFirst(index)
        if volatile.isEmpty { logEnd = 0 }
    }

    /// Puts a part of the write on stable storage.
    private func apply(_ write: Volatile, _ part: Range<Int>) {
        stableVersion &+= 1
        let offset = write.offset + part.lowerBound
        if offset < activityLog.upperBound, activityLog.lowerBound < offset + part.count {
            logVersion &+= 1
        }
        if write.place < 0 {
            stable.zero(offset, part.count)
        } else {
            stable.write(
                from: log, at: write.place + part.lowerBound, to: offset, count: part.count)
        }
    }

    /// How a cache loses power.
    enum Loss: BitwiseCopyable { case nothing, everything, some, torn }

    /// The cache is gone: of every volatile write all, nothing, or some sectors survive.
    func losePower(_ loss: Loss, _ random: inout RandomSource) {
        for write in volatile {
            survivors(write, loss, &random) { part in apply(write, part) }
        }
        for write in volatile {
            current.write(
                from: stable.bytes, at: write.offset, to: write.offset, count: write.length)
        }
        volatile.removeAll(keepingCapacity: true)
        logEnd = 0
        logVersion &+= 1
    }

    /// Calls `body` with the parts of the write that survive.
    private func survivors(
        _ write: Volatile, _ loss: Loss, _ random: inout RandomSource, _ body: (Range<Int>) -> Void
    ) {
        if write.durable {
            body(0..<write.length)
            return
        }
        switch loss {
        case .nothing: body(0..<write.length)
        case .everything: return
        case .some: if random.chance(1, in: 2) { body(0..<write.length) }
        case .torn:
            switch random.next() % 4 {
            case 0: return
            case 1: body(0..<write.length)
            default:
                var sector = 0
                while sector < write.length {
                    let run = (Int(random.next() % 8) + 1) << 9
                    let end = min(sector + run, write.length)
                    if random.chance(1, in: 2) { body(sector..<end) }
                    sector = end
                }
            }
        }
    }

    /// What the disk would hold after a power cut now; nothing is changed.
    func crashImage(_ loss: Loss, _ random: inout RandomSource, into overlay: Overlay) {
        overlay.reset()
        for write in volatile {
            survivors(write, loss, &random) { part in
                let offset = write.offset + part.lowerBound
                var done = 0
                while done < part.count {
                    let page = (offset + done) >> 12
                    let inPage = (offset + done) & 4095
                    let length = min(4096 - inPage, part.count - done)
                    let place = overlay.place(page, stable.bytes) + inPage
                    if write.place < 0 {
                        overlay.bytes.zero(place, count: length)
                    } else {
                        overlay.bytes.copy(
                            from: log, at: write.place + part.lowerBound + done, to: place,
                            count: length)
                    }
                    done += length
                }
            }
        }
    }

    /// Whether a volatile write of this epoch of the peer could still be lost.
    func couldLose(epoch: UInt32) -> Bool {
        for write in volatile where write.epoch == epoch && !write.durable { return true }
        return false
    }
}

/// Pages that differ from a disk's stable image after an imagined power cut.
final class Overlay {
    private(set) var bytes = Bytes(count: 256 << 12, zeroed: false)
    private var places = [Int32](repeating: -1, count: SimulatedDisk.capacity >> 12 + 1)
    private(set) var pages: [Int32] = []

    func reset() {
        for page in pages { places[Int(page)] = -1 }
        pages.removeAll(keepingCapacity: true)
    }

    func place(_ page: Int, _ stable: borrowing Bytes) -> Int {
        if places[page] >= 0 { return Int(places[page]) << 12 }
        let index = pages.count
        if (index + 1) << 12 > bytes.count {
            let larger = Bytes(count: bytes.count * 2, zeroed: false)
            larger.copy(from: bytes, at: 0, to: 0, count: index << 12)
            bytes = larger
        }
        bytes.copy(from: stable, at: page << 12, to: index << 12, count: 4096)
        places[page] = Int32(index)
        pages.append(Int32(page))
        return index << 12
    }

    /// Where the page is in `bytes`, or `nil`: as in the stable image.
    func find(_ page: Int) -> Int? { places[page] >= 0 ? Int(places[page]) << 12 : nil }
}
