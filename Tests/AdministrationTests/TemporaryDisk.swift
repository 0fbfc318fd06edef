import Administration
import Foundation
import Glibc
import MetaDisk
import Testing

/// A sparse file that goes away with the value.
final class TemporaryDisk {
    let path: String
    let size: UInt64

    init(size: UInt64 = 64 << 20) throws {
        self.size = size
        path =
            FileManager.default.temporaryDirectory
            .appending(path: "administration-\(UUID().uuidString)").path
        try #require(FileManager.default.createFile(atPath: path, contents: nil))
        try handle().truncate(atOffset: size)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    private func handle() throws -> FileHandle {
        try #require(FileHandle(forUpdatingAtPath: path))
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws {
        let handle = try handle()
        defer { try? handle.close() }
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: Data(bytes))
    }

    func read(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        let handle = try handle()
        defer { try? handle.close() }
        try handle.seek(toOffset: offset)
        return Array(try handle.read(upToCount: count) ?? Data())
    }

    /// Of internal meta data.
    func superblock() throws -> Superblock {
        let offset = try MetaLocation.superblockOffset(
            placement: .internalData, deviceSize: size)
        let block = try read(offset, 4096)
        return try Superblock(decoding: block.rawBytes)
    }

    func change(_ change: (inout Superblock) -> Void) throws {
        var superblock = try superblock()
        change(&superblock)
        var bytes = [UInt8](repeating: 0, count: Superblock.encodedSize)
        bytes.withMutableRawBytes { superblock.encode(into: &$0) }
        try write(
            bytes, at: MetaLocation.superblockOffset(placement: .internalData, deviceSize: size))
    }

    /// Runs a command on it, without a terminal unless there are answers.
    func run(
        _ placement: MetaLocation.Placement = .internalData, force: Bool = false,
        answers: [String]? = nil, path: String? = nil, waitingFor patience: Duration = .zero,
        _ command: (inout OfflineCommands) -> Int32
    ) -> Outcome {
        let console = RecordedConsole(answers: answers)
        let code = withOfflineDisk(
            path ?? self.path, placement: placement, force: force, console: console,
            waitingFor: patience, do: command)
        let name = path ?? self.path
        return Outcome(
            code: code, output: console.text.replacing(name, with: "DISK"),
            errors: console.errors.replacing(name, with: "DISK"),
            screen: console.screen.replacing(name, with: "DISK"))
    }

    func create(
        _ placement: MetaLocation.Placement = .internalData, force: Bool = false,
        answers: [String]? = nil, ignoresSanityChecks: Bool = false
    ) -> Outcome {
        var options = CreationOptions()
        options.ignoresSanityChecks = ignoresSanityChecks
        return run(placement, force: force, answers: answers) { $0.createMetadata(options) }
    }
}

/// With the path of the disk as `DISK`.
struct Outcome: Equatable {
    var code: Int32
    var output = ""
    var errors = ""
    var screen = ""

    /// What a transcript has: the streams apart.
    init(code: Int32, output: String = "", errors: String = "", screen: String = "") {
        self.code = code
        self.output = output
        // drbdmeta remembers the last device of "no minor" in one file; other tests use it, too.
        self.errors = errors.split(separator: "\n", omittingEmptySubsequences: false)
            .filter { !$0.hasPrefix("lk_bdev_load(") }.joined(separator: "\n")
        self.screen = screen
    }

    func matches(_ code: Int32, output: String = "", errors: String = "") -> Bool {
        self.code == code && self.output == output && self.errors == errors
    }
}
