// How offline commands talk: texts and questions as drbdmeta has them (drbd-metadata.md, 14.1).

import Glibc

/// Where a command's texts go and where answers come from.
package protocol Console: AnyObject {
    /// Standard output.
    func write(_ bytes: [UInt8])
    /// Standard error, without anything added.
    func complain(_ text: String)
    /// The line typed at a terminal, without its end; nil if standard input is none.
    ///
    /// The prompt is shown only on a terminal.
    func ask(_ prompt: String) -> String?
}

extension Console {
    func print(_ lines: String...) {
        for line in lines { write(Array((line + "\n").utf8)) }
    }

    func complain(lines: String...) {
        for line in lines { complain(line + "\n") }
    }

    /// Exactly `yes` confirms, and so does `force`; without a terminal the answer is no.
    func confirm(_ question: String..., force: Bool) -> Bool {
        complain("\n")
        for line in question { complain(line + "\n") }
        if force {
            complain(lines: "*** confirmation forced via --force option ***")
            return true
        }
        guard let answer = ask("[need to type 'yes' to confirm] ") else {
            complain(lines: "stdin not a TTY, not waiting for confirmation")
            return false
        }
        complain("\n")
        return answer == "yes"
    }
}

/// The process's own terminal, pipes or files.
package final class StandardConsole: Console {
    package init() {}

    package func write(_ bytes: [UInt8]) { Self.put(bytes, STDOUT_FILENO) }

    package func complain(_ text: String) { Self.put(Array(text.utf8), STDERR_FILENO) }

    package func ask(_ prompt: String) -> String? {
        guard isatty(STDIN_FILENO) == 1 else { return nil }
        complain(prompt)
        return readLine() ?? ""
    }

    private static func put(_ bytes: [UInt8], _ descriptor: Int32) {
        var done = 0
        while done < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(
                    descriptor, buffer.baseAddress?.advanced(by: done), bytes.count - done)
            }
            // Nobody reads any more: there is nobody left to tell.
            if count < 0 && errno != EINTR { return }
            done += max(0, count)
        }
    }
}

/// Keeps what is written, and answers from a list; for tests and for callers that want the text.
package final class RecordedConsole: Console {
    package private(set) var output: [UInt8] = []
    package private(set) var errors = ""
    /// What a terminal would show.
    package private(set) var screen = ""
    /// Nil: standard input is no terminal. An exhausted list answers with empty lines.
    private var answers: [String]?

    package init(answers: [String]? = nil) { self.answers = answers }

    package var text: String { String(decoding: output, as: UTF8.self) }

    package func write(_ bytes: [UInt8]) {
        output += bytes
        screen += String(decoding: bytes, as: UTF8.self)
    }

    package func complain(_ text: String) {
        errors += text
        screen += text
    }

    package func ask(_ prompt: String) -> String? {
        guard let known = answers else { return nil }
        let answer = known.first ?? ""
        answers = Array(known.dropFirst())
        complain(prompt)
        screen += answer + "\n"
        return answer
    }
}
