import Testing

@testable import Configuration

@Suite struct DumpTests {
    /// What DRBD's tool printed, without what the reference calls its slips.
    static func corrected(_ dump: String) -> String {
        // An initialiser of drbd-utils 9.22 invents two time-outs.
        dump.split(separator: "\n", omittingEmptySubsequences: false)
            .filter { $0 != "    cmd-timeout-medium 600;" && $0 != "    cmd-timeout-long 0;" }
            .joined(separator: "\n")
    }

    static let dumps = ["seeds", "dialects"].flatMap { folder in
        Fixture.names(in: folder, suffix: ".dump-8.4").map { "\(folder)/\($0)" }
    }
    static let refusals = ["seeds", "dialects"].flatMap { folder in
        Fixture.names(in: folder, suffix: ".refused-8.4").map { "\(folder)/\($0)" }
    }

    /// The node is named in the dump itself; it has all addresses that the file gives it.
    static func node(of dump: String) throws -> NodeIdentity {
        let line = try #require(dump.split(separator: "\n").first { $0.hasPrefix("# resource ") })
        let name = try #require(line.split(separator: " ").dropFirst(4).first).dropLast()
        return NodeIdentity(name: String(name), addresses: ["10.1.1.31"])
    }

    @Test(arguments: dumps)
    func `the dump is that of DRBD's tool`(_ name: String) throws {
        var wanted = Self.corrected(try Fixture.text("\(name).dump-8.4"))
        if name == "dialects/drbd-8.4-all-options" {
            // The tool forgets the disk options of a volume that is described for all hosts.
            let volume = "        volume 0 {\n"
            let options =
                "            disk {\n                on-io-error pass_on;\n            }\n"
            let parts = wanted.split(separator: volume, omittingEmptySubsequences: false)
            #expect(parts.count == 3)
            wanted = parts.joined(separator: volume + options)
        }
        let file = try ConfigurationFile.read(
            "/etc/drbd.conf",
            from: MemoryFiles(["/etc/drbd.conf": try Fixture.bytes("\(name).conf")]))
        let dump = ConfigurationDump.all(
            of: file, on: try Self.node(of: wanted), absolutePath: "/etc/drbd.conf")
        #expect(dump == wanted)
    }

    @Test(arguments: dumps)
    func `a dump read again is the same dump`(_ name: String) throws {
        let bytes = try Fixture.bytes("\(name).conf")
        let node = NodeIdentity(name: "alice")
        var dumps: [String] = []
        var next = bytes
        for _ in 0..<2 {
            let file = try ConfigurationFile.read(
                "/etc/drbd.conf", from: MemoryFiles(["/etc/drbd.conf": next]))
            // Not the line numbers, which differ.
            let text = ConfigurationDump.all(of: file, on: node, absolutePath: "/etc/drbd.conf")
            next = Array(text.utf8)
            dumps.append(
                text.split(separator: "\n").filter { !$0.hasPrefix("# defined") }
                    .joined(separator: "\n"))
        }
        #expect(dumps[0] == dumps[1])
    }

    @Test(arguments: refusals)
    func `what DRBD's tool refuses is refused in its words`(_ name: String) throws {
        let files = MemoryFiles(["/etc/drbd.conf": try Fixture.bytes("\(name).conf")])
        let refusal = try Fixture.text("\(name).refused-8.4")
        guard !name.hasSuffix(".nbsp") else {
            // Except for the no-break spaces of a printed document.
            let file = try ConfigurationFile.read("/etc/drbd.conf", from: files)
            let plain = try ConfigurationFile.read(
                "/etc/drbd.conf",
                from: MemoryFiles([
                    "/etc/drbd.conf": try Fixture.bytes("seeds/001-www4-www5.drbd-8.3.conf")
                ]))
            let node = NodeIdentity(name: "www4")
            #expect(
                ConfigurationDump.all(of: file, on: node, absolutePath: "x")
                    == ConfigurationDump.all(of: plain, on: node, absolutePath: "x"))
            return
        }
        let error = try #require(throws: ConfigurationError.self) {
            try ConfigurationFile.read("/etc/drbd.conf", from: files)
        }
        #expect("exit code \(error.exitCode)\n\(error.text)\n" == refusal)
    }

    @Test(arguments: [
        "a\"b", "a\\b", "a\"\u{301}b", "\\\u{301}", "", "a b", "ü",
        String(repeating: "x", count: 255),
    ])
    func `a string is quoted so that it is read as it was`(text: String) throws {
        var lexer = Lexer(Array((ConfigurationDump.quoted(text) + ";").utf8), file: "f")
        #expect(try lexer.next().text == text)
        #expect(try lexer.next().text == ";")
    }

    @Test func `one resource is dumped without the header and with its own section`() throws {
        let file = try read(
            resource("repd { nbd-listen ipv6 [::1]:10809; kernel-device no; }")
                + "common { net { timeout 50; } }\n")
        let text = ConfigurationDump.text(
            of: file.resources[0], in: file, on: NodeIdentity(name: "carol"))
        #expect(text.hasPrefix("# resource r0 on carol: ignored, not stacked\n"))
        #expect(text.contains("\n        nbd-listen       ipv6 [::1]:10809;\n"))
        #expect(text.contains("\n        kernel-device     no;\n"))
        #expect(!text.contains("timeout"))
    }
}
