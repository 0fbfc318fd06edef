package import Control
import Glibc
import Support

/// The daemons below one run directory.
package struct LocalDaemons: Daemons {
    private let run: RunDirectory
    private let nodeName: String
    /// `nil` looks for it.
    private let program: String?
    private let notify: @Sendable (String) -> Void

    /// - Parameters:
    ///   - program: the daemon's executable.
    ///   - notify: gets a line for the operator when an answer takes long.
    package init(
        run: RunDirectory, nodeName: String, program: String? = nil,
        notify: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.run = run
        self.nodeName = nodeName
        self.program = program
        self.notify = notify
    }

    package func names() throws(AdministrationError) -> [String] {
        if let trouble = run.trouble { throw AdministrationError(trouble, exitCode: Exit.refused) }
        return run.resourceNames()
    }

    package func hasSocket(_ resource: String) -> Bool {
        // A name that can have no directory has no socket either.
        guard let directory = try? run.resource(resource) else { return false }
        return Self.exists(directory.controlSocket)
    }

    package func perform(
        _ command: ControlCommand, on resource: String, deadline: Duration?,
        each: (ControlReply) -> Void
    ) throws(ControlError) -> ControlReply {
        let directory = try run.resource(resource)
        let gap = EngineGap(directory: directory)
        let end = ContinuousClock.now + Deadline.restart
        while true {
            if case .secondary = command {
                switch try gap.demote(program: program) {
                case .alive: break
                case .done: return ControlReply()
                case .refused(let reason): return ControlReply(exitCode: 11, message: reason)
                case .flushing(let reason):
                    guard gap.supervisor != nil, ContinuousClock.now < end else {
                        return ControlReply(exitCode: 11, message: reason)
                    }
                    Host.sleep(Self.flushPause)
                    continue
                }
            }
            do throws(ControlError) {
                var client = try ControlClient(to: directory)
                return try client.perform(
                    command, deadline: deadline, each: each,
                    whenSilent: { notify(gap.waiting + "\n") })
            } catch {
                switch error {
                // It died with the command: the next one answers.
                case .closed where command.isRepeatable && gap.supervisor != nil:
                    guard ContinuousClock.now < end else { throw error }
                    Host.sleep(Self.pause)
                case .timeout(_, let seconds, _):
                    throw .timeout(resource: resource, seconds: seconds, cause: gap.silence)
                case .noDaemon: throw Self.unreachable(directory) ?? error
                case .closed, .unreachable, .tooLong, .malformed, .otherVersion, .pathTooLong,
                    .refusedName, .noRunDirectory, .system:
                    throw error
                }
            }
        }
    }

    package func program(_ resource: String) -> String? {
        guard let directory = try? run.resource(resource),
            let supervisor = EngineGap(directory: directory).supervisor,
            let path = Host.linkTarget("/proc/\(supervisor)/exe")
        else { return nil }
        let deleted = " (deleted)"
        return path.hasSuffix(deleted) ? String(path.dropLast(deleted.count)) : path
    }

    private func directory(of resource: String) throws(AdministrationError) -> ResourceDirectory {
        do { return try run.resource(resource) } catch { throw AdministrationError(error) }
    }

    private static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }
}

// MARK: Start

extension LocalDaemons {
    private static let pause = Duration.milliseconds(20)
    /// Each look is a process.
    private static let flushPause = Duration.milliseconds(100)

    package func start(_ resource: String) throws(AdministrationError) {
        let directory = try directory(of: resource)
        let log = try wrap(resource) { () throws(SystemError) -> DaemonLog in
            for path in [run.path, directory.path] { try Self.makeDirectory(path) }
            // Where there is no space, a daemon could not even say so.
            try SmallFile.replace(directory.state, with: [UInt8(ascii: "\n")])
            return try DaemonLog(path: directory.log)
        }
        // What an earlier daemon was told is not for this one.
        _ = unsafe unlink(directory.state)
        let bySystemd =
            program == nil && Systemd.startsDaemons(run: run.path, nodeName: nodeName)
        let process = try wrap(resource) { () throws(SystemError) -> pid_t in
            if bySystemd {
                let start = Systemd.start(resource)
                return try DaemonProgram.spawn(start[0], start, output: log.descriptor)
            }
            let path = if let program { program } else { try DaemonProgram.find() }
            return try DaemonProgram.spawn(
                path,
                [
                    path, resource, "--supervise", "--run-dir", run.path, "--node-name",
                    nodeName,
                ],
                output: log.descriptor)
        }
        try waitForAnswer(
            directory, process, log, bySystemd ? Deadline.startBySystemd : Deadline.start)
    }

    private func wrap<Result: ~Copyable>(
        _ resource: String, _ body: () throws(SystemError) -> Result
    ) throws(AdministrationError) -> Result {
        do throws(SystemError) { return try body() } catch {
            throw AdministrationError(
                "\(resource): cannot start repd: \(error.object): \(error.call): "
                    + systemMessage(error.errno), exitCode: Exit.refused)
        }
    }

    private static func makeDirectory(_ path: String) throws(SystemError) {
        guard unsafe mkdir(path, 0o755) == 0 || errno == EEXIST else {
            throw SystemError("mkdir", path, errno: errno)
        }
    }

    private func waitForAnswer(
        _ directory: ResourceDirectory, _ process: pid_t, _ log: borrowing DaemonLog,
        _ limit: Duration
    ) throws(AdministrationError) {
        let end = ContinuousClock.now + limit
        var known: DaemonProgram.End?
        while true {
            // Asked first: a daemon that ended just now may have been one too many.
            let ended = known ?? DaemonProgram.end(of: process)
            known = ended
            if try answers(directory) { return }
            // systemctl has done its part when it ends with 0.
            if let ended, ended.isFailure || ContinuousClock.now >= end {
                throw AdministrationError(
                    "\(directory.name): repd \(ended.text); the end of \(directory.log):\n"
                        + log.tail(), exitCode: Exit.refused)
            }
            guard ContinuousClock.now < end else {
                throw AdministrationError(
                    "\(directory.name): repd (pid \(process)) does not answer after "
                        + "\(limit.components.seconds) s, see \(directory.log)",
                    exitCode: Exit.refused)
            }
            Host.sleep(Self.pause)
        }
    }

    private func answers(_ directory: ResourceDirectory) throws(AdministrationError) -> Bool {
        do throws(ControlError) {
            var client = try ControlClient(to: directory)
            return try client.perform(.ping).exitCode == 0
        } catch {
            switch error {
            // Not yet, or one that is just ending.
            case .noDaemon, .closed: return false
            case .timeout, .unreachable, .tooLong, .malformed, .otherVersion, .pathTooLong,
                .refusedName, .noRunDirectory, .system:
                throw AdministrationError(error)
            }
        }
    }
}

// MARK: Stop

extension LocalDaemons {
    package func stop(
        _ resource: String, force: Bool, deadline: Duration
    ) throws(AdministrationError) -> ControlReply? {
        let directory = try directory(of: resource)
        let gap = EngineGap(directory: directory)
        let process = gap.supervisor ?? Self.process(of: directory)
        var reply = ControlReply()
        if let supervisor = gap.supervisor, supervisor > 0 {
            switch try demoteDead(gap, force: force) {
            case .alive: break
            case .refused(let reason), .flushing(let reason):
                return ControlReply(exitCode: 11, message: reason)
            case .done:
                _ = kill(supervisor, SIGTERM)
                try waitForEnd(of: directory, process)
                return reply
            }
        }
        do throws(ControlError) {
            reply = try perform(.down(force: force), on: resource, deadline: deadline) { _ in }
        } catch {
            switch error {
            case .noDaemon:
                if let reason = try removeDevice(gap, force: force) {
                    return ControlReply(exitCode: 11, message: reason)
                }
                Self.removeLeftovers(of: directory)
                return nil
            // It may end before its answer is out; what it leaves behind tells how it ended.
            case .closed: break
            // What its command would do.
            case .unreachable(_, _, let process) where force:
                _ = kill(process, SIGTERM)
                try waitForEnd(of: directory, process, within: deadline)
                return reply
            case .timeout, .unreachable, .tooLong, .malformed, .otherVersion, .pathTooLong,
                .refusedName, .noRunDirectory, .system:
                throw AdministrationError(error)
            }
        }
        guard reply.exitCode == 0 else { return reply }
        try waitForEnd(of: directory, process)
        return reply
    }

    /// If it is done, only the supervisor is left.
    private func demoteDead(
        _ gap: EngineGap, force: Bool
    ) throws(AdministrationError) -> EngineGap.Demotion {
        let end = ContinuousClock.now + Deadline.restart
        do throws(ControlError) {
            while true {
                let demotion = try gap.demote(force: force, program: program)
                guard case .flushing = demotion, ContinuousClock.now < end else { return demotion }
                Host.sleep(Self.flushPause)
            }
        } catch {
            throw AdministrationError(error)
        }
    }

    /// Of an engine and a supervisor that both died. - Returns: why not.
    private func removeDevice(
        _ gap: EngineGap, force: Bool
    ) throws(AdministrationError) -> String? {
        do throws(SystemError) {
            return try gap.releaseDevice(
                force: force, program: program, record: RoleFile(gap.directory).read(),
                removesLink: true)?.text
        } catch {
            throw AdministrationError(
                "\(gap.directory.name): \(error.object): \(error.call): "
                    + systemMessage(error.errno), exitCode: Exit.refused)
        }
    }

    /// A daemon that ends as it should removes its socket first, one that dies leaves it.
    private func waitForEnd(
        of directory: ResourceDirectory, _ process: pid_t?, within limit: Duration = Deadline.end
    ) throws(AdministrationError) {
        let end = ContinuousClock.now + limit
        while true {
            let isGone = process.map(DaemonProgram.isGone) ?? true
            let hasSocket = Self.exists(directory.controlSocket)
            if isGone && !hasSocket { return }
            if isGone, process != nil {
                throw AdministrationError(
                    "\(directory.name): repd died before it had stopped, see \(directory.log)",
                    exitCode: Exit.refused)
            }
            guard ContinuousClock.now < end else {
                let name = process.map { " (pid \($0))" } ?? ""
                throw AdministrationError(
                    "\(directory.name): repd\(name) has stopped, but is still there after "
                        + "\(limit.components.seconds) s, see \(directory.log)",
                    exitCode: Exit.refused)
            }
            Host.sleep(Self.pause)
        }
    }

    /// The engine of a resource, or what was its engine.
    private static func process(of directory: ResourceDirectory) -> pid_t? {
        pid_t(Host.firstLine(of: directory.engineLock) ?? "")
    }

    /// Sockets of a daemon that was killed. While the lock is held here, none can start.
    private static func removeLeftovers(of directory: ResourceDirectory) {
        let descriptor = unsafe open(directory.engineLock, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { _ = close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { return }
        for path in [directory.controlSocket, directory.nbdSocket] { _ = unsafe unlink(path) }
    }
}
