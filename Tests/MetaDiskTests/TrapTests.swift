import MetaDisk
import Support
import Testing

/// What drbdmeta and a kernel do, and we do not: the traps of drbd-metadata.md, section 16, as far as
/// they are about bytes on the disk. The others: AttachTests, CreationCommandTests, OfflineCommandTests
/// and Tests/scenarios.
@Suite struct TrapTests {
    /// Used meta data of a disk that later grew: bits in every page, log full of transactions.
    static func grown(
        from old: UInt64, to new: UInt64
    ) throws -> (image: Image, superblock: Superblock, location: MetaLocation) {
        let location = try MetaLocation(placement: .internalData, deviceSize: old)
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = location.capacity - 24
        superblock.uuids = GenerationUUIDs(current: 11, bitmap: 22, history0: 33, history1: 44)
        superblock.flags = [.consistent, .wasUpToDate, .logClean]
        superblock.deviceUUID = 99
        var image = Image(size: new)
        image.writeSuperblock(superblock, at: location.superblockOffset)
        for page in 0..<BitmapLayout.pageCount(sectors: superblock.lastAgreedSize) {
            var bytes = [UInt8](repeating: 0, count: 4096)
            bytes[Int(page % 7)] = UInt8(1 + page % 255)
            image[location.bitmapOffset + page * 4096] = bytes
        }
        image[location.logOffset] = LogTransactionTests.block(
            number: 7, updates: [LogUpdate(slot: 0, extent: 1)],
            extents: [LogTransaction.freeExtent])
        return (image.quiet, superblock, location)
    }

    private static let mebibyte: UInt64 = 1 << 20
    private static let gibibyte: UInt64 = 1 << 30

    /// Far, near with overlap, near without a change of the super block's place, with many pages.
    static let growths: [(old: UInt64, new: UInt64)] = [
        (64 * mebibyte, 320 * mebibyte), (64 * mebibyte, 64 * mebibyte + 4096),
        (64 * mebibyte, 64 * mebibyte + 20480), (64 * mebibyte, 64 * mebibyte + 512),
        (120 * mebibyte, 200 * mebibyte), (40 * gibibyte, 41 * gibibyte),
        (40 * gibibyte, 40 * gibibyte + mebibyte),
    ]

    @Test(arguments: growths[..<3], 0..<6 as Range<UInt64>)
    func `T1: a crash while they move loses no bit`(
        sizes: (old: UInt64, new: UInt64), seed: UInt64
    ) throws {
        let (start, superblock, before) = try Self.grown(from: sizes.old, to: sizes.new)
        let count = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        let bits = start.bits(before, count: count)
        var image = start
        try MetaRelocation(superblock, from: before, deviceSize: sizes.new).perform(on: &image)
        var random = RandomSource(seed: seed)
        for done in 0...image.operations.count {
            let crashed = CreationTests.crash(start, after: image.operations[..<done], &random)
            if let found = try? crashed.superblock(.internalData) {
                if found.flags.contains(.fullSync) { continue }
                let place = try found.validate(deviceSize: sizes.new, placement: .internalData)
                #expect(crashed.bits(place, count: count) == bits, "after \(done)")
            } else {
                let old = try Superblock(decoding: crashed[before.superblockOffset].rawBytes)
                #expect(old == superblock)
                #expect(crashed.bits(before, count: count) == bits, "after \(done)")
            }
        }
    }

    @Test func `T1: meta data that would not leave room for the data in use stay where they are`()
        throws
    {
        var (_, superblock, before) = try Self.grown(from: 128 << 20, to: (128 << 20) + 512)
        superblock.lastAgreedSize = before.capacity
        #expect(throws: MetaDiskError.self) {
            try MetaRelocation(superblock, from: before, deviceSize: (128 << 20) + 512)
        }
    }

    @Test(
        arguments: [
            (MetaLocation.Placement.flexExternal, 1 << 20), (.flexExternal, (2 << 20) + 512),
            (.indexed(0), 128 << 20), (.indexed(3), 640 << 20),
        ] as [(MetaLocation.Placement, UInt64)])
    func `T3: no stale bit is left in external meta data`(
        placement: MetaLocation.Placement, size: UInt64
    ) throws {
        var image = Image(size: size)
        let location = try MetaLocation(placement: placement, deviceSize: size)
        let end = location.bitmapOffset + location.bitmapCapacityBytes
        let garbage = [UInt8](repeating: 0xEE, count: 512)
        for offset in stride(from: location.bitmapOffset, to: end - 511, by: 65536) {
            image[offset] = garbage
        }
        image[end - 512] = garbage
        if end < size { image[end] = garbage }
        try MetaCreation(location: location).perform(on: &image)
        for offset in stride(from: location.bitmapOffset, to: end - 511, by: 65536) {
            #expect(image[offset, count: 512].allSatisfy { $0 == 0 })
        }
        #expect(image[end - 512, count: 512].allSatisfy { $0 == 0 })
        if end < size { #expect(image[end, count: 512] == garbage, "not ours any more") }
    }

    @Test func `T3: an indexed device may be larger than 4 TiB`() throws {
        let size: UInt64 = 5 << 40
        var image = Image(size: size)
        let location = try MetaLocation(placement: .indexed(255), deviceSize: size)
        try MetaCreation(location: location).perform(on: &image)
        let found = try image.superblock(.indexed(255))
        #expect(try found.validate(deviceSize: size, placement: .indexed(255)) == location)
    }

    @Test(arguments: [0x91, 0x80, 0x17, 0x4051] as [UInt32])
    func `T5: a dump has the flags, and a restored disk has them again`(flags: UInt32) throws {
        var image = Image(size: 1 << 26)
        let location = try MetaLocation(placement: .internalData, deviceSize: image.size)
        var superblock = Superblock.fresh(location: location)
        superblock.flags = MetaFlags(rawValue: flags | 0x80)
        image.writeSuperblock(superblock, at: location.superblockOffset)
        let text = try image.dump(.internalData)
        #expect(text.contains("    flags \(hexadecimal(flags | 0x80));\n"))
        var copy = Image(size: 1 << 26)
        _ = try RestorationTests.restore(text, to: &copy)
        #expect(try copy.superblock(.internalData).flags.rawValue == flags | 0x80)
    }

    @Test func `T6: a ring over the sign change is read in its order`() throws {
        // Numbers 0x7FFFFFFC to 0x80000003: by plain comparison the newest would be the oldest.
        var writer = LogRecoveryTests.Writer(slots: 67, number: 0x7FFF_FFFC)
        for extent in 0..<8 as Range<UInt32> { writer.write([LogUpdate(slot: 5, extent: extent)]) }
        #expect(writer.recovery.result() == .hot([7]))
        #expect(writer.recovery.newestTransaction == 0x8000_0003)
    }

    @Test func `T11: apply-al flushes between bits, log and super block`() throws {
        var image = try Fixture("crash-few").image
        let superblock = try image.superblock(.internalData)
        let place = try superblock.validate(deviceSize: image.size, placement: .internalData)
        _ = try image.apply(.internalData)
        var parts: [String] = []
        for operation in image.operations {
            let part =
                switch operation {
                case .flush: "flush"
                case .zero: "zero"
                case .write(place.superblockOffset, _): "super block"
                case .write(let offset, _) where offset >= place.logOffset: "log"
                case .write: "bits"
                }
            if parts.last != part { parts.append(part) }
        }
        #expect(parts == ["bits", "flush", "log", "flush", "super block", "flush"])
    }

    @Test func `T12: a clean magic does not hide what is hot`() throws {
        var image = try Fixture("ok-clean-but-primary").image
        let applied = try image.apply(.internalData)
        #expect(applied.newlySetBits > 0)
    }

    @Test func `T14: the number of set bits does not wrap`() throws {
        let size: UInt64 = 17 << 40
        let location = try MetaLocation(placement: .internalData, deviceSize: size)
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = location.capacity
        var dump = MetaDump(superblock: superblock, location: location)
        let ones = [UInt8](repeating: 0xFF, count: MetaDump.chunkBytes)
        var left = dump.bitmapBytes
        var text: [UInt8] = []
        while left > 0 {
            let count = Int(min(UInt64(ones.count), left))
            dump.add(bitmap: ones.rawBytes.extracting(0..<count), to: &text)
            left -= UInt64(count)
        }
        let bits = dump.bitmapBytes * 8
        try #require(bits > 1 << 32)
        #expect(String(decoding: dump.closing(), as: UTF8.self) == "\n}\n# bits-set \(bits);\n")
    }

    @Test func `T15: one sector above a multiple of 128 MiB costs 8, which is the format's`() throws
    {
        let even = try MetaLocation(placement: .internalData, deviceSize: 128 << 20)
        let odd = try MetaLocation(placement: .internalData, deviceSize: (128 << 20) + 512)
        #expect(even.capacity == 262064 && odd.capacity == 262056)
        // A volume that uses all of the first does not fit on the second, and is not cut silently.
        var superblock = Superblock.fresh(location: odd)
        superblock.lastAgreedSize = even.capacity
        #expect(throws: MetaDiskError.shrunk(lastAgreedSize: 262064, capacity: 262056)) {
            try superblock.validate(deviceSize: (128 << 20) + 512, placement: .internalData)
        }
    }

    @Test func `T16: a bitmap offset that is too low is refused, not moved`() throws {
        let location = try MetaLocation(placement: .internalData, deviceSize: 1 << 26)
        var superblock = Superblock.fresh(location: location)
        superblock.bmOffset -= 8
        superblock.mdSizeSectors += 8
        #expect(throws: MetaDiskError.badField(name: "bm_offset", found: -80, expected: -72)) {
            try superblock.validate(deviceSize: 1 << 26, placement: .internalData)
        }
    }
}
