import Foundation
import Glibc
import Support

// The claim of safety rule S16. It has to be the engine's, so that each keeps the other away: on a
// block device O_EXCL, a shared flock and an open file description lock of all or of a range; on a
// file an exclusive flock and the same lock.

/// How much of a device is claimed; one that volumes share is claimed by ranges.
package enum DiskExtent: Equatable, Sendable {
    case whole
    case range(offset: UInt64, length: UInt64)
}

enum DiskClaim {
    // Not in Swift's Glibc: their headers want _GNU_SOURCE, or are not part of it.
    private static let setOpenFileLock: Int32 = 37

    /// - Throws: the error of the lock that somebody else has, see `isBusy`.
    static func take(
        _ descriptor: Int32, _ extent: DiskExtent, isBlockDevice: Bool
    ) throws(SystemError) {
        let mode = extent == .whole && !isBlockDevice ? LOCK_EX : LOCK_SH
        guard flock(descriptor, mode | LOCK_NB) == 0 else {
            throw SystemError("flock", errno: errno)
        }
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        lock.l_whence = Int16(SEEK_SET)
        if case .range(let offset, let length) = extent {
            lock.l_start = off_t(clamping: offset)
            lock.l_len = off_t(clamping: length)
        }
        guard unsafe fcntl(descriptor, setOpenFileLock, &lock) == 0 else {
            throw SystemError("fcntl", errno: errno)
        }
    }

    static func isBusy(_ error: SystemError) -> Bool {
        error.errno == EWOULDBLOCK || error.errno == EACCES || error.errno == EBUSY
    }

    /// The type of the file system that a file lies on, such as `ext4`.
    static func fileSystem(of status: stat) -> String? {
        let number = deviceNumber(status.st_dev)
        for line in lines(of: "/proc/self/mountinfo") {
            let fields = line.split(separator: " ")
            // The number of fields in front of the lone dash varies.
            guard fields.count > 4, fields[2] == number, let dash = fields.firstIndex(of: "-"),
                dash + 1 < fields.count
            else { continue }
            return String(fields[dash + 1])
        }
        return nil
    }

    /// Who has it, as far as the system tells.
    static func holder(of status: stat) -> String {
        if status.st_mode & S_IFMT == S_IFBLK {
            let number = deviceNumber(status.st_rdev)
            let above = entries(of: "/sys/dev/block/\(number)/holders")
            if let device = above.first { return "in use by \(device)" }
            for line in lines(of: "/proc/self/mountinfo") {
                let fields = line.split(separator: " ")
                if fields.count > 4, fields[2] == number { return "mounted on \(fields[4])" }
            }
        }
        return lockHolder(status) ?? openHolder(status) ?? "in use"
    }

    /// By lines like `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
    ///
    /// Who failed to get a range still has its own share of the device: others come first. Which of
    /// several has the range, the system does not tell.
    private static func lockHolder(_ status: stat) -> String? {
        var holders: [Int32] = []
        for line in lines(of: "/proc/locks") {
            let fields = line.split(separator: " ")
            // Open file description locks name no process: -1.
            guard fields.count >= 6, fields[1] != "->", let process = Int32(fields[4]), process > 0
            else { continue }
            let place = fields[5].split(separator: ":")
            guard place.count == 3, UInt64(place[0], radix: 16) == major(status.st_dev),
                UInt64(place[1], radix: 16) == minor(status.st_dev),
                UInt64(place[2]) == UInt64(status.st_ino)
            else { continue }
            if !holders.contains(process) { holders.append(process) }
        }
        let others = holders.filter { $0 != getpid() }
        let named = others.isEmpty ? holders : others
        guard !named.isEmpty else { return nil }
        return named.map(describe).joined(separator: " or ")
    }

    /// The first other process that has the block device open.
    private static func openHolder(_ status: stat) -> String? {
        guard status.st_mode & S_IFMT == S_IFBLK else { return nil }
        for process in entries(of: "/proc").compactMap({ Int32($0) }) where process != getpid() {
            for name in entries(of: "/proc/\(process)/fd") {
                var other = stat()
                let path = "/proc/\(process)/fd/\(name)"
                if unsafe stat(path, &other) == 0, other.st_mode & S_IFMT == S_IFBLK,
                    other.st_rdev == status.st_rdev
                {
                    return describe(process)
                }
            }
        }
        return nil
    }

    private static func describe(_ process: Int32) -> String {
        guard let name = lines(of: "/proc/\(process)/comm").first else {
            return "in use by pid \(process), which has ended but has I/O in flight"
        }
        return "in use by pid \(process) (\(name))"
    }
}

/// What /sys says about loop devices.
enum LoopDevices {
    struct Backing {
        var path: String
        /// Where the device begins in the file, in bytes.
        var offset: UInt64
        /// The device is all of the file.
        var isWhole: Bool
    }

    /// Nil if this is no loop device or partition of one, or if its file was deleted.
    static func backing(of device: dev_t) -> Backing? {
        let place = "/sys/dev/block/\(deviceNumber(device))"
        if let backing = backing(at: place) { return backing }
        // A partition's directory lies in that of its disk.
        guard let start = number(place + "/start"), var backing = backing(at: place + "/..") else {
            return nil
        }
        backing.offset += start * 512
        backing.isWhole = false
        return backing
    }

    private static func backing(at place: String) -> Backing? {
        guard let path = lines(of: place + "/loop/backing_file").first,
            !path.hasSuffix(" (deleted)")
        else { return nil }
        let offset = number(place + "/loop/offset") ?? 0
        let limit = number(place + "/loop/sizelimit") ?? 0
        return Backing(path: path, offset: offset, isWhole: offset == 0 && limit == 0)
    }

    /// The loop device over this file.
    static func device(over status: stat) -> String? {
        for name in entries(of: "/sys/block") where name.hasPrefix("loop") {
            guard let path = lines(of: "/sys/block/\(name)/loop/backing_file").first else {
                continue
            }
            var other = stat()
            if unsafe stat(path, &other) == 0, other.st_dev == status.st_dev,
                other.st_ino == status.st_ino
            {
                return "/dev/\(name)"
            }
        }
        return nil
    }

    private static func number(_ path: String) -> UInt64? {
        lines(of: path).first.flatMap { UInt64($0) }
    }
}

/// As /sys and mountinfo write it: `major:minor`.
private func deviceNumber(_ device: dev_t) -> String { "\(major(device)):\(minor(device))" }

// The macros of <sys/sysmacros.h>.
private func major(_ device: dev_t) -> UInt64 {
    UInt64(device) >> 8 & 0xFFF | UInt64(device) >> 32 & ~0xFFF
}

private func minor(_ device: dev_t) -> UInt64 {
    UInt64(device) & 0xFF | UInt64(device) >> 12 & 0xFFFF_FF00
}

/// None if it cannot be read: what the kernel does not tell is not there.
private func lines(of path: String) -> [String] {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return [] }
    return text.split(separator: "\n").map(String.init)
}

private func entries(of path: String) -> [String] {
    // As with `lines`.
    ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
}

/// As perror prints it.
func systemMessage(_ number: Int32) -> String {
    unsafe String(cString: strerror(number))
}
