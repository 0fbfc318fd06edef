import Glibc
import Support

/// The nodes /dev/nbdN of this machine: which there are, who has them, and the links to them.
///
/// Nothing here opens a node.
package struct KernelNodes: Sendable {
    private let sys: String
    private let dev: String
    private let locks: String

    /// - Parameter locks: a directory that all resources of the machine share.
    package init(
        sys: String = "/sys/block", dev: String = "/dev", locks: String = "/run/repd"
    ) {
        self.sys = sys
        self.dev = dev
        self.locks = locks
    }

    /// One node that a resource has for itself, attached or not, as long as it lives.
    package struct Reservation: Equatable, Sendable {
        package var index: Int
        /// What leads to the node, `nil` if the configuration names the node itself.
        package var link: String?
        /// Held locked; a copy of the descriptor keeps the reservation.
        package var lock: Int32
    }

    // MARK: what there is

    /// By number; none without the module.
    package var all: [Int] {
        guard let directory = unsafe opendir(sys) else { return [] }
        defer { unsafe closedir(directory) }
        var found: [Int] = []
        while let entry = unsafe readdir(directory) {
            // The name lies in the entry, which lives until the next call.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { place in
                unsafe place.withMemoryRebound(to: CChar.self, capacity: 256) {
                    unsafe String(cString: $0)
                }
            }
            if let index = Self.index(ofName: name) { found.append(index) }
        }
        return found.sorted()
    }

    package func path(_ index: Int) -> String { "\(dev)/nbd\(index)" }

    /// The kernel says whose process attached it, for as long as somebody uses it.
    package func isAttached(_ index: Int) -> Bool {
        unsafe access("\(sys)/nbd\(index)/pid", F_OK) == 0
    }

    /// What its user called itself; `nil` also where the kernel (before 5.14) does not keep it.
    package func backend(_ index: Int) -> String? {
        let path = "\(sys)/nbd\(index)/backend"
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        // No more than the buffer holds.
        let count = unsafe read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { return nil }
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    /// Attached nodes of this user.
    package func attached(by backend: String) -> [Int] {
        all.filter { isAttached($0) && self.backend($0) == backend }
    }

    /// Whether it is this user's, as far as the kernel knows.
    package func isAttached(_ index: Int, by backend: String) -> Bool {
        let user = self.backend(index)
        return isAttached(index) && (user == nil || user == backend)
    }

    /// How soon a request that was under way when its socket died is looked at again; the kernel's
    /// own value is 30 s.
    package func setRequestTimeout(_ index: Int, _ time: Duration) throws(KernelDeviceError) {
        let path = "\(sys)/nbd\(index)/queue/io_timeout"
        let descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system(SystemError("open", path, errno: errno)) }
        defer { close(descriptor) }
        let milliseconds =
            time.components.seconds * 1000 + time.components.attoseconds / 1_000_000_000_000_000
        let text = Array("\(milliseconds)\n".utf8)
        // As many bytes as the array has.
        guard unsafe write(descriptor, text, text.count) == text.count else {
            throw .system(SystemError("write", path, errno: errno))
        }
    }

    /// The number in `/dev/nbdN`, `nil` for any other path.
    package func index(ofPath path: String) -> Int? {
        guard path.hasPrefix(dev + "/") else { return nil }
        return Self.index(ofName: String(path.dropFirst(dev.count + 1)))
    }

    private static func index(ofName name: String) -> Int? {
        guard name.hasPrefix("nbd"), let index = Int(name.dropFirst(3)), "nbd\(index)" == name
        else { return nil }
        return index
    }

    // MARK: reserving

    /// A free node for `device`: that one if it is a node, else any, with a link in that place.
    ///
    /// - Throws: `foreignNode` if something else stands in the link's place; it stays.
    package func reserve(device: String) throws(KernelDeviceError) -> Reservation {
        let all = all
        guard !all.isEmpty else { throw .noModule }
        if let index = index(ofPath: device) {
            guard all.contains(index) else {
                throw .system(SystemError("open", device, errno: ENOENT))
            }
            guard let lock = try claim(index) else { throw .inUse(index: index) }
            return Reservation(index: index, link: nil, lock: lock)
        }
        let old = try linked(device)
        if let old, all.contains(old) {
            // Nobody's any more, or that of a resource that lives.
            if let lock = try claim(old) {
                return Reservation(index: old, link: device, lock: lock)
            }
            guard isAttached(old), let lock = try lock(old) else {
                throw .foreignNode(device, found: "a link of another resource to \(path(old))")
            }
            close(lock)
        }
        for index in all {
            guard let lock = try claim(index) else { continue }
            do throws(KernelDeviceError) { try link(device, to: index) } catch {
                close(lock)
                throw error
            }
            return Reservation(index: index, link: device, lock: lock)
        }
        throw .allInUse
    }

    /// The same once more, for the process that follows one that died, if the lock did not live on.
    package func reserveAgain(
        _ index: Int, device: String
    ) throws(KernelDeviceError) -> Reservation {
        guard let lock = try lock(index) else { throw .inUse(index: index) }
        return reservation(index, device: device, lock: lock)
    }

    /// - Parameter lock: one that lived on.
    package func reservation(_ index: Int, device: String, lock: Int32) -> Reservation {
        Reservation(
            index: index, link: self.index(ofPath: device) == nil ? device : nil, lock: lock)
    }

    /// Takes the link away, if it is ours still, and lets others have the node.
    package func release(_ reservation: Reservation) {
        if let link = reservation.link { unlink(link, from: reservation.index) }
        close(reservation.lock)
    }

    /// Removes a link to this node; anything else stays.
    package func unlink(_ link: String, from index: Int) {
        guard Self.target(link) == path(index) else { return }
        _ = unsafe Glibc.unlink(link)
    }

    /// Locked, and attached by nobody: its lock.
    private func claim(_ index: Int) throws(KernelDeviceError) -> Int32? {
        // In a container the module may be there and the node not.
        guard unsafe access(path(index), F_OK) == 0, !isAttached(index),
            let lock = try lock(index)
        else { return nil }
        // Whoever had it may have attached it in between.
        guard !isAttached(index) else {
            close(lock)
            return nil
        }
        return lock
    }

    /// For a process that has the node open because of a demotion (`DeviceHolder`), which may outlive
    /// the engine that started it.
    ///
    /// - Returns: a descriptor that holds the lock, `nil` while another such process lives.
    package func lockForHolder(_ index: Int) throws(KernelDeviceError) -> Int32? {
        try lock(index, ".held")
    }

    private func lock(
        _ index: Int, _ purpose: String = ""
    ) throws(KernelDeviceError) -> Int32? {
        guard unsafe mkdir(locks, 0o755) == 0 || errno == EEXIST else {
            throw .system(SystemError("mkdir", locks, errno: errno))
        }
        // No resource has such a name.
        let path = "\(locks)/.nbd\(index)\(purpose)"
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system(SystemError("open", path, errno: errno)) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    // MARK: the link

    /// The node that a link of ours leads to, `nil` if there is nothing.
    private func linked(_ device: String) throws(KernelDeviceError) -> Int? {
        var status = stat()
        guard unsafe lstat(device, &status) == 0 else {
            if errno == ENOENT { return nil }
            throw .system(SystemError("lstat", device, errno: errno))
        }
        guard status.st_mode & S_IFMT == S_IFLNK else {
            let isDevice = status.st_mode & S_IFMT == S_IFBLK
            throw .foreignNode(device, found: isDevice ? "a block device" : "a file")
        }
        let target = Self.target(device) ?? ""
        guard let index = index(ofPath: target) else {
            throw .foreignNode(device, found: "a link to \(target)")
        }
        return index
    }

    private func link(_ device: String, to index: Int) throws(KernelDeviceError) {
        let new = "\(device).repd"
        _ = unsafe Glibc.unlink(new)
        guard unsafe symlink(path(index), new) == 0 else {
            throw .system(SystemError("symlink", device, errno: errno))
        }
        guard unsafe rename(new, device) == 0 else {
            let error = errno
            _ = unsafe Glibc.unlink(new)
            throw .system(SystemError("rename", device, errno: error))
        }
    }

    private static func target(_ link: String) -> String? {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        // No more than the buffer holds.
        let count = unsafe readlink(link, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
