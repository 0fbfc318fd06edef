import CShims
import Glibc
package import Support

/// A local file or block device, open and claimed: nobody else has it, and nobody else gets it until
/// the last operation on it is done, even if this process is killed (safety.md S16).
@safe package struct BackingFile: ~Copyable {
    package enum Kind: Equatable, Sendable { case file, blockDevice }

    /// How much of it is claimed. A meta-data device that volumes share is claimed by ranges.
    package enum Extent: Equatable, Sendable {
        case whole
        case range(offset: UInt64, length: UInt64)
    }

    /// Larger alignments than this are left to the page cache.
    static let largestBlock = 4096

    /// For `Reactor.addFile`; the lock belongs to it, so nobody else should get it.
    package let descriptor: Int32
    package let kind: Kind
    /// Bytes, when it was opened.
    package let size: UInt64
    /// Whether the page cache is left out. Where it is not, only a flush makes writes durable.
    package let direct: Bool
    /// What offsets and lengths have to be multiples of: 512 to 4096.
    package let blockSize: Int
    /// Whether ranges can be made zero without writing zeros. False also where that is not known.
    package let zeroesFast: Bool
    /// What addresses in memory have to be multiples of; 4096 always suffices.
    package let memoryAlignment: Int
    /// The file under a loop device, -1 if there is none; claimed for as long.
    private let below: Int32

    /// - Parameters:
    ///   - allowsNetwork: whether a network file system will do.
    /// - Throws: `.busy` if somebody has it: whoever wants to wait asks again.
    package init(
        opening path: String, claiming extent: Extent = .whole, allowsNetwork: Bool = false
    ) throws(BackingFileError) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            throw .system(SystemError("open", path, errno: errno))
        }
        let kind = try Self.kind(path, status)
        var (descriptor, direct) = try Self.open(path, kind, extent, status)
        var below: Int32 = -1
        var block = (size: 512, memory: 512)
        let size: UInt64
        do throws(BackingFileError) {
            if kind == .file, !allowsNetwork { try Self.refuseNetwork(path, descriptor) }
            if kind == .blockDevice, shim_is_read_only(descriptor) == 1 {
                throw .readOnly(path: path)
            }
            try Self.claim(path, descriptor, kind, extent, status)
            below = try Self.claimBelow(path, status, kind, extent)
            block = Self.alignment(descriptor, kind, &direct)
            size = try Self.size(path, descriptor, kind)
        } catch {
            close(descriptor)
            if below >= 0 { close(below) }
            throw error
        }
        self.descriptor = descriptor
        self.kind = kind
        self.size = size
        self.direct = direct
        blockSize = block.size
        memoryAlignment = block.memory
        zeroesFast = Self.zeroesFast(descriptor, kind, size, status.st_rdev)
        self.below = below
    }

    deinit {
        close(descriptor)
        // After it: the device's last write goes to this file.
        if below >= 0 { close(below) }
    }

    /// The size now: a device or file may have grown.
    package func currentSize() throws(BackingFileError) -> UInt64 {
        try Self.size("", descriptor, kind)
    }

    private static func kind(_ path: String, _ status: stat) throws(BackingFileError) -> Kind {
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFBLK: return .blockDevice
        default: throw .neitherFileNorDevice(path: path)
        }
    }

    /// With O_DIRECT if that goes.
    private static func open(
        _ path: String, _ kind: Kind, _ extent: Extent, _ status: stat
    ) throws(BackingFileError) -> (descriptor: Int32, direct: Bool) {
        var flags = O_RDWR | O_CLOEXEC
        if kind == .blockDevice, extent == .whole { flags |= O_EXCL }
        var direct = true
        var descriptor = unsafe Glibc.open(path, flags | shim_o_direct)
        if descriptor < 0, errno == EINVAL {
            direct = false
            descriptor = unsafe Glibc.open(path, flags)
        }
        guard descriptor >= 0 else {
            if errno == EBUSY { throw .busy(path: path, Claim.holder(of: status)) }
            throw .system(SystemError("open", path, errno: errno))
        }
        return (descriptor, direct)
    }

    private static func claim(
        _ path: String, _ descriptor: Int32, _ kind: Kind, _ extent: Extent, _ status: stat
    ) throws(BackingFileError) {
        if kind == .file, let device = LoopDevice.device(over: status) {
            throw .backsLoopDevice(path: path, device: device)
        }
        do throws(SystemError) {
            try Claim.take(descriptor, extent, exclusiveOpen: kind == .blockDevice)
        } catch {
            guard Claim.isBusy(error) else {
                throw .system(SystemError(error.call, path, errno: error.errno))
            }
            throw .busy(path: path, Claim.holder(of: status))
        }
    }

    /// Claims what lies under a loop device, at the bottom of the stack if there are several.
    private static func claimBelow(
        _ path: String, _ status: stat, _ kind: Kind, _ extent: Extent
    ) throws(BackingFileError) -> Int32 {
        guard kind == .blockDevice, var backing = LoopDevice.backing(of: status.st_rdev) else {
            return -1
        }
        var bottom = stat()
        // A stack deeper than this is none that anyone builds on purpose.
        for _ in 0..<8 {
            guard unsafe stat(backing.path, &bottom) == 0 else {
                throw .system(SystemError("open", backing.path, errno: errno))
            }
            guard bottom.st_mode & S_IFMT == S_IFBLK,
                var next = LoopDevice.backing(of: bottom.st_rdev)
            else { break }
            next.offset += backing.offset
            next.whole = next.whole && backing.whole
            backing = next
        }
        let descriptor = unsafe Glibc.open(backing.path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw .system(SystemError("open", backing.path, errno: errno))
        }
        do throws(SystemError) {
            let part = try part(of: backing, extent, path)
            try Claim.take(
                descriptor, part, exclusiveOpen: bottom.st_mode & S_IFMT == S_IFBLK)
        } catch {
            close(descriptor)
            guard Claim.isBusy(error) else { throw .system(error) }
            throw .busyBelow(device: path, path: backing.path, Claim.holder(of: bottom))
        }
        return descriptor
    }

    /// Which part of the file under a loop device the claim of the device is about.
    private static func part(
        of backing: LoopDevice.Backing, _ extent: Extent, _ path: String
    ) throws(SystemError) -> Extent {
        switch extent {
        case .whole where backing.whole:
            return .whole
        case .whole:
            let descriptor = try check(unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC), "open", path)
            defer { close(descriptor) }
            let size = shim_device_size(descriptor)
            guard size >= 0 else { throw SystemError("ioctl", path, errno: Int32(-size)) }
            return .range(offset: backing.offset, length: UInt64(size))
        case .range(let offset, let length):
            return .range(offset: backing.offset + offset, length: length)
        }
    }

    private static func size(
        _ path: String, _ descriptor: Int32, _ kind: Kind
    ) throws(BackingFileError) -> UInt64 {
        switch kind {
        case .blockDevice:
            let size = shim_device_size(descriptor)
            guard size >= 0 else { throw .system(SystemError("ioctl", path, errno: Int32(-size))) }
            return UInt64(size)
        case .file:
            var status = stat()
            guard unsafe fstat(descriptor, &status) == 0 else {
                throw .system(SystemError("fstat", path, errno: errno))
            }
            return UInt64(status.st_size)
        }
    }

    // MARK: how it wants to be used

    private static func alignment(
        _ descriptor: Int32, _ kind: Kind, _ direct: inout Bool
    ) -> (size: Int, memory: Int) {
        var memory: Int32 = -1
        var offset: Int32 = -1
        _ = unsafe shim_direct_alignment(descriptor, &memory, &offset)
        if direct, offset < 0 {
            // Not told: found out.
            offset = readable(descriptor, 512) ? 512 : readable(descriptor, 4096) ? 4096 : 0
            memory = max(memory, offset)
        }
        if direct, offset <= 0 || offset > Int32(largestBlock) || memory > Int32(largestBlock) {
            let flags = fcntl(descriptor, F_GETFL)
            _ = fcntl(descriptor, F_SETFL, flags & ~shim_o_direct)
            direct = false
        }
        let logical = kind == .blockDevice ? shim_logical_block_size(descriptor) : 512
        let size = max(512, min(logical, Int32(largestBlock)), direct ? offset : 0)
        return (Int(size), direct ? Int(max(memory, 1)) : 1)
    }

    /// Whether direct I/O takes a length of `size`; at the end of an empty file too.
    private static func readable(_ descriptor: Int32, _ size: Int) -> Bool {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        defer { unsafe buffer.deallocate() }
        return unsafe pread(descriptor, buffer, size, off_t(size)) >= 0
    }

    private static func zeroesFast(
        _ descriptor: Int32, _ kind: Kind, _ size: UInt64, _ device: dev_t
    ) -> Bool {
        guard kind == .blockDevice else {
            return shim_can_punch(descriptor, Int64(size)) == 1
        }
        // A partition has its queue one level up.
        let place = "/sys/dev/block/\(shim_device_major(device)):\(shim_device_minor(device))"
        for queue in ["/queue/", "/../queue/"] {
            let path = place + queue + "write_zeroes_max_bytes"
            let descriptor = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var digit: UInt8 = 0
            return unsafe Glibc.read(descriptor, &digit, 1) == 1 && digit != UInt8(ascii: "0")
        }
        return false
    }

    /// By the type number of statfs(2).
    private static let networkFileSystems: [(type: Int64, name: String)] = [
        (0x6969, "nfs"), (0x517b, "smb"), (0xff53_4d42, "cifs"), (0xfe53_4d42, "smb2"),
        (0x00c3_6400, "ceph"), (0x5346_414f, "afs"), (0x6b41_4653, "afs"), (0x0102_1997, "9p"),
        (0x7375_7245, "coda"),
    ]

    private static func refuseNetwork(
        _ path: String, _ descriptor: Int32
    ) throws(BackingFileError) {
        let type = shim_file_system(descriptor)
        guard let found = networkFileSystems.first(where: { $0.type == type }) else { return }
        throw .networkFileSystem(path: path, type: found.name)
    }
}

// For the time before the loop runs, and for programs without one. Offsets and lengths are multiples
// of `blockSize`.
extension BackingFile {
    package func read(at position: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        invariant(isAligned(position, count), "read of \(count) bytes at \(position)")
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: max(count, 1), alignment: 4096)
        defer { unsafe buffer.deallocate() }
        var done = 0
        while done < count {
            let got = unsafe pread(
                descriptor, buffer + done, count - done, off_t(position) + off_t(done))
            if got < 0, errno == EINTR { continue }
            try check(got, "read")
            guard got > 0 else { throw SystemError("read", "behind the end", errno: EIO) }
            done += got
        }
        return unsafe Array(UnsafeRawBufferPointer(start: buffer, count: count))
    }

    package func write(_ bytes: [UInt8], at position: UInt64) throws(SystemError) {
        invariant(isAligned(position, bytes.count), "write of \(bytes.count) bytes at \(position)")
        let buffer = UnsafeMutableRawPointer.allocate(
            byteCount: max(bytes.count, 1), alignment: 4096)
        defer { unsafe buffer.deallocate() }
        unsafe bytes.withUnsafeBytes { source in
            unsafe UnsafeMutableRawBufferPointer(start: buffer, count: bytes.count)
                .copyMemory(from: source)
        }
        var done = 0
        while done < bytes.count {
            let put = unsafe pwrite(
                descriptor, buffer + done, bytes.count - done, off_t(position) + off_t(done))
            if put < 0, errno == EINTR { continue }
            try check(put, "write")
            done += put
        }
    }

    /// Makes durable what was written.
    package func flush() throws(SystemError) { try check(fdatasync(descriptor), "fdatasync") }

    private func isAligned(_ position: UInt64, _ count: Int) -> Bool {
        position % UInt64(blockSize) == 0 && count % blockSize == 0
    }
}
