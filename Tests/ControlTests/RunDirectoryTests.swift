import Control
import Foundation
import Testing

@Suite struct RunDirectoryTests {
    private func path(_ environment: [String: String], isRoot: Bool) throws(ControlError) -> String
    {
        try RunDirectory(environment: { environment[$0] }, isRoot: isRoot).path
    }

    @Test func `root has /run/repd, others theirs, and REPD_RUN_DIR wins`() throws {
        let user = ["XDG_RUNTIME_DIR": "/run/user/7"]
        #expect(try path([:], isRoot: true) == "/run/repd")
        #expect(try path(user, isRoot: true) == "/run/repd")
        #expect(try path(user, isRoot: false) == "/run/user/7/repd")
        #expect(try path(["REPD_RUN_DIR": "/tmp/a"], isRoot: true) == "/tmp/a")
        #expect(throws: ControlError.noRunDirectory) { try path([:], isRoot: false) }
        #expect(throws: ControlError.noRunDirectory) {
            try path(["REPD_RUN_DIR": "", "XDG_RUNTIME_DIR": ""], isRoot: false)
        }
    }

    @Test func `a resource has its files in a directory of its name`() throws {
        let directory = try RunDirectory(path: "/run/repd").resource("r0")
        #expect(directory.path == "/run/repd/r0")
        #expect(directory.controlSocket == "/run/repd/r0/control.sock")
        #expect(directory.nbdSocket == "/run/repd/r0/nbd.sock")
        #expect(directory.state == "/run/repd/r0/state")
        #expect(directory.roleLock == "/run/repd/r0/role.lock")
        #expect(directory.nbdURI(volume: 0) == "nbd+unix:///r0?socket=/run/repd/r0/nbd.sock")
        #expect(directory.nbdURI(volume: 2) == "nbd+unix:///r0/2?socket=/run/repd/r0/nbd.sock")
    }

    @Test(arguments: [
        "", ".", "..", "../r0", "a/b", "/", "my data", "all", "a\n", ".hidden",
        String(repeating: "r", count: 65),
    ])
    func `a name that leads elsewhere is refused`(_ name: String) {
        #expect(throws: ControlError.self) { try RunDirectory(path: "/run/repd").resource(name) }
    }

    @Test func `the resources of a machine are those with a socket`() throws {
        try withTemporaryDirectory { path in
            for name in ["b", "a", "empty", ".x"] {
                try FileManager.default.createDirectory(
                    atPath: "\(path)/\(name)", withIntermediateDirectories: false)
                guard name != "empty" else { continue }
                try Data().write(to: URL(filePath: "\(path)/\(name)/control.sock"))
            }
            #expect(RunDirectory(path: path).resourceNames() == ["a", "b"])
            #expect(RunDirectory(path: path + "/none").resourceNames().isEmpty)
        }
    }
}

/// A directory that is gone afterwards. Its path is short: sockets go into it.
func withTemporaryDirectory(_ body: (String) throws -> Void) throws {
    let path = "/tmp/repd-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    // What is left after a test that failed harms nobody.
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(path)
}
