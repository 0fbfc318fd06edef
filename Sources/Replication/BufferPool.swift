import Support

/// Four sizes of buffers, each last freed first, so that the warm one is used again.
///
/// Clients leave a reserve, so that the peer's packets always find room: otherwise an answer that
/// our own writes wait for could be stuck behind a packet without a buffer.
package struct BufferPool: ~Copyable {
    package static let sizes = [4096, 65536, 262_144, 1 << 20]
    package static let counts = [1024, 96, 168, 24]
    private static let reserve = 8

    package static let arenaSize = zip(sizes, counts).reduce(0) { $0 + $1.0 * $1.1 }

    private static let smallEnd = 1024
    private static let middleEnd = 1024 + 96
    private static let largeEnd = 1024 + 96 + 168

    private var small = FreeList(count: 1024)
    private var middle = FreeList(count: 96)
    private var large = FreeList(count: 168)
    private var huge = FreeList(count: 24)

    package init() {}

    /// Where a buffer begins in the arena, in bytes.
    package static func offset(of buffer: BufferID) -> Int {
        let index = Int(buffer)
        if index < smallEnd { return index << 12 }
        if index < middleEnd { return smallEnd << 12 + (index - smallEnd) << 16 }
        let base = smallEnd << 12 + 96 << 16
        if index < largeEnd { return base + (index - middleEnd) << 18 }
        return base + 168 << 18 + (index - largeEnd) << 20
    }

    /// How many buffers are in use.
    package var taken: Int {
        Self.largeEnd + 24 - small.count - middle.count - large.count - huge.count
    }

    /// Whether all segments of a client's read of `length` bytes find a buffer now.
    func canTake(_ length: UInt32) -> Bool {
        let wholes = Int(length) / Self.sizes[2]
        let spare = max(0, large.count - Self.reserve)
        let rest = length % UInt32(Self.sizes[2])
        guard wholes <= spare else { return false }
        if rest == 0 || wholes < spare { return true }
        if rest <= 4096, small.count > Self.reserve { return true }
        return rest <= 65536 && middle.count > Self.reserve
    }

    /// How many buffers of the class that large requests are cut into clients can have.
    static let largeForClients = counts[2] - reserve

    static func isLarge(_ buffer: BufferID) -> Bool {
        Int(buffer) >= middleEnd && Int(buffer) < largeEnd
    }

    /// Whether a client's request finds a buffer now that is not of that class.
    func hasSmaller(_ length: UInt32) -> Bool {
        length <= 4096 && small.count > Self.reserve
            || length <= 65536 && middle.count > Self.reserve
    }

    /// Whether a packet of the peer's with this payload finds a buffer now.
    func hasRoom(_ length: UInt32) -> Bool {
        if length == 0 || huge.count > 0 { return true }
        if length <= 4096, small.count > 0 { return true }
        if length <= 65536, middle.count > 0 { return true }
        return length <= 262_144 && large.count > 0
    }

    /// A larger one if those of the fitting size are all taken; `nil`: wait.
    mutating func take(_ length: UInt32, client: Bool) -> BufferID? {
        let spare = client ? Self.reserve : 0
        if length <= 4096, small.count > spare, let index = small.take() { return index }
        if length <= 65536, middle.count > spare, let index = middle.take() {
            return index + UInt16(Self.smallEnd)
        }
        if length <= 262_144, large.count > spare, let index = large.take() {
            return index + UInt16(Self.middleEnd)
        }
        guard !client, let index = huge.take() else { return nil }
        return index + UInt16(Self.largeEnd)
    }

    mutating func give(_ buffer: BufferID) {
        let index = Int(buffer)
        if index < Self.smallEnd {
            small.give(buffer)
        } else if index < Self.middleEnd {
            middle.give(buffer - UInt16(Self.smallEnd))
        } else if index < Self.largeEnd {
            large.give(buffer - UInt16(Self.middleEnd))
        } else {
            huge.give(buffer - UInt16(Self.largeEnd))
        }
    }
}
