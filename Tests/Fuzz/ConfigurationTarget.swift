import Configuration
import Glibc
import Support

/// Configurations: a main file and up to four that it can include, separated by bytes of value 1.
enum ConfigurationTarget {
    private static let main = "/etc/drbd.conf"
    private static let nodes = ["alice", "bob"].map {
        NodeIdentity(name: $0, addresses: ["10.1.1.31", "fd01::1"])
    }

    static func run(_ bytes: [UInt8]) {
        let parts = bytes.split(separator: 1, maxSplits: 4, omittingEmptySubsequences: false)
        var files = FuzzFiles()
        for (index, part) in parts.enumerated() {
            files.files[index == 0 ? main : "/etc/drbd.d/\(index).res"] = Array(part)
        }
        do throws(ConfigurationError) {
            check(try ConfigurationFile.read(main, from: files))
        } catch {
            check(error)
        }
    }

    /// Every complaint says where.
    private static func check(_ error: ConfigurationError) {
        invariant(!error.messages.isEmpty, "refused without a word")
        for message in error.messages {
            let names = [main] + (1...4).map { "/etc/drbd.d/\($0).res" }
            let hasPlace = names.contains { name in
                guard message.hasPrefix(name + ":") else { return false }
                let number = message.utf8.dropFirst(name.utf8.count + 1).prefix {
                    $0 != UInt8(ascii: ":")
                }
                return (Int(Substring(number)) ?? 0) > 0
            }
            invariant(hasPlace, "no file and line: \(message)")
        }
    }

    /// What is dumped is read as what it was.
    private static func check(_ file: ConfigurationFile) {
        let dump = ConfigurationDump.all(of: file, on: nodes[0], absolutePath: main)
        let again: ConfigurationFile
        do throws(ConfigurationError) {
            again = try ConfigurationFile.read(
                main, from: FuzzFiles(files: [main: Array(dump.utf8)]))
        } catch {
            invariantFailed("a dump is refused: \(error.text)\n\(dump)")
        }
        let dumpAgain = ConfigurationDump.all(of: again, on: nodes[0], absolutePath: main)
        invariant(
            statements(dumpAgain) == statements(dump),
            "a dump is read as something else:\n\(dump)\n\(dumpAgain)")
        for node in nodes {
            for resource in file.resources { compare(resource.name, on: node, file, again) }
        }
    }

    /// Without comments, which name lines and files.
    private static func statements(_ dump: String) -> [Substring] {
        dump.split(separator: "\n").filter { line in
            !(line.drop { $0 == " " }.utf8.first == UInt8(ascii: "#"))
        }
    }

    private static func compare(
        _ name: String, on node: NodeIdentity, _ file: ConfigurationFile,
        _ again: ConfigurationFile
    ) {
        let before = Result { () throws(ConfigurationError) in try file.effective(name, on: node) }
        let after = Result { () throws(ConfigurationError) in try again.effective(name, on: node) }
        switch (before, after) {
        case (.success(let before), .success(let after)):
            invariant(
                before.volumes == after.volumes && before.net == after.net
                    && before.options == after.options && before.startup == after.startup
                    && before.handlers == after.handlers && before.repd == after.repd
                    && before.localAddress == after.localAddress
                    && before.peerAddress == after.peerAddress
                    && before.peerName == after.peerName,
                "resource \(name) means something else on \(node.name):\n\(before)\n\(after)")
        case (.failure(let before), .failure(let after)):
            invariant(before.exitCode == after.exitCode, "\(before.text)\n\(after.text)")
        case (.success, .failure(let error)), (.failure(let error), .success):
            invariantFailed("resource \(name) on \(node.name), once: \(error.text)")
        }
    }
}

/// Files in a table.
private struct FuzzFiles: ConfigurationFiles {
    var files: [String: [UInt8]] = [:]

    func contents(of path: String) throws(SystemError) -> [UInt8] {
        guard let bytes = files[path] else { throw SystemError("open", path, errno: ENOENT) }
        return bytes
    }

    func paths(matching pattern: String) -> [String] {
        // The strings live during the call.
        files.keys.filter { unsafe fnmatch(pattern, $0, FNM_PATHNAME) == 0 }.sorted()
    }

    func canonicalPath(of path: String) -> String? { files[path] == nil ? nil : path }
}
