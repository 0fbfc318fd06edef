import MetaDisk
import Support
import Testing

@Suite struct SuperblockTests {
    static func fresh(
        _ placement: MetaLocation.Placement = .internalData, size: UInt64 = 1 << 26,
        _ change: (inout Superblock) -> Void = { _ in }
    ) throws -> Superblock {
        let location = try MetaLocation(placement: placement, deviceSize: size)
        var superblock = Superblock.fresh(location: location)
        change(&superblock)
        return superblock
    }

    static func encode(_ superblock: Superblock) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xAA, count: Superblock.encodedSize)
        bytes.withMutableRawBytes { superblock.encode(into: &$0) }
        return bytes
    }

    /// Every field has its own value, in the order of the layout.
    static let everyField: [UInt8] =
        [
            0, 0, 0, 0, 0, 1, 0xFF, 0xB0,  // last agreed size
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
            0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
            0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
            0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
            0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,  // device UUID
            0, 0, 0, 0, 0, 0, 0, 0,
            0x80, 0x00, 0x02, 0x13,  // flags, unknown ones among them
            0x83, 0x74, 0x02, 0x6C,
            0x00, 0x00, 0x00, 0x50,
            0xFF, 0xFF, 0xFF, 0xC0,
            0x00, 0x00, 0x04, 0xD5,
            0xFF, 0xFF, 0xFF, 0xB8,
            0x00, 0x00, 0x10, 0x00,
            0x00, 0x10, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x01,
            0x00, 0x00, 0x00, 0x08,
        ] + [UInt8](repeating: 0, count: 4000)

    @Test func `every field is where the reference says, unknown flags are kept`() throws {
        let superblock = try Superblock(decoding: Self.everyField.rawBytes)
        #expect(superblock.lastAgreedSize == 130992)
        #expect(superblock.uuids.current == 0x1112_1314_1516_1718)
        #expect(superblock.uuids.bitmap == 0x2122_2324_2526_2728)
        #expect(superblock.uuids.history0 == 0x3132_3334_3536_3738)
        #expect(superblock.uuids.history1 == 0x4142_4344_4546_4748)
        #expect(superblock.deviceUUID == 0x5152_5354_5556_5758)
        #expect(superblock.flags.rawValue == 0x8000_0213)
        #expect(superblock.flags.contains([.consistent, .primaryIndicator, .wasUpToDate]))
        #expect(superblock.isUnclean)
        #expect(superblock.mdSizeSectors == 80)
        #expect(superblock.alOffset == -64)
        #expect(superblock.logExtents == 1237)
        #expect(superblock.bmOffset == -72)
        #expect(superblock.bytesPerBit == 4096)
        #expect(superblock.peerMaximumRequest == 1 << 20)
        #expect(superblock.stripes == 1)
        #expect(superblock.stripeBlocks == 8)
        #expect(Self.encode(superblock) == Self.everyField)
    }

    @Test func `the clean magic differs only there`() throws {
        var superblock = try Superblock(decoding: Self.everyField.rawBytes)
        superblock.isUnclean = false
        var expected = Self.everyField
        expected[63] = 0x6B
        #expect(Self.encode(superblock) == expected)
    }

    @Test(
        arguments: [
            (60, 0x8374_026A, .otherFormat("v07")), (60, 0x8374_026D, .otherFormat("v09")),
            (60, 0x8374_0269, .otherFormat("v06")), (28, 0x8374_026A, .otherFormat("v07")),
            (60, 0xC374_026C, .noSuperblock(magic: 0xC374_026C)),
        ] as [(Int, UInt32, MetaDiskError)])
    func `what is no v08 super block is refused by its name`(
        offset: Int, magic: UInt32, error: MetaDiskError
    ) {
        var bytes = [UInt8](repeating: 0, count: 4096)
        bytes.withMutableRawBytes { $0[Field<UInt32>(at: offset)] = magic }
        #expect(throws: error) { try Superblock(decoding: bytes.rawBytes) }
    }

    @Test func `a block of another size is refused`() {
        let bytes = [UInt8](repeating: 0, count: 512)
        #expect(throws: MetaDiskError.wrongSize(512)) {
            try Superblock(decoding: bytes.rawBytes)
        }
    }

    @Test func `fresh meta data is valid at its place`() throws {
        for placement in [MetaLocation.Placement.internalData, .flexExternal, .indexed(1)] {
            let location = try MetaLocation(placement: placement, deviceSize: 1 << 28)
            let superblock = Superblock.fresh(location: location)
            #expect(
                try superblock.validate(deviceSize: 1 << 28, placement: placement) == location)
        }
    }

    static let damages: [@Sendable (inout Superblock) -> Void] = [
        { $0.mdSizeSectors += 8 }, { $0.alOffset -= 8 }, { $0.alOffset = 64 },
        { $0.bmOffset -= 8 }, { $0.bmOffset += 8 }, { $0.bytesPerBit = 8192 },
        { $0.bytesPerBit = 0 }, { $0.stripes = 0 }, { $0.stripeBlocks = 0 },
        { $0.stripes = 2 }, { $0.stripeBlocks = 7 }, { $0.stripes = .max },
        { $0.lastAgreedSize = 130993 }, { $0.lastAgreedSize = .max },
    ]

    @Test(arguments: damages.indices)
    func `a field that contradicts the device is refused`(index: Int) throws {
        let superblock = try Self.fresh { Self.damages[index](&$0) }
        #expect(throws: MetaDiskError.self) {
            try superblock.validate(deviceSize: 1 << 26, placement: .internalData)
        }
    }

    @Test func `the last agreed size may be all there is`() throws {
        let superblock = try Self.fresh { $0.lastAgreedSize = 130992 }
        #expect(throws: Never.self) {
            try superblock.validate(deviceSize: 1 << 26, placement: .internalData)
        }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func `nonsense behind a right magic is refused without harm`(seed: UInt64) throws {
        var source = RandomSource(seed: seed)
        var bytes = (0..<4096).map { _ in UInt8(truncatingIfNeeded: source.next()) }
        bytes.replaceSubrange(60..<64, with: [0x83, 0x74, 0x02, 0x6B])
        // Past the first check, so that the others are reached.
        bytes.replaceSubrange(80..<84, with: [0, 0, 0x10, 0])
        let superblock = try Superblock(decoding: bytes.rawBytes)
        for placement in [MetaLocation.Placement.internalData, .flexExternal, .indexed(3)] {
            for size in [0, 69632, 1 << 30, 1 << 50, UInt64.max] {
                #expect(throws: MetaDiskError.self) {
                    try superblock.validate(deviceSize: size, placement: placement)
                }
            }
        }
        #expect(superblock.generationText.hasSuffix("\n"))
    }

    @Test func `both stripe fields 0 mean 1 of 8`() throws {
        let superblock = try Self.fresh {
            $0.stripes = 0
            $0.stripeBlocks = 0
        }
        let location = try superblock.validate(deviceSize: 1 << 26, placement: .internalData)
        #expect(location.logBlockCount == 8)
        #expect(superblock.effectiveStripes == 1)
        #expect(superblock.effectiveStripeBlocks == 8)
        #expect(Self.encode(superblock)[88..<96].allSatisfy { $0 == 0 })
    }

    @Test func `meta data on its own device may record less than that has now, not more`() throws {
        let superblock = try Self.fresh(.flexExternal, size: 1 << 20)
        let grown = try superblock.validate(deviceSize: 2 << 20, placement: .flexExternal)
        #expect(grown.capacity == 64_749_568)
        #expect(grown.bitmapCapacityBytes == 1976 * 512)
        let error = MetaDiskError.badField(name: "md_size_sect", found: 2048, expected: 2040)
        #expect(throws: error) {
            try superblock.validate(deviceSize: 2040 * 512, placement: .flexExternal)
        }
    }

    @Test func `a last page of bitmap that reaches over the end is refused`() throws {
        let size: UInt64 = (1 << 20) + 512
        let superblock = try Self.fresh(.flexExternal, size: size) {
            $0.lastAgreedSize = 64_749_568 + 1
        }
        let error = MetaDiskError.bitmapTooSmall(needed: 248 * 4096, available: 1977 * 512)
        #expect(throws: error) {
            try superblock.validate(deviceSize: size, placement: .flexExternal)
        }
    }

    @Test func `a dump does not read a last page that reaches over the end`() throws {
        let size: UInt64 = (1 << 20) + 512
        let superblock = try Self.fresh(.flexExternal, size: size) {
            $0.lastAgreedSize = 64_749_568 + 1
        }
        let location = try superblock.locate(deviceSize: size, placement: .flexExternal)
        let dump = MetaDump(superblock: superblock, location: location)
        #expect(dump.bitmapBytes == 247 * 4096)
        let text = String(decoding: dump.opening(header: []), as: UTF8.self)
        #expect(
            text.hasPrefix("# la-size-sect was too big (64749569), truncated (64749568)!\n"))
    }

    @Test func `a recorded size without room for a bitmap is refused`() throws {
        let superblock = try Self.fresh(.flexExternal) { $0.mdSizeSectors = 72 }
        #expect(throws: MetaDiskError.badField(name: "md_size_sect", found: 72, expected: 80)) {
            try superblock.validate(deviceSize: 1 << 26, placement: .flexExternal)
        }
    }

    @Test(
        arguments: [
            .tooSmall(device: 1, needed: 69632), .tooLarge(device: 2, limit: 1),
            .slotOutsideDevice(slot: 1, device: 2, needed: 3), .slotOutOfRange(256),
            .logShape(stripes: 0, stripeBlocks: 8, reason: "one of the two is 0"), .wrongSize(1),
            .noSuperblock(magic: 0), .otherFormat("v07"), .otherFormat("v09"),
            .badField(name: "al_offset", found: -72, expected: -64),
            .shrunk(lastAgreedSize: 2, capacity: 1), .bitmapTooSmall(needed: 2, available: 1),
        ] as [MetaDiskError])
    func `a message is one line in lower case without a full stop`(error: MetaDiskError) throws {
        let text = error.description
        #expect(!text.contains("\n"))
        #expect(text.last != ".")
        #expect(try #require(text.first).isLowercase)
    }
}

@Suite struct GenerationTextTests {
    static let legend = """

               +--<  Current data generation UUID  >-
               |               +--<  Bitmap's base data generation UUID  >-
               |               |                 +--<  younger history UUID  >-
               |               |                 |         +-<  older history  >-
               V               V                 V         V

        """

    /// As recorded of drbdmeta 9.22.0.
    @Test func `show-gi of a crashed Primary is the tool's`() throws {
        let superblock = try SuperblockTests.fresh {
            $0.uuids = GenerationUUIDs(
                current: 0xAAAA_0000_0000_0001, bitmap: 0xBBBB_0000_0000_0000, history0: 0,
                history1: 0)
            $0.flags = [
                .consistent, .wasUpToDate, .primaryIndicator, .fullSync, .peerOutdated,
                .crashedPrimary, .logClean,
            ]
        }
        let line =
            "AAAA000000000001:BBBB000000000000:0000000000000000:0000000000000000:1:1:1:0:1:1:1"
        #expect(superblock.generationLine == line)
        let text = superblock.generationText
        let legend = Self.legend.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(text.hasPrefix(legend.joined(separator: "\n") + line + "\n"))
        #expect(
            text.hasSuffix(
                """

                flags: crashed Primary, StandAlone, UpToDate, need full sync, peer Outdated
                meta-data: clean
                zero size device -- never seen peer yet?

                """))
    }

    @Test func `show-gi of unclean meta data tells the way on`() throws {
        let superblock = try SuperblockTests.fresh {
            $0.flags = [.consistent, .wasUpToDate, .primaryIndicator, .connectedIndicator]
            $0.lastAgreedSize = 130928
        }
        #expect(
            superblock.generationText.hasSuffix(
                """

                flags: Primary, Connected, UpToDate
                meta-data: need apply-al
                last agreed size: 64 MB (130928 sectors)
                last agreed max bio size: 0 Byte

                """))
    }

    @Test(
        arguments: [
            (0x80, "Inconsistent"), (0x91, "Consistent"), (0x81, "Outdated"), (0xB1, "UpToDate"),
        ] as [(UInt32, String)])
    func `the disk state follows from the flags`(flags: UInt32, word: String) throws {
        let superblock = try SuperblockTests.fresh { $0.flags = MetaFlags(rawValue: flags) }
        #expect(superblock.diskStateWord == word)
    }

    @Test(
        arguments: [
            (0, "0 KB"), (4, "4 KB"), (8192, "8192 KB"), (9999, "9999 KB"), (10000, "10 MB"),
            (65464, "64 MB"), (65496, "64 MB"), (60 * 1024, "60 MB"), (10_000_000, "9766 MB"),
            (1 << 40, "1024 TB"), (1 << 62, "4096 EB"),
        ] as [(UInt64, String)])
    func `sizes are as the tool rounds them`(kibibytes: UInt64, text: String) {
        #expect(prettySize(kibibytes: kibibytes) == text)
    }
}
