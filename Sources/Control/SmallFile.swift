import Glibc
package import Support

/// Files of a few kilobytes in a run directory.
package enum SmallFile {
    private static let limit = 1 << 20

    /// All of it; `nil` if it cannot be read.
    package static func read(_ path: String) -> String? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while bytes.count < limit {
            // No more than the buffer holds.
            let count = unsafe Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Replaces it whole: whoever reads finds the old one or the new one.
    package static func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
        let new = path + ".new"
        let descriptor = unsafe open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("open", new, errno: errno) }
        let count = unsafe write(descriptor, bytes, bytes.count)
        let failure = count < 0 ? errno : ENOSPC
        _ = close(descriptor)
        guard count == bytes.count else {
            _ = unsafe unlink(new)
            throw SystemError("write", new, errno: failure)
        }
        guard unsafe rename(new, path) == 0 else {
            throw SystemError("rename", path, errno: errno)
        }
    }

    /// Changes a file of a line or two in its place, for which an old one needs no space.
    package static func overwrite(
        _ descriptor: Int32, _ path: String, _ text: String
    ) throws(SystemError) {
        let bytes = Array(text.utf8)
        let count = unsafe pwrite(descriptor, bytes, bytes.count, 0)
        guard count == bytes.count else {
            throw SystemError("write", path, errno: count < 0 ? errno : ENOSPC)
        }
        _ = ftruncate(descriptor, off_t(count))
    }

    /// Whether an open file is still the one that has this name.
    package static func isInPlace(_ descriptor: Int32, _ path: String) -> Bool {
        var held = stat()
        var named = stat()
        // Both calls write one structure of that type.
        guard unsafe fstat(descriptor, &held) == 0, unsafe stat(path, &named) == 0 else {
            return false
        }
        return held.st_dev == named.st_dev && held.st_ino == named.st_ino
    }
}
