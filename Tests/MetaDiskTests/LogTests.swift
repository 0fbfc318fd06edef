import MetaDisk
import Support
import Testing

@Suite struct ChecksumTests {
    static func checksum(_ bytes: [UInt8]) -> UInt32 { CRC32C.checksum(bytes.rawBytes) }

    @Test func `the usual variant gives the check value of its definition`() {
        #expect(Self.checksum(Array("123456789".utf8)) == 0xE306_9283)
        #expect(Self.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(Self.checksum([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(Self.checksum((0..<32).map { UInt8($0) }) == 0x46DD_794E)
        #expect(Self.checksum([]) == 0)
    }

    @Test func `pieces of any length give the same as the whole`() {
        let bytes = (0..<100).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        var whole = CRC32C(register: 7)
        whole.update(bytes.rawBytes)
        for cut in 0...100 {
            var pieces = CRC32C(register: 7)
            pieces.update(Array(bytes[..<cut]).rawBytes)
            pieces.update(Array(bytes[cut...]).rawBytes)
            #expect(pieces == whole)
        }
    }

    @Test func `zeros counted are zeros read`() {
        var counted = CRC32C(register: 0x1234_5678)
        counted.updateZeros(count: 13)
        var read = CRC32C(register: 0x1234_5678)
        read.update([UInt8](repeating: 0, count: 13).rawBytes)
        #expect(counted == read)
    }
}

@Suite struct LogTransactionTests {
    static func decode(_ bytes: [UInt8]) -> LogTransaction? {
        LogTransaction(decoding: bytes.rawBytes)
    }

    static func block(_ fill: (inout MutableRawSpan) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xAA, count: LogTransaction.encodedSize)
        bytes.withMutableRawBytes { fill(&$0) }
        return bytes
    }

    /// Slot `i` of `extents` holds its entry, the updates come from `updates`.
    static func block(
        number: UInt32, start: UInt16 = 0, updates: [LogUpdate], extents: [UInt32]
    ) -> [UInt8] {
        var slots = Table<UInt32>(repeating: 0, count: extents.count)
        for (index, extent) in extents.enumerated() { slots[index] = extent }
        var list = Table(repeating: LogUpdate(slot: 0, extent: 0), count: 64)
        for (index, update) in updates.enumerated() { list[index] = update }
        return block { bytes in
            LogTransaction.encode(
                number: number, contextSize: UInt16(extents.count), contextStart: start,
                updates: list, updateCount: updates.count, extents: slots, into: &bytes)
        }
    }

    @Test func `the initialised block is the reference's`() {
        let bytes = Self.block { LogTransaction.encodeInitialised(into: &$0) }
        let head: [UInt8] = [
            0x69, 0xCB, 0x65, 0xA2, 0, 0, 0, 0, 0x70, 0x9C, 0xC6, 0x51, 0xFF, 0xFF, 0, 0,
        ]
        #expect(Array(bytes[..<16]) == head)
        #expect(bytes[16...].allSatisfy { $0 == 0 })
        #expect(Self.decode(bytes)?.kind == .initialised)
    }

    @Test(arguments: ["crash-few", "crash-al1237", "crash-striped", "ok-al-tr-wraps"])
    func `blocks that the kernel wrote are encoded to the same bytes`(name: String) throws {
        let fixture = try Fixture(name)
        let offset = try #require(fixture.expected.offsets).activity_log
        let superblock = try fixture.image.superblock(fixture.placement)
        let count = UInt64(superblock.stripes * superblock.stripeBlocks)
        for place in stride(from: offset, to: offset + 4096 * count, by: 4096) {
            let bytes = fixture.image[place]
            let transaction = try #require(Self.decode(bytes))
            let start = Int(transaction.contextStart)
            var extents = [UInt32](
                repeating: LogTransaction.freeExtent, count: Int(transaction.contextSize))
            for (index, extent) in transaction.context.enumerated()
            where start + index < extents.count {
                extents[start + index] = extent
            }
            let encoded = Self.block(
                number: transaction.number, start: transaction.contextStart,
                updates: transaction.updates, extents: extents)
            #expect(encoded == bytes, "block at \(place)")
        }
    }

    @Test func `a block that lost one bit anywhere is not intact`() {
        let good = Self.block(
            number: 7, updates: [LogUpdate(slot: 1, extent: 99)], extents: [1, 2, 3])
        #expect(Self.decode(good)?.number == 7)
        for place in 0..<good.count {
            var bad = good
            bad[place] ^= 0x10
            #expect(Self.decode(bad) == nil, "byte \(place)")
        }
    }

    @Test func `a ring of stripes is written round-robin`() {
        let places = (0..<16).map {
            blockIndex(transaction: $0, stripes: 2, stripeBlocks: 8)
        }
        #expect(places == [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
        #expect(blockIndex(transaction: 58, stripes: 2, stripeBlocks: 8) == 5)
        #expect(blockIndex(transaction: .max, stripes: 3, stripeBlocks: 9) == 7)
    }

    @Test func `slots are limited to what a torn ring still tells`() {
        #expect(LogTransaction.maximumSlots(blockCount: 8) == 6433)
        #expect(LogTransaction.maximumSlots(blockCount: 8192) == 65534)
    }

    @Test func `too many updates are a bug`() async {
        await #expect(processExitsWith: .failure) {
            let updates = [LogUpdate](repeating: LogUpdate(slot: 0, extent: 0), count: 64)
            let slots = Table<UInt32>(repeating: 0, count: 10)
            let list = Table(repeating: updates[0], count: 65)
            _ = LogTransactionTests.block { bytes in
                LogTransaction.encode(
                    number: 0, contextSize: 10, contextStart: 0, updates: list, updateCount: 65,
                    extents: slots, into: &bytes)
            }
        }
    }
}
