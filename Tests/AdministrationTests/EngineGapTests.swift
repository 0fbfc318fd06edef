import Control
import Foundation
import Glibc
import Testing

@testable import Administration

/// A dead engine with a supervisor, and a program in the daemon's place that disconnects its device.
@Suite final class EngineGapTests {
    private let root = "/tmp/repd-gap-\(UUID().uuidString)"
    private let gap: EngineGap
    private let supervisor: Int32

    init() throws {
        let directory = try RunDirectory(path: root).resource("r0")
        try FileManager.default.createDirectory(
            atPath: directory.path, withIntermediateDirectories: true)
        supervisor = unsafe open(directory.supervisorLock, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        #expect(flock(supervisor, LOCK_EX | LOCK_NB) == 0)
        gap = EngineGap(directory: directory)
    }

    deinit {
        close(supervisor)
        try? FileManager.default.removeItem(atPath: root)
    }

    private func record(device: Int?) throws {
        try RoleFile(gap.directory).write(
            RoleRecord(boot: "b", process: 1, disk: "d", generations: [1], device: device))
    }

    private var hasRecord: Bool { RoleFile(gap.directory).read() != nil }
    private var arguments: String {
        (try? String(contentsOfFile: root + "/arguments", encoding: .utf8)) ?? ""
    }

    private func program(_ script: String) throws -> String {
        let path = root + "/program"
        try "#!/bin/sh\necho \"$@\" >\(root)/arguments\n\(script)\n".write(
            toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        return path
    }

    @Test func `without a device nothing is started, and the record goes`() throws {
        try record(device: nil)
        #expect(try gap.demote(program: root + "/none") == .done)
        #expect(!hasRecord)
    }

    @Test func `the device is disconnected before the record goes`() throws {
        try record(device: 3)
        let program = try program("test -e \(gap.directory.path)/role")
        #expect(try gap.demote(program: program) == .done)
        #expect(!hasRecord)
        #expect(arguments == "r0 --run-dir \(root) --release-device 3 --claimed\n")
    }

    @Test func `a device that is mounted keeps the record`() throws {
        try record(device: 3)
        let program = try program("exit 11")
        guard case .refused(let reason) = try gap.demote(program: program) else {
            Issue.record("it was demoted")
            return
        }
        #expect(reason.hasSuffix("/dev/nbd3 is mounted or claimed"))
        #expect(hasRecord)
    }

    @Test func `one that the dead engine's own demotion still flushes is no user's`() throws {
        try record(device: 3)
        guard case .flushing(let reason) = try gap.demote(program: program("exit 12")) else {
            Issue.record("it was demoted, or refused")
            return
        }
        #expect(reason.hasPrefix("/dev/nbd3: a demotion whose daemon died still flushes it"))
        #expect(hasRecord)
    }

    @Test func `a demotion waits while that of the dead engine flushes`() throws {
        try record(device: 3)
        let program = try program("test -e \(root)/twice || { touch \(root)/twice; exit 12; }")
        let daemons = LocalDaemons(run: RunDirectory(path: root), nodeName: "a", program: program)
        let reply = try daemons.perform(
            .secondary(disconnectClients: false), on: "r0", deadline: nil
        ) { _ in }
        #expect(reply.exitCode == 0)
        #expect(!hasRecord)
    }

    @Test func `a device that cannot be disconnected keeps the record, and says why`() throws {
        try record(device: 3)
        let program = try program("echo no such luck >&2; exit 1")
        #expect(
            try gap.demote(program: program)
                == .refused("/dev/nbd3 cannot be disconnected:\n  no such luck"))
        #expect(hasRecord)
    }

    @Test func `force does not ask who has claimed it`() throws {
        try record(device: 3)
        #expect(try gap.demote(force: true, program: program("exit 0")) == .done)
        #expect(arguments == "r0 --run-dir \(root) --release-device 3\n")
    }

    @Test func `without a supervisor nobody comes back, and there is nothing to prevent`() throws {
        try record(device: 3)
        flock(supervisor, LOCK_UN)
        #expect(try gap.demote(program: program("exit 0")) == .alive)
        #expect(hasRecord)
    }

    @Test func `a stopped process is named with what lets it go on`() throws {
        let child = Process()
        child.executableURL = URL(fileURLWithPath: "/bin/sleep")
        child.arguments = ["60"]
        try child.run()
        let process = child.processIdentifier
        defer { kill(process, SIGKILL) }
        let engine = unsafe open(gap.directory.engineLock, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(engine) }
        #expect(flock(engine, LOCK_EX | LOCK_NB) == 0)
        // Whoever has taken the lock, and not yet written his number.
        #expect(gap.waiting == "r0: waiting for repd")
        #expect(gap.silence == nil)
        try SmallFile.overwrite(engine, gap.directory.engineLock, "\(process)\n")
        #expect(gap.waiting == "r0: waiting for repd (pid \(process))")
        #expect(
            gap.silence
                == "pid \(process) is busy or hangs, see \(gap.directory.log); "
                + "'kill -9 \(process)' does no harm, another one follows")
        kill(process, SIGSTOP)
        while DaemonProgram.state(of: process) != "T" { usleep(1000) }
        let hint = "pid \(process) is stopped, 'kill -CONT \(process)' lets it go on"
        #expect(gap.waiting == "r0: waiting for repd (pid \(process)): \(hint)")
        #expect(gap.silence == hint)
        // Not the engine but its supervisor.
        flock(engine, LOCK_UN)
        try SmallFile.overwrite(supervisor, gap.directory.supervisorLock, "\(process)\n")
        #expect(
            gap.waiting
                == "r0: repd died: waiting for its supervisor (pid \(process)): \(hint)")
        #expect(gap.silence == hint)
    }
}
