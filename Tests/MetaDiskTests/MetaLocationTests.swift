import MetaDisk
import Testing

/// The worked examples of drbd-metadata.md, section 2.2, and the limits of section 2.3.
@Suite struct MetaLocationTests {
    struct Example: Sendable {
        let device: UInt64
        var stripes: UInt32 = 1
        var stripeBlocks: UInt32 = 8
        let superblock: UInt64
        let log: UInt64
        let bitmap: UInt64
        let mdSize: UInt32
        let alOffset: Int32
        let bmOffset: Int32
        let capacity: UInt64
        let bits: UInt64
    }

    static func example(
        _ device: UInt64, _ superblock: UInt64, _ log: UInt64, _ bitmap: UInt64, _ mdSize: UInt32,
        _ bmOffset: Int32, _ capacity: UInt64, _ bits: UInt64
    ) -> Example {
        Example(
            device: device, superblock: superblock, log: log, bitmap: bitmap, mdSize: mdSize,
            alOffset: -64, bmOffset: bmOffset, capacity: capacity, bits: bits)
    }

    @Test(arguments: [
        example(69632, 65536, 32768, 28672, 80, -72, 56, 7),
        example(1_048_576, 1_044_480, 1_011_712, 1_007_616, 80, -72, 1968, 246),
        example(1_052_160, 1_044_480, 1_011_712, 1_007_616, 80, -72, 1968, 246),
        example(16_777_216, 16_773_120, 16_740_352, 16_736_256, 80, -72, 32688, 4086),
        example(67_108_864, 67_104_768, 67_072_000, 67_067_904, 80, -72, 130992, 16374),
        example(67_109_376, 67_104_768, 67_072_000, 67_067_904, 80, -72, 130992, 16374),
        example(134_217_728, 134_213_632, 134_180_864, 134_176_768, 80, -72, 262064, 32758),
        example(134_218_240, 134_213_632, 134_180_864, 134_172_672, 88, -80, 262056, 32757),
        example(
            1_073_741_824, 1_073_737_728, 1_073_704_960, 1_073_672_192, 136, -128, 2_097_016,
            262127),
        example(
            1_099_511_627_776, 1_099_511_623_680, 1_099_511_590_912, 1_099_478_036_480, 65608,
            -65600, 2_147_418_040, 268_427_255),
        example(
            17_592_186_044_416, 17_592_186_040_320, 17_592_186_007_552, 17_591_649_136_640,
            1_048_648, -1_048_640, 34_358_689_720, 4_294_836_215),
    ])
    func `internal meta data lies where the kernel puts it`(example: Example) throws {
        let location = try MetaLocation(placement: .internalData, deviceSize: example.device)
        #expect(location.superblockOffset == example.superblock)
        #expect(location.logOffset == example.log)
        #expect(location.bitmapOffset == example.bitmap)
        #expect(location.mdSizeSectors == example.mdSize)
        #expect(location.alOffset == example.alOffset)
        #expect(location.bmOffset == example.bmOffset)
        #expect(location.capacity == example.capacity)
        #expect(BitmapLayout.bitCount(sectors: location.capacity) == example.bits)
        #expect(BitmapLayout.byteCount(sectors: location.capacity) <= location.bitmapCapacityBytes)
    }

    @Test(
        arguments: [
            (1, 16, 144, -128, -136, 130928), (2, 4, 80, -64, -72, 130992),
            (4, 4, 144, -128, -136, 130928), (3, 9, 232, -216, -224, 130840),
            (4, 64, 2064, -2048, -2056, 129008),
        ] as [(UInt32, UInt32, UInt32, Int32, Int32, UInt64)])
    func `a larger log takes its space from the data`(
        stripes: UInt32, stripeBlocks: UInt32, mdSize: UInt32, alOffset: Int32, bmOffset: Int32,
        capacity: UInt64
    ) throws {
        let location = try MetaLocation(
            placement: .internalData, deviceSize: 67_109_376, stripes: stripes,
            stripeBlocks: stripeBlocks)
        #expect(location.mdSizeSectors == mdSize)
        #expect(location.alOffset == alOffset)
        #expect(location.bmOffset == bmOffset)
        #expect(location.capacity == capacity)
        #expect(location.logBlockCount == Int(stripes * stripeBlocks))
    }

    @Test func `a device of its own offers what its bitmap can describe`() throws {
        let small = try MetaLocation(placement: .flexExternal, deviceSize: 1 << 20)
        #expect(small.superblockOffset == 0)
        #expect(small.logOffset == 4096)
        #expect(small.bitmapOffset == 36864)
        #expect(small.mdSizeSectors == 2048)
        #expect(small.bitmapCapacityBytes == 1976 * 512)
        #expect(small.capacity(dataSectors: 40 << 21) == 64_749_568)
        let large = try MetaLocation(placement: .flexExternal, deviceSize: 2 << 20)
        #expect(large.capacity == 131_858_432)
        #expect(large.capacity(dataSectors: 40 << 21) == 83_886_080)
        #expect(large.capacity(dataSectors: 131_073) == 131_073)
    }

    @Test func `a slot lies at its multiple of 128 MiB`() throws {
        let location = try MetaLocation(placement: .indexed(1), deviceSize: 256 << 20)
        #expect(location.superblockOffset == 134_217_728)
        #expect(location.logOffset == 134_221_824)
        #expect(location.bitmapOffset == 134_254_592)
        #expect(location.mdSizeSectors == 262144)
        #expect(location.capacity(dataSectors: .max) == 8_587_575_296)
        #expect(location.capacity(dataSectors: 131_072) == 131_072)
    }

    @Test func `a device too small is refused with both sizes`() {
        #expect(throws: MetaDiskError.tooSmall(device: 69631, needed: 69632)) {
            try MetaLocation(placement: .internalData, deviceSize: 69631)
        }
        #expect(throws: MetaDiskError.tooSmall(device: 0, needed: 69632)) {
            try MetaLocation(placement: .flexExternal, deviceSize: 0)
        }
        let shaped = MetaDiskError.tooSmall(device: 1 << 20, needed: (65536 + 24) * 512)
        #expect(throws: shaped) {
            try MetaLocation(
                placement: .internalData, deviceSize: 1 << 20, stripes: 1, stripeBlocks: 8192)
        }
    }

    @Test func `the smallest device for a log leaves one block of data`() throws {
        let needed: UInt64 = (65536 + 24) * 512
        let location = try MetaLocation(
            placement: .internalData, deviceSize: needed, stripes: 1, stripeBlocks: 8192)
        #expect(location.capacity == 8)
    }

    @Test(
        arguments: [
            (.internalData, (1 << 50) + 512), (.flexExternal, 2 << 40), (.internalData, .max),
        ] as [(MetaLocation.Placement, UInt64)])
    func `a device that the format cannot describe is refused`(
        placement: MetaLocation.Placement, size: UInt64
    ) {
        #expect {
            try MetaLocation(placement: placement, deviceSize: size)
        } throws: { error in
            guard case .tooLarge(size, _) = error as? MetaDiskError else { return false }
            return true
        }
    }

    @Test func `a slot that does not exist or is cut off is refused`() {
        #expect(throws: MetaDiskError.slotOutOfRange(256)) {
            try MetaLocation(placement: .indexed(256), deviceSize: 1 << 40)
        }
        #expect(throws: MetaDiskError.slotOutOfRange(-1)) {
            try MetaLocation(placement: .indexed(-1), deviceSize: 1 << 40)
        }
        let cut = MetaDiskError.slotOutsideDevice(slot: 0, device: 40 << 20, needed: 128 << 20)
        #expect(throws: cut) {
            try MetaLocation(placement: .indexed(0), deviceSize: 40 << 20)
        }
    }

    @Test(arguments: [(1, 7), (0, 8), (8, 0), (4096, 4096), (.max, .max)] as [(UInt32, UInt32)])
    func `an impossible shape of the log is refused`(stripes: UInt32, stripeBlocks: UInt32) {
        #expect {
            try MetaLocation(
                placement: .internalData, deviceSize: 1 << 40, stripes: stripes,
                stripeBlocks: stripeBlocks)
        } throws: { error in
            guard case .logShape(stripes, stripeBlocks, _) = error as? MetaDiskError else {
                return false
            }
            return true
        }
    }

    @Test func `a kernel takes a slot only with the plain log, and no small device`() throws {
        func refusal(
            _ placement: MetaLocation.Placement, _ size: UInt64, _ stripes: UInt32 = 1,
            _ blocks: UInt32 = 8
        ) throws -> String? {
            try MetaLocation(
                placement: placement, deviceSize: size, stripes: stripes, stripeBlocks: blocks
            ).kernelRefusal
        }
        #expect(try refusal(.indexed(0), 1 << 30) == nil)
        #expect(try refusal(.indexed(0), 1 << 30, 2, 4)?.contains("1 stripe of 32 KiB") == true)
        #expect(try refusal(.flexExternal, 1 << 30, 2, 4) == nil)
        #expect(try refusal(.internalData, 1 << 20) == nil)
        #expect(try refusal(.internalData, (1 << 20) - 512)?.contains("1048576 bytes") == true)
    }

    @Test func `a slot has to have room for log and bitmap`() throws {
        let most = try MetaLocation(
            placement: .indexed(0), deviceSize: 1 << 30, stripes: 1, stripeBlocks: 32766)
        #expect(most.bitmapCapacityBytes == 4096)
        #expect(throws: MetaDiskError.self) {
            try MetaLocation(
                placement: .indexed(0), deviceSize: 1 << 30, stripes: 1, stripeBlocks: 32767)
        }
    }
}

@Suite struct BitmapLayoutTests {
    @Test(
        arguments: [
            (0, 0, 0, 0, 0), (1, 1, 1, 4096, 1), (8, 1, 1, 4096, 1),
            (131_073, 16385, 257, 4096, 17),
            (262_144, 32768, 512, 4096, 32), (262_145, 32769, 513, 8192, 33),
            (1 << 41, 1 << 38, 1 << 32, 1 << 35, 1 << 28),
        ] as [(UInt64, UInt64, UInt64, UInt64, UInt64)])
    func `sizes in use`(
        sectors: UInt64, bits: UInt64, words: UInt64, bytes: UInt64, extents: UInt64
    ) {
        #expect(BitmapLayout.bitCount(sectors: sectors) == bits)
        #expect(BitmapLayout.wordCount(sectors: sectors) == words)
        #expect(BitmapLayout.byteCount(sectors: sectors) == bytes)
        #expect(BitmapLayout.extentCount(sectors: sectors) == extents)
    }

    @Test func `the largest count does not overflow`() {
        #expect(BitmapLayout.bitCount(sectors: .max) == 1 << 61)
    }

    @Test func `setting touches partial blocks, clearing leaves them`() {
        #expect(BitmapLayout.blocks(touchedBy: 7..<9) == 0..<2)
        #expect(BitmapLayout.blocks(touchedBy: 8..<16) == 1..<2)
        #expect(BitmapLayout.blocks(touchedBy: 9..<9).isEmpty)
        #expect(BitmapLayout.blocks(coveredBy: 7..<9, size: 1000).isEmpty)
        #expect(BitmapLayout.blocks(coveredBy: 7..<16, size: 1000) == 1..<2)
        #expect(BitmapLayout.blocks(coveredBy: 8..<17, size: 1000) == 1..<2)
    }

    @Test func `the tail block of a volume counts as whole`() {
        #expect(BitmapLayout.blocks(coveredBy: 8..<17, size: 17) == 1..<3)
        #expect(BitmapLayout.blocks(coveredBy: 17..<18, size: 18).isEmpty)
    }

    @Test func `blocks, extents and pages of a sector`() {
        let block = BlockIndex(sector: 262_144 + 8192 + 9)
        #expect(block == BlockIndex(33793))
        #expect(block.extent == ExtentIndex(33))
        #expect(block.page == 1)
        #expect(block.firstSector == 270_344)
        #expect(ExtentIndex(sector: 8191) == ExtentIndex(0))
        #expect(ExtentIndex(33).page == 1)
        #expect(ExtentIndex(33).firstBlock == BlockIndex(33792))
    }

    @Test func `the bits of an extent end with the volume`() {
        #expect(BitmapLayout.bits(of: ExtentIndex(1), bitCount: 5000) == 1024..<2048)
        #expect(BitmapLayout.bits(of: ExtentIndex(4), bitCount: 5000) == 4096..<5000)
        #expect(BitmapLayout.bits(of: ExtentIndex(5), bitCount: 5000).isEmpty)
        #expect(BitmapLayout.bits(of: .free, bitCount: 5000).isEmpty)
    }
}
