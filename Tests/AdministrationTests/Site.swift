import Administration
import Configuration
import Control
import DRBDWire
import Glibc
import Status
import Support
import Synchronization

/// One file, at the place where a test says it is.
struct OneFile: ConfigurationFiles {
    static let path = "/etc/repd.conf"
    var text: String

    func contents(of path: String) throws(SystemError) -> [UInt8] {
        guard path == Self.path else { throw SystemError("open", path, errno: ENOENT) }
        return Array(text.utf8)
    }

    func paths(matching pattern: String) -> [String] { pattern == Self.path ? [pattern] : [] }
    func canonicalPath(of path: String) -> String? { path == Self.path ? path : nil }
}

enum Sample {
    /// A resource of the nodes alice and bob; `body` stands between its braces.
    static func resource(
        _ name: String = "r0", minor: Int = 0, body: String = "", host: String = ""
    ) -> String {
        """
        resource \(name) { \(body)
          on alice { device /dev/drbd\(minor); disk /dev/a\(minor); \
        address 127.0.0.1:\(7000 + minor); meta-disk internal; \(host) }
          on bob { device /dev/drbd\(minor); disk /dev/b\(minor); \
        address 127.0.0.1:\(7100 + minor); meta-disk internal; }
        }

        """
    }

    static func effective(_ text: String, on node: String = "alice") throws -> EffectiveResource {
        try ConfigurationFile.read(OneFile.path, from: OneFile(text: text))
            .effective("r0", on: NodeIdentity(name: node))
    }

    static func snapshot(
        _ name: String = "r0", minor: Int = 0, role: Role = .secondary,
        connection: ConnectionState = .connected, disk: DiskState = .upToDate
    ) -> StatusSnapshot {
        let volume = VolumeStatus(
            number: 0, minor: minor, device: "/dev/drbd\(minor)", role: role,
            peerRole: .secondary, connection: connection, disk: disk, peerDisk: .upToDate)
        return StatusSnapshot(resource: name, node: "alice", peer: "bob", volumes: [volume])
    }
}

/// Daemons that answer from a table and keep what they were told.
final class FakeDaemons: Daemons {
    struct State {
        /// Who listens.
        var snapshots: [String: StatusSnapshot] = [:]
        /// Sockets of the dead.
        var leftovers: Set<String> = []
        /// Answers to orders, one after the other; without any it is done.
        var replies: [String: [ControlReply]] = [:]
        var errors: [String: ControlError] = [:]
        /// What waiting is told before the last answer.
        var reports: [ControlReply] = []
        var told: [String] = []
        var orders: [ControlCommand] = []
        var startError: AdministrationError?
        var stopError: AdministrationError?
        /// What a supervisor would start.
        var program: String? = "/bin/sleep"
    }

    let state: Mutex<State>

    init(_ snapshots: [StatusSnapshot] = []) {
        var state = State()
        for snapshot in snapshots { state.snapshots[snapshot.resource] = snapshot }
        self.state = Mutex(state)
    }

    /// Every order but questions about the state.
    var told: [String] { state.withLock { $0.told } }
    var orders: [ControlCommand] { state.withLock { $0.orders } }

    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }

    func names() -> [String] {
        state.withLock { Set($0.snapshots.keys).union($0.leftovers).sorted() }
    }

    func hasSocket(_ resource: String) -> Bool { names().contains(resource) }

    func perform(
        _ command: ControlCommand, on resource: String, deadline: Duration?,
        each: (ControlReply) -> Void
    ) throws(ControlError) -> ControlReply {
        for report in state.withLock({ $0.reports }) { each(report) }
        let answer: Result<ControlReply, ControlError> = state.withLock { state in
            if let error = state.errors[resource] { return .failure(error) }
            guard let snapshot = state.snapshots[resource] else {
                return .failure(.noDaemon(resource: resource, socket: "/run/\(resource)"))
            }
            if command == .status { return .success(ControlReply(status: snapshot)) }
            state.told.append("\(Self.word(command)) \(resource)")
            state.orders.append(command)
            guard var replies = state.replies[resource], !replies.isEmpty else {
                return .success(ControlReply(status: snapshot))
            }
            let reply = replies.removeFirst()
            state.replies[resource] = replies
            return .success(reply)
        }
        return try answer.get()
    }

    func start(_ resource: String) throws(AdministrationError) {
        let error = state.withLock { state in
            state.told.append("start \(resource)")
            guard state.startError == nil else { return state.startError }
            state.snapshots[resource] = Sample.snapshot(
                resource, connection: .standAlone, disk: .diskless)
            return nil
        }
        if let error { throw error }
    }

    /// Any that can be run and knows '--version'.
    func program(_ resource: String) -> String? {
        state.withLock { $0.snapshots[resource] == nil ? nil : $0.program }
    }

    func stop(
        _ resource: String, force: Bool, deadline: Duration
    ) throws(AdministrationError) -> ControlReply? {
        if let error = state.withLock({ $0.stopError }) { throw error }
        return state.withLock { state in
            guard state.snapshots[resource] != nil else { return nil }
            state.told.append("stop \(resource)")
            if let reply = state.replies[resource]?.first { return reply }
            state.snapshots[resource] = nil
            return ControlReply()
        }
    }

    private static func word(_ command: ControlCommand) -> String {
        let text = "\(command)"
        return String(text.prefix { $0 != "(" })
    }
}

/// repctl on the node alice, with everything around it made up.
struct Site {
    let console = RecordedConsole()
    let daemons: FakeDaemons
    private var administrator: Administrator

    init(
        _ text: String? = Sample.resource(), running snapshots: [StatusSnapshot] = [],
        node: String = "alice", progressColumns: Int? = nil
    ) {
        daemons = FakeDaemons(snapshots)
        administrator = Administrator(
            console: console, daemons: daemons, node: NodeIdentity(name: node),
            configurationPath: text == nil ? "/nowhere" : OneFile.path,
            files: OneFile(text: text ?? ""), progressColumns: progressColumns)
    }

    var output: String { console.text }
    var errors: String { console.errors }

    mutating func run(
        _ command: String, _ names: String..., options: CommandOptions = CommandOptions()
    ) -> Int32 {
        guard let command = Command.named(command) else { fatalError("no command \(command)") }
        return administrator.run(command, names, options)
    }
}
