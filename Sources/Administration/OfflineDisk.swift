import Glibc
import MetaDisk
package import Support

/// A file or block device whose meta data is worked on while no engine has it.
///
/// The claim lasts as long as the value. I/O goes through the page cache and is durable after
/// `flush`; the claim keeps away everybody who would bypass that cache.
package struct OfflineDisk: ~Copyable {
    /// As the operator spelt it.
    package let path: String
    /// Bytes.
    package let size: UInt64
    private let descriptor: Int32
    /// The file under a loop device, -1 if there is none; claimed for as long.
    private let below: Int32

    /// How long offline commands wait for a claim.
    package static let patience = Duration.seconds(5)
    private static let pause = Duration.milliseconds(100)

    /// - Throws: `.busy` or `.busyBelow` if somebody else had it all the time.
    package init(
        opening path: String, claiming extent: DiskExtent = .whole,
        waitingFor patience: Duration = Self.patience, allowsNetwork: Bool = false
    ) throws(OfflineDiskError) {
        let clock = ContinuousClock()
        let deadline = clock.now.advanced(by: patience)
        while true {
            do throws(OfflineDiskError) {
                let opened = try Self.open(path, extent, allowsNetwork)
                self.path = path
                size = opened.size
                descriptor = opened.descriptor
                below = opened.below
                return
            } catch {
                switch error {
                case .busy, .busyBelow:
                    guard clock.now < deadline else { throw error }
                    usleep(UInt32(Self.pause.inNanoseconds / 1000))
                case .backsLoopDevice, .networkFileSystem, .neitherFileNorDevice, .system:
                    throw error
                }
            }
        }
    }

    deinit {
        close(descriptor)
        // After it: the device's last write goes to this file.
        if below >= 0 { close(below) }
    }

    private static func open(
        _ path: String, _ extent: DiskExtent, _ allowsNetwork: Bool
    ) throws(OfflineDiskError) -> (descriptor: Int32, below: Int32, size: UInt64) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            throw .system(SystemError("open", path, errno: errno))
        }
        let kind = status.st_mode & S_IFMT
        guard kind == S_IFREG || kind == S_IFBLK else { throw .neitherFileNorDevice(path: path) }
        let isBlockDevice = kind == S_IFBLK
        let exclusive = isBlockDevice && extent == .whole ? O_EXCL : 0
        let descriptor = unsafe Glibc.open(path, O_RDWR | O_CLOEXEC | exclusive)
        guard descriptor >= 0 else {
            if errno == EBUSY { throw .busy(path: path, holder: DiskClaim.holder(of: status)) }
            throw .system(SystemError("open", path, errno: errno))
        }
        var below: Int32 = -1
        do throws(OfflineDiskError) {
            if !isBlockDevice {
                if let device = LoopDevices.device(over: status) {
                    throw .backsLoopDevice(path: path, device: device)
                }
                if !allowsNetwork { try refuseNetwork(path, status) }
            }
            do throws(SystemError) {
                try DiskClaim.take(descriptor, extent, isBlockDevice: isBlockDevice)
            } catch {
                guard DiskClaim.isBusy(error) else {
                    throw .system(SystemError(error.call, path, errno: error.errno))
                }
                throw .busy(path: path, holder: DiskClaim.holder(of: status))
            }
            let end = lseek(descriptor, 0, SEEK_END)
            guard end >= 0 else { throw .system(SystemError("lseek", path, errno: errno)) }
            if isBlockDevice {
                below = try claimBelow(path, status, extent, size: UInt64(end))
            }
            return (descriptor, below, UInt64(end))
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// Claims the file under a loop device, at the bottom of the stack if there are several.
    private static func claimBelow(
        _ path: String, _ status: stat, _ extent: DiskExtent, size: UInt64
    ) throws(OfflineDiskError) -> Int32 {
        guard var backing = LoopDevices.backing(of: status.st_rdev) else { return -1 }
        var bottom = stat()
        // A stack deeper than this is none that anyone builds on purpose.
        for _ in 0..<8 {
            guard unsafe stat(backing.path, &bottom) == 0 else {
                throw .system(SystemError("open", backing.path, errno: errno))
            }
            guard bottom.st_mode & S_IFMT == S_IFBLK,
                var next = LoopDevices.backing(of: bottom.st_rdev)
            else { break }
            next.offset += backing.offset
            next.isWhole = next.isWhole && backing.isWhole
            backing = next
        }
        let part: DiskExtent =
            switch extent {
            case .whole where backing.isWhole: .whole
            case .whole: .range(offset: backing.offset, length: size)
            case .range(let offset, let length):
                .range(offset: backing.offset + offset, length: length)
            }
        let descriptor = unsafe Glibc.open(backing.path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw .system(SystemError("open", backing.path, errno: errno))
        }
        do throws(SystemError) {
            try DiskClaim.take(
                descriptor, part, isBlockDevice: bottom.st_mode & S_IFMT == S_IFBLK)
        } catch {
            close(descriptor)
            guard DiskClaim.isBusy(error) else { throw .system(error) }
            let holder = DiskClaim.holder(of: bottom)
            throw .busyBelow(path: path, file: backing.path, holder: holder)
        }
        return descriptor
    }

    private static let networkFileSystems: Set = [
        "nfs", "nfs4", "smb3", "cifs", "ceph", "afs", "9p", "coda", "fuse.glusterfs", "fuse.sshfs",
    ]

    private static func refuseNetwork(
        _ path: String, _ status: stat
    ) throws(OfflineDiskError) {
        guard let type = DiskClaim.fileSystem(of: status), networkFileSystems.contains(type) else {
            return
        }
        throw .networkFileSystem(path: path, type: type)
    }
}

extension OfflineDisk: MetaAccess {
    package func read(at offset: UInt64, into bytes: inout MutableRawSpan) throws(SystemError) {
        let count = bytes.byteCount
        var done = 0
        while done < count {
            let got = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(
                    descriptor, buffer.baseAddress?.advanced(by: done), count - done,
                    off_t(offset) + off_t(done))
            }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw SystemError("read", path, errno: errno) }
            // The end was measured when it was opened: somebody cut it since.
            guard got > 0 else { throw SystemError("read", path, errno: ENXIO) }
            done += got
        }
    }

    package func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < bytes.byteCount {
            let put = unsafe bytes.withUnsafeBytes { buffer in
                unsafe pwrite(
                    descriptor, buffer.baseAddress?.advanced(by: done), bytes.byteCount - done,
                    off_t(offset) + off_t(done))
            }
            if put < 0 && errno == EINTR { continue }
            guard put >= 0 else { throw SystemError("write", path, errno: errno) }
            done += put
        }
    }

    /// Writes zeros, so that a sparse file has the space when the engine needs it.
    package func zero(_ range: Range<UInt64>) throws(SystemError) {
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        var offset = range.lowerBound
        while offset < range.upperBound {
            let count = Int(min(UInt64(zeros.count), range.upperBound - offset))
            try write(zeros.rawBytes.extracting(0..<count), at: offset)
            offset += UInt64(count)
        }
    }

    package func flush() throws(SystemError) {
        guard fdatasync(descriptor) == 0 else {
            throw SystemError("fdatasync", path, errno: errno)
        }
    }
}
