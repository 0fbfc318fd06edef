import Configuration
import Testing

@Suite struct IncludeTests {
    private func read(
        _ files: [String: String], _ path: String? = "/etc/drbd.conf"
    ) throws(ConfigurationError) -> ConfigurationFile {
        try ConfigurationFile.read(path, from: MemoryFiles(files))
    }

    @Test func `the packaged layout is read, relative to the file, in order of names`() throws {
        let file = try read([
            "/etc/drbd.conf":
                "include \"drbd.d/global_common.conf\";\ninclude \"drbd.d/*.res\";\n",
            "/etc/drbd.d/global_common.conf": "global { usage-count no; } common { protocol B; }",
            "/etc/drbd.d/b.res": resource(name: "b").replacingMinor(),
            "/etc/drbd.d/a.res": "\n" + resource(name: "a"),
            "/etc/drbd.d/c.other": "junk",
        ])
        #expect(file.resources.map(\.name) == ["a", "b"])
        #expect(
            file.resources.map(\.location.description)
                == ["/etc/drbd.d/a.res:2", "/etc/drbd.d/b.res:1"])
        #expect(file.resources[0].sections.net["protocol"]?.text == "B")
        #expect(file.warnings.isEmpty)
    }

    @Test func `a file is read once by whatever name, and may include itself`() throws {
        let file = try read([
            "/etc/drbd.conf":
                "include \"drbd.conf\"; include \"r.res\"; include \"./r.res\"; include \"*.res\";",
            "/etc/r.res": "include \"drbd.conf\";\n" + resource(),
        ])
        #expect(file.resources.map(\.name) == ["r0"])
    }

    @Test func `errors name the file they are in, and reading goes on behind an include`() throws {
        var files = [
            "/etc/drbd.conf": "include \"a.res\";\n" + resource("net { tiemout 1; }", name: "r1"),
            "/etc/a.res": "\n" + resource("net { timeout 0; }"),
        ]
        let error = try #require(throws: ConfigurationError.self) { try read(files) }
        #expect(error.messages.count == 2)
        #expect(error.messages[0].hasPrefix("/etc/a.res:3: timeout 0"))
        #expect(error.messages[1].hasPrefix("/etc/drbd.conf:3: Parse error"))
        files["/etc/a.res"] = "resource r0 {"
        #expect(throws: ConfigurationError.self) { try read(files) }
    }

    @Test func `the default is the first of repd's and DRBD's file that exists`() throws {
        let files = [
            "/etc/drbd.conf": resource(),
            "/etc/repd.conf": "include \"drbd.conf\";\nrepd r0 { nbd-listen 127.0.0.1:10809; }",
        ]
        #expect(try read(files, nil).path == "/etc/repd.conf")
        #expect(try read(["/etc/drbd.conf": resource()], nil).path == "/etc/drbd.conf")
        #expect(
            throws: ConfigurationError([
                "Can not open '/etc/repd.conf' or '/etc/drbd.conf': No such file or directory"
            ])
        ) { try read([:], nil) }
    }

    @Test func `a file that was named and is not there is an error with exit code 20`() {
        #expect(
            throws: ConfigurationError(
                ["Can not open '/none': No such file or directory"], exitCode: 20)
        ) { try read([:], "/none") }
    }

    @Test func `files of the host are found, and a directory is none`() throws {
        let files = HostFiles()
        let here = #filePath
        let folder = here[...(here.lastIndex(of: "/") ?? here.startIndex)]
        #expect(files.paths(matching: folder + "Include*.swift") == [here])
        #expect(files.paths(matching: folder + "None*.swift").isEmpty)
        #expect(
            files.canonicalPath(of: folder + "./IncludeTests.swift")?.hasSuffix("Tests.swift")
                == true)
        #expect(files.canonicalPath(of: folder + "none") == nil)
        #expect(String(decoding: try files.contents(of: here), as: UTF8.self).contains("@Suite"))
        #expect(throws: (any Error).self) { try files.contents(of: String(folder)) }
    }

    @Test func `this machine has an address`() {
        #expect(NodeIdentity.localAddresses().contains("127.0.0.1"))
    }
}
