package import Configuration
package import Control

/// Why a command cannot be carried out, in the words that the operator reads.
package struct AdministrationError: Error, Equatable, Sendable {
    /// For standard error, without the last newline; may have several lines.
    package let text: String
    package let exitCode: Int32

    package init(_ text: String, exitCode: Int32) {
        self.text = text
        self.exitCode = exitCode
    }

    package init(_ error: ConfigurationError) {
        self.init(error.text, exitCode: error.exitCode)
    }

    package init(_ error: ControlError) {
        self.init("\(error)", exitCode: Exit.refused)
    }
}

/// Exit codes of `drbdadm` and `drbdsetup` (reference, admin section 4.1).
package enum Exit {
    package static let done: Int32 = 0
    /// Usage, an unknown resource, and whatever `up` could not do.
    package static let usage: Int32 = 1
    /// Refused by configuration or daemon.
    package static let refused: Int32 = 10
    /// The state is not the one that was asked for.
    package static let stateChange: Int32 = 11
    /// From here on a code ends the work on further resources.
    package static let stopsOthers: Int32 = 20
}
