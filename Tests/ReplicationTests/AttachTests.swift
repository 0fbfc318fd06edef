import DRBDWire
import MetaDisk
import Support
import Testing

@testable import Replication

/// An engine, and meta data in memory: every command about them is carried out at once and recorded.
struct AttachedDisk: ~Copyable {
    enum Operation: Equatable {
        case write(offset: UInt64, length: Int, durable: Bool)
        case flush(FlushPurpose)
    }

    var engine: ReplicationEngine
    /// By offset, in blocks of 4 KiB; what was never written is zero.
    var blocks: [UInt64: [UInt8]] = [:]
    var operations: [Operation] = []
    var results: [CommandResult] = []
    /// Super blocks as they were written, one after the other.
    var superblocks: [Superblock] = []
    private var now = Instant(nanoseconds: 1_000_000_000)
    private var orders: UInt32 = 0

    init(options: Options = Options()) { engine = ReplicationEngine(options: options, seed: 1) }

    subscript(offset: UInt64) -> [UInt8] {
        get { blocks[offset] ?? [UInt8](repeating: 0, count: 4096) }
        set { blocks[offset] = newValue }
    }

    mutating func put(_ superblock: Superblock, at offset: UInt64) {
        var bytes = [UInt8](repeating: 0, count: 4096)
        bytes.withMutableRawBytes { superblock.encode(into: &$0) }
        self[offset] = bytes
    }

    /// - Returns: the code of the result.
    mutating func order(_ command: AdministratorCommand) -> Int32? {
        orders += 1
        engine.perform(command, id: orders, now: now)
        run()
        results += engine.takeResults()
        return results.last { $0.id == orders }?.code
    }

    private mutating func run() {
        for _ in 0..<100_000 {
            let count = engine.output.commands.count
            guard count > 0 else {
                engine.settle(now: now)
                if engine.output.commands.count == 0 { return }
                continue
            }
            var pieces: [(Command, [UInt8])] = []
            for index in 0..<count {
                let command = engine.output.commands[index]
                var bytes: [UInt8] = []
                if case .metaWrite(_, let at, let length, _, _) = command {
                    let span = engine.output.bytes.bytes(at: Int(at), count: Int(length))
                    bytes = (0..<Int(length)).map { span[Field<UInt8>(at: $0)] }
                }
                pieces.append((command, bytes))
            }
            engine.output.removeAll()
            for (command, bytes) in pieces { perform(command, bytes) }
        }
        Issue.record("the engine does not come to rest")
    }

    private mutating func perform(_ command: Command, _ bytes: [UInt8]) {
        switch command {
        case .flush(let purpose, let index):
            operations.append(.flush(purpose))
            engine.handle(.flushed(purpose, index: index, errno: 0), now: now)
        case .metaRead(let id, let length, let offset):
            var read: [UInt8] = []
            for place in stride(from: offset, to: offset + UInt64(length), by: 4096) {
                read += self[place]
            }
            engine.metaRead(id: id, bytes: read.rawBytes, now: now)
        case .metaWrite(let id, _, let length, let offset, let durable):
            operations.append(.write(offset: offset, length: Int(length), durable: durable))
            for start in stride(from: 0, to: bytes.count, by: 4096) {
                self[offset + UInt64(start)] = Array(bytes[start..<start + 4096])
            }
            if length == 4096, let written = try? Superblock(decoding: bytes.rawBytes) {
                superblocks.append(written)
            }
            engine.handle(.metaWritten(id: id, errno: 0), now: now)
        default: break
        }
    }
}

private func same<Value: Equatable>(
    _ value: Value, _ expected: Value, _ location: SourceLocation = #_sourceLocation
) {
    #expect(value == expected, sourceLocation: location)
}

@Suite struct AttachTests {
    static let size: UInt64 = 1 << 30

    /// Meta data of a crashed Primary with extent 5 hot, on a disk of `size` bytes.
    static func crashed(
        flags: MetaFlags = [.consistent, .wasUpToDate, .primaryIndicator], unclean: Bool = true
    ) throws -> (superblock: Superblock, location: MetaLocation, log: [UInt8]) {
        let location = try MetaLocation(placement: .internalData, deviceSize: size)
        var superblock = Superblock.fresh(location: location)
        superblock.flags = flags
        superblock.isUnclean = unclean
        superblock.lastAgreedSize = location.capacity
        superblock.uuids.current = 0x1234_5678
        superblock.uuids.bitmap = 0x9ABC
        let extents = Table<UInt32>(repeating: LogTransaction.freeExtent, count: 67)
        var updates = Table(repeating: LogUpdate(slot: 0, extent: 0), count: 64)
        updates[0] = LogUpdate(slot: 3, extent: 5)
        var log = [UInt8](repeating: 0, count: 4096)
        log.withMutableRawBytes { bytes in
            LogTransaction.encode(
                number: 0, contextSize: 67, contextStart: 0, updates: updates, updateCount: 1,
                extents: extents, into: &bytes)
        }
        return (superblock, location, log)
    }

    static func initialised() -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 4096)
        block.withMutableRawBytes { bytes in LogTransaction.encodeInitialised(into: &bytes) }
        return block
    }

    static func attach(
        flags: MetaFlags = [.consistent, .wasUpToDate, .primaryIndicator], unclean: Bool = true,
        options: Options = Options()
    ) throws -> AttachedDisk {
        let (superblock, location, log) = try crashed(flags: flags, unclean: unclean)
        var disk = AttachedDisk(options: options)
        disk.put(superblock, at: location.superblockOffset)
        for index in 0..<8 as Range<UInt64> {
            disk[location.logOffset + 4096 * index] = index == 0 ? log : initialised()
        }
        let code = disk.order(.attach(deviceSize: size))
        same(code, 1)
        return disk
    }

    @Test func `T10, T11: bits, then log, then a super block without the indicator`() throws {
        let disk = try Self.attach()
        let (_, location, _) = try Self.crashed()
        var parts: [String] = []
        for operation in disk.operations {
            let part =
                switch operation {
                case .flush: "flush"
                case .write(location.superblockOffset, _, _): "super block"
                case .write(let offset, _, _) where offset >= location.logOffset: "log"
                case .write: "bits"
                }
            if parts.last != part { parts.append(part) }
        }
        same(parts, ["bits", "flush", "log", "flush", "super block"])
        same(disk.superblocks.first?.flags.contains(.primaryIndicator), false)
        same(disk.superblocks.first?.flags.contains(.crashedPrimary), true)
        let bits = disk[location.bitmapOffset]
        same(bits[640..<768].allSatisfy { $0 == 0xFF }, true)
        same(disk.engine.bitmap.setCount, 1024)
    }

    @Test(arguments: [true, false])
    func `T12: what was hot is out of sync, whatever the magic says`(unclean: Bool) throws {
        var flags: MetaFlags = [.consistent, .wasUpToDate, .primaryIndicator]
        if !unclean { flags.insert(.logClean) }
        let disk = try Self.attach(flags: flags, unclean: unclean)
        same(disk.engine.bitmap.setCount, 1024)
        same(disk.engine.bitmap.next(from: 0), 5 * 1024)
    }

    @Test func `T13: a super block is one aligned block, flushed before and durable`() throws {
        let disk = try Self.attach()
        let (_, location, _) = try Self.crashed()
        var last: AttachedDisk.Operation?
        var count = 0
        for operation in disk.operations {
            if case .write(location.superblockOffset, let length, let durable) = operation {
                count += 1
                same(length, 4096)
                same(durable, true)
                same(last, .flush(.meta))
            }
            last = operation
        }
        same(location.superblockOffset % 4096, 0)
        same(count, disk.superblocks.count)
        same(count > 0, true)
    }

    /// Also: the magic is the unclean one before the log is relied upon.
    @Test(arguments: [(nil, 256), (67, 67), (100_000, 256)] as [(Int?, Int)])
    func `T17: the super block says how many slots are in use`(wanted: Int?, slots: Int) throws {
        var options = Options()
        options.logExtents = wanted
        let disk = try Self.attach(options: options)
        same(disk.superblocks.map(\.logExtents).allSatisfy { $0 == UInt32(slots) }, true)
        same(disk.superblocks.map(\.isUnclean).allSatisfy { $0 }, true)
        same(disk.superblocks.map { $0.flags.contains(.logClean) }.contains(true), false)
    }

    @Test func `T4: al-extents is looked at when a disk is attached, not before`() throws {
        var disk = try Self.attach()
        disk.engine.options.logExtents = 67
        same(disk.engine.log.slotCount, 256)
        same(disk.order(.detach(force: false)), 1)
        same(disk.order(.attach(deviceSize: Self.size)), 1)
        same(disk.engine.log.slotCount, 67)
        same(disk.superblocks.last?.logExtents, 67)
    }

    /// The bits of the last 64 blocks count, also where the number of bits is a multiple of 64.
    @Test func `T7: the last bits are loaded`() throws {
        var (superblock, location, _) = try Self.crashed(flags: [.consistent, .wasUpToDate])
        superblock.lastAgreedSize = 64 * 8 * 1000
        var disk = AttachedDisk()
        disk.put(superblock, at: location.superblockOffset)
        var page = [UInt8](repeating: 0, count: 4096)
        for index in 63_936 / 8 - 4096..<64_000 / 8 - 4096 { page[index] = 0xFF }
        disk[location.bitmapOffset + 4096] = page
        for index in 0..<8 as Range<UInt64> {
            disk[location.logOffset + 4096 * index] = Self.initialised()
        }
        same(disk.order(.attach(deviceSize: Self.size)), 1)
        same(disk.engine.bitmap.setCount, 64)
        same(disk.engine.bitmap.next(from: 0), 63_936)
        same(disk.order(.detach(force: false)), 1)
        same(disk[location.bitmapOffset + 4096], page)
    }

    @Test func `a detached disk is clean for a kernel`() throws {
        var disk = try Self.attach()
        let (_, location, _) = try Self.crashed()
        same(disk.order(.detach(force: false)), 1)
        let last = disk.superblocks.last
        same(last?.needsLogApplied, false)
        same(last?.flags.contains(.primaryIndicator), false)
        same(disk[location.logOffset], Self.initialised())
    }

    /// A super block of v07 at either of its places, of v09, and none at all.
    @Test(
        arguments: [
            (0x8374_026A, 28, Self.size - 4096, "format v07"),
            (0x8374_026A, 28, Self.size - (128 << 20), "format v07"),
            (0x8374_026D, 60, Self.size - 4096, "format v09"),
            (0x8374_026D, 60, Self.size - (128 << 20), "no valid meta data found"),
            (0, 0, Self.size - 4096, "no valid meta data found"),
        ] as [(UInt32, Int, UInt64, String)])
    func `other formats are named`(magic: UInt32, place: Int, offset: UInt64, text: String) {
        var disk = AttachedDisk()
        var block = [UInt8](repeating: 0, count: 4096)
        block.withMutableRawBytes { $0[Field<UInt32>(at: place)] = magic }
        disk[offset] = block
        same(disk.order(.attach(deviceSize: Self.size)), -119)
        same(disk.results.last?.text.contains(text), true)
        same(disk.engine.isDiskOpen, false)
        same(disk.operations.isEmpty, true)
    }

    // MARK: external

    /// With fresh meta data of its own, not attached.
    static func external(_ location: MetaLocation) -> AttachedDisk {
        var disk = AttachedDisk()
        disk.put(Superblock.fresh(location: location), at: location.superblockOffset)
        for index in 0..<8 as Range<UInt64> {
            disk[location.logOffset + 4096 * index] = initialised()
        }
        return disk
    }

    static func attach(_ location: MetaLocation, dataSize: UInt64) -> AdministratorCommand {
        .attach(
            deviceSize: dataSize,
            metadata: ExternalMetadata(
                placement: location.placement, deviceSize: location.deviceSize))
    }

    @Test(
        arguments: [
            (MetaLocation.Placement.flexExternal, 1 << 20, 65 << 20, 133_120),
            // The last bit covers less than 4 KiB.
            (.flexExternal, 1 << 20, 131_073 * 512, 131_073),
            (.flexExternal, 1 << 20, 40 << 30, 64_749_568),
            // 1977 sectors of bitmap are 247 pages and one sector, which no page can be written to.
            (.flexExternal, (1 << 20) + 512, 40 << 30, 64_749_568),
            (.indexed(1), 256 << 20, 65 << 20, 133_120),
        ] as [(MetaLocation.Placement, UInt64, UInt64, UInt64)])
    func `the size is that of the data's device, or what the bitmap can describe`(
        placement: MetaLocation.Placement, metaSize: UInt64, dataSize: UInt64, sectors: UInt64
    ) throws {
        let location = try MetaLocation(placement: placement, deviceSize: metaSize)
        var disk = Self.external(location)
        same(disk.order(Self.attach(location, dataSize: dataSize)), 1)
        same(disk.engine.size, sectors)
        same(disk.engine.bitmap.setCount, Int(BitmapLayout.bitCount(sectors: sectors)))
        same(disk.superblocks.last?.lastAgreedSize, sectors)
        let range = location.superblockOffset..<location.superblockOffset + min(metaSize, 128 << 20)
        for operation in disk.operations {
            guard case .write(let offset, let length, _) = operation else { continue }
            same(range.contains(offset) && offset + UInt64(length) <= range.upperBound, true)
        }
    }

    @Test func `data that became smaller than what was agreed are refused`() throws {
        let location = try MetaLocation(placement: .flexExternal, deviceSize: 1 << 20)
        var disk = Self.external(location)
        same(disk.order(Self.attach(location, dataSize: 65 << 20)), 1)
        same(disk.order(.detach(force: false)), 1)
        same(disk.order(Self.attach(location, dataSize: 64 << 20)), -170)
        same(disk.order(Self.attach(location, dataSize: 65 << 20)), 1)
    }

    @Test func `data without a single sector are refused`() throws {
        let location = try MetaLocation(placement: .flexExternal, deviceSize: 1 << 20)
        var disk = Self.external(location)
        same(disk.order(Self.attach(location, dataSize: 511)), -112)
        same(disk.engine.isDiskOpen, false)
    }
}
