import Foundation
import MetaDisk
import Support
import Testing

/// Against the installed drbdmeta of drbd-utils; scripts/test installs it.
@Suite(.serialized) struct ToolTests {
    /// A sparse file that goes away with the value.
    final class Disk {
        let path: String
        let size: UInt64
        private let handle: FileHandle

        init(size: UInt64) throws {
            self.size = size
            let directory = FileManager.default.temporaryDirectory
            path = directory.appending(path: "metadisk-\(UUID().uuidString)").path
            try #require(FileManager.default.createFile(atPath: path, contents: nil))
            handle = try #require(FileHandle(forUpdatingAtPath: path))
            try handle.truncate(atOffset: size)
        }

        deinit {
            try? handle.close()
            try? FileManager.default.removeItem(atPath: path)
        }

        func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
            try handle.seek(toOffset: offset)
            return Array(try handle.read(upToCount: count) ?? Data())
        }

        func write(_ bytes: [UInt8], at offset: UInt64) throws {
            try handle.seek(toOffset: offset)
            try handle.write(contentsOf: Data(bytes))
        }

        /// Runs drbdmeta on this file, without a terminal.
        func tool(
            _ command: String, index: String = "internal", options: [String] = []
        ) throws -> (status: Int32, output: String) {
            let program = "/usr/sbin/drbdmeta"
            try #require(
                FileManager.default.isExecutableFile(atPath: program),
                "drbdmeta is missing: install drbd-utils (scripts/test does)")
            let process = Process()
            process.executableURL = URL(filePath: program)
            process.arguments = options + ["--force", "-", "v08", path, index, command]
            process.standardInput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            let pipe = Pipe()
            process.standardOutput = pipe
            try process.run()
            let output = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (process.terminationStatus, String(decoding: output, as: UTF8.self))
        }

        /// Our dump, without header.
        func dump(_ location: MetaLocation) throws -> String {
            let block = try read(location.superblockOffset, 4096)
            let superblock = try Superblock(decoding: block.rawBytes)
            var dump = MetaDump(superblock: superblock, location: location)
            var text = dump.opening(header: [])
            for offset in stride(from: 0, to: dump.bitmapBytes, by: MetaDump.chunkBytes) {
                let count = min(UInt64(MetaDump.chunkBytes), dump.bitmapBytes - offset)
                let chunk = try read(location.bitmapOffset + offset, Int(count))
                dump.add(bitmap: chunk.rawBytes, to: &text)
            }
            return String(decoding: text + dump.closing(), as: UTF8.self)
        }

        /// The tool's dump without header, and with the flags it should print.
        func toolDump(_ location: MetaLocation, index: String) throws -> String {
            let (status, output) = try tool("dump-md", index: index)
            try #require(status == 0)
            let block = try read(location.superblockOffset, 4096)
            let flags = try Superblock(decoding: block.rawBytes).flags.rawValue
            let header = try #require(output.range(of: "#\n\n"))
            return String(output[header.upperBound...])
                .replacing("flags 0x00000000;", with: "flags \(hexadecimal(flags));")
        }
    }

    static func index(_ placement: MetaLocation.Placement) -> String {
        switch placement {
        case .internalData: "internal"
        case .flexExternal: "flex-external"
        case .indexed(let slot): "\(slot)"
        }
    }

    struct Shape: Sendable, CustomStringConvertible {
        let placement: MetaLocation.Placement
        let size: UInt64
        var stripes: UInt32 = 1
        var stripeBlocks: UInt32 = 8
        var description: String { "\(placement) \(size) \(stripes)x\(stripeBlocks)" }
    }

    static let sizes: [UInt64] = [
        69632, 69633, 70144, 73728, 1 << 20, (1 << 20) + 3584, 16 << 20, 64 << 20,
        (64 << 20) + 512, (64 << 20) + 4095, 128 << 20, (128 << 20) + 1, (128 << 20) + 512,
        (128 << 20) + 4096, (256 << 20) - 512, 1 << 30, (1 << 40) - 512, 1 << 40,
        (1 << 40) + 512, 3 << 40, (16 << 40) - 4096,
    ]
    static let shapes =
        sizes.map { Shape(placement: .internalData, size: $0) } + [
            Shape(placement: .internalData, size: 64 << 20, stripes: 1, stripeBlocks: 16),
            Shape(placement: .internalData, size: 64 << 20, stripes: 2, stripeBlocks: 4),
            Shape(placement: .internalData, size: 64 << 20, stripes: 3, stripeBlocks: 9),
            Shape(placement: .internalData, size: 64 << 20, stripes: 4, stripeBlocks: 64),
            Shape(placement: .internalData, size: 1 << 30, stripes: 8, stripeBlocks: 1024),
            Shape(placement: .flexExternal, size: 1 << 20),
            Shape(placement: .flexExternal, size: (2 << 20) + 512),
            Shape(placement: .flexExternal, size: 8 << 20, stripes: 4, stripeBlocks: 4),
            Shape(placement: .indexed(0), size: 128 << 20),
            Shape(placement: .indexed(2), size: 512 << 20),
        ]

    @Test(arguments: shapes)
    func `create-md writes what drbdmeta writes, and dumps what it dumps`(shape: Shape) throws {
        let disk = try Disk(size: shape.size)
        let index = Self.index(shape.placement)
        let isPlain = shape.stripes == 1 && shape.stripeBlocks == 8
        let options =
            isPlain
            ? [] : ["-s", "\(shape.stripes)", "-z", "\(shape.stripeBlocks * 4)"]
        try #require(try disk.tool("create-md", index: index, options: options).status == 0)
        let location = try MetaLocation(
            placement: shape.placement, deviceSize: shape.size, stripes: shape.stripes,
            stripeBlocks: shape.stripeBlocks)
        var image = Image(size: shape.size)
        try MetaCreation(location: location).perform(on: &image)
        // All but the bitmap, which is zero, and in front of which nothing was written.
        #expect(
            try disk.read(location.superblockOffset, 4096) == image[location.superblockOffset])
        let log = 4096 * location.logBlockCount
        #expect(
            try disk.read(location.logOffset, log) == image[location.logOffset, count: log])
        #expect(try disk.dump(location) == disk.toolDump(location, index: index))
        let block = try disk.read(location.superblockOffset, 4096)
        let superblock = try Superblock(decoding: block.rawBytes)
        #expect(
            try superblock.validate(deviceSize: shape.size, placement: shape.placement)
                == location)
        // Where we look is where it looks: our bytes in place of its own are as good.
        try disk.write(image[location.superblockOffset], at: location.superblockOffset)
        #expect(try disk.tool("get-gi", index: index).output == superblock.generationLine + "\n")
    }

    @Test(arguments: [
        Shape(placement: .internalData, size: 61440),
        Shape(placement: .internalData, size: 69631),
        Shape(placement: .indexed(1), size: 40 << 20),
        Shape(placement: .internalData, size: 64 << 20, stripes: 1, stripeBlocks: 4),
        Shape(placement: .internalData, size: 64 << 20, stripes: 4096, stripeBlocks: 16),
    ])
    func `what drbdmeta refuses to create we refuse`(shape: Shape) throws {
        let disk = try Disk(size: shape.size)
        let isPlain = shape.stripes == 1 && shape.stripeBlocks == 8
        let options =
            isPlain
            ? [] : ["-s", "\(shape.stripes)", "-z", "\(shape.stripeBlocks * 4)"]
        let index = Self.index(shape.placement)
        #expect(try disk.tool("create-md", index: index, options: options).status == 10)
        #expect(throws: MetaDiskError.self) {
            let location = try MetaLocation(
                placement: shape.placement, deviceSize: shape.size, stripes: shape.stripes,
                stripeBlocks: shape.stripeBlocks)
            _ = try MetaCreation(location: location)
        }
    }

    /// Runs and lone words of few values, of the lengths at which the text changes.
    static func bitmap(bytes count: Int, _ source: inout RandomSource) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let word: UInt32 = [0, 0, .max, 1, 0xDEAD_BEEF, 0x8000_0000][
                Int(source.next() % 6)]
            let length = [1, 1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 64, 200][
                Int(source.next() % 14)]
            for _ in 0..<length {
                for shift in stride(from: 0, to: 32, by: 8) {
                    bytes.append(UInt8(truncatingIfNeeded: word >> UInt32(shift)))
                }
            }
        }
        return Array(bytes[..<count])
    }

    @Test(arguments: 0..<12 as Range<UInt64>)
    func `the text of a random bitmap is the tool's`(seed: UInt64) throws {
        var source = RandomSource(seed: seed)
        let disk = try Disk(size: 1 << 30)
        let location = try MetaLocation(placement: .internalData, deviceSize: disk.size)
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = location.capacity - source.next() % 500_000
        superblock.flags = [.consistent, .wasUpToDate, .logClean]
        superblock.uuids.current = source.next()
        superblock.uuids.history1 = source.next()
        superblock.deviceUUID = source.next()
        superblock.peerMaximumRequest = 1 << 20
        try disk.write(SuperblockTests.encode(superblock), at: location.superblockOffset)
        let bitmap = Self.bitmap(bytes: 32768, &source)
        try disk.write(bitmap, at: location.bitmapOffset)
        #expect(try disk.dump(location) == disk.toolDump(location, index: "internal"))
    }

    /// Words of zeros in front of and behind the place where the tool's buffer ends.
    @Test(arguments: [
        (8, 8), (16, 8), (16, 4), (16, 16), (24, 12), (8, 24), (4, 20), (12, 12), (16, 0),
        (1024, 1024),
    ])
    func `a run over the end of a chunk is the tool's`(before: Int, behind: Int) throws {
        let disk = try Disk(size: (1 << 40) + (512 << 20))
        let location = try MetaLocation(placement: .internalData, deviceSize: disk.size)
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = location.capacity
        try disk.write(SuperblockTests.encode(superblock), at: location.superblockOffset)
        let edge = location.bitmapOffset + UInt64(MetaDump.chunkBytes)
        let filler = [UInt8](repeating: 0xA5, count: 4096)
        try disk.write(filler, at: edge - UInt64(4096 + 4 * before))
        try disk.write(filler, at: edge + UInt64(4 * behind))
        #expect(try disk.dump(location) == disk.toolDump(location, index: "internal"))
    }

    /// Every eleventh combination of the known flags.
    @Test(arguments: Array(stride(from: 0, to: 512, by: 11)) as [UInt32])
    func `show-gi says what the tool says`(bits: UInt32) throws {
        let disk = try Disk(size: 1 << 20)
        let location = try MetaLocation(placement: .internalData, deviceSize: disk.size)
        var superblock = Superblock.fresh(location: location)
        superblock.flags = MetaFlags(rawValue: bits)
        superblock.isUnclean = bits & 4 != 0
        superblock.lastAgreedSize = bits & 1 == 0 ? 0 : 1968 - UInt64(bits)
        try disk.write(SuperblockTests.encode(superblock), at: location.superblockOffset)
        #expect(try disk.tool("show-gi").output == superblock.generationText)
        #expect(try disk.tool("dstate").output == superblock.diskStateWord + "\n")
    }

    @Test(arguments: 0..<12 as Range<UInt64>)
    func `applying a random log gives the tool's bits`(seed: UInt64) throws {
        var source = RandomSource(seed: 1000 + seed)
        let size: UInt64 = 3 << 30
        let location = try MetaLocation(
            placement: .internalData, deviceSize: size, stripes: 2, stripeBlocks: 4)
        var superblock = Superblock.fresh(location: location)
        // A multiple of an extent, so that the tool has no bits behind the end to set.
        superblock.lastAgreedSize = 8192 * 700
        superblock.flags = [.consistent, .primaryIndicator]
        superblock.isUnclean = seed % 2 == 0
        superblock.logExtents = 1237
        var writer = LogRecoveryTests.Writer(
            slots: 1237, number: UInt32(truncatingIfNeeded: source.next()) % (1 << 30))
        for _ in 0...source.next() % 20 { LogRecoveryTests.random(&writer, &source) }
        let disk = try Disk(size: size)
        var image = Image(size: size)
        var pieces = writer.blocks.enumerated().map {
            (location.logOffset + UInt64(4096 * $0.offset), $0.element)
        }
        pieces.append((location.superblockOffset, SuperblockTests.encode(superblock)))
        pieces.append((location.bitmapOffset, Self.bitmap(bytes: 89600, &source)))
        for (offset, bytes) in pieces {
            try disk.write(bytes, at: offset)
            image[offset] = bytes
        }
        _ = try image.apply(.internalData)
        try #require(try disk.tool("apply-al").status == 0)
        let toolBits = try disk.read(location.bitmapOffset, 89600)
        #expect(image[location.bitmapOffset, count: 89600] == toolBits)
        #expect(
            try disk.read(location.superblockOffset, 4096) == image[location.superblockOffset])
        let log = try disk.read(location.logOffset, 32768)
        #expect(log == image[location.logOffset, count: 32768])
    }
}
