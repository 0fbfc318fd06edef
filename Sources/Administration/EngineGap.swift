import Control
import Glibc
import Support

/// A resource whose engine may be dead, with a supervisor that starts it again (safety.md S19).
struct EngineGap {
    let directory: ResourceDirectory

    /// The process that holds a lock, `nil` if nobody does.
    static func holder(of path: String) -> pid_t? {
        let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) != 0 else { return nil }
        // Taken, and its number not written yet: somebody all the same.
        return pid_t(Host.firstLine(of: path) ?? "") ?? 0
    }

    var supervisor: pid_t? { Self.holder(of: directory.supervisorLock) }

    private var engineIsDead: Bool { Self.holder(of: directory.engineLock) == nil }

    enum Demotion: Equatable {
        /// It has to be asked.
        case alive
        case done
        /// Nothing was changed.
        case refused(String)
        /// Nothing either: what the dead engine's own demotion has left flushes into its successor.
        case flushing(String)
    }

    /// Makes a dead engine one that was Secondary, as `secondary` makes a live one: first what its
    /// kernel device still holds is to fail, then the record goes.
    ///
    /// - Parameters:
    ///   - force: also if somebody has mounted or claimed the device.
    ///   - program: of the daemon, which disconnects it.
    func demote(force: Bool = false, program: String?) throws(ControlError) -> Demotion {
        guard engineIsDead, supervisor != nil else { return .alive }
        do throws(SystemError) {
            return try RoleFile(directory).whileLocked { (file) throws(SystemError) in
                // One that has become Primary since did so under this lock.
                guard engineIsDead else { return .alive }
                let refusal = try releaseDevice(
                    force: force, program: program, record: file.read())
                switch refusal {
                case .refused(let reason): return .refused(reason)
                case .flushing(let reason): return .flushing(reason)
                case nil: break
                }
                try file.erase()
                return .done
            }
        } catch {
            throw .system(
                call: error.call, object: error.object, reason: systemMessage(error.errno))
        }
    }
}

extension EngineGap {
    /// How long a device may take to be opened and disconnected.
    private static let deviceTime = Duration.seconds(5)

    /// As `DeviceHolder` has them.
    private static let claimedStatus: Int32 = 11
    private static let heldStatus: Int32 = 12

    /// Why a device was not disconnected.
    enum Refusal: Equatable {
        case refused(String)
        /// It will not be for long if an engine comes back.
        case flushing(String)

        var text: String {
            switch self {
            case .refused(let text), .flushing(let text): text
            }
        }
    }

    /// Disconnects the kernel device that a dead engine has left.
    ///
    /// - Parameter removesLink: the link to it goes, too.
    /// - Returns: why not.
    func releaseDevice(
        force: Bool, program: String?, record: RoleRecord?, removesLink: Bool = false
    ) throws(SystemError) -> Refusal? {
        let state = SmallFile.read(directory.state).flatMap {
            // What is no state names no device.
            try? ControlCoding.decodeState(Array($0.utf8))
        }
        guard let index = record?.device ?? state?.device else { return nil }
        let path = if let program { program } else { try DaemonProgram.find() }
        let run = String(directory.path.dropLast(directory.name.count + 1))
        var arguments = [
            path, directory.name, "--run-dir", run, "--release-device", "\(index)",
        ]
        if !force { arguments.append("--claimed") }
        if removesLink, let link = state?.settings.device {
            arguments += ["--device-link", link]
        }
        let log = try DaemonLog(path: directory.log)
        let process = try DaemonProgram.spawn(path, arguments, output: log.descriptor)
        let end = ContinuousClock.now + Self.deviceTime
        var ended = DaemonProgram.end(of: process)
        while ended == nil, ContinuousClock.now < end {
            Host.sleep(.milliseconds(10))
            ended = DaemonProgram.end(of: process)
        }
        let name = "/dev/nbd\(index)"
        guard let ended else {
            // It sleeps in the device, and ends when that does.
            _ = kill(process, SIGKILL)
            return .refused("\(name) does not answer; --force disconnects it")
        }
        switch ended.status {
        case Self.claimedStatus:
            return .refused(
                "\(state?.settings.minor ?? 0): State change failed: (-12) Device is held open by "
                    + "someone\n  \(name) is mounted or claimed")
        case Self.heldStatus:
            return .flushing(
                "\(name): a demotion whose daemon died still flushes it; --force disconnects it")
        default:
            guard ended.isFailure else { return nil }
            return .refused("\(name) cannot be disconnected:\n" + log.tail())
        }
    }
}

extension ControlCommand {
    /// Whether it may be sent again to the engine that follows one that died.
    var isRepeatable: Bool {
        switch self {
        case .ping, .status, .primary, .secondary, .outdate, .down, .waitConnect, .waitSync: true
        case .upgrade, .up, .attach, .detach, .connect, .disconnect, .invalidate: false
        }
    }
}
