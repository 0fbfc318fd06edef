import Control
import DRBDWire
import Glibc
import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// The backing disk, and the buffers that meta data goes through.
struct DiskBuffers {
    static let writeSize = 64 << 10
    static let writeCount = 16
    static let readSize = 256 << 10
    static let readCount = 4
    /// Behind the pool: buffers for meta data, and one of zeros.
    static let metaStart = BufferPool.arenaSize
    static let readStart = metaStart + writeCount * writeSize
    static let zeroStart = readStart + readCount * readSize
    static let zeroSize = 256 << 10
    static let bounceStart = zeroStart + zeroSize
    static let arenaSize = bounceStart + Bounces.length

    /// The data.
    var file: FileID?
    /// The meta data, if they are not on the same device.
    var metaFile: FileID?
    /// Of a file, whose holes can be asked for; -1: there are none to tell of.
    var holes: Int32 = -1
    /// No longer in use, and not yet closed.
    var retired: [FileID] = []
    var watch = FileWatch()
    /// The last failure of an operation, in words.
    var trouble: String?
    /// What offsets and lengths are multiples of.
    var blockSize = 512
    var bounces = Bounces()
    var freeWrites = Array(0..<writeCount)
    var freeReads = Array(0..<readCount)
    /// What the disk can do for zeroes: modes that it refused are not tried again (S15).
    var punches = true
    var zeroRanges = true
    /// What is known to be done without writing zeros.
    var punchesFast = false
    var zeroRangesFast = false
    /// Ranges that are being zeroed step by step.
    var zeroing: [SlotID: Zeroing] = [:]

    struct Zeroing {
        var offset: UInt64
        var left: UInt64
        var keep: Bool
        /// What is left of blocks at both ends, zeroed behind the rest.
        var edges: [(offset: UInt64, length: Int)] = []

        /// Leaves whole blocks, none perhaps.
        mutating func cutEdges(blockSize: UInt64) {
            let (start, end) = (offset, offset + left)
            let first = (start + blockSize - 1) & ~(blockSize - 1)
            let last = end & ~(blockSize - 1)
            guard first <= last else {
                // Within one block.
                edges = [(start, Int(left))]
                left = 0
                return
            }
            if start < first { edges.append((start, Int(first - start))) }
            if last < end { edges.append((last, Int(end - last))) }
            (offset, left) = (first, last - first)
        }
    }

    /// Whether zeroes are faster than a write of zeros would be; false if that is not known.
    ///
    /// - Parameter keep: the space is to stay allocated.
    func zeroesFast(keep: Bool) -> Bool {
        if punches, !keep { return punchesFast }
        return zeroRanges && zeroRangesFast
    }
}

extension Daemon {
    // MARK: operations

    mutating func write(
        _ slot: SlotID, _ buffer: BufferID, _ length: UInt32, _ offset: UInt64, _ durable: Bool
    ) {
        guard let file = disk.file else {
            late.append(.disk(slot: slot, errno: UInt8(EIO)))
            return
        }
        guard isAligned(offset, length) else {
            bounce(
                Bounces.Request(
                    slot: slot, kind: .write, buffer: BufferPool.offset(of: buffer),
                    offset: offset, length: Int(length), durable: durable))
            return
        }
        reactor.write(
            file, bufferOffset: BufferPool.offset(of: buffer), length: length, at: offset,
            durable: durable, token: token(.slot, UInt64(length) << 16 | UInt64(slot)))
    }

    mutating func read(_ slot: SlotID, _ buffer: BufferID, _ length: UInt32, _ offset: UInt64) {
        guard let file = disk.file else {
            late.append(.disk(slot: slot, errno: UInt8(EIO)))
            return
        }
        guard isAligned(offset, length) else {
            bounce(
                Bounces.Request(
                    slot: slot, kind: .read, buffer: BufferPool.offset(of: buffer),
                    offset: offset, length: Int(length), durable: false))
            return
        }
        reactor.read(
            file, bufferOffset: BufferPool.offset(of: buffer), length: length, at: offset,
            token: token(.slot, UInt64(length) << 16 | UInt64(slot)))
    }

    mutating func flush(_ purpose: FlushPurpose, _ index: UInt16) {
        let payload = UInt64(index) << 8 | UInt64(purpose.rawValue)
        switch purpose {
        case .client, .barrier, .zeroes: flushData(payload)
        case .meta, .procedure:
            // An extent leaves the log, a generation or a role is recorded: what was written before
            // has to be durable on both devices (reference, meta data section 13, I4).
            guard let file = disk.metaFile else {
                flushData(payload)
                return
            }
            reactor.flush(file, token: token(.flushMetadata, payload))
        }
    }

    private mutating func flushData(_ payload: UInt64) {
        guard let file = disk.file else {
            lateFlushed(payload, UInt8(EIO))
            return
        }
        reactor.flush(file, token: token(.flush, payload))
    }

    private mutating func lateFlushed(_ payload: UInt64, _ errno: UInt8) {
        let index = UInt16(truncatingIfNeeded: payload >> 8)
        late.append(.flushed(Self.purpose(payload), index: index, errno: errno))
    }

    private static func purpose(_ payload: UInt64) -> FlushPurpose {
        guard let purpose = FlushPurpose(rawValue: UInt8(truncatingIfNeeded: payload)) else {
            invariantFailed("a flush for purpose \(payload & 0xff)")
        }
        return purpose
    }

    /// Where the meta data are.
    private var metaFile: FileID? { disk.metaFile ?? disk.file }

    mutating func metaWrite(
        _ id: UInt16, _ at: Int, _ length: UInt32, _ offset: UInt64, _ durable: Bool
    ) {
        guard let file = metaFile, let buffer = disk.freeWrites.popLast() else {
            invariant(metaFile == nil, "more meta data writes than buffers")
            late.append(.metaWritten(id: id, errno: UInt8(EIO)))
            return
        }
        let start = DiskBuffers.metaStart + buffer * DiskBuffers.writeSize
        Self.copy(engine.output, at, Int(length), to: start, &reactor)
        reactor.write(
            file, bufferOffset: start, length: length, at: offset, durable: durable,
            token: token(
                .metaWrite, UInt64(length) << 24 | UInt64(buffer) << 16 | UInt64(id)))
    }

    private static func copy(
        _ output: borrowing Output, _ at: Int, _ length: Int, to start: Int,
        _ reactor: inout Reactor
    ) {
        let source = output.bytes.bytes(at: at, count: length)
        var target = reactor.mutableBuffer(start, length: length)
        unsafe source.withUnsafeBytes { bytes in
            // Both are bounds-checked and as long as each other.
            unsafe target.withUnsafeMutableBytes { unsafe $0.copyMemory(from: bytes) }
        }
    }

    mutating func metaRead(_ id: UInt16, _ length: UInt32, _ offset: UInt64) {
        guard let file = metaFile, let buffer = disk.freeReads.popLast() else {
            late.append(.metaReadFailed(id: id, errno: UInt8(EIO)))
            return
        }
        reactor.read(
            file, bufferOffset: DiskBuffers.readStart + buffer * DiskBuffers.readSize,
            length: length,
            at: offset,
            token: token(.metaRead, UInt64(length) << 24 | UInt64(buffer) << 16 | UInt64(id)))
    }

    func token(_ kind: DiskToken, _ payload: UInt64) -> Token {
        Token(kind: kind.rawValue, payload: payload)
    }

    // MARK: completions

    /// 0 for success; a short transfer is an error (B33).
    mutating func errno(_ result: Int32, expected: UInt64) -> UInt8 {
        if Int64(result) == Int64(expected) { return 0 }
        noteTrouble(result)
        return result < 0 ? UInt8(clamping: -result) : UInt8(EIO)
    }

    mutating func operationDone(_ token: Token, _ result: Int32) {
        let payload = token.payload
        let id = UInt16(truncatingIfNeeded: payload)
        switch DiskToken(rawValue: token.kind) {
        case .slot?:
            tellLater(.disk(slot: id, errno: errno(result, expected: payload >> 16)))
        case .flush?:
            tell(
                .flushed(
                    Self.purpose(payload), index: UInt16(truncatingIfNeeded: payload >> 8),
                    errno: errno(result, expected: 0)))
        case .flushMetadata?:
            if result == 0 {
                // Now the other device.
                flushData(payload)
            } else {
                lateFlushed(payload, errno(result, expected: 0))
            }
        case .metaWrite?:
            disk.freeWrites.append(Int(payload >> 16 & 0xff))
            tell(.metaWritten(id: id, errno: errno(result, expected: payload >> 24)))
        case .metaRead?: metaReadDone(id, Int(payload >> 16 & 0xff), result, payload >> 24)
        case .zero?: zeroDone(id, result)
        case .bounceRead?:
            bounceRead(Int(payload), result)
            perform()
        case .bounceWrite?:
            bounceWritten(Int(payload), result)
            perform()
        case .look?: fileSeen(payload, result)
        case .zeroWrite?: zeroWritten(id, errno(result, expected: payload >> 16), payload >> 16)
        case nil: invariantFailed("a completion of kind \(token.kind)")
        }
    }

    private mutating func metaReadDone(
        _ id: UInt16, _ buffer: Int, _ result: Int32, _ length: UInt64
    ) {
        let failure = errno(result, expected: length)
        if failure == 0 {
            Self.feed(
                &engine, reactor, DiskBuffers.readStart + buffer * DiskBuffers.readSize,
                Int(length), id, now)
        } else {
            engine.handle(.metaReadFailed(id: id, errno: failure), now: now)
        }
        disk.freeReads.append(buffer)
        perform()
    }

    private static func feed(
        _ engine: inout ReplicationEngine, _ reactor: borrowing Reactor, _ start: Int,
        _ length: Int, _ id: UInt16, _ now: Instant
    ) {
        engine.metaRead(id: id, bytes: reactor.buffer(start, length: length), now: now)
    }

    // MARK: zeroes

    mutating func zero(_ slot: SlotID, _ length: UInt32, _ offset: UInt64, _ keep: Bool) {
        guard disk.file != nil else {
            late.append(.disk(slot: slot, errno: UInt8(EIO)))
            return
        }
        var range = DiskBuffers.Zeroing(offset: offset, left: UInt64(length), keep: keep)
        if !isAligned(offset, length) { range.cutEdges(blockSize: UInt64(disk.blockSize)) }
        disk.zeroing[slot] = range
        continueZeroing(slot)
    }

    /// A part of a block at an end of the range.
    private mutating func zeroEdge(_ slot: SlotID) {
        guard let edge = disk.zeroing[slot]?.edges.popLast() else {
            disk.zeroing[slot] = nil
            late.append(.disk(slot: slot, errno: 0))
            return
        }
        bounce(
            Bounces.Request(
                slot: slot, kind: .zeros, buffer: 0, offset: edge.offset, length: edge.length,
                durable: false))
    }

    mutating func edgeZeroed(_ slot: SlotID, _ failure: UInt8) {
        guard failure != 0 else { return zeroEdge(slot) }
        disk.zeroing[slot] = nil
        late.append(.disk(slot: slot, errno: failure))
    }

    /// Punch a hole, else zero the range, else write zeros.
    private mutating func continueZeroing(_ slot: SlotID) {
        guard let range = disk.zeroing[slot] else { return }
        guard let file = disk.file else { return endZeroing(slot, UInt8(EIO)) }
        if range.left == 0 {
            zeroEdge(slot)
        } else if disk.punches, !range.keep {
            reactor.deallocate(
                file, at: range.offset, length: range.left, .punchHole,
                token: token(.zero, UInt64(slot)))
        } else if disk.zeroRanges {
            reactor.deallocate(
                file, at: range.offset, length: range.left, .zeroRange,
                token: token(.zero, UInt64(slot)))
        } else {
            let length = UInt32(min(range.left, UInt64(DiskBuffers.zeroSize)))
            reactor.write(
                file, bufferOffset: DiskBuffers.zeroStart, length: length, at: range.offset,
                durable: false, token: token(.zeroWrite, UInt64(length) << 16 | UInt64(slot)))
        }
    }

    private mutating func zeroDone(_ slot: SlotID, _ result: Int32) {
        guard let range = disk.zeroing[slot] else { return }
        if result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS {
            // No error of the disk: it cannot do it in this way.
            if disk.punches, !range.keep { disk.punches = false } else { disk.zeroRanges = false }
            continueZeroing(slot)
            return
        }
        if result == 0 {
            if disk.punches, !range.keep {
                disk.punchesFast = true
            } else {
                disk.zeroRangesFast = true
            }
        }
        endZeroing(slot, errno(result, expected: 0))
    }

    private mutating func zeroWritten(_ slot: SlotID, _ failure: UInt8, _ length: UInt64) {
        guard var range = disk.zeroing[slot] else { return }
        range.offset += length
        range.left -= length
        if failure != 0 || range.left == 0 {
            endZeroing(slot, failure)
            return
        }
        disk.zeroing[slot] = range
        continueZeroing(slot)
    }

    /// The whole blocks are done.
    private mutating func endZeroing(_ slot: SlotID, _ failure: UInt8) {
        if failure == 0, disk.zeroing[slot]?.edges.isEmpty == false {
            zeroEdge(slot)
            perform()
            return
        }
        disk.zeroing[slot] = nil
        tell(.disk(slot: slot, errno: failure))
    }

    // MARK: open and close

    /// Opens and claims the disk, and what holds its meta data. - Returns: nil when done, else what
    /// is in the way; then nothing is left open.
    mutating func openDisk(_ settings: ResourceSettings) -> DiskProblem? {
        guard backing == nil else { return nil }
        do throws(BackingFileError) {
            let opened = try BackingFile(opening: settings.disk)
            if let problem = openMetadata(settings.metaDisk) { return problem }
            do throws(SystemError) {
                disk.file = try reactor.addFile(opened.descriptor)
            } catch {
                closeDisk()
                return DiskProblem("\(settings.disk): \(error)")
            }
            if !opened.direct {
                log.notice("\(settings.disk): no O_DIRECT here; the page cache is used")
            }
            disk.punches = true
            disk.zeroRanges = true
            disk.punchesFast = opened.zeroesFast
            disk.holes = opened.kind == .file ? opened.descriptor : -1
            disk.blockSize = opened.blockSize
            disk.zeroRangesFast = false
            diskSize = opened.size
            disk.trouble = nil
            watchFile(settings.disk, opened)
            backing = consume opened
            return nil
        } catch {
            return DiskProblem(error)
        }
    }

    private mutating func openMetadata(_ place: ResourceSettings.MetaPlace) -> DiskProblem? {
        guard let path = place.path, let placement = place.placement else { return nil }
        do throws(BackingFileError) {
            let opened = try BackingFile(opening: path, claiming: place.extent)
            do throws(SystemError) {
                disk.metaFile = try reactor.addFile(opened.descriptor)
            } catch { return DiskProblem("\(path): \(error)", number: 105) }
            if !opened.direct { log.notice("\(path): no O_DIRECT here; the page cache is used") }
            metadata = ExternalMetadata(placement: placement, deviceSize: opened.size)
            watchFile(path, opened)
            metaBacking = consume opened
            return nil
        } catch { return DiskProblem(error, number: 105) }
    }

    mutating func closeDisk() {
        forgetFiles()
        for file in [disk.file, disk.metaFile].compactMap(\.self) + disk.retired {
            do throws(SystemError) { try reactor.removeFile(file) } catch {
                log.error("closing the disk: \(error)")
            }
        }
        disk.file = nil
        disk.metaFile = nil
        disk.retired = []
        disk.holes = -1
        backing = nil
        metaBacking = nil
        metadata = nil
        blockStatus.forgetDisk()
    }
}

/// Why a disk could not be opened.
struct DiskProblem {
    /// Somebody else has it, and may give it up.
    var isBusy = false
    let text: String
    /// The failure of drbdsetup: 104 for the data, 105 for the meta data.
    var number = 104

    init(_ text: String, number: Int = 104) {
        self.text = text
        self.number = number
    }

    init(_ error: BackingFileError, number: Int = 104) {
        self.number = number
        switch error {
        case .busy, .busyBelow: isBusy = true
        case .backsLoopDevice, .networkFileSystem, .neitherFileNorDevice, .readOnly, .system: break
        }
        text = "\(error)"
    }
}

extension ResourceSettings.MetaPlace {
    /// Nil inside the data.
    var placement: MetaLocation.Placement? {
        switch self {
        case .internal: nil
        case .flexible: .flexExternal
        case .indexed(_, let slot): .indexed(slot)
        }
    }

    /// For messages, behind the name of the disk.
    var suffix: String {
        switch self {
        case .internal: ""
        case .flexible(let path): " with meta-disk \(path)"
        case .indexed(let path, let slot): " with meta-disk \(path) [\(slot)]"
        }
    }

    /// What is claimed of the device.
    var extent: BackingFile.Extent {
        switch self {
        case .internal, .flexible: .whole
        case .indexed(_, let slot):
            .range(
                offset: UInt64(slot) * MetaLocation.slotBytes, length: MetaLocation.slotBytes)
        }
    }
}
