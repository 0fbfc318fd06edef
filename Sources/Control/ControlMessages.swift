package import Status

/// What `repctl` asks a daemon to do.
package enum ControlCommand: Codable, Equatable, Sendable {
    case ping
    /// Attach and connect.
    case up(ResourceSettings)
    case attach(ResourceSettings)
    case detach(force: Bool)
    case connect(ResourceSettings, discardMyData: Bool)
    case disconnect(force: Bool)
    case primary(force: Bool)
    case secondary(disconnectClients: Bool)
    case invalidate
    case outdate
    case down(force: Bool)
    /// Ends without giving anything up: the supervisor starts the program anew, which goes on.
    case upgrade
    case status
    /// Answers when connected, or StandAlone; seconds, `nil` waits for ever.
    case waitConnect(timeout: Int?)
    /// Answers when nothing is being copied.
    case waitSync(timeout: Int?)
}

extension ControlCommand {
    /// The settings that come with it.
    var settings: ResourceSettings? {
        switch self {
        case .up(let settings), .attach(let settings), .connect(let settings, _): settings
        case .ping, .detach, .disconnect, .primary, .secondary, .invalidate, .outdate, .down,
            .upgrade,
            .status,
            .waitConnect, .waitSync:
            nil
        }
    }
}

package struct ControlRequest: Codable, Equatable, Sendable {
    package var version = ControlProtocol.version
    package var command: ControlCommand

    package init(_ command: ControlCommand) { self.command = command }
}

/// One answer. A command that takes time may send several; the last one says so.
package struct ControlReply: Codable, Equatable, Sendable {
    package var version = ControlProtocol.version
    /// As `drbdsetup` would exit: 0, 5 time-out, 10 refused, 11 and 17 state change refused.
    package var exitCode: Int32
    /// For standard error, without the last newline; may have several lines.
    package var message: String?
    package var status: StatusSnapshot?
    /// One line about what a command that takes time is doing.
    package var progress: String?
    /// No other answer to this request follows.
    package var isFinal: Bool

    package init(
        exitCode: Int32 = 0, message: String? = nil, status: StatusSnapshot? = nil,
        progress: String? = nil, isFinal: Bool = true
    ) {
        self.exitCode = exitCode
        self.message = message
        self.status = status
        self.progress = progress
        self.isFinal = isFinal
    }
}

/// What both sides of the control socket agree on.
package enum ControlProtocol {
    /// Of requests and replies. A daemon outlives the program that started it, so both sides look.
    package static let version = 1
    /// One line of JSON.
    package static let maximumMessage = 1 << 20
}

/// What can go wrong between `repctl` and a daemon.
package enum ControlError: Error, Equatable, Sendable {
    /// Nobody listens.
    case noDaemon(resource: String, socket: String)
    /// The daemon went away before its answer was complete.
    case closed(resource: String)
    /// No answer in time.
    case timeout(resource: String, seconds: Int, cause: String? = nil)
    /// It runs, but what leads to it was deleted; `process` is to be ended.
    case unreachable(resource: String, socket: String, process: Int32)
    case tooLong(limit: Int)
    case malformed(detail: String)
    case otherVersion(theirs: Int)
    /// A socket's path has to fit into the address of a socket.
    case pathTooLong(String)
    case refusedName(String, reason: String)
    case noRunDirectory
    case system(call: String, object: String, reason: String)
}

extension ControlError: CustomStringConvertible {
    /// One line for standard error.
    package var description: String {
        switch self {
        case .noDaemon(let resource, let socket):
            "\(resource): no repd is running for this resource (\(socket)): "
                + "start it with 'repctl up \(resource)'"
        case .closed(let resource):
            "\(resource): repd closed the control connection before its answer"
        case .timeout(let resource, let seconds, let cause):
            "\(resource): repd did not answer within \(seconds) s" + (cause.map { ": \($0)" } ?? "")
        case .unreachable(let resource, let socket, let process):
            "\(resource): repd (pid \(process)) runs, but its socket \(socket) was deleted: it serves "
                + "only who is connected. End it as 'down --force' does ('kill \(process)'), then "
                + "'repctl up \(resource)'"
        case .tooLong(let limit):
            "control message is longer than \(limit) bytes"
        case .malformed(let detail):
            "control message cannot be read: \(detail)"
        case .otherVersion(let theirs):
            "control message has version \(theirs), this program speaks \(ControlProtocol.version): "
                + "repctl and repd are of different releases"
        case .pathTooLong(let path):
            "\(path): too long for a socket: choose a shorter run directory (REPD_RUN_DIR)"
        case .refusedName(let name, let reason):
            "'\(name)' cannot be the name of a resource: \(reason)"
        case .noRunDirectory:
            "no run directory: set REPD_RUN_DIR or XDG_RUNTIME_DIR"
        case .system(let call, let object, let reason):
            object.isEmpty ? "\(call): \(reason)" : "\(object): \(call): \(reason)"
        }
    }
}
