package import Control
import Glibc
import KernelDevice
package import Logging
import Reactor
import Support

/// The parent of an engine: it holds the listening sockets and starts the engine again when it dies
/// (safety.md S16 to S19). It never has the disk, nor a connection.
package struct Supervisor: ~Copyable {
    private static let minute = Duration.seconds(60)
    private static let longestPause = Duration.seconds(10)

    private let directory: ResourceDirectory
    private let log: Logger
    private let program: String
    private let arguments: [String]
    private let lock: SupervisorLock
    private let signals: Int32
    private var kept: [(name: String, descriptor: Int32)]
    /// Deaths within the last minute.
    private var deaths: [Instant] = []
    /// As the engine says; more deaths than this are answered with a pause.
    private var limit = 5
    private var stops = false
    /// The first engine goes on with what an earlier supervisor's was told.
    private var restores: Bool

    /// - Parameter arguments: of the engine's program, without its name.
    package init(
        _ directory: ResourceDirectory, program: String, arguments: [String],
        keepsSettings: Bool = false, log: Logger
    ) throws(DaemonError) {
        let lock = try SupervisorLock(directory)
        do throws(SystemError) {
            // What an earlier one knew is not for this one: up starts Secondary.
            try RoleFile(directory).whileLocked { (file) throws(SystemError) in try file.erase() }
            if !keepsSettings { _ = unsafe unlink(directory.state) }
            let signals = try WatchedSignals.watch([SIGTERM, SIGINT, SIGHUP])
            let control = try Sockets.listenUnix(directory.controlSocket)
            let nbd = try Sockets.listenUnix(directory.nbdSocket)
            self.init(
                directory, program, arguments, log, lock, signals,
                [(Supervision.control, control), (Supervision.nbd, nbd)], keepsSettings)
        } catch {
            throw .cannotStart("\(error)")
        }
    }

    private init(
        _ directory: ResourceDirectory, _ program: String, _ arguments: [String], _ log: Logger,
        _ lock: consuming SupervisorLock, _ signals: Int32,
        _ kept: [(name: String, descriptor: Int32)], _ restores: Bool
    ) {
        self.directory = directory
        self.program = program
        self.arguments = arguments
        self.log = log
        self.lock = lock
        self.signals = signals
        self.kept = kept
        self.restores = restores
    }

    deinit { for socket in kept { close(socket.descriptor) } }

    /// Until the engine has ended by itself, or was told to.
    ///
    /// - Returns: the exit status for this process.
    package mutating func run() -> Int32 {
        var death: Instant?
        var wasReady = false
        while true {
            let end: EngineEnd
            do throws(SystemError) { end = try runEngine(after: death) } catch {
                log.error("cannot start the engine: \(error)")
                guard wasReady, !stops else { return finish(20) }
                pause(.seconds(1))
                continue
            }
            if end.status == 0 { return finish(0) }
            if stops { return finish(end.status > 0 ? end.status : 1) }
            wasReady = wasReady || end.wasReady
            // One that never came so far will not come farther next time.
            guard wasReady else { return finish(end.status > 0 ? end.status : 1) }
            guard lock.isInPlace else {
                // Nobody would find it, and nothing is left of what it was told.
                log.error(
                    "\(directory.path) was deleted: 'repctl up \(directory.name)' begins anew")
                return finish(1)
            }
            let now = Reactor.clock()
            death = now
            if end.status == Supervision.replaced {
                log.notice("the engine (pid \(end.process)) made way for another one")
                continue
            }
            deaths = deaths.filter { now - $0 < Self.minute } + [now]
            let how =
                end.status < 0
                ? "was killed by signal \(-end.status)" : "ended with status \(end.status)"
            log.warning("the engine (pid \(end.process)) \(how): starting it again")
            if deaths.count > limit {
                let excess = min(deaths.count - limit, 10)
                pause(min(.seconds(1) * excess, Self.longestPause))
                if stops { return finish(0) }
            }
        }
    }

    private struct EngineEnd {
        var process: Int32
        /// As `WatchedChild.status`.
        var status: Int32
        var wasReady: Bool
    }

    private mutating func runEngine(after death: Instant?) throws(SystemError) -> EngineEnd {
        let (one, other) = try Handover.pair()
        let line = Handover(descriptor: one)
        defer {
            line.close()
            close(other)
        }
        let now = Reactor.clock()
        deaths = deaths.filter { now - $0 < Self.minute }
        let names = [Supervision.line] + kept.map(\.name)
        var environment = Self.environment
        environment.append("\(Supervision.descriptors)=\(names.joined(separator: ","))")
        if restores { environment.append("\(Supervision.restores)=1") }
        restores = true
        if let death {
            environment.append("\(Supervision.death)=\(death.nanoseconds)")
            environment.append("\(Supervision.deaths)=\(deaths.count)")
        }
        let child = try WatchedChild(
            program, arguments: arguments, environment: environment,
            inherited: [other] + kept.map(\.descriptor))
        var wasReady = false
        while true {
            waitFor([signals, child.descriptor, line.descriptor], nil)
            while let (text, passed) = line.receive() { heed(text, passed, &wasReady) }
            if let signal = signalled() {
                stops = true
                child.signal(signal == SIGHUP ? SIGTERM : signal)
            }
            if let status = child.status() {
                while let (text, passed) = line.receive() { heed(text, passed, &wasReady) }
                return EngineEnd(process: child.process, status: status, wasReady: wasReady)
            }
        }
    }

    /// What the engine says.
    private mutating func heed(_ text: String, _ passed: Int32, _ wasReady: inout Bool) {
        let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
        let value = parts.count > 1 ? parts[1] : ""
        switch parts.first {
        case "ready": wasReady = true
        case "limit": limit = Int(value) ?? limit
        case "keep" where passed >= 0:
            drop(value)
            kept.append((value, passed))
            // Whoever starts the engine again must not wait for memory that only an engine can free;
            // and that engine has it from the first moment. It says itself what is not permitted.
            if value == Supervision.device { _ = MemoryReclaim.join() }
            return
        case "forget": drop(value)
        default: break
        }
        if passed >= 0 { close(passed) }
    }

    private mutating func drop(_ name: String) {
        for socket in kept where socket.name == name { close(socket.descriptor) }
        kept.removeAll { $0.name == name }
    }

    /// The files that look like a daemon go first, the lock with this process.
    private func finish(_ status: Int32) -> Int32 {
        // What lies in a deleted directory's place belongs to somebody else.
        guard lock.isInPlace else { return status }
        do throws(SystemError) {
            try RoleFile(directory).whileLocked { (file) throws(SystemError) in try file.erase() }
        } catch {
            log.warning("\(error)")
        }
        DeviceProgram.cleanUp(directory, log: log)
        for path in [directory.state, directory.nbdSocket, directory.controlSocket] {
            _ = unsafe unlink(path)
        }
        return status
    }

    private mutating func pause(_ duration: Duration) {
        log.notice("waiting for \(duration) before the next start")
        let end = Reactor.clock() + duration
        while !stops, Reactor.clock() < end {
            waitFor([signals], end)
            if signalled() != nil { stops = true }
        }
    }

    private func signalled() -> Int32? {
        guard isReadable(signals) else { return nil }
        return WatchedSignals.next(signals)
    }

    private func isReadable(_ descriptor: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        // One entry, as the call is told.
        return unsafe poll(&entry, 1, 0) == 1
    }

    /// Until one of them is readable, or the time has come.
    private func waitFor(_ descriptors: [Int32], _ end: Instant?) {
        var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let left = end.map { Int32(clamping: ($0 - Reactor.clock()).inNanoseconds / 1_000_000 + 1) }
        // As many entries as the call is told.
        _ = unsafe poll(&entries, nfds_t(entries.count), left ?? -1)
    }

    private static var environment: [String] {
        var all: [String] = []
        var place = unsafe environ
        while let entry = unsafe place.pointee {
            all.append(unsafe String(cString: entry))
            unsafe place += 1
        }
        return all
    }
}

/// There is one supervisor per resource. The file stays: whoever locks it has the resource.
struct SupervisorLock: ~Copyable {
    private let descriptor: Int32
    private let path: String

    init(_ directory: ResourceDirectory) throws(DaemonError) {
        let path = directory.supervisorLock
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw .cannotStart("\(SystemError("open", path, errno: errno))")
        }
        // One that is just ending holds it for another moment.
        let end = Reactor.clock() + .seconds(2)
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard Reactor.clock() < end else {
                let holder = SmallFile.read(path)?.split(separator: "\n").first
                close(descriptor)
                throw .cannotStart(
                    "it has a supervisor already\(holder.map { " (pid \($0))" } ?? "")")
            }
            usleep(20_000)
        }
        do throws(SystemError) { try SmallFile.overwrite(descriptor, path, "\(getpid())\n") } catch
        {
            close(descriptor)
            throw .cannotStart("\(error) (make room in \(directory.path))")
        }
        self.path = path
        // Last: from here on `deinit` closes it.
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// False if its file was deleted, or another one has taken its place.
    var isInPlace: Bool { SmallFile.isInPlace(descriptor, path) }

    /// Whether there is a supervisor at this moment.
    static func isHeld(_ directory: ResourceDirectory) -> Bool {
        let descriptor = unsafe open(directory.supervisorLock, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) != 0
    }
}
