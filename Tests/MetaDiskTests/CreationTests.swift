import MetaDisk
import Support
import Testing

/// Safety rule S14: create-md may die anywhere.
@Suite struct CreationTests {
    /// A member of a pair: generations, and every tenth block out of sync.
    static func member(size: UInt64) throws -> (image: Image, location: MetaLocation) {
        var image = Image(size: size)
        let location = try MetaLocation(placement: .internalData, deviceSize: size)
        try MetaCreation(location: location, deviceUUID: 7).perform(on: &image)
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = location.capacity
        superblock.uuids = GenerationUUIDs(current: 11, bitmap: 22, history0: 33, history1: 44)
        superblock.flags = [.consistent, .wasUpToDate, .logClean]
        image.writeSuperblock(superblock, at: location.superblockOffset)
        image[location.bitmapOffset] = [UInt8](repeating: 0x42, count: 4096)
        return (image.quiet, location)
    }

    /// What a crash after `count` operations may leave: everything before the last flush, and of
    /// what came after it any part.
    static func crash(
        _ start: Image, after operations: ArraySlice<Image.Operation>,
        _ source: inout RandomSource
    ) -> Image {
        var image = start
        let durable = operations.lastIndex(of: .flush) ?? operations.startIndex
        for (index, operation) in operations.enumerated()
        where index < durable || source.chance(1, in: 2) {
            image.perform(operation)
        }
        return image.quiet
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func `a crash never leaves old generations with an empty bitmap`(seed: UInt64) throws {
        let (start, location) = try Self.member(size: 1 << 26)
        let old = try start.superblock(.internalData)
        var image = start
        try MetaCreation(location: location).perform(on: &image)
        var source = RandomSource(seed: seed)
        for count in 0...image.operations.count {
            let crashed = Self.crash(start, after: image.operations[..<count], &source)
            guard let found = try? crashed.superblock(.internalData) else { continue }
            let bitmap = crashed[location.bitmapOffset]
            if found.uuids == old.uuids {
                #expect(bitmap == start[location.bitmapOffset])
            } else {
                #expect(found == Superblock.fresh(location: location))
                #expect(bitmap.allSatisfy { $0 == 0 })
            }
        }
    }

    @Test func `the steps are those of the rule`() throws {
        let location = try MetaLocation(placement: .internalData, deviceSize: 1 << 26)
        var expected = Superblock.fresh(location: location)
        expected.deviceUUID = 9
        expected.peerMaximumRequest = 4096
        let creation = try MetaCreation(
            location: location, peerMaximumRequest: 4096, deviceUUID: 9)
        #expect(
            creation.steps == [
                .zero(67_104_768..<67_108_864), .flush, .initialiseLog(location),
                .zero(67_067_904..<67_072_000), .flush,
                .writeSuperblock(expected, offset: 67_104_768), .flush,
            ])
    }

    @Test func `a log larger than create-md makes is refused`() throws {
        let location = try MetaLocation(
            placement: .internalData, deviceSize: 1 << 30, stripes: 1, stripeBlocks: 8193)
        #expect(throws: MetaDiskError.self) { try MetaCreation(location: location) }
    }

    @Test(arguments: [
        "new-internal-64m", "new-internal-1m", "new-internal-68k", "new-internal-odd-sectors",
        "new-internal-two-bitmap-blocks", "new-internal-striped", "new-flex-external",
        "new-indexed-slot1",
    ])
    func `new meta data is the tool's byte for byte`(name: String) throws {
        let fixture = try Fixture(name)
        let superblock = try fixture.image.superblock(fixture.placement)
        let location = try MetaLocation(
            placement: fixture.placement, deviceSize: fixture.image.size,
            stripes: superblock.stripes, stripeBlocks: superblock.stripeBlocks)
        var image = Image(size: fixture.image.size)
        image[location.superblockOffset] = [UInt8](repeating: 0x55, count: 4096)
        image[location.bitmapOffset] = [UInt8](repeating: 0x55, count: 4096)
        try MetaCreation(location: location).perform(on: &image)
        #expect(image == fixture.image)
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func `a crash while the log is applied loses no block`(seed: UInt64) throws {
        let fixture = try Fixture("crash-conn")
        var image = fixture.image
        let finished = try image.apply(.internalData)
        let size = finished.superblock.lastAgreedSize
        let location = try finished.superblock.validate(
            deviceSize: image.size, placement: .internalData)
        let count = Int(BitmapLayout.byteCount(sectors: size))
        let wanted = image[location.bitmapOffset, count: count]
        var source = RandomSource(seed: seed)
        for done in 0...image.operations.count {
            var crashed = Self.crash(fixture.image, after: image.operations[..<done], &source)
            _ = try crashed.apply(.internalData)
            // What is left of a log half initialised may well add older extents.
            let found = crashed[location.bitmapOffset, count: count]
            let isLost = zip(found, wanted).contains { $0 & $1 != $1 }
            #expect(!isLost, "after \(done) operations")
        }
    }

    @Test func `an extent behind the end is reported and skipped`() throws {
        var (image, location) = try Self.member(size: 1 << 26)
        var superblock = try image.superblock(.internalData)
        superblock.flags.insert(.primaryIndicator)
        superblock.isUnclean = true
        image.writeSuperblock(superblock, at: location.superblockOffset)
        image[location.bitmapOffset] = [UInt8](repeating: 0, count: 4096)
        image[location.logOffset] = LogTransactionTests.block(
            number: 0,
            updates: [LogUpdate(slot: 0, extent: 99), LogUpdate(slot: 1, extent: 1)],
            extents: [LogTransaction.freeExtent, LogTransaction.freeExtent])
        let applied = try image.apply(.internalData)
        #expect(applied.action == .marked(extents: [1]))
        #expect(applied.beyondEnd == [99])
        #expect(
            applied.messages == [
                "extent 99 beyond end of bitmap! (12672 >= 4096)",
                "Marked additional 4096 KB as out-of-sync based on AL.",
            ])
        #expect(image.bits(location, count: 16374) == [[1024, 2047]])
    }

    @Test func `bits behind the end do not survive`() throws {
        var (image, location) = try Self.member(size: 1 << 26)
        var superblock = try image.superblock(.internalData)
        superblock.flags.insert(.primaryIndicator)
        image.writeSuperblock(superblock, at: location.superblockOffset)
        image[location.bitmapOffset] = [UInt8](repeating: 0xFF, count: 4096)
        image[location.logOffset] = LogTransactionTests.block(
            number: 0, updates: [LogUpdate(slot: 0, extent: 15)],
            extents: [LogTransaction.freeExtent])
        let applied = try image.apply(.internalData)
        #expect(applied.newlySetBits == 0)
        #expect(image.bits(location, count: 32768) == [[0, 16373]])
    }
}

@Suite struct ForeignContentTests {
    static func detect(_ pieces: [(Int, [UInt8])]) -> ForeignContent? {
        var bytes = [UInt8](repeating: 0, count: ForeignContent.inspectedBytes)
        for (offset, piece) in pieces {
            bytes.replaceSubrange(offset..<offset + piece.count, with: piece)
        }
        return ForeignContent.detect(in: bytes.rawBytes)
    }

    @Test func `zeros are nothing`() {
        #expect(Self.detect([]) == nil)
    }

    @Test(arguments: [0, 4096, ForeignContent.inspectedBytes - 1])
    func `one byte is some data`(offset: Int) {
        #expect(Self.detect([(offset, [1])])?.kind == .unknown)
    }

    @Test(arguments: ["SWAP-SPACE", "SWAPSPACE2"], [4086, 8182])
    func `swap is found by its last bytes`(signature: String, offset: Int) {
        let found = Self.detect([(offset, Array(signature.utf8))])
        #expect(found?.kind == .swap)
        #expect(found?.usedBytes == nil)
        #expect(found?.name == "swap space signature")
    }

    @Test func `a physical volume is found by its label`() {
        #expect(Self.detect([(0x218, Array("LVM2".utf8))])?.kind == .physicalVolume)
    }

    @Test(
        arguments: [(0, .ext2), (4, .ext3), (0x44, .ext3), (3, .ext2)]
            as [(UInt8, ForeignContent.Kind)])
    func `ext with and without journal`(features: UInt8, kind: ForeignContent.Kind) {
        let found = Self.detect([
            (0x438, [0x53, 0xEF]), (0x45C, [features]), (0x404, [0, 0x40, 0, 0]),
            (0x418, [2]),
        ])
        #expect(found?.kind == kind)
        #expect(found?.usedBytes == 0x4000 * 4096)
    }

    @Test func `an impossible size is larger than every device`() {
        let found = Self.detect([
            (0x438, [0x53, 0xEF]), (0x404, [0xFF, 0xFF, 0xFF, 0xFF]), (0x418, [0xFF]),
        ])
        #expect(found?.usedBytes == .max)
    }

    @Test func `xfs, jfs and reiser say their size`() {
        let xfs = Self.detect([
            (0, Array("XFSB".utf8)), (4, [0, 0, 0x10, 0]), (8, [0, 0, 0, 0, 0, 0, 0x10, 0]),
        ])
        #expect(xfs?.kind == .xfs)
        #expect(xfs?.usedBytes == 16 << 20)
        let jfs = Self.detect([
            (0x8000, Array("JFS1".utf8)), (0x8008, [0, 0, 0x80]), (0x8018, [0, 2]),
        ])
        #expect(jfs?.kind == .jfs)
        #expect(jfs?.usedBytes == 4 << 30)
        let reiser = Self.detect([
            (0x10034, Array("ReIsEr2Fs".utf8)), (0x10000, [0, 0x10]), (0x1002C, [0, 0x10]),
        ])
        #expect(reiser?.kind == .reiser)
        #expect(reiser?.usedBytes == 16 << 20)
    }
}
