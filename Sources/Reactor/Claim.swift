import CShims
import Glibc
import Support

/// The locks that keep a second engine away for as long as a write of the first can still land.
///
/// They belong to the open file description that does the I/O, and the kernel's requests hold that:
/// so they outlive a killed process until its last write is done (safety.md S16).
///
/// A flock tells other programs, and /proc/locks, who we are; the open file description lock has
/// ranges. One of the whole takes the flock exclusively, one of a range shares it.
enum Claim {
    /// On a block device O_EXCL is the claim of the whole; an exclusive flock would keep udev away.
    static func take(
        _ descriptor: Int32, _ range: BackingFile.Extent, exclusiveOpen: Bool
    ) throws(SystemError) {
        let whole = range == .whole && !exclusiveOpen
        let flags = whole ? shim_lock_exclusive : shim_lock_shared
        guard flock(descriptor, Int32(flags)) == 0 else {
            throw SystemError("flock", errno: errno)
        }
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        lock.l_whence = Int16(SEEK_SET)
        if case .range(let offset, let length) = range {
            lock.l_start = off_t(clamping: offset)
            lock.l_len = off_t(clamping: length)
        }
        guard unsafe fcntl(descriptor, shim_set_open_file_lock, &lock) == 0 else {
            throw SystemError("fcntl", errno: errno)
        }
    }

    static func isBusy(_ error: SystemError) -> Bool {
        error.errno == EWOULDBLOCK || error.errno == EACCES || error.errno == EBUSY
    }

    /// Who has the file or device, as far as the system tells.
    static func holder(of status: stat) -> BackingFileHolder {
        if status.st_mode & S_IFMT == S_IFBLK, let user = deviceHolder(status.st_rdev) {
            return user
        }
        return lockHolder(status) ?? .unknown
    }

    /// Other devices on top of it, or where it is mounted.
    private static func deviceHolder(_ device: dev_t) -> BackingFileHolder? {
        let number = "\(shim_device_major(device)):\(shim_device_minor(device))"
        if let above = names(in: "/sys/dev/block/\(number)/holders").first {
            return .device(above)
        }
        for line in (readText("/proc/self/mountinfo") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count > 4, fields[2] == number { return .mounted(at: String(fields[4])) }
        }
        return nil
    }

    /// From lines like `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; those of open file
    /// description locks name no process. Who failed to get a range still has its own share of the
    /// device: others come first.
    private static func lockHolder(_ status: stat) -> BackingFileHolder? {
        var own: BackingFileHolder?
        let major = shim_device_major(status.st_dev)
        let minor = shim_device_minor(status.st_dev)
        for line in (readText("/proc/locks") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count >= 6, fields[1] != "->", let process = Int32(fields[4]), process > 0
            else { continue }
            let place = fields[5].split(separator: ":")
            guard place.count == 3, UInt32(place[0], radix: 16) == major,
                UInt32(place[1], radix: 16) == minor, UInt64(place[2]) == UInt64(status.st_ino)
            else { continue }
            let name = readText("/proc/\(process)/comm").map { String($0.prefix { $0 != "\n" }) }
            let holder = BackingFileHolder.process(process, name: name)
            if process != getpid() { return holder }
            own = holder
        }
        return own
    }
}

/// The entries of a directory, in order, without those that begin with a dot; empty if it cannot be
/// read.
func names(in path: String) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
        let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { place in
            unsafe place.withMemoryRebound(to: CChar.self, capacity: 256) {
                unsafe String(cString: $0)
            }
        }
        if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted()
}
