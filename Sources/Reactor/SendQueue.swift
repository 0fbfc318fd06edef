import CShims
import Glibc
import Support

/// One of the two halves of what a connection sends: one fills while the other is on its way.
///
/// Trivial, and lives in memory of its own; `free` gives back what it points to. Headers lie in one
/// area; if that gets full, a larger one takes over and the old one stays until the half is sent,
/// because vectors point into it.
@safe struct SendQueue: BitwiseCopyable {
    /// What `Reactor.canQueue` allows to wait. Beyond four times as much the process stops: that is
    /// a caller who never asked.
    static let headerLimit = 1 << 20
    static let vectorLimit = 4096
    static let ownerLimit = 2048
    /// IOV_MAX: how many vectors one operation takes.
    static let vectorsPerSend = 1024
    /// What one operation sends, and a vector: with more it could not be told how far it has got.
    static let bytesPerSend = 1 << 20
    private static let firstHeaderCapacity = 16 << 10
    private static let firstVectorCapacity = 256
    /// Room in front of an area for the pointer to the area it replaced.
    private static let link = 64

    private(set) var vectors: UnsafeMutablePointer<iovec>
    private var headers: UnsafeMutableRawPointer
    private var owners: UnsafeMutablePointer<UInt64>
    private var vectorCapacity: Int
    private var headerCapacity: Int
    private var ownerCapacity: Int
    private var headerFill = 0
    private var lastIsHeader = false
    /// Of all areas together.
    private(set) var headerBytes = 0
    private(set) var vectorCount = 0
    private(set) var ownerCount = 0
    /// The first vector that is not wholly sent.
    private(set) var next = 0
    /// Not yet sent.
    private(set) var bytes = 0

    init() {
        vectorCapacity = Self.firstVectorCapacity
        headerCapacity = Self.firstHeaderCapacity
        ownerCapacity = Self.firstVectorCapacity
        unsafe vectors = .allocate(capacity: vectorCapacity)
        unsafe owners = .allocate(capacity: ownerCapacity)
        unsafe headers = Self.area(headerCapacity, replacing: nil)
    }

    func free() {
        unsafe vectors.deallocate()
        unsafe owners.deallocate()
        unsafe Self.release(headers)
    }

    private static func area(
        _ capacity: Int, replacing old: UnsafeMutableRawPointer?
    ) -> UnsafeMutableRawPointer {
        let area = UnsafeMutableRawPointer.allocate(byteCount: link + capacity, alignment: 64)
        unsafe area.storeBytes(of: old, as: UnsafeMutableRawPointer?.self)
        return unsafe area
    }

    private static func release(_ newest: UnsafeMutableRawPointer) {
        var area: UnsafeMutableRawPointer? = unsafe newest
        while let current = unsafe area {
            unsafe area = unsafe current.load(as: UnsafeMutableRawPointer?.self)
            unsafe current.deallocate()
        }
    }

    /// Headers that follow each other share one vector.
    mutating func append(header size: Int) -> UnsafeMutableRawPointer {
        if headerFill + size > headerCapacity { growHeaders(for: size) }
        let place = unsafe headers + Self.link + headerFill
        headerFill += size
        headerBytes += size
        bytes += size
        if lastIsHeader {
            unsafe vectors[vectorCount - 1].iov_len += size
        } else {
            unsafe append(vector: place, size)
            lastIsHeader = true
        }
        return unsafe place
    }

    mutating func append(payload: UnsafeMutableRawPointer, _ length: Int) {
        unsafe append(vector: payload, length)
        bytes += length
        lastIsHeader = false
    }

    @inline(__always)
    private mutating func append(vector base: UnsafeMutableRawPointer, _ length: Int) {
        if vectorCount == vectorCapacity {
            invariant(vectorCount < 4 * Self.vectorLimit, "\(vectorCount) vectors: canQueue?")
            let larger = UnsafeMutablePointer<iovec>.allocate(capacity: 2 * vectorCapacity)
            unsafe larger.initialize(from: vectors, count: vectorCount)
            unsafe vectors.deallocate()
            unsafe vectors = unsafe larger
            vectorCapacity *= 2
        }
        unsafe (vectors + vectorCount).initialize(to: iovec(iov_base: base, iov_len: length))
        vectorCount += 1
    }

    mutating func append(owner: UInt64) {
        if ownerCount == ownerCapacity {
            invariant(ownerCount < 4 * Self.ownerLimit, "\(ownerCount) owners: canQueue?")
            let larger = UnsafeMutablePointer<UInt64>.allocate(capacity: 2 * ownerCapacity)
            unsafe larger.initialize(from: owners, count: ownerCount)
            unsafe owners.deallocate()
            unsafe owners = unsafe larger
            ownerCapacity *= 2
        }
        unsafe (owners + ownerCount).initialize(to: owner)
        ownerCount += 1
    }

    private mutating func growHeaders(for size: Int) {
        invariant(
            headerBytes + size <= 4 * Self.headerLimit, "\(headerBytes) header bytes: canQueue?")
        headerCapacity = max(2 * headerCapacity, size)
        unsafe headers = Self.area(headerCapacity, replacing: headers)
        headerFill = 0
        lastIsHeader = false
    }

    func owner(_ position: Int) -> UInt64 {
        precondition(position >= 0 && position < ownerCount)
        return unsafe owners[position]
    }

    /// How many vectors the next operation takes.
    var vectorsToSend: Int {
        let most = min(vectorCount - next, Self.vectorsPerSend)
        guard bytes > Self.bytesPerSend else { return most }
        var count = 0
        var sum = 0
        while count < most, sum < Self.bytesPerSend {
            sum += unsafe vectors[next + count].iov_len
            count += 1
        }
        return count
    }

    /// Skips `count` sent bytes. - Returns: whether something is left.
    mutating func advance(_ count: Int) -> Bool {
        bytes -= count
        var left = count
        while next < vectorCount, left >= (unsafe vectors[next].iov_len) {
            left -= unsafe vectors[next].iov_len
            next += 1
        }
        guard next < vectorCount else { return false }
        unsafe vectors[next].iov_base += left
        unsafe vectors[next].iov_len -= left
        return true
    }

    /// Keeps the newest area, which is the largest.
    mutating func clear() {
        if headerBytes > headerFill {
            let old = unsafe headers.load(as: UnsafeMutableRawPointer?.self)
            if let old = unsafe old { unsafe Self.release(old) }
            unsafe headers.storeBytes(of: nil, as: UnsafeMutableRawPointer?.self)
        }
        (vectorCount, headerBytes, headerFill, ownerCount) = (0, 0, 0, 0)
        (next, bytes, lastIsHeader) = (0, 0, false)
    }
}
