import DRBDWire
import MetaDisk
package import Support

/// What the engine wants done, with the bytes that go along; drained by its caller after each event.
package struct Output: ~Copyable {
    package var commands = Queue<Command>(capacity: 16384)
    package var bytes = ByteArena(capacity: 4 << 20)

    package mutating func removeAll() {
        commands.removeAll()
        bytes.removeAll()
    }

    /// The header of a packet; the caller appends exactly `length` bytes to `bytes` next.
    ///
    /// - Parameter payload: bytes that follow on the wire from a buffer (`sendPayload`).
    mutating func packet(
        _ packet: Packet, link: UInt8, volume: UInt16 = 0, length: Int = 0, payload: Int = 0
    ) {
        let size = PacketHeader.encodedSize + length
        commands.append(.send(link: link, at: UInt32(bytes.count), length: UInt32(size)))
        var header = bytes.append(PacketHeader.encodedSize)
        PacketHeader(packet: packet.rawValue, volume: volume, length: UInt32(length + payload))
            .encode(into: &header)
    }

    /// Pages of the bitmap as they are now. - Returns: where they begin in `bytes`.
    mutating func append(pagesOf bitmap: borrowing DirtyBitmap, from first: Int, count: Int) -> Int
    {
        let at = bytes.count
        var span = bytes.append(count * 4096)
        for index in 0..<count { bitmap.copy(page: first + index, into: &span, at: index * 4096) }
        return at
    }

    mutating func append(wordsOf bitmap: borrowing DirtyBitmap, _ range: Range<Int>) {
        var span = bytes.append(range.count * 8)
        bitmap.copy(words: range, into: &span)
    }

    mutating func append(_ superblock: Superblock) -> Int {
        let at = bytes.count
        var span = bytes.append(Superblock.encodedSize)
        superblock.encode(into: &span)
        return at
    }

    /// - Returns: where the block begins, and the transaction's number.
    mutating func append(transactionOf log: borrowing ActivityLog) -> (Int, UInt32) {
        let at = bytes.count
        var span = bytes.append(LogTransaction.encodedSize)
        let number = log.encode(into: &span)
        return (at, number)
    }
}
