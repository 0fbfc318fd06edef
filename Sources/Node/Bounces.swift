import Glibc
import Reactor
import Replication
import Support

/// Requests of a peer in units of 512 bytes, for a disk whose blocks are larger: whole blocks are read
/// into a buffer here, changed, and written back. The engine's order book has no two operations at one
/// block (safety.md S1), so nobody changes it meanwhile.
struct Bounces {
    static let count = 8
    /// The longest segment, and a block at either end.
    static let size = Int(ReplicationEngine.segmentSize) + 2 * 4096
    static let length = count * size

    enum Kind { case read, write, zeros }

    struct Request {
        var slot: SlotID
        var kind: Kind
        /// In the arena; of no use for zeros.
        var buffer: Int
        var offset: UInt64
        var length: Int
        var durable: Bool
        /// Whole blocks.
        var start: UInt64 = 0
        var span: Int = 0
    }

    var running = [Request?](repeating: nil, count: count)
    /// For want of a free buffer.
    var waiting: [Request] = []
}

extension Daemon {
    /// Whether the disk takes the range as it is.
    @inline(__always)
    func isAligned(_ offset: UInt64, _ length: UInt32) -> Bool {
        (offset | UInt64(length)) & UInt64(disk.blockSize - 1) == 0
    }

    mutating func bounce(_ request: Bounces.Request) {
        guard let place = disk.bounces.running.firstIndex(where: { $0 == nil }) else {
            disk.bounces.waiting.append(request)
            return
        }
        let mask = UInt64(disk.blockSize - 1)
        var request = request
        request.start = request.offset & ~mask
        request.span = Int((request.offset + UInt64(request.length) + mask) & ~mask - request.start)
        disk.bounces.running[place] = request
        guard let file = disk.file else {
            end(place, UInt8(EIO))
            return
        }
        reactor.read(
            file, bufferOffset: buffer(place), length: UInt32(request.span), at: request.start,
            token: token(.bounceRead, UInt64(place)))
    }

    private func buffer(_ place: Int) -> Int { DiskBuffers.bounceStart + place * Bounces.size }

    mutating func bounceRead(_ place: Int, _ result: Int32) {
        guard let request = disk.bounces.running[place] else { return }
        let failure = errno(result, expected: UInt64(request.span))
        guard failure == 0, let file = disk.file else {
            end(place, failure == 0 ? UInt8(EIO) : failure)
            return
        }
        let inside = buffer(place) + Int(request.offset - request.start)
        switch request.kind {
        case .read:
            reactor.copyBuffer(from: inside, to: request.buffer, length: request.length)
            end(place, 0)
            return
        case .write: reactor.copyBuffer(from: request.buffer, to: inside, length: request.length)
        case .zeros:
            reactor.copyBuffer(from: DiskBuffers.zeroStart, to: inside, length: request.length)
        }
        reactor.write(
            file, bufferOffset: buffer(place), length: UInt32(request.span), at: request.start,
            durable: request.durable, token: token(.bounceWrite, UInt64(place)))
    }

    mutating func bounceWritten(_ place: Int, _ result: Int32) {
        guard let request = disk.bounces.running[place] else { return }
        end(place, errno(result, expected: UInt64(request.span)))
    }

    private mutating func end(_ place: Int, _ failure: UInt8) {
        guard let request = disk.bounces.running[place] else { return }
        disk.bounces.running[place] = nil
        if request.kind == .zeros {
            edgeZeroed(request.slot, failure)
        } else {
            late.append(.disk(slot: request.slot, errno: failure))
        }
        if !disk.bounces.waiting.isEmpty { bounce(disk.bounces.waiting.removeFirst()) }
    }
}
