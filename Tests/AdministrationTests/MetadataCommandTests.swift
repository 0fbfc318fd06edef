import Administration
import Control
import DRBDWire
import Foundation
import Glibc
import MetaDisk
import Status
import Support
import Testing

/// The commands on meta data as repctl has them: by the name of the resource.
@Suite(.serialized) struct MetadataCommandTests {
    /// A resource whose meta data are on the disk, in the words of the configuration.
    static func site(_ disk: TemporaryDisk, _ statement: String = "meta-disk internal") -> Site {
        let text = Sample.resource().replacing("meta-disk internal", with: statement)
        let path = statement == "meta-disk internal" ? disk.path : "/nonexistent/data"
        return Site(text.replacing("disk /dev/a0;", with: "disk \(path);"))
    }

    static func superblock(
        _ disk: TemporaryDisk, _ placement: MetaLocation.Placement
    ) throws -> Superblock {
        let offset = try MetaLocation.superblockOffset(placement: placement, deviceSize: disk.size)
        let block = try disk.read(offset, 4096)
        return try Superblock(decoding: block.rawBytes)
    }

    static func text(_ body: String) throws -> String {
        let path = FileManager.default.temporaryDirectory
            .appending(path: "dump-\(UUID().uuidString)").path
        try body.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    @Test(
        arguments: [("", .flexExternal), (" [1]", .indexed(1))]
            as [(String, MetaLocation.Placement)])
    func `external meta data are made and read without the data's disk`(
        index: String, placement: MetaLocation.Placement
    ) throws {
        let disk = try TemporaryDisk(size: 256 << 20)
        var site = Self.site(disk, "meta-disk \(disk.path)\(index)")
        #expect(site.run("create-md", "r0") == 0)
        let found = try Self.superblock(disk, placement)
        #expect(
            try found.validate(deviceSize: disk.size, placement: placement).placement == placement)
        #expect(site.run("get-gi", "r0") == 0)
        #expect(site.output.hasSuffix(found.generationLine + "\n"))
        #expect(site.run("dump-md", "r0") == 0)
        #expect(site.output.contains("# md_offset \(placement == .flexExternal ? 0 : 134217728)\n"))
    }

    @Test func `two slots of one device are used at once, one is not`() throws {
        let disk = try TemporaryDisk(size: 256 << 20)
        let first = try OfflineDisk(
            opening: disk.path, claiming: OfflineCommands.extent(of: .indexed(0)),
            waitingFor: .zero)
        #expect(disk.run(.indexed(1)) { $0.createMetadata() }.code == 0)
        let refused = disk.run(.indexed(0)) { $0.createMetadata() }
        #expect(refused.code == 20)
        #expect(refused.errors.contains("open(DISK) failed: Device or resource busy"))
        #expect(disk.run(.flexExternal) { $0.createMetadata() }.code == 20)
        _ = consume first
    }

    @Test func `a log of another shape is made`() throws {
        let disk = try TemporaryDisk()
        var site = Self.site(disk)
        var options = CommandOptions()
        options.logShape = CommandOptions.LogShape(stripes: 4, stripeBlocks: 16)
        options.peerMaximumRequest = 4096
        #expect(site.run("create-md", "r0", options: options) == 0)
        let made = try disk.superblock()
        #expect((made.stripes, made.stripeBlocks, made.peerMaximumRequest) == (4, 16, 4096))
        options.logShape = CommandOptions.LogShape(stripes: 1, stripeBlocks: 7)
        options.force = true
        #expect(site.run("create-md", "r0", options: options) == 10)
        #expect(site.errors.hasSuffix("invalid (too small) al-stripe* settings\n"))
    }

    @Test(
        arguments: [
            "create-md", "dump-md", "set-gi", "restore-md", "verify-dump", "wipe-md", "apply-al",
            "check-resize",
        ])
    func `a disk in use is left alone, and it is said how to get it`(command: String) throws {
        let disk = try TemporaryDisk()
        var site = Self.site(disk)
        #expect(site.run("create-md", "r0") == 0)
        let before = try disk.read(63 << 20, 1 << 20)
        site.daemons.change { $0.snapshots["r0"] = Sample.snapshot() }
        var options = CommandOptions(force: true)
        options.argument = "/nonexistent/dump"
        #expect(site.run(command, "r0", options: options) == 20)
        #expect(site.errors.contains("Device '0' is configured!\nr0: repd has the disk: 'repctl "))
        #expect(try disk.read(63 << 20, 1 << 20) == before)
    }

    @Test(
        arguments: [
            ("invalidate", [.fullSync, .logClean]), ("outdate", [.consistent, .logClean]),
        ] as [(String, MetaFlags)])
    func `a running disk is invalidated or outdated by its daemon, any other one here`(
        command: String, flags: MetaFlags
    ) throws {
        let disk = try TemporaryDisk()
        var site = Self.site(disk)
        #expect(site.run("create-md", "r0") == 0)
        try disk.change { $0.flags = [.consistent, .wasUpToDate, .logClean] }
        site.daemons.change { $0.snapshots["r0"] = Sample.snapshot() }
        #expect(site.run(command, "r0") == 0)
        #expect(site.daemons.told.last == "\(command) r0")
        #expect(try disk.superblock().flags == [.consistent, .wasUpToDate, .logClean])
        site.daemons.change { $0.snapshots["r0"] = Sample.snapshot(disk: .diskless) }
        #expect(site.run(command, "r0") == 0)
        #expect(try disk.superblock().flags == flags)
    }

    @Test func `get-gi of a disk in use comes from the daemon`() throws {
        let disk = try TemporaryDisk()
        var site = Self.site(disk)
        var snapshot = Sample.snapshot()
        snapshot.volumes[0].uuids = [0xA, 0xB, 0xC, 0xD]
        site.daemons.change { $0.snapshots["r0"] = snapshot }
        #expect(site.run("get-gi", "r0") == 0)
        #expect(
            site.output
                == "000000000000000A:000000000000000B:000000000000000C:000000000000000D"
                + ":1:1:0:1:0:0:0\n")
    }

    // MARK: set-gi

    @Test func `T9: set-gi that was declined ends with 1, and nothing was written`() throws {
        let disk = try OfflineCommandTests.member()
        let before = try disk.superblock()
        let declined = disk.run { $0.setGenerations("1:2") }
        #expect(declined.code == 1)
        #expect(declined.output.hasSuffix("Operation canceled.\n"))
        #expect(
            declined.errors
                == "\nWrite new GI to disk?\nstdin not a TTY, not waiting for confirmation\n")
        #expect(try disk.superblock() == before)
    }

    @Test func `set-gi writes what it shows`() throws {
        let disk = try OfflineCommandTests.member()
        let line = try disk.superblock().generationLine
        let new =
            "0000000000000007:0000000000000000:0000000000000008:0000000000000000:1:1:0:0:1:0:0"
        let outcome = disk.run(answers: ["yes"]) { $0.setGenerations("7:0:8:0:::0::1") }
        #expect(outcome.code == 0)
        #expect(outcome.output == "previously \(line)\nset GI to  \(new)\n")
        #expect(try disk.superblock().generationLine == new)
        #expect(try disk.superblock().flags.contains(.logClean))
        #expect(
            disk.run(force: true) { $0.setGenerations("xyz") }
                .matches(10, errors: "'xyz' is not a number of at most 16 hex digits.\n"))
        #expect(try disk.superblock().generationLine == new)
    }

    // MARK: restore-md

    @Test func `what was dumped is restored, on another disk too`() throws {
        let disk = try OfflineCommandTests.member()
        try disk.write([UInt8](repeating: 0x5A, count: 100), at: 67_067_904)
        let dump = disk.run(force: true) { $0.dumpMetadata(header: ["# mine"]) }.output
        let path = try Self.text(dump)
        defer { unsafe unlink(path) }
        #expect(
            disk.run { $0.verifyDump(path) }.matches(0, output: "input file parsed ok\n"))
        let other = try TemporaryDisk()
        #expect(
            other.run { $0.restoreMetadata(path) }
                .matches(0, output: "Successfully restored meta data\n"))
        #expect(other.run { $0.dumpMetadata(header: ["# mine"]) }.output == dump)
        let refused = other.run { $0.restoreMetadata(path) }
        #expect(
            refused.matches(
                1,
                errors: "\nValid meta-data in place, overwrite?\n"
                    + "stdin not a TTY, not waiting for confirmation\n"))
        let forced = other.run(force: true) { $0.restoreMetadata(path, shape: (2, 8)) }
        #expect(forced.code == 0)
        #expect(forced.errors.contains("override activity log striping from commandline\n"))
        #expect(try other.superblock().stripes == 2)
        #expect(try other.read(67_035_136, 100).allSatisfy { $0 == 0x5A })
    }

    @Test func `a bad text is refused before anything is written`() throws {
        let disk = try OfflineCommandTests.member()
        let before = try disk.read(63 << 20, 1 << 20)
        let dump = disk.run(force: true) { $0.dumpMetadata(header: []) }.output
        // Only its end is missing.
        let path = try Self.text(
            String(dump.prefix(upTo: dump.lastIndex(of: "}") ?? dump.endIndex)))
        defer { unsafe unlink(path) }
        let outcome = disk.run(force: true) { $0.restoreMetadata(path) }
        #expect(outcome.code == 10)
        #expect(outcome.errors.hasPrefix("Parse error in line "))
        #expect(outcome.errors.hasSuffix("but end of file encountered\n"))
        #expect(try disk.read(63 << 20, 1 << 20) == before)
        #expect(
            disk.run(force: true) { $0.restoreMetadata("/nonexistent/dump") }.matches(
                20, errors: "open of '/nonexistent/dump' failed: No such file or directory\n"))
        #expect(
            disk.run(force: true) { $0.verifyDump("/tmp") }.matches(
                10, errors: "read(/tmp) failed: Is a directory\n"))
    }

    @Test func `T5: a text of drbdmeta without flags is restored, and it is said what is missing`()
        throws
    {
        let disk = try OfflineCommandTests.member()
        let dump = disk.run(force: true) { $0.dumpMetadata(header: []) }.output
        let path = try Self.text(dump.replacing(/flags 0x[0-9A-F]+/, with: "flags 0x00000000"))
        defer { unsafe unlink(path) }
        let outcome = disk.run(force: true) { $0.restoreMetadata(path) }
        #expect(outcome.code == 0)
        #expect(outcome.errors.contains("drbdmeta 9.22 prints this whatever the flags are"))
        #expect(try disk.superblock().flags == [])
    }

    // MARK: check-resize

    @Test func `a disk that has grown gets its meta data to the end`() throws {
        let disk = try OfflineCommandTests.member()
        try disk.write([1, 2, 3], at: 67_067_904)
        let before = try disk.superblock()
        let grown = try TemporaryDisk(size: 80 << 20)
        try grown.write(try disk.read(63 << 20, 1 << 20), at: 63 << 20)
        let unknown = grown.run { $0.checkResize(nil) }
        #expect(unknown.code == 1)
        #expect(unknown.errors.hasPrefix("no suitable meta data found :(\n"))
        #expect(unknown.errors.contains("--old-size BYTES"))
        for wrong in [63 << 20, 80 << 20, 1 << 10] as [UInt64] {
            #expect(grown.run { $0.checkResize(LastKnownSize(bytes: wrong)) }.code == 1)
        }
        let stranger = LastKnownSize(bytes: 64 << 20, deviceUUID: 5)
        #expect(grown.run { $0.checkResize(stranger) }.code == 1)
        let moved = grown.run { $0.checkResize(LastKnownSize(bytes: 64 << 20)) }
        #expect(moved.code == 0)
        #expect(try grown.superblock().uuids == before.uuids)
        #expect(try grown.superblock().lastAgreedSize == before.lastAgreedSize)
        let place = try grown.superblock().validate(
            deviceSize: grown.size, placement: .internalData)
        #expect(try grown.read(place.bitmapOffset, 4) == [1, 2, 3, 0])
        #expect(grown.run { $0.checkResize(nil) }.matches(0))
    }

    @Test func `what drbdmeta remembers is understood`() {
        #expect(LastKnownSize(text: "67108864\t/dev/loop0\n") == LastKnownSize(bytes: 67_108_864))
        #expect(
            LastKnownSize(text: "4096\t/dev/x\nuuid:\t00000000000000FF\n")
                == LastKnownSize(bytes: 4096, deviceUUID: 255))
        #expect(LastKnownSize(text: "") == nil)
        #expect(LastKnownSize(text: "x\t/dev/x\n") == nil)
    }

    // MARK: create-md

    @Test func `T8: force makes new meta data over a log of another shape`() throws {
        let disk = try TemporaryDisk()
        var options = CreationOptions()
        (options.stripes, options.stripeBlocks) = (4, 4)
        #expect(disk.run { $0.createMetadata(options) }.code == 0)
        try disk.change { $0.uuids.current = 99 }
        #expect(disk.create(force: true).code == 0)
        let made = try disk.superblock()
        let location = try MetaLocation(placement: .internalData, deviceSize: disk.size)
        #expect(made == Superblock.fresh(location: location))
    }
}
