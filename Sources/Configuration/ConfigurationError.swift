/// Where a word of the configuration stands.
package struct SourceLocation: Hashable, Sendable, CustomStringConvertible {
    /// As the operator or an `include` named it; not made absolute.
    package let file: String
    /// Counted from 1.
    package let line: Int

    package init(file: String, line: Int) {
        self.file = file
        self.line = line
    }

    package var description: String { "\(file):\(line)" }
}

/// Why a configuration is refused, in the words of `drbdadm` (reference, section 3.1).
package struct ConfigurationError: Error, Equatable, Sendable {
    /// One complaint each, complete with file and line; some have more than one line of text.
    package let messages: [String]
    /// 10 for a configuration that cannot be read, 20 for what is no number, 1 for an unknown name.
    package let exitCode: Int32

    package init(_ messages: [String], exitCode: Int32 = 10) {
        self.messages = messages
        self.exitCode = exitCode
    }

    /// What goes to standard error, without the last newline.
    package var text: String { messages.joined(separator: "\n") }
}

/// The words of messages that the tool of DRBD prints too.
enum Complaint {
    /// Long tokens are cut, as the tool does: the beginning is enough to find them.
    static let shownCharacters = 20

    static func wanted(_ wanted: String, got token: Token, in file: String) -> String {
        "\(file):\(token.line): Parse error: '\(wanted)' expected,\n\tbut got '\(cut(token.text))'"
    }

    /// The tool ends some of its complaints with the number of the token's class.
    static func wantedClass(_ wanted: String, got token: Token, in file: String) -> String {
        let message = self.wanted(wanted, got: token, in: file)
        guard let number = token.classNumber else { return message }
        return message + " (TK \(number))"
    }

    static func cut(_ text: String) -> String {
        text.count > shownCharacters ? text.prefix(shownCharacters) + "..." : text
    }

    static func conflict(
        _ what: String, _ key: String, at location: SourceLocation, first: SourceLocation
    ) -> String {
        "\(location): conflicting use of \(what) '\(key)' ...\n"
            + "\(first): \(what) '\(key)' first used here."
    }
}
