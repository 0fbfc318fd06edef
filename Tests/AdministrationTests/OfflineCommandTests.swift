import Administration
import Foundation
import Glibc
import MetaDisk
import Support
import Testing

@Suite struct OfflineCommandTests {
    static func member() throws -> TemporaryDisk {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change {
            $0.uuids = GenerationUUIDs(
                current: 0xAAAA_0000_0000_0001, bitmap: 0xBBBB_0000_0000_0000, history0: 0,
                history1: 0)
            $0.flags = [.consistent, .wasUpToDate, .primaryIndicator, .logClean]
            $0.lastAgreedSize = 130992
        }
        return disk
    }

    @Test func `a disk without meta data: dump, dstate and apply-al say so, get-gi is silent`()
        throws
    {
        let disk = try TemporaryDisk()
        let message = "No valid meta data found\n"
        #expect(disk.run { $0.dumpMetadata(header: []) }.matches(1, errors: message))
        #expect(disk.run { $0.showDiskState() }.matches(1, errors: message))
        #expect(disk.run { $0.applyLog() }.matches(1, errors: message))
        #expect(disk.run { $0.getGenerations() }.matches(1))
        #expect(disk.run { $0.showGenerations() }.matches(1))
        #expect(disk.run { $0.outdate() }.matches(1))
        #expect(disk.run { $0.invalidate() }.matches(1))
        let wipe = disk.run { $0.wipeMetadata() }
        #expect(
            wipe.matches(0, errors: "There appears to be no drbd meta data to wipe out?\n"))
    }

    @Test func `generations of a member`() throws {
        let disk = try Self.member()
        let line =
            "AAAA000000000001:BBBB000000000000:0000000000000000:0000000000000000:1:1:1:0:0:0:0\n"
        #expect(disk.run { $0.getGenerations() }.matches(0, output: line))
        let shown = disk.run { $0.showGenerations() }
        #expect(shown.code == 0)
        #expect(shown.output.contains("flags: Primary, StandAlone, UpToDate\n"))
        #expect(disk.run { $0.showDiskState() }.matches(0, output: "Consistent\n"))
    }

    @Test func `a dump has its header and the true flags`() throws {
        let disk = try Self.member()
        let header = dumpHeader(
            now: 0, host: "alpha", commandLine: ["repctl", "dump-md", "r0\n}"])
        let outcome = disk.run { $0.dumpMetadata(header: header) }
        #expect(outcome.code == 0)
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[0] == "# DRBD meta data dump")
        #expect(lines[1].hasSuffix(" [0]"))
        #expect(lines[2] == "# alpha> repctl dump-md r0 }")
        #expect(lines[3...6] == ["#", "", "version \"v08\";", ""])
        #expect(lines.contains("    flags 0x00000093;"))
        #expect(outcome.output.hasSuffix("    512 times 0x0000000000000000;\n}\n# bits-set 0;\n"))
    }

    @Test func `unclean meta data is dumped only by force`() throws {
        let disk = try Self.member()
        try disk.change { $0.isUnclean = true }
        let complaint = "Found meta data is \"unclean\", please apply-al first\n"
        #expect(disk.run { $0.dumpMetadata(header: []) }.matches(1, errors: complaint))
        let forced = disk.run(force: true) { $0.dumpMetadata(header: []) }
        #expect(forced.code == 0)
        #expect(forced.errors == complaint)
        #expect(forced.output.contains("\nThis_is_an_unclean_meta_data_dump._Don't_trust"))
    }

    @Test func `apply-al makes an unclean disk clean`() throws {
        let disk = try Self.member()
        try disk.change {
            $0.isUnclean = true
            $0.flags.remove(.logClean)
        }
        #expect(disk.run { $0.applyLog() }.matches(0, errors: "Nothing to do.\n"))
        #expect(try disk.superblock().needsLogApplied == false)
        #expect(try disk.superblock().flags.contains(.primaryIndicator))
    }

    @Test func `damage is named`() throws {
        let disk = try Self.member()
        try disk.change { $0.bmOffset = -80 }
        let outcome = disk.run { $0.showDiskState() }
        #expect(
            outcome.matches(
                1,
                errors: """
                    DISK: meta data has bm_offset -80 where -72 is expected
                    No valid meta data found

                    """))
    }

    @Test func `a super block with a damaged magic is told from an empty disk`() throws {
        let disk = try Self.member()
        try disk.write([0x93], at: 67_104_768 + 60)
        let outcome = disk.run { $0.applyLog() }
        #expect(outcome.code == 1)
        #expect(
            outcome.errors.hasPrefix(
                "DISK: no valid meta data found (magic 0x9374026B); use create"))
        #expect(outcome.errors.hasSuffix("\nNo valid meta data found\n"))
    }

    @Test func `a size that does not fit is cut in texts and refused by apply-al`() throws {
        let disk = try Self.member()
        try disk.change { $0.lastAgreedSize = 131072 }
        let notice = "# la-size-sect was too big (131072), truncated (130992)!\n"
        #expect(disk.run { $0.showDiskState() }.matches(0, output: notice + "Consistent\n"))
        let dump = disk.run { $0.dumpMetadata(header: ["# mine"]) }
        #expect(dump.output.hasPrefix(notice + "# mine\n"))
        #expect(dump.output.contains("\nla-size-sect 130992;\n"))
        #expect(disk.run { $0.applyLog() }.code == 1)
    }

    @Test func `outdate and invalidate change flags only`() throws {
        let disk = try Self.member()
        let before = try disk.superblock()
        #expect(disk.run { $0.outdate() }.matches(0))
        #expect(try disk.superblock().flags == before.flags.subtracting(.wasUpToDate))
        #expect(disk.run { $0.showDiskState() }.matches(0, output: "Outdated\n"))
        #expect(disk.run { $0.invalidate() }.matches(0))
        #expect(try disk.superblock().flags == [.primaryIndicator, .fullSync, .logClean])
        #expect(try disk.superblock().uuids == before.uuids)
        #expect(disk.run { $0.outdate() }.matches(5, errors: "Device is inconsistent.\n"))
    }

    @Test func `wiping asks, and takes only the super block`() throws {
        let disk = try Self.member()
        let question = "\nDo you really want to wipe out the DRBD meta data?\n"
        #expect(
            disk.run { $0.wipeMetadata() }.matches(
                1, output: "Operation cancelled.\n",
                errors: question + "stdin not a TTY, not waiting for confirmation\n"))
        let log = try disk.read(67_072_000, 32768)
        #expect(disk.run(force: true) { $0.wipeMetadata() }.code == 0)
        #expect(try disk.read(67_104_768, 4096).allSatisfy { $0 == 0 })
        #expect(try disk.read(67_072_000, 32768) == log)
    }

    @Test func `what is no disk cannot be opened`() throws {
        let disk = try TemporaryDisk()
        let missing = disk.run(path: "/nonexistent/disk") { $0.getGenerations() }
        #expect(missing.matches(20, errors: "open(DISK) failed: No such file or directory\n"))
        let directory = disk.run(path: "/tmp") { $0.getGenerations() }
        #expect(directory.matches(20, errors: "'DISK' is neither a file nor a block device!\n"))
    }
}

/// Safety rule S16.
@Suite(.serialized) struct OfflineDiskTests {
    @Test func `a file is had by one, and the other is told by whom`() throws {
        let disk = try TemporaryDisk()
        let first = try OfflineDisk(opening: disk.path, waitingFor: .zero)
        let outcome = disk.run { $0.getGenerations() }
        #expect(outcome.code == 20)
        #expect(
            outcome.errors.hasPrefix("open(DISK) failed: Device or resource busy (in use by pid "))
        #expect(outcome.errors.contains("\(getpid())"))
        _ = consume first
        #expect(disk.create().code == 0)
    }

    @Test func `who waits gets it when the other ends, or gives up in time`() async throws {
        let disk = try TemporaryDisk()
        let path = disk.path
        let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
        try #require(flock(descriptor, LOCK_EX) == 0)
        let started = ContinuousClock().now
        #expect(throws: OfflineDiskError.self) {
            _ = try OfflineDisk(opening: path, waitingFor: .milliseconds(300))
        }
        #expect(ContinuousClock().now - started >= .milliseconds(300))
        let waiter = Task.detached {
            do throws(OfflineDiskError) {
                _ = try OfflineDisk(opening: path, waitingFor: .seconds(60))
                return true
            } catch {
                return false
            }
        }
        close(descriptor)
        #expect(await waiter.value)
    }

    @Test func `a lock of any other program counts`() throws {
        let disk = try TemporaryDisk()
        let descriptor = unsafe open(disk.path, O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(flock(descriptor, LOCK_EX) == 0)
        #expect(disk.create().code == 20)
        try #require(flock(descriptor, LOCK_UN) == 0)
        #expect(disk.create().code == 0)
    }

    @Test func `slots of one device are had by different owners`() throws {
        let disk = try TemporaryDisk(size: 256 << 20)
        func claim(_ slot: Int) throws -> OfflineDisk {
            try OfflineDisk(
                opening: disk.path,
                claiming: OfflineCommands.extent(of: .indexed(slot)),
                waitingFor: .zero)
        }
        let first = try claim(0)
        let second = try claim(1)
        #expect(throws: OfflineDiskError.self) { _ = try claim(1) }
        #expect(throws: OfflineDiskError.self) {
            _ = try OfflineDisk(opening: disk.path, waitingFor: .zero)
        }
        _ = consume first
        _ = consume second
        #expect(throws: Never.self) { _ = try OfflineDisk(opening: disk.path, waitingFor: .zero) }
    }
}
