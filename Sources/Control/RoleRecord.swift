import Glibc
package import Support

/// What a process that is started again after a death has to find to be Primary again: who was, on
/// which disk, with which data (safety.md S18). No record means Secondary.
package struct RoleRecord: Equatable, Sendable {
    /// The machine's boot.
    package var boot: String
    /// The engine that is, or was, Primary.
    package var process: Int32
    /// The backing disk: its path, and which file or device that was.
    package var disk: String
    /// Generations that the disk may name, the latest first; bit 0 does not count.
    package var generations: [UInt64]
    /// When the process died: nanoseconds of CLOCK_BOOTTIME; `nil` as long as it lives.
    package var died: UInt64?
    /// The N of the /dev/nbdN that is attached under this record.
    package var device: Int?

    package init(
        boot: String, process: Int32, disk: String, generations: [UInt64], device: Int? = nil
    ) {
        self.boot = boot
        self.process = process
        self.disk = disk
        self.generations = generations
        self.device = device
    }

    package static var currentBoot: String {
        SmallFile.read("/proc/sys/kernel/random/boot_id")?.split(separator: "\n").first
            .map(String.init) ?? ""
    }

    /// A path and what it means now: renamed or replaced, it is another disk.
    package static func identity(ofDisk path: String) -> String {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return path }
        let isDevice = status.st_mode & S_IFMT == S_IFBLK
        return isDevice
            ? "\(path) device \(status.st_rdev)" : "\(path) file \(status.st_dev):\(status.st_ino)"
    }

    package func names(_ generation: UInt64) -> Bool {
        generations.contains { $0 & ~1 == generation & ~1 }
    }

    /// Always as long: to write it over an old one needs no space.
    static let size = 4096

    var text: String {
        let generations = generations.map { String($0, radix: 16) }.joined(separator: " ")
        let end = died.map { "died \($0)\n" } ?? ""
        let attached = device.map { "device \($0)\n" } ?? ""
        return "boot \(boot)\nprocess \(process)\ndisk \(disk)\ngenerations \(generations)\n"
            + end + attached
    }

    init?(text: String) {
        var fields: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1)
            if parts.count == 2 { fields[parts[0]] = parts[1] }
        }
        guard let boot = fields["boot"], let process = fields["process"].flatMap({ Int32($0) }),
            let disk = fields["disk"], let generations = fields["generations"]
        else { return nil }
        let numbers = generations.split(separator: " ").map { UInt64($0, radix: 16) }
        guard numbers.allSatisfy({ $0 != nil }) else { return nil }
        let device = fields["device"].map { Int($0) }
        // One that is there and no number.
        guard device != .some(nil) else { return nil }
        self.init(
            boot: String(boot), process: process, disk: String(disk),
            generations: numbers.compactMap { $0 }, device: device ?? nil)
        died = fields["died"].flatMap { UInt64($0) }
    }
}

/// The record's file, changed and looked at under `role.lock`.
package struct RoleFile: Sendable {
    private let path: String
    private let lockPath: String

    package init(_ directory: ResourceDirectory) {
        path = directory.path + "/role"
        lockPath = directory.roleLock
    }

    /// - Throws: where it cannot be locked: then nothing may be believed or changed.
    package func whileLocked<Result>(
        _ body: (borrowing RoleFile) throws(SystemError) -> Result
    ) throws(SystemError) -> Result {
        let descriptor = unsafe open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("open", lockPath, errno: errno) }
        defer { _ = close(descriptor) }
        // Held for microseconds by those who hold it, unless one was stopped there.
        var attempts = 0
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            guard code == EINTR || code == EWOULDBLOCK, attempts < 500 else {
                throw SystemError("flock", lockPath, errno: code)
            }
            attempts += 1
            usleep(1000)
        }
        return try body(self)
    }

    /// `nil`: there is none, or it cannot be read.
    package func read() -> RoleRecord? { SmallFile.read(path).flatMap { RoleRecord(text: $0) } }

    package func write(_ record: RoleRecord) throws(SystemError) {
        var bytes = Array(record.text.utf8)
        guard bytes.count <= RoleRecord.size else {
            throw SystemError("write", path, errno: ENAMETOOLONG)
        }
        bytes += [UInt8](repeating: UInt8(ascii: "\n"), count: RoleRecord.size - bytes.count)
        // In place and in one page: whoever reads finds the old one or the new one.
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("open", path, errno: errno) }
        defer { _ = close(descriptor) }
        let count = unsafe pwrite(descriptor, bytes, bytes.count, 0)
        guard count == bytes.count else {
            throw SystemError("write", path, errno: count < 0 ? errno : ENOSPC)
        }
    }

    /// Needs no space.
    package func erase() throws(SystemError) {
        guard unsafe unlink(path) == 0 || errno == ENOENT else {
            throw SystemError("unlink", path, errno: errno)
        }
    }
}
