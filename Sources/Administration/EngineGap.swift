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

    /// Makes a dead engine one that was Secondary, as `secondary` makes a live one.
    ///
    /// - Returns: whether it was dead; a live one has to be asked.
    func demote() throws(ControlError) -> Bool {
        guard engineIsDead, supervisor != nil else { return false }
        do throws(SystemError) {
            return try RoleFile(directory).whileLocked { (file) throws(SystemError) in
                // One that has become Primary since did so under this lock.
                guard engineIsDead else { return false }
                try file.erase()
                return true
            }
        } catch {
            throw .system(
                call: error.call, object: error.object, reason: systemMessage(error.errno))
        }
    }
}

extension ControlCommand {
    /// Whether it may be sent again to the engine that follows one that died.
    var isRepeatable: Bool {
        switch self {
        case .ping, .status, .primary, .secondary, .down, .waitConnect, .waitSync: true
        case .upgrade, .up, .attach, .detach, .connect, .disconnect, .invalidate: false
        }
    }
}
