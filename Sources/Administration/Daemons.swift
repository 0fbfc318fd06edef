package import Control

/// The daemons of this machine as commands use them; tests put others in their place.
package protocol Daemons: Sendable {
    /// The resources that have a control socket, by name, whether or not somebody listens.
    ///
    /// - Throws: exit code 10 where they cannot be looked for.
    func names() throws(AdministrationError) -> [String]

    /// Whether the resource has a control socket, even one that a dead daemon has left.
    func hasSocket(_ resource: String) -> Bool

    /// Sends a command and hands every reply but the last to `each`.
    ///
    /// - Parameter deadline: for each reply; `nil` waits for ever.
    /// - Throws: `noDaemon` when nobody listens.
    func perform(
        _ command: ControlCommand, on resource: String, deadline: Duration?,
        each: (ControlReply) -> Void
    ) throws(ControlError) -> ControlReply

    /// Starts the daemon and returns when it answers.
    func start(_ resource: String) throws(AdministrationError)

    /// The program that its supervisor starts; `nil` without a supervisor.
    func program(_ resource: String) -> String?

    /// Tells it to end and returns when it is gone; `nil` when there was none.
    func stop(
        _ resource: String, force: Bool, deadline: Duration
    ) throws(AdministrationError) -> ControlReply?
}

extension Daemons {
    func perform(
        _ command: ControlCommand, on resource: String, deadline: Duration?
    ) throws(ControlError) -> ControlReply {
        try perform(command, on: resource, deadline: deadline, each: { _ in })
    }
}

/// How long answers may take.
package enum Deadline {
    /// A question about what is.
    package static let query = Duration.seconds(15)
    /// How long an engine that died may take to be back: the default of resume-timeout, and a little.
    package static let restart = Duration.seconds(12)
    /// A command that changes something; as long as `cmd-timeout-medium` of the configuration.
    package static let change = Duration.seconds(121)
    /// From the start of a daemon to its first answer.
    package static let start = Duration.seconds(30)
    /// The same where systemd starts it, and what it depends on before it.
    package static let startBySystemd = Duration.seconds(90)
    /// How long a connection may be in a state in which it cannot be ended.
    package static let transient = Duration.seconds(5)
    /// From the last answer of a daemon to its end.
    package static let end = Duration.seconds(10)
}
