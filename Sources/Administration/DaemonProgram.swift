import FoundationEssentials
import Glibc
import Support

/// The daemon's executable and processes.
enum DaemonProgram {
    static let name = "repd"
    // Not in Swift's Glibc: their header wants _GNU_SOURCE.
    private static let newSession: Int16 = 0x80

    /// Next to this program, else in PATH.
    static func find() throws(SystemError) -> String {
        var places: [String] = []
        if let own = Host.linkTarget("/proc/self/exe"), let slash = own.lastIndex(of: "/") {
            places.append(String(own[..<slash]))
        }
        places += (Host.environment("PATH") ?? "").split(separator: ":").map(String.init)
        for place in places {
            let path = place + "/" + name
            if unsafe access(path, X_OK) == 0 { return path }
        }
        throw SystemError("exec", "\(name) next to this program or in PATH", errno: ENOENT)
    }

    /// Starts a program that outlives this one: in a session of its own, with nothing of ours open.
    ///
    /// - Parameter output: becomes its standard output and standard error.
    static func spawn(
        _ path: String, _ arguments: [String], output: Int32
    ) throws(SystemError) -> pid_t {
        closeOthersOnExecution()
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, 2)
        var none = sigset_t()
        var all = sigset_t()
        unsafe sigemptyset(&none)
        unsafe sigfillset(&all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        let flags = Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | newSession
        unsafe posix_spawnattr_setflags(&attributes, flags)
        var process: pid_t = 0
        let surroundings = ProcessInfo.processInfo.environment.map { "\($0)=\($1)" }
        let code = unsafe withCStrings(arguments) { arguments in
            unsafe withCStrings(surroundings) { surroundings in
                unsafe posix_spawn(
                    &process, path, &actions, &attributes, arguments, surroundings)
            }
        }
        guard code == 0 else { throw SystemError("posix_spawn", path, errno: code) }
        return process
    }

    /// Whether the program can be executed and knows what it is.
    static func probe(_ path: String) throws(SystemError) {
        let output = unsafe open("/dev/null", O_WRONLY | O_CLOEXEC)
        guard output >= 0 else { throw SystemError("open", "/dev/null", errno: errno) }
        defer { _ = close(output) }
        let process = try spawn(path, [path, "--version"], output: output)
        var status: Int32 = 0
        // Writes one number.
        while unsafe waitpid(process, &status, 0) < 0, errno == EINTR {}
        guard status == 0 else { throw SystemError("exec", path, errno: ENOEXEC) }
    }

    struct End {
        var isFailure: Bool
        /// The exit status, 0 for one that a signal ended.
        var status: Int32
        var text: String
    }

    /// How a child has ended; `nil` while it runs.
    static func end(of process: pid_t) -> End? {
        var status: Int32 = 0
        // Writes one number.
        guard unsafe waitpid(process, &status, WNOHANG) == process else { return nil }
        let signal = status & 0x7f
        let code = status >> 8 & 0xff
        return End(
            isFailure: status != 0, status: signal == 0 ? code : 0,
            text: signal == 0
                ? "ended at once (exit status \(code))" : "was killed by signal \(signal)")
    }

    /// Whether a process has ended, even if nobody has waited for it.
    static func isGone(_ process: pid_t) -> Bool { state(of: process).map { $0 == "Z" } ?? true }

    /// The letter that ps(1) shows; `nil` without such a process.
    static func state(of process: pid_t) -> Character? { status(of: process)?.first?.first }

    static func parent(of process: pid_t) -> pid_t? {
        status(of: process)?.dropFirst().first.flatMap { pid_t($0) }
    }

    /// The fields behind the name: state, parent and so on.
    private static func status(of process: pid_t) -> [Substring]? {
        guard let line = Host.firstLine(of: "/proc/\(process)/stat"),
            // The name in parentheses may contain anything, the state follows the last one.
            let end = line.lastIndex(of: ")")
        else { return nil }
        return line[line.index(after: end)...].split(separator: " ")
    }

    /// What a shell or library left open is not the daemon's.
    private static func closeOthersOnExecution() {
        for name in Host.entries(of: "/proc/self/fd") {
            guard let descriptor = Int32(name), descriptor > 2 else { continue }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
    }

    private static func withCStrings(
        _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Int32
    ) -> Int32 {
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { unsafe pointers.forEach { unsafe free($0) } }
        return unsafe body(&pointers)
    }
}

/// Where the daemon's output goes. What it says about its end is shown to whoever started it.
struct DaemonLog: ~Copyable {
    /// What is shown of it at most.
    private static let shownLines = 10
    private static let shownBytes = 8192

    let descriptor: Int32
    private let path: String
    /// Its size before the daemon was started.
    private let start: off_t

    init(path: String) throws(SystemError) {
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else { throw SystemError("open", path, errno: errno) }
        start = lseek(descriptor, 0, SEEK_END)
        self.path = path
        // Last: from here on `deinit` closes it.
        self.descriptor = descriptor
    }

    deinit { _ = close(descriptor) }

    /// The last lines since the start, indented.
    func tail() -> String {
        let reader = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard reader >= 0 else { return "  (cannot be read: \(systemMessage(errno)))" }
        defer { _ = close(reader) }
        let end = lseek(reader, 0, SEEK_END)
        var bytes = [UInt8](repeating: 0, count: Self.shownBytes)
        let place = max(start, end - off_t(Self.shownBytes))
        // No more than the buffer holds.
        let count = unsafe pread(reader, &bytes, bytes.count, place)
        guard count > 0 else { return "  (nothing)" }
        let lines = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
        return lines.suffix(Self.shownLines).map { "  " + $0 }.joined(separator: "\n")
    }
}
