import CShims
import Glibc

/// A process that serves a kernel device is what memory is written back through: it must not wait for
/// memory that only it can free (safety.md S21).
package enum MemoryReclaim {
    /// As packaging/repd@.service has it; unlike -1000 it can still be killed when all else has been.
    private static let score = -900

    /// For the calling thread and those that it starts later, and for the memory of the process.
    ///
    /// - Returns: what was not permitted, for the log.
    package static func join() -> [String] {
        var refused: [String] = []
        let code = shim_become_io_flusher()
        if code < 0 { refused.append("PR_SET_IO_FLUSHER: \(text(-code))") }
        if mlockall(Int32(MCL_CURRENT) | Int32(MCL_FUTURE)) != 0 {
            refused.append("mlockall: \(text(errno))")
        }
        if let problem = lowerScore() { refused.append("oom_score_adj: \(problem)") }
        return refused
    }

    private static func lowerScore() -> String? {
        let descriptor = unsafe open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return text(errno) }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 16)
        // No more than the buffer holds.
        let count = unsafe pread(descriptor, &bytes, bytes.count, 0)
        let now = String(decoding: bytes[..<max(0, count)], as: UTF8.self)
        if let now = now.split(separator: "\n").first.flatMap({ Int($0) }), now <= score {
            return nil
        }
        let new = Array("\(score)\n".utf8)
        return unsafe pwrite(descriptor, new, new.count, 0) == new.count ? nil : text(errno)
    }

    private static func text(_ errno: Int32) -> String {
        // The text is constant.
        guard let text = unsafe shim_error_text(errno) else { return "error \(errno)" }
        return unsafe String(cString: text)
    }
}
