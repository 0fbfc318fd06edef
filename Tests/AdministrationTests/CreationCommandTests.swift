import Administration
import Foundation
import MetaDisk
import Support
import Testing

/// As recorded of drbdmeta 9.22.0 on a loop device of 64 MiB.
@Suite struct CreationCommandTests {
    static let made = """
        initializing activity log
        Writing meta data...
        New drbd meta data block successfully created.

        """
    static let bitmap = "initializing bitmap (4 KB) to all zero\n"
    static let existing = """
        You want me to create a v08 style flexible-size internal meta data block.
        There appears to be a v08 flexible-size internal meta data block
        already in place on DISK at byte offset 67104768

        Do you really want to overwrite the existing meta-data?

        """
    static let offsets = """
        md_offset 67104768
        al_offset 67072000
        bm_offset 67067904


        """
    static let noTerminal = "stdin not a TTY, not waiting for confirmation\n"
    static let forced = "*** confirmation forced via --force option ***\n"

    static func ext(kibibytes: UInt32, features: UInt8 = 4) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 8192)
        bytes.withMutableRawBytes { span in
            span[LittleField<UInt16>(at: 0x438)] = 0xEF53
            span[LittleField<UInt32>(at: 0x404)] = kibibytes / 4
            span[LittleField<UInt32>(at: 0x418)] = 2
            span[LittleField<UInt32>(at: 0x45C)] = UInt32(features)
        }
        return bytes
    }

    @Test func `an empty disk needs no confirmation`() throws {
        let disk = try TemporaryDisk()
        let outcome = disk.create()
        #expect(outcome.matches(0, output: Self.made, errors: Self.bitmap))
        let location = try MetaLocation(placement: .internalData, deviceSize: disk.size)
        #expect(try disk.superblock() == Superblock.fresh(location: location))
    }

    @Test func `without a terminal meta data is not overwritten`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change { $0.uuids.current = 99 }
        let outcome = disk.create()
        #expect(
            outcome.matches(
                1, output: "Operation cancelled.\n", errors: Self.existing + Self.noTerminal))
        #expect(try disk.superblock().uuids.current == 99)
    }

    @Test(arguments: ["no", "y", "Yes", "", "yes "])
    func `only yes confirms`(answer: String) throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change { $0.uuids.current = 99 }
        let outcome = disk.create(answers: [answer])
        #expect(outcome.code == 1)
        #expect(
            outcome.screen == Self.existing + "[need to type 'yes' to confirm] \(answer)\n\n"
                + "Operation cancelled.\n")
        #expect(try disk.superblock().uuids.current == 99)
    }

    @Test func `yes overwrites`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change { $0.uuids.current = 99 }
        let outcome = disk.create(answers: ["yes"])
        #expect(outcome.code == 0)
        #expect(outcome.output == Self.made)
        #expect(try disk.superblock().uuids.current == 4)
    }

    @Test func `force overwrites and says so`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        let outcome = disk.create(force: true)
        #expect(
            outcome.matches(
                0, output: Self.made, errors: Self.existing + Self.forced + Self.bitmap))
    }

    @Test func `a damaged super block of ours is not overwritten unasked`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change { $0.bmOffset = -80 }
        #expect(disk.create().code == 1)
        #expect(try disk.superblock().bmOffset == -80)
    }

    @Test(
        arguments: [(28, 0x8374_026A, "v07"), (60, 0x8374_026D, "v09")] as [(Int, UInt32, String)])
    func `another format is never replaced by force`(
        offset: Int, magic: UInt32, format: String
    ) throws {
        let disk = try TemporaryDisk()
        var block = [UInt8](repeating: 0, count: 4096)
        block.withMutableRawBytes { $0[Field<UInt32>(at: offset)] = magic }
        try disk.write(block, at: 67_104_768)
        let outcome = disk.create(force: true)
        #expect(outcome.code == 30)
        #expect(outcome.errors.contains("There appears to be a \(format) flexible-size internal"))
        #expect(disk.create().code == 1)
        #expect(try disk.read(67_104_768, 4096) == block)
        #expect(disk.create(answers: ["yes"]).code == 0)
        #expect(throws: Never.self) { try disk.superblock() }
    }

    @Test func `unknown data is asked about`() throws {
        let disk = try TemporaryDisk()
        try disk.write([1], at: 100)
        let refused = disk.create()
        let found =
            Self.offsets + "Found some data\n\n ==> This might destroy existing data! <==\n"
        #expect(
            refused.matches(
                1, output: found + "Operation canceled.\n",
                errors: "\nDo you want to proceed?\n" + Self.noTerminal))
        #expect(disk.create(answers: ["yes"]).code == 0)
    }

    @Test(arguments: [false, true], [false, true])
    func `a file system that would lose its end is refused whatever was said`(
        force: Bool, ignoresSanityChecks: Bool
    ) throws {
        let disk = try TemporaryDisk()
        try disk.write(Self.ext(kibibytes: 65536), at: 0)
        let outcome = disk.create(force: force, ignoresSanityChecks: ignoresSanityChecks)
        let text = """
            Found ext3 filesystem
                   65536 kB data area apparently used
                   65496 kB left usable by current configuration

            Device size would be truncated, which
            would corrupt data and result in
            'access beyond end of device' errors.
            You need to either
               * use external meta data (recommended)
               * shrink that filesystem first
               * zero out the device (destroy the filesystem)
            Operation refused.


            """
        #expect(outcome.matches(40, output: Self.offsets + text))
        #expect(throws: MetaDiskError.self) { try disk.superblock() }
    }

    @Test func `a file system that leaves room is asked about`() throws {
        let disk = try TemporaryDisk()
        try disk.write(Self.ext(kibibytes: 32768, features: 0), at: 0)
        let text =
            Self.offsets + """
                Found ext2 filesystem
                       32768 kB data area apparently used
                       65496 kB left usable by current configuration

                Even though it looks like this would place the new meta data into
                unused space, you still need to confirm, as this is only a guess.

                """
        let question = "\nDo you want to proceed?\n"
        #expect(
            disk.create().matches(
                1, output: text + "Operation canceled.\n",
                errors: question + Self.noTerminal))
        #expect(
            disk.create(force: true).matches(
                0, output: text + Self.made, errors: question + Self.forced + Self.bitmap))
    }

    @Test func `a file system up to the very end of the data is no loss`() throws {
        let disk = try TemporaryDisk()
        try disk.write(Self.ext(kibibytes: 65496), at: 0)
        #expect(disk.create(force: true).code == 0)
    }

    @Test func `meta data over a file system needs both answers`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        try disk.change { $0.uuids.current = 99 }
        try disk.write(Self.ext(kibibytes: 32768), at: 0)
        #expect(disk.create(answers: ["yes", "no"]).code == 1)
        #expect(try disk.superblock().uuids.current == 99)
        #expect(disk.create(answers: ["yes", "yes"]).code == 0)
        #expect(try disk.superblock().uuids.current == 4)
    }

    @Test func `swap is refused unless sanity checks are ignored`() throws {
        let disk = try TemporaryDisk()
        try disk.write(Array("SWAPSPACE2".utf8), at: 4086)
        let text =
            Self.offsets + """
                Found swap space signature
                       65496 kB left usable by current configuration
                Device size would be truncated, which
                would corrupt data and result in
                'access beyond end of device' errors.

                """
        let refusal = """
            If you want me to do this, you need to zero out the first part
            of the device (destroy the content).
            You should be very sure that you mean it.
            Operation refused.


            """
        #expect(disk.create(force: true).matches(40, output: text + refusal))
        #expect(
            disk.create(force: true, ignoresSanityChecks: true).matches(
                0, output: text + "\nIgnoring sanity check on user request.\n\n" + Self.made,
                errors: Self.bitmap))
    }

    @Test func `a physical volume is refused`() throws {
        let disk = try TemporaryDisk()
        try disk.write(Array("LVM2".utf8), at: 0x218)
        let outcome = disk.create(force: true)
        #expect(outcome.code == 40)
        #expect(
            outcome.output.hasPrefix(
                Self.offsets + """
                    Found LVM2 physical volume signature
                           65496 kB left usable by current configuration
                    Could not determine the size of the actually used data area.

                    Device size would be truncated, which

                    """))
    }

    @Test func `an external disk with a file system is refused`() throws {
        let disk = try TemporaryDisk()
        try disk.write(Self.ext(kibibytes: 32768), at: 0)
        let text = """
            md_offset 0
            al_offset 4096
            bm_offset 36864

            Found ext3 filesystem

            This would corrupt existing data.
            If you want me to do this, you need to zero out the first part
            of the device (destroy the content).
            You should be very sure that you mean it.
            Operation refused.


            """
        #expect(disk.create(.flexExternal, force: true).matches(40, output: text))
    }

    @Test func `external meta data is data, too`() throws {
        let disk = try TemporaryDisk()
        #expect(disk.create(.flexExternal).code == 0)
        let errors = """

            Valid meta data seems to be in place.
            Do you really want to overwrite?
            \(Self.forced)
            Do you want to proceed?
            \(Self.forced)
            """
        let again = disk.create(.flexExternal, force: true)
        #expect(again.code == 0)
        #expect(again.errors.hasPrefix(errors))
        #expect(again.output.contains("Found some data\n"))
        let declined = disk.create(.flexExternal)
        #expect(
            declined.matches(
                1, output: "Operation cancelled.\n",
                errors:
                    errors
                    .replacing(Self.forced, with: Self.noTerminal)
                    .replacing("\nDo you want to proceed?\n" + Self.noTerminal, with: "")))
    }

    @Test func `a disk too small is refused in the words of the tool`() throws {
        let small = try TemporaryDisk(size: 61440)
        #expect(
            small.create().matches(
                10, errors: "DISK is only 61440 bytes. That's not enough.\n"))
        let slot = try TemporaryDisk(size: 40 << 20)
        #expect(
            slot.create(.indexed(1)).matches(
                10,
                errors: """
                    Device too small: expecting meta data block at
                    byte offset 134217728, but DISK is only 41943040 bytes.

                    """))
    }

    @Test(
        arguments: [(1, 4, "small"), (4096, 16, "large"), (0, 8, "small")]
            as [(UInt32, UInt32, String)])
    func `an impossible log is refused`(stripes: UInt32, blocks: UInt32, word: String) throws {
        let disk = try TemporaryDisk()
        var options = CreationOptions()
        options.stripes = stripes
        options.stripeBlocks = blocks
        let outcome = disk.run { $0.createMetadata(options) }
        #expect(outcome.matches(10, errors: "invalid (too \(word)) al-stripe* settings\n"))
    }

    @Test func `a request size out of range is refused`() throws {
        let disk = try TemporaryDisk()
        var options = CreationOptions()
        options.peerMaximumRequest = 2 << 20
        let outcome = disk.run { $0.createMetadata(options) }
        #expect(outcome.matches(10, errors: "peer-max-bio-size out of range (0...1M)\n"))
    }
}
