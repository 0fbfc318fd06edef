import Administration
import Foundation
import Glibc
import MetaDisk
import Testing

/// On loop devices, where the installed drbdmeta works without force; needs root.
@Suite(.serialized, .enabled(if: getuid() == 0, "loop devices need root"))
struct LoopDeviceTests {
    final class Loop {
        let disk: TemporaryDisk
        let path: String

        init(size: UInt64 = 64 << 20) throws {
            disk = try TemporaryDisk(size: size)
            let (status, output, errors) = try run(
                "/usr/sbin/losetup", ["--find", "--show", disk.path])
            try #require(status == 0, "losetup: \(errors)")
            path = output.trimmingCharacters(in: .whitespacesAndNewlines)
        }

        deinit { _ = try? run("/usr/sbin/losetup", ["--detach", path]) }

        /// The tool's outcome of a command, with the device called `DISK`.
        func tool(_ command: String, options: [String] = []) throws -> Outcome {
            let program = "/usr/sbin/drbdmeta"
            try #require(
                FileManager.default.isExecutableFile(atPath: program),
                "drbdmeta is missing: install drbd-utils (scripts/test does)")
            let (status, output, errors) = try run(
                program, options + ["-", "v08", path, "internal", command])
            return Outcome(
                code: status, output: output.replacing(path, with: "DISK"),
                errors: errors.replacing(path, with: "DISK"))
        }

        func ours(
            force: Bool = false, _ command: (inout OfflineCommands) -> Int32
        ) -> Outcome {
            var outcome = disk.run(force: force, path: path, command)
            outcome.screen = ""
            return outcome
        }
    }

    static func compare(
        _ prepare: (Loop) throws -> Void, tool: String, options: [String] = [],
        force: Bool = false, _ command: (inout OfflineCommands) -> Int32
    ) throws {
        let theirs = try Loop()
        try prepare(theirs)
        let expected = try theirs.tool(tool, options: (force ? ["--force"] : []) + options)
        let ours = try Loop()
        try prepare(ours)
        #expect(ours.ours(force: force, command) == expected)
        let count = 4096 + 32768 + 4096
        let offset = UInt64(64 << 20) - UInt64(count)
        #expect(try ours.disk.read(offset, count) == theirs.disk.read(offset, count))
    }

    static func fill(_ bytes: [UInt8], at offset: UInt64) -> (Loop) throws -> Void {
        { loop in
            let descriptor = unsafe open(loop.path, O_WRONLY | O_CLOEXEC)
            defer { close(descriptor) }
            let count = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset))
            }
            try #require(count == bytes.count)
            try #require(fsync(descriptor) == 0)
        }
    }

    @Test(arguments: [false, true])
    func `create-md on an empty device is the tool's`(force: Bool) throws {
        try Self.compare({ _ in }, tool: "create-md", force: force) { $0.createMetadata() }
    }

    @Test(arguments: [false, true])
    func `create-md over meta data is the tool's`(force: Bool) throws {
        try Self.compare({ _ = try $0.tool("create-md") }, tool: "create-md", force: force) {
            $0.createMetadata()
        }
    }

    @Test(arguments: [false, true], [30000, 65496, 65500, 65536] as [UInt32])
    func `create-md over a file system is the tool's`(force: Bool, size: UInt32) throws {
        let content = CreationCommandTests.ext(kibibytes: size)
        try Self.compare(Self.fill(content, at: 0), tool: "create-md", force: force) {
            $0.createMetadata()
        }
    }

    @Test(arguments: [false, true])
    func `create-md over unknown data is the tool's`(force: Bool) throws {
        try Self.compare(Self.fill([1], at: 60000), tool: "create-md", force: force) {
            $0.createMetadata()
        }
    }

    @Test(arguments: [false, true])
    func `create-md over swap is the tool's`(ignoring: Bool) throws {
        let swap = Self.fill(Array("SWAPSPACE2".utf8), at: 4086)
        let options = ignoring ? ["--ignore-sanity-checks"] : []
        try Self.compare(swap, tool: "create-md", options: options, force: true) {
            var options = CreationOptions()
            options.ignoresSanityChecks = ignoring
            return $0.createMetadata(options)
        }
    }

    @Test func `wipe-md, apply-al, get-gi, show-gi, dstate, outdate are the tool's`() throws {
        for empty in [true, false] {
            let prepare: (Loop) throws -> Void = { if !empty { _ = try $0.tool("create-md") } }
            try Self.compare(prepare, tool: "wipe-md") { $0.wipeMetadata() }
            try Self.compare(prepare, tool: "wipe-md", force: true) { $0.wipeMetadata() }
            try Self.compare(prepare, tool: "apply-al") { $0.applyLog() }
            try Self.compare(prepare, tool: "get-gi") { $0.getGenerations() }
            try Self.compare(prepare, tool: "show-gi") { $0.showGenerations() }
            try Self.compare(prepare, tool: "dstate") { $0.showDiskState() }
            try Self.compare(prepare, tool: "outdate") { $0.outdate() }
            try Self.compare(prepare, tool: "invalidate") { $0.invalidate() }
        }
    }

    @Test func `a file under a loop device is refused, and the device takes it along`() throws {
        let loop = try Loop()
        #expect(throws: OfflineDiskError.backsLoopDevice(path: loop.disk.path, device: loop.path)) {
            _ = try OfflineDisk(opening: loop.disk.path, waitingFor: .zero)
        }
        let device = try OfflineDisk(opening: loop.path, waitingFor: .zero)
        let descriptor = unsafe open(loop.disk.path, O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        #expect(flock(descriptor, LOCK_EX | LOCK_NB) != 0)
        _ = consume device
        #expect(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
    }

    @Test func `a file below that somebody has keeps the device away`() throws {
        let loop = try Loop()
        let descriptor = unsafe open(loop.disk.path, O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        let outcome = loop.ours { $0.getGenerations() }
        #expect(outcome.code == 20)
        #expect(outcome.errors.contains("below it: in use by pid \(getpid())"))
    }

    @Test func `the tool and we keep each other away`() throws {
        let loop = try Loop()
        _ = try loop.tool("create-md")
        let device = try OfflineDisk(opening: loop.path, waitingFor: .zero)
        let refused = try loop.tool("get-gi")
        #expect(refused.code == 20)
        #expect(refused.errors.hasPrefix("open(DISK) failed: Device or resource busy\n"))
        _ = consume device
        let descriptor = unsafe open(loop.path, O_RDWR | O_EXCL | O_CLOEXEC)
        try #require(descriptor >= 0)
        let ours = loop.ours { $0.getGenerations() }
        close(descriptor)
        #expect(ours.code == 20)
        #expect(ours.errors.hasPrefix("open(DISK) failed: Device or resource busy (in use"))
        #expect(loop.ours { $0.getGenerations() }.code == 0)
    }
}

/// Runs a program without a terminal.
private func run(
    _ program: String, _ arguments: [String]
) throws -> (status: Int32, output: String, errors: String) {
    let process = Process()
    process.executableURL = URL(filePath: program)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let (output, errors) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = errors
    try process.run()
    // Both texts are shorter than a pipe holds.
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let complaint = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (
        process.terminationStatus, String(decoding: text, as: UTF8.self),
        String(decoding: complaint, as: UTF8.self)
    )
}
