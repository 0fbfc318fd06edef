package import Control
import Glibc
package import Support

/// What happens before the loop: directories, and that there is one daemon per resource.
package enum DaemonStart {
    /// Makes the run directory and the resource's own.
    package static func prepare(
        _ directory: ResourceDirectory, run: RunDirectory
    ) throws(SystemError) {
        for path in [run.path, directory.path] {
            if unsafe mkdir(path, 0o755) == 0 || errno == EEXIST { continue }
            throw SystemError("mkdir", path, errno: errno)
        }
        guard unsafe access(directory.path, W_OK) == 0 else {
            throw SystemError("access", directory.path, errno: errno)
        }
    }

    /// This program's file, also if another one has taken its place since.
    package static var program: String {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        // No more than the buffer holds.
        let count = unsafe readlink("/proc/self/exe", &bytes, bytes.count)
        let path = String(
            decoding: bytes[..<max(0, count)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
    }

    /// `uname -n`.
    package static func hostName() -> String {
        var name = utsname()
        guard unsafe uname(&name) == 0 else { return "localhost" }
        return unsafe withUnsafePointer(to: &name.nodename) { place in
            unsafe place.withMemoryRebound(to: CChar.self, capacity: 65) {
                unsafe String(cString: $0)
            }
        }
    }
}

/// Held for as long as a daemon serves a resource: a second one finds it taken, a dead one's is free.
package struct DaemonLock: ~Copyable {
    private let descriptor: Int32

    /// - Throws: `cannotStart` naming the process that serves the resource.
    package init(_ directory: ResourceDirectory) throws(DaemonError) {
        let path = directory.engineLock
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw .cannotStart("\(SystemError("open", path, errno: errno))")
        }
        // Whoever wants to know whether an engine lives holds it for a moment.
        var attempts = 0
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0, attempts < 100 {
            attempts += 1
            usleep(2000)
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            var bytes = [UInt8](repeating: 0, count: 32)
            let count = unsafe read(descriptor, &bytes, bytes.count)
            let text = String(decoding: bytes[..<max(0, count)], as: UTF8.self)
            close(descriptor)
            let process = text.split(separator: "\n").first.map { "pid \($0)" } ?? "another process"
            throw .cannotStart("a repd serves it already (\(process))")
        }
        // Without its number it is only harder to find.
        try? SmallFile.overwrite(descriptor, path, "\(getpid())\n")
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// A clean end leaves nothing behind that looks like a running daemon.
    package func release(_ directory: ResourceDirectory, isSupervised: Bool) {
        // What lies in a deleted directory's place belongs to somebody else.
        guard SmallFile.isInPlace(descriptor, directory.engineLock) else { return }
        // A supervisor's sockets are for it to remove.
        if !isSupervised || !SupervisorLock.isHeld(directory) {
            _ = unsafe unlink(directory.controlSocket)
            _ = unsafe unlink(directory.nbdSocket)
        }
        _ = unsafe unlink(directory.engineLock)
    }
}
