import Replication
import Support

/// A block of memory with checked places: disks, buffers and streams of the simulated world.
///
/// Copies of whole ranges are the simulator's main work; the standard library has none between raw
/// spans, so this file has the few unsafe lines.
@safe struct Bytes: ~Copyable {
    private let base: UnsafeMutableRawPointer
    let count: Int

    /// - Parameter zeroed: otherwise the content is whatever the memory held.
    init(count: Int, zeroed: Bool = true) {
        self.count = count
        unsafe base = .allocate(byteCount: max(count, 1), alignment: 4096)
        if zeroed { unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: count) }
    }

    deinit { unsafe base.deallocate() }

    private func check(_ offset: Int, _ length: Int) {
        precondition(offset >= 0 && length >= 0 && offset <= count && length <= count - offset)
    }

    func copy(from source: borrowing Bytes, at start: Int, to offset: Int, count length: Int) {
        check(offset, length)
        source.check(start, length)
        unsafe (base + offset).copyMemory(from: source.base + start, byteCount: length)
    }

    /// Moves a range inside this block; the two places may overlap.
    func move(from start: Int, to offset: Int, count length: Int) {
        check(offset, length)
        check(start, length)
        unsafe (base + offset).copyMemory(from: base + start, byteCount: length)
    }

    func copy(from source: RawSpan, to offset: Int) {
        check(offset, source.byteCount)
        unsafe source.withUnsafeBytes { bytes in
            guard let from = bytes.baseAddress else { return }
            unsafe (base + offset).copyMemory(from: from, byteCount: bytes.count)
        }
    }

    func zero(_ offset: Int, count length: Int) {
        check(offset, length)
        unsafe (base + offset).initializeMemory(as: UInt8.self, repeating: 0, count: length)
    }

    @_lifetime(borrow self)
    func span(_ offset: Int, count length: Int) -> RawSpan {
        check(offset, length)
        let bytes = unsafe RawSpan(_unsafeStart: base + offset, byteCount: length)
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    /// For bytes that lie in an object: a span of them cannot leave the access.
    func with<Result>(_ offset: Int, count length: Int, _ body: (RawSpan) -> Result) -> Result {
        body(span(offset, count: length))
    }

    /// Copies from what the engine wants to have written.
    func copy(
        outputOf engine: borrowing ReplicationEngine, at start: Int, count length: Int,
        to offset: Int
    ) {
        copy(from: engine.output.bytes.bytes(at: start, count: length), to: offset)
    }

    func word(_ offset: Int) -> UInt64 {
        check(offset, 8)
        return unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }

    func setWord(_ offset: Int, _ value: UInt64) {
        check(offset, 8)
        unsafe base.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }

    func isEqual(_ offset: Int, _ other: borrowing Bytes, _ start: Int, count length: Int) -> Bool {
        check(offset, length)
        other.check(start, length)
        let mine = unsafe UnsafeRawBufferPointer(start: base + offset, count: length)
        let theirs = unsafe UnsafeRawBufferPointer(start: other.base + start, count: length)
        var index = 0
        while index + 8 <= length {
            let left = unsafe mine.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            let right = unsafe theirs.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            if left != right { return false }
            index += 8
        }
        return true
    }

    /// The payload of an operation: in every 16 bytes of every sector its number and the sector's.
    func fill(_ offset: Int, operation: UInt64, sector: UInt64, sectors: Int) {
        check(offset, sectors << 9)
        for index in 0..<sectors {
            var place = unsafe base + (offset + index << 9)
            for _ in 0..<32 {
                unsafe place.storeBytes(of: operation, as: UInt64.self)
                unsafe place.storeBytes(
                    of: sector &+ UInt64(index), toByteOffset: 8, as: UInt64.self)
                unsafe place += 16
            }
        }
    }
}

/// Bytes in the order in which they came; grows, and is used again when it is empty.
struct ByteQueue: ~Copyable {
    private var storage = Bytes(count: 4096)
    private var head = 0
    private(set) var count = 0

    private mutating func makeRoom(_ length: Int) {
        if count == 0 { head = 0 }
        guard head + count + length > storage.count else { return }
        if count + length <= storage.count / 2 {
            storage.move(from: head, to: 0, count: count)
        } else {
            let larger = Bytes(count: max(storage.count * 2, (count + length) * 2), zeroed: false)
            larger.copy(from: storage, at: head, to: 0, count: count)
            storage = larger
        }
        head = 0
    }

    mutating func append(_ bytes: RawSpan) {
        makeRoom(bytes.byteCount)
        storage.copy(from: bytes, to: head + count)
        count += bytes.byteCount
    }

    mutating func append(from source: borrowing Bytes, at start: Int, count length: Int) {
        makeRoom(length)
        storage.copy(from: source, at: start, to: head + count, count: length)
        count += length
    }

    /// Moves the first bytes of `source` to the end of this queue.
    mutating func take(_ length: Int, from source: inout ByteQueue) {
        makeRoom(length)
        storage.copy(from: source.storage, at: source.head, to: head + count, count: length)
        count += length
        source.drop(length)
    }

    mutating func take(_ length: Int, to target: borrowing Bytes, at offset: Int) {
        target.copy(from: storage, at: head, to: offset, count: length)
        drop(length)
    }

    mutating func drop(_ length: Int) {
        invariant(length <= count, "\(length) of \(count) bytes")
        head += length
        count -= length
        if count == 0 { head = 0 }
    }

    mutating func removeAll() {
        head = 0
        count = 0
    }

    mutating func append(
        outputOf engine: borrowing ReplicationEngine, at start: Int, count length: Int
    ) {
        append(engine.output.bytes.bytes(at: start, count: length))
    }

    /// Calls `body` with the first `length` bytes.
    func with<Result>(_ length: Int, _ body: (RawSpan) -> Result) -> Result {
        body(storage.span(head, count: min(length, count)))
    }
}
