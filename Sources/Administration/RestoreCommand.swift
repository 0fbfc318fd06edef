import Glibc
import MetaDisk
import Support

// restore-md and verify-dump: drbd-metadata.md, section 14.8.

/// A dump in a file.
private final class DumpFile {
    private static let chunkBytes = 1 << 20

    private let descriptor: Int32
    private(set) var error: Int32 = 0

    private init(descriptor: Int32) { self.descriptor = descriptor }

    static func open(_ path: String) throws(SystemError) -> DumpFile {
        let descriptor = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemError("open", path, errno: errno) }
        return DumpFile(descriptor: descriptor)
    }

    deinit { close(descriptor) }

    func rewind() { error = lseek(descriptor, 0, SEEK_SET) == 0 ? 0 : errno }

    /// Empty at the end and at an error.
    func more() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.chunkBytes)
        while true {
            let count = unsafe read(descriptor, &bytes, Self.chunkBytes)
            if count < 0, errno == EINTR { continue }
            if count < 0 { error = errno }
            return Array(bytes[..<max(0, count)])
        }
    }
}

extension OfflineCommands {
    /// verify-dump: reads all of the text, and says what restoring it would leave out.
    package mutating func verifyDump(
        _ path: String, shape: (stripes: UInt32, stripeBlocks: UInt32)? = nil
    ) -> Int32 {
        perform { (commands) throws(Stop) in
            _ = try commands.check(try commands.openDump(path), path, shape)
            commands.console.print("input file parsed ok")
        }
    }

    /// restore-md: nothing is written before all of the text was read once.
    package mutating func restoreMetadata(
        _ path: String, shape: (stripes: UInt32, stripeBlocks: UInt32)? = nil
    ) -> Int32 {
        perform { (commands) throws(Stop) in
            let file = try commands.openDump(path)
            var restoration = try commands.check(file, path, shape)
            try commands.confirmReplacement()
            if shape != nil {
                commands.console.complain(
                    lines: "override activity log striping from commandline")
            }
            file.rewind()
            var reader = DumpReader(more: file.more)
            do {
                _ = try reader.header()
                try restoration.begin(on: &commands.disk)
                while let run = try reader.nextRun() {
                    try restoration.add(run, to: &commands.disk)
                }
                if file.error != 0 { throw SystemError("read", path, errno: file.error) }
                try restoration.finish(on: &commands.disk)
            } catch let error as SystemError {
                throw .system(error)
            } catch {
                commands.console.complain(lines: "\(path) changed while it was read: \(error)")
                throw .exit(ExitCode.badValue)
            }
            if restoration.isCut {
                commands.console.complain(lines: "Bitmap info too large, truncated!")
            }
            commands.console.print("Successfully restored meta data")
            commands.warn(about: restoration.location)
        }
    }

    private func openDump(_ path: String) throws(Stop) -> DumpFile {
        do throws(SystemError) {
            return try DumpFile.open(path)
        } catch {
            console.complain(lines: "open of '\(path)' failed: \(systemMessage(error.errno))")
            throw .exit(ExitCode.notOpened)
        }
    }

    /// Reads the text to its end. What it says is then known to fit.
    private mutating func check(
        _ file: DumpFile, _ path: String, _ shape: (stripes: UInt32, stripeBlocks: UInt32)?
    ) throws(Stop) -> MetaRestoration {
        var reader = DumpReader(more: file.more)
        let header: DumpHeader
        var words: UInt64 = 0
        do throws(DumpError) {
            header = try reader.header()
            while let run = try reader.nextRun() { words += run.count }
        } catch {
            if file.error != 0 { throw .system(SystemError("read", path, errno: file.error)) }
            console.complain(lines: "\(error)")
            throw .exit(ExitCode.badValue)
        }
        do throws(MetaDiskError) {
            let restoration = try MetaRestoration(
                header, placement: placement, deviceSize: disk.size, shape: shape)
            report(header, words, restoration)
            return restoration
        } catch {
            complain(about: error)
            throw .exit(ExitCode.badValue)
        }
    }

    private func report(_ header: DumpHeader, _ words: UInt64, _ restoration: MetaRestoration) {
        let size = restoration.superblock.lastAgreedSize
        if size != header.lastAgreedSize {
            console.print(
                "# la-size-sect was too big (\(header.lastAgreedSize)), truncated (\(size))!")
        }
        if header.flags.isEmpty {
            // A dump needs clean meta data, so that at least one flag is set.
            console.complain(
                lines:
                    "flags 0x00000000: drbdmeta 9.22 prints this whatever the flags are. The disk "
                    + "will be Inconsistent;", "set the true flags in the text, or use set-gi.")
        }
        let needed = BitmapLayout.wordCount(sectors: size)
        if words < needed {
            console.complain(
                lines: "the text has \(words) of the \(needed) words of the bitmap; "
                    + "the rest becomes 0: in sync")
        }
    }

    private mutating func confirmReplacement() throws(Stop) {
        let block = try read(try superblockOffset(), Superblock.encodedSize)
        do throws(MetaDiskError) {
            _ = try Superblock(decoding: block.rawBytes)
        } catch {
            if case .noSuperblock = error { return }
        }
        guard console.confirm("Valid meta-data in place, overwrite?", force: force) else {
            throw .exit(ExitCode.failed)
        }
        console.complain(lines: "reinitializing")
    }
}
