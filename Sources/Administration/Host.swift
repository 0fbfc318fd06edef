package import Configuration
import Control
import Glibc
import Support

/// Small questions to the system.
package enum Host {
    package static func environment(_ name: String) -> String? { RunDirectory.environment(name) }

    static func sleep(_ duration: Duration) {
        usleep(UInt32(clamping: duration.inNanoseconds / 1000))
    }

    /// The first line of a small file, `nil` if it cannot be read.
    static func firstLine(of path: String) -> String? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        // No more than the buffer holds.
        let count = unsafe read(descriptor, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes[..<count].prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }

    /// The names in a directory.
    static func entries(of path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            // The name lies in the entry, which lives until the next call.
            names.append(
                unsafe withUnsafePointer(to: &entry.pointee.d_name) { place in
                    unsafe place.withMemoryRebound(to: CChar.self, capacity: 256) {
                        unsafe String(cString: $0)
                    }
                })
        }
        return names
    }

    static func linkTarget(_ path: String) -> String? {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        // No more than the buffer holds.
        let count = unsafe readlink(path, &bytes, bytes.count)
        guard count > 0 else { return nil }
        return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// A path that means the same to a process with another working directory.
    package static func absolutePath(_ path: String) -> String {
        guard !path.hasPrefix("/") else { return path }
        // getcwd allocates the result, which is copied and freed here.
        guard let current = unsafe getcwd(nil, 0) else { return path }
        defer { unsafe free(current) }
        return unsafe String(cString: current) + "/" + path
    }
}

extension Host {
    /// This machine, or the node that one of its run directories stands for.
    ///
    /// - Parameter name: `nil` takes `REPD_NODE_NAME`, else `uname -n`.
    package static func node(
        named name: String?, environment: (String) -> String? = Host.environment
    ) -> NodeIdentity {
        let given = name ?? environment("REPD_NODE_NAME").flatMap { $0.isEmpty ? nil : $0 }
        return NodeIdentity(
            name: given ?? hostName(), addresses: NodeIdentity.localAddresses())
    }

    private static func hostName() -> String {
        var name = utsname()
        guard unsafe uname(&name) == 0 else { return "localhost" }
        return unsafe withUnsafePointer(to: &name.nodename) { place in
            unsafe place.withMemoryRebound(to: CChar.self, capacity: 65) {
                unsafe String(cString: $0)
            }
        }
    }

    /// How wide the terminal is; `nil` if it is none.
    package static func columns(of descriptor: Int32) -> Int? {
        guard isatty(descriptor) == 1 else { return nil }
        var size = winsize()
        // Written by the call only, into a value of the size it expects.
        guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
            return 80
        }
        return Int(size.ws_col)
    }
}
