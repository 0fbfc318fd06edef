import Administration
import Control
import Foundation
import Glibc
import Testing

/// Against processes that are no daemons, or not for long.
@Suite struct LocalDaemonsTests {
    private let directory: String

    init() throws {
        // Short: a socket's path has at most 107 bytes.
        directory =
            FileManager.default.temporaryDirectory
            .appending(path: "ctl-\(UUID().uuidString.prefix(8))").path
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true)
    }

    private func daemons(_ script: String? = nil) throws -> LocalDaemons {
        let program = directory + "/program"
        if let script {
            try "#!/bin/sh\n\(script)\n".write(toFile: program, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes(
                [.posixPermissions: 0o755], ofItemAtPath: program)
        }
        return LocalDaemons(
            run: RunDirectory(path: directory + "/run"), nodeName: "alice", program: program)
    }

    private func cleanUp() { try? FileManager.default.removeItem(atPath: directory) }

    @Test func `the last words of a daemon that dies at once are shown`() throws {
        defer { cleanUp() }
        try FileManager.default.createDirectory(
            atPath: directory + "/run/r0", withIntermediateDirectories: true)
        try "of another life\n".write(
            toFile: directory + "/run/r0/log", atomically: true, encoding: .utf8)
        let daemons = try daemons("echo \"$@\"; echo no good >&2; exit 3")
        let error = try #require(throws: AdministrationError.self) { try daemons.start("r0") }
        #expect(error.exitCode == 10)
        #expect(
            error.text == """
                r0: repd ended at once (exit status 3); the end of \(directory)/run/r0/log:
                  r0 --supervise --run-dir \(directory)/run --node-name alice
                  no good
                """)
    }

    @Test func `a daemon that is killed at once is told`() throws {
        defer { cleanUp() }
        let daemons = try daemons("kill -9 $$")
        let error = try #require(throws: AdministrationError.self) { try daemons.start("r0") }
        #expect(error.text.hasPrefix("r0: repd was killed by signal 9"))
        #expect(error.text.hasSuffix("  (nothing)"))
    }

    @Test func `a program that cannot be run is named`() throws {
        defer { cleanUp() }
        let error = try #require(throws: AdministrationError.self) {
            try daemons().start("r0")
        }
        #expect(error.text.hasPrefix("r0: cannot start repd: \(directory)/program: posix_spawn:"))
    }

    @Test func `a daemon inherits nothing but its log`() throws {
        defer { cleanUp() }
        let inherited = try #require(FileHandle(forReadingAtPath: "/dev/zero"))
        defer { try? inherited.close() }
        let daemons = try daemons(
            "ls -l /proc/self/fd | sed -n 's/.* \\([0-9]* -> .*\\)/\\1/p'; "
                + "cut -d' ' -f6 /proc/$$/stat; echo $$; exit 1")
        let error = try #require(throws: AdministrationError.self) { try daemons.start("r0") }
        let lines = error.text.split(separator: "\n").dropFirst().map { $0.dropFirst(2) }
        #expect(lines[0] == "0 -> /dev/null")
        // Its output is a pipe of the script.
        #expect(lines[1].hasPrefix("1 -> pipe:"))
        #expect(lines[2] == "2 -> \(directory)/run/r0/log")
        #expect(lines[3].hasPrefix("3 -> /proc/"))
        // The leader of a session of its own.
        #expect(lines.count == 6 && lines[4] == lines[5])
    }

    @Test func `stopping what does not run is nothing, and the sockets of the dead go away`() throws
    {
        defer { cleanUp() }
        let daemons = try daemons()
        #expect(try daemons.stop("r0", force: false, deadline: .seconds(1)) == nil)
        let place = directory + "/run/r0"
        try FileManager.default.createDirectory(
            atPath: place, withIntermediateDirectories: true)
        for name in ["control.sock", "nbd.sock", "repd.pid", "log"] {
            try "".write(toFile: place + "/" + name, atomically: true, encoding: .utf8)
        }
        #expect(try daemons.names() == ["r0"])
        #expect(try daemons.stop("r0", force: false, deadline: .seconds(1)) == nil)
        #expect(try daemons.names() == [])
        #expect(FileManager.default.fileExists(atPath: place + "/log"))
    }

    @Test func `a socket that was deleted under its daemon is no absence of a daemon`() throws {
        defer { cleanUp() }
        let daemons = try daemons()
        let place = directory + "/run/r0"
        try FileManager.default.createDirectory(
            atPath: place, withIntermediateDirectories: true)
        let path = place + "/control.sock"
        let listener = try listen(at: path)
        try FileManager.default.removeItem(atPath: directory + "/run")
        #expect(
            throws: ControlError.unreachable(resource: "r0", socket: path, process: getpid())
        ) { try daemons.perform(.status, on: "r0", deadline: nil) { _ in } }
        let error = try #require(throws: AdministrationError.self) {
            try daemons.stop("r0", force: false, deadline: .seconds(1))
        }
        #expect(error.exitCode == 10)
        #expect(
            error.text.hasPrefix("r0: repd (pid \(getpid())) runs, but its socket \(path) was "))
        // Its process ends: now there is none.
        close(listener)
        #expect(throws: ControlError.noDaemon(resource: "r0", socket: path)) {
            try daemons.perform(.status, on: "r0", deadline: nil) { _ in }
        }
    }

    private func listen(at path: String) throws -> Int32 {
        let listener = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) {
            unsafe $0.copyBytes(from: Array(path.utf8))
        }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafePointer(to: &address) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(listener, $0, size)
            }
        }
        try #require(result == 0)
        try #require(Glibc.listen(listener, 1) == 0)
        return listener
    }

    @Test func `a name that is none has no socket`() throws {
        defer { cleanUp() }
        let daemons = try daemons()
        #expect(!daemons.hasSocket("../run"))
        #expect(throws: AdministrationError.self) { try daemons.start("a/b") }
    }
}
