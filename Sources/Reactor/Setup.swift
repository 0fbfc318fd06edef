import CShims
import Glibc
import Support

/// Opens the ring and finds out what the kernel can do.
enum Setup {
    private static let operations: [(io_uring_op, String)] = [
        (IORING_OP_READ, "read"), (IORING_OP_WRITE, "write"), (IORING_OP_FSYNC, "fsync"),
        (IORING_OP_FALLOCATE, "fallocate"), (IORING_OP_RECV, "recv"),
        (IORING_OP_RECVMSG, "recvmsg"), (IORING_OP_SEND, "send"),
        (IORING_OP_SENDMSG, "sendmsg"), (IORING_OP_ACCEPT, "accept"),
        (IORING_OP_CONNECT, "connect"), (IORING_OP_LINK_TIMEOUT, "link timeout"),
        (IORING_OP_POLL_ADD, "poll"), (IORING_OP_ASYNC_CANCEL, "cancel"),
    ]

    private static func flags(_ taskRunning: Reactor.TaskRunning) -> UInt32 {
        switch taskRunning {
        case .deferred: shim_setup_deferred
        case .cooperative: shim_setup_cooperative
        case .interrupting: 0
        }
    }

    /// - Returns: the best mode that the kernel supports, not better than the one configured.
    static func open(
        _ ring: UnsafeMutablePointer<io_uring>, _ configuration: Reactor.Configuration
    ) throws(ReactorError) -> Reactor.TaskRunning {
        var taskRunning: Reactor.TaskRunning? = configuration.taskRunning
        var code = -EINVAL
        while let mode = taskRunning {
            var parameters = io_uring_params()
            parameters.flags = flags(mode) | shim_setup_queue_size
            parameters.cq_entries = configuration.completionEntries
            code = unsafe io_uring_queue_init_params(
                configuration.submissionEntries, ring, &parameters)
            if code == 0 { return mode }
            // Only unknown flags are answered so.
            guard code == -EINVAL else { break }
            taskRunning = Reactor.TaskRunning(rawValue: mode.rawValue + 1)
        }
        let error = SystemError("io_uring_setup", errno: -code)
        guard code == -ENOSYS || code == -EPERM || code == -EACCES else { throw .system(error) }
        throw .forbidden(error, setting: setting())
    }

    /// kernel.io_uring_disabled, which kernels from 6.6 on have.
    private static func setting() -> Int? {
        readText("/proc/sys/kernel/io_uring_disabled").flatMap { Int($0.prefix { $0 != "\n" }) }
    }

    static func probe(_ ring: UnsafeMutablePointer<io_uring>) throws(ReactorError) {
        guard let probe = unsafe io_uring_get_probe_ring(ring) else {
            throw .lacking(operation: "probing")
        }
        defer { unsafe io_uring_free_probe(probe) }
        for (operation, name) in operations
        where unsafe io_uring_opcode_supported(probe, Int32(operation.rawValue)) == 0 {
            throw .lacking(operation: name)
        }
        guard unsafe ring.pointee.features & UInt32(IORING_FEAT_EXT_ARG) != 0 else {
            throw .lacking(operation: "a time limit for waiting")
        }
    }

    static func map(_ size: Int) throws(ReactorError) -> UnsafeMutableRawPointer {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let area = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, flags, -1, 0),
            unsafe area != MAP_FAILED
        else { throw .system(SystemError("mmap", "\(size) bytes", errno: errno)) }
        return unsafe area
    }

    static func report(
        _ taskRunning: Reactor.TaskRunning, _ arenaSize: Int, buffers: Bool, files: Bool
    ) -> String {
        let mode =
            switch taskRunning {
            case .deferred: "deferred task running"
            case .cooperative: "cooperative task running"
            case .interrupting: "interrupting task running"
            }
        let registered =
            buffers ? "registered" : "not registered (limit on locked memory, ulimit -l)"
        return "io_uring with \(mode), \(arenaSize >> 10) KiB of buffers \(registered), "
            + (files ? "registered files" : "ordinary files")
    }
}

/// The text of a small file of /proc or /sys, `nil` if it cannot be read.
func readText(_ path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var text: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = unsafe read(descriptor, &piece, piece.count)
        guard count > 0 else { return count == 0 ? String(decoding: text, as: UTF8.self) : nil }
        text += piece[..<count]
    }
}
