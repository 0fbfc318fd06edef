import MetaDisk
import Support
import Testing

/// Golden images made by drbdmeta and by a Linux kernel.
@Suite struct FixtureTests {
    @Test func `every golden image is there`() {
        #expect(Fixture.valid.count == 42)
        #expect(Fixture.refused.count == 8)
    }

    @Test(arguments: Fixture.valid)
    func `the dump is the tool's but for the flags`(name: String) throws {
        let fixture = try Fixture(name)
        let flags = try fixture.image.superblock(fixture.placement).flags
        let recorded = try fixture.recordedDump("dump-md.txt", flags: flags)
        #expect(try fixture.image.dump(fixture.placement) == recorded)
    }

    @Test(arguments: Fixture.valid)
    func `a super block is written as it was read`(name: String) throws {
        let fixture = try Fixture(name)
        let superblock = try fixture.image.superblock(fixture.placement)
        var bytes = [UInt8](repeating: 0xAA, count: Superblock.encodedSize)
        bytes.withMutableRawBytes { superblock.encode(into: &$0) }
        let offsets = try #require(fixture.expected.offsets)
        #expect(bytes == fixture.image[offsets.superblock])
    }

    @Test(arguments: Fixture.valid)
    func `everything lies where the reference says`(name: String) throws {
        let fixture = try Fixture(name)
        let superblock = try fixture.image.superblock(fixture.placement)
        let location = try superblock.locate(
            deviceSize: fixture.image.size, placement: fixture.placement)
        let expected = try #require(fixture.expected.offsets)
        #expect(location.superblockOffset == expected.superblock)
        #expect(location.logOffset == expected.activity_log)
        #expect(location.bitmapOffset == expected.bitmap)
        #expect(location.capacity == expected.max_usable_sectors)
        let size = min(superblock.lastAgreedSize, location.capacity)
        #expect(BitmapLayout.byteCount(sectors: size) == expected.bitmap_bytes)
        #expect(BitmapLayout.bitCount(sectors: size) == fixture.expected.bits)
        let bits = fixture.image.bits(location, count: BitmapLayout.bitCount(sectors: size))
        #expect(bits == fixture.expected.bits_set_on_disk)
    }

    @Test(arguments: Fixture.valid)
    func `get-gi and dstate say what the tool says`(name: String) throws {
        let fixture = try Fixture(name)
        let superblock = try fixture.image.superblock(fixture.placement)
        #expect(superblock.generationLine == fixture.expected.get_gi?.stdout.last)
        #expect(superblock.diskStateWord == fixture.expected.dstate?.stdout.last)
    }

    @Test(arguments: Fixture.valid)
    func `the hot extents are the reference's`(name: String) throws {
        let fixture = try Fixture(name)
        let recovery = try fixture.recovery()
        let hot = try #require(fixture.expected.al).hot_extents
        switch recovery.result() {
        case .hot(let extents): #expect(extents == hot)
        case .nothingHot: #expect(hot == [])
        case .unusable: #expect(["bad-al-all", "bad-al-init-half"].contains(name))
        }
    }

    /// Where a log is not to be believed the tool refuses or guesses, and we set every bit.
    static let fullSync: Set = [
        "bad-al-all", "bad-al-init-half", "bad-al-middle-crc", "crash-noal",
    ]

    @Test(arguments: Fixture.valid.filter { $0 != "bad-la-size-too-big" })
    func `applying the log leaves the bits and flags that the tool leaves`(name: String) throws {
        let fixture = try Fixture(name)
        var image = fixture.image
        let superblock = try image.superblock(fixture.placement)
        let location = try superblock.validate(
            deviceSize: image.size, placement: fixture.placement)
        let applied = LogApplication.apply(
            to: &image, superblock: superblock, location: location)
        let expected = try #require(fixture.expected.apply_al)
        #expect(try image.superblock(fixture.placement) == applied.superblock)
        let bitCount = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        let bits = image.bits(location, count: bitCount)
        if Self.fullSync.contains(name) {
            #expect(bits == [[0, bitCount - 1]])
            #expect(applied.superblock.flags == superblock.flags.union(.logClean))
            return
        }
        #expect(bits == expected.bits_set_after)
        #expect(hexadecimal(applied.superblock.flags.rawValue) == expected.flags_after)
        #expect(!applied.superblock.isUnclean)
        #expect(!applied.superblock.needsLogApplied)
    }

    @Test(arguments: Fixture.valid.filter { $0 != "bad-la-size-too-big" })
    func `applying the log twice changes nothing more`(name: String) throws {
        let fixture = try Fixture(name)
        var image = fixture.image
        let first = try image.apply(fixture.placement)
        var again = image.quiet
        let second = try again.apply(fixture.placement)
        #expect(again == image)
        #expect(second.newlySetBits == 0)
        #expect(second.superblock == first.superblock)
        let isDisabled = first.superblock.flags.contains([.primaryIndicator, .logDisabled])
        #expect(again.operations == (isDisabled ? [.flush] : []))
    }

    /// Here the last hot extent reaches over the end: the tool sets bits that do not exist, or
    /// leaves those that it finds.
    static let surplus: Set = [
        "crash-al1237", "crash-conn", "crash-disc", "crash-diskless", "crash-striped",
        "live-al-restriped-online",
    ]

    @Test(arguments: Fixture.valid.filter { $0 != "bad-la-size-too-big" && !fullSync.contains($0) })
    func `after apply-al the dump and the messages are the tool's`(name: String) throws {
        let fixture = try Fixture(name)
        var image = fixture.image
        let applied = try image.apply(fixture.placement)
        let recorded = try fixture.recordedDump(
            "dump-md.after-apply-al.txt", flags: applied.superblock.flags)
        let messages = fixture.expected.apply_al?.stderr
        if Self.surplus.contains(name) {
            #expect(try image.dump(fixture.placement) != recorded)
        } else {
            #expect(try image.dump(fixture.placement) == recorded)
            #expect(applied.messages == messages)
        }
    }

    @Test(arguments: ["crash-disc", "crash-conn"])
    func `every block that differs from the peer is a bit or in a hot extent`(
        name: String
    ) throws {
        let fixture = try Fixture(name)
        var image = fixture.image
        let applied = try image.apply(fixture.placement)
        let location = try applied.superblock.validate(
            deviceSize: image.size, placement: fixture.placement)
        let bytes = image[
            location.bitmapOffset,
            count: Int(BitmapLayout.byteCount(sectors: applied.superblock.lastAgreedSize))]
        let differing = try #require(fixture.expected.blocks_differing_from_peer)
        #expect(!differing.isEmpty)
        for block in differing.flatMap({ $0[0]...$0[1] }) {
            #expect(bytes[Int(block / 8)] >> (block % 8) & 1 == 1, "block \(block)")
        }
    }

    @Test(arguments: Fixture.refused)
    func `a damaged super block is refused`(name: String) throws {
        let fixture = try Fixture(name)
        #expect(throws: MetaDiskError.self) {
            let superblock = try fixture.image.superblock(fixture.placement)
            _ = try superblock.validate(
                deviceSize: fixture.image.size, placement: fixture.placement)
        }
    }

    @Test(arguments: ["bad-bm-bytes-per-bit", "bad-la-size-too-big"])
    func `what the tool trips over or clips is refused`(name: String) throws {
        let fixture = try Fixture(name)
        let superblock = try fixture.image.superblock(fixture.placement)
        #expect(throws: MetaDiskError.self) {
            try superblock.validate(deviceSize: fixture.image.size, placement: fixture.placement)
        }
    }

    @Test func `the place that only v07 had is looked at, too`() throws {
        let image = try Fixture("v07-fixed-internal").image
        #expect(throws: MetaDiskError.noSuperblock(magic: 0)) {
            try image.superblock(.internalData)
        }
        let offset = try #require(
            MetaLocation.fixedInternalOffset(
                placement: .internalData, deviceSize: image.size))
        #expect(offset == 32 << 20)
        #expect(Superblock.olderFormat(image[offset].rawBytes) == "v07")
        #expect(Superblock.olderFormat(image[0].rawBytes) == nil)
        for size in [1 << 20, 128 << 20, (128 << 20) + 4095] as [UInt64] {
            #expect(
                MetaLocation.fixedInternalOffset(placement: .internalData, deviceSize: size)
                    == nil)
        }
        #expect(
            MetaLocation.fixedInternalOffset(placement: .flexExternal, deviceSize: 1 << 40)
                == nil)
    }

    @Test(arguments: [
        ("v07-flex-internal", "v07"), ("v09-internal-2peers", "v09"),
        ("v09-internal-3peers-dirty", "v09"),
    ])
    func `other formats are called by their names`(name: String, format: String) throws {
        let fixture = try Fixture(name)
        #expect(throws: MetaDiskError.otherFormat(format)) {
            try fixture.image.superblock(.internalData)
        }
    }
}

extension Image {
    mutating func apply(_ placement: MetaLocation.Placement) throws -> LogApplication {
        let superblock = try superblock(placement)
        let location = try superblock.validate(deviceSize: size, placement: placement)
        return LogApplication.apply(to: &self, superblock: superblock, location: location)
    }
}

extension Fixture {
    func recovery() throws -> LogRecovery {
        let superblock = try image.superblock(placement)
        let location = try superblock.locate(deviceSize: image.size, placement: placement)
        var recovery = LogRecovery(superblock: superblock)
        for index in 0..<location.logBlockCount {
            let block = image[location.logOffset + UInt64(4096 * index)]
            recovery.add(block: block.rawBytes, at: index)
        }
        return recovery
    }
}
