import Control
import Glibc

// Why a daemon cannot be asked, as far as the system tells.

extension EngineGap {
    /// What whoever waits for an answer is told meanwhile.
    var waiting: String {
        if let engine = Self.holder(of: directory.engineLock) {
            return "\(directory.name): waiting for repd" + description(engine)
        }
        guard let supervisor else { return "\(directory.name): waiting for repd" }
        return "\(directory.name): repd died: waiting for its supervisor" + description(supervisor)
    }

    private func description(_ process: pid_t) -> String {
        // Taken, and its number is not written yet.
        guard process > 0 else { return "" }
        return " (pid \(process))" + (hint(process).map { ": \($0)" } ?? "")
    }

    /// Why there was no answer, and what helps; `nil` if nobody is there who could answer.
    var silence: String? {
        let engine = Self.holder(of: directory.engineLock)
        guard let process = engine ?? supervisor, process > 0 else { return nil }
        let next =
            supervisor == nil
            ? "'repctl up \(directory.name)' starts another" : "another one follows"
        return hint(process)
            ?? "pid \(process) is busy or hangs, see \(directory.log); 'kill -9 \(process)' does no "
            + "harm, \(next)"
    }

    /// What can be seen of the process from outside.
    private func hint(_ process: pid_t) -> String? {
        switch DaemonProgram.state(of: process) {
        case "T", "t": "pid \(process) is stopped, 'kill -CONT \(process)' lets it go on"
        case "D": "pid \(process) waits in the kernel, for its disk perhaps, see \(directory.log)"
        default: nil
        }
    }
}

extension LocalDaemons {
    /// The error where a socket was deleted under a daemon that goes on; `nil`: there is none.
    static func unreachable(_ directory: ResourceDirectory) -> ControlError? {
        let path = directory.controlSocket
        guard unsafe access(path, F_OK) != 0, let socket = listeningSocket(path),
            // The kernel may keep the socket of one that was killed for a moment.
            let process = owner(ofSocket: socket)
        else { return nil }
        return .unreachable(resource: directory.name, socket: path, process: process)
    }

    /// The inode of a socket that somebody listens at, also if its name is gone.
    private static func listeningSocket(_ path: String) -> Substring? {
        // As in: 0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/repd/r0/control.sock
        for line in SmallFile.read("/proc/net/unix")?.split(separator: "\n") ?? [] {
            let fields = line.split(separator: " ", maxSplits: 7)
            if fields.count == 8, fields[3] == "00010000", fields[7] == path { return fields[6] }
        }
        return nil
    }

    /// Of the processes that have it, the one that started the others: the supervisor.
    private static func owner(ofSocket inode: Substring) -> pid_t? {
        let target = "socket:[\(inode)]"
        let owners = Host.entries(of: "/proc").compactMap { pid_t($0) }.filter { process in
            Host.entries(of: "/proc/\(process)/fd").contains {
                Host.linkTarget("/proc/\(process)/fd/\($0)") == target
            }
        }
        return owners.first { process in
            DaemonProgram.parent(of: process).map { !owners.contains($0) } ?? false
        }
    }
}
