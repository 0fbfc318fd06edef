import Glibc
package import MetaDisk
import Support

// What drbdmeta does to a disk that no engine has: drbd-metadata.md, section 14.

/// The commands on the meta data of one disk, each with its exit code of section 14.2.
package struct OfflineCommands: ~Copyable {
    var disk: OfflineDisk
    let placement: MetaLocation.Placement
    /// Answers every question with yes.
    let force: Bool
    let console: any Console

    package init(
        disk: consuming OfflineDisk, placement: MetaLocation.Placement, force: Bool,
        console: any Console
    ) {
        self.disk = disk
        self.placement = placement
        self.force = force
        self.console = console
    }

    /// What to claim of a disk for meta data at this place.
    package static func extent(of placement: MetaLocation.Placement) -> DiskExtent {
        guard case .indexed(let slot) = placement, slot >= 0 else { return .whole }
        let length = MetaLocation.slotBytes
        return .range(offset: UInt64(slot) * length, length: length)
    }
}

/// Section 14.2.
enum ExitCode {
    static let success: Int32 = 0
    /// No valid meta data; declined; unclean.
    static let failed: Int32 = 1
    static let inconsistent: Int32 = 5
    static let badValue: Int32 = 10
    static let notOpened: Int32 = 20
    static let unsupported: Int32 = 30
    static let refused: Int32 = 40
}

/// Opens the disk, and if that goes does `command` with it.
///
/// - Parameter command: gives the exit code.
package func withOfflineDisk(
    _ path: String, placement: MetaLocation.Placement, force: Bool, console: any Console,
    waitingFor patience: Duration = OfflineDisk.patience,
    do command: (inout OfflineCommands) -> Int32
) -> Int32 {
    do throws(OfflineDiskError) {
        let disk = try OfflineDisk(
            opening: path, claiming: OfflineCommands.extent(of: placement),
            waitingFor: patience, allowsNetwork: force)
        var commands = OfflineCommands(
            disk: disk, placement: placement, force: force, console: console)
        return command(&commands)
    } catch {
        console.complain(lines: error.description)
        return ExitCode.notOpened
    }
}

// MARK: reading

extension OfflineCommands {
    /// dump-md. The header is the caller's, see `dumpHeader`.
    package mutating func dumpMetadata(header: [String]) -> Int32 {
        perform { (commands) throws(Stop) in
            let (superblock, location) = try commands.metadata()
            if superblock.needsLogApplied {
                commands.console.complain(
                    lines: "Found meta data is \"unclean\", please apply-al first")
                guard commands.force else { throw .exit(ExitCode.failed) }
            }
            var dump = MetaDump(superblock: superblock, location: location)
            commands.console.write(dump.opening(header: header))
            var offset: UInt64 = 0
            while offset < dump.bitmapBytes {
                let count = Int(min(UInt64(MetaDump.chunkBytes), dump.bitmapBytes - offset))
                let chunk = try commands.read(location.bitmapOffset + offset, count)
                var text: [UInt8] = []
                dump.add(bitmap: chunk.rawBytes, to: &text)
                commands.console.write(text)
                offset += UInt64(count)
            }
            commands.console.write(dump.closing())
        }
    }

    /// get-gi: silent if there is no meta data.
    package mutating func getGenerations() -> Int32 {
        perform { (commands) throws(Stop) in
            let (superblock, location) = try commands.metadata(silently: true)
            commands.reportClipping(superblock, location)
            commands.console.print(superblock.generationLine)
        }
    }

    /// show-gi: silent if there is no meta data.
    package mutating func showGenerations() -> Int32 {
        perform { (commands) throws(Stop) in
            var (superblock, location) = try commands.metadata(silently: true)
            commands.reportClipping(superblock, location)
            superblock.lastAgreedSize = min(superblock.lastAgreedSize, location.capacity)
            commands.console.write(Array(superblock.generationText.utf8))
        }
    }

    /// dstate.
    package mutating func showDiskState() -> Int32 {
        perform { (commands) throws(Stop) in
            let (superblock, location) = try commands.metadata()
            commands.reportClipping(superblock, location)
            commands.console.print(superblock.diskStateWord)
        }
    }

    private mutating func reportClipping(_ superblock: Superblock, _ location: MetaLocation) {
        let (size, most) = (superblock.lastAgreedSize, location.capacity)
        if size > most {
            console.print("# la-size-sect was too big (\(size)), truncated (\(most))!")
        }
    }
}

// MARK: changing

extension OfflineCommands {
    /// apply-al.
    package mutating func applyLog() -> Int32 {
        perform { (commands) throws(Stop) in
            let (superblock, _) = try commands.metadata()
            let location: MetaLocation
            do throws(MetaDiskError) {
                location = try superblock.validate(
                    deviceSize: commands.disk.size, placement: commands.placement)
            } catch {
                commands.console.complain(lines: "\(commands.disk.path): \(error)")
                throw .exit(ExitCode.failed)
            }
            let applied: LogApplication
            do throws(SystemError) {
                applied = try LogApplication.apply(
                    to: &commands.disk, superblock: superblock, location: location)
            } catch {
                throw .system(error)
            }
            for message in applied.messages { commands.console.complain(message + "\n") }
        }
    }

    /// outdate: what is only consistent, so that nobody promotes it by mistake.
    package mutating func outdate() -> Int32 {
        perform { (commands) throws(Stop) in
            var (superblock, location) = try commands.metadata(silently: true)
            guard superblock.flags.contains(.consistent) else {
                commands.console.complain(lines: "Device is inconsistent.")
                throw .exit(ExitCode.inconsistent)
            }
            superblock.flags.remove(.wasUpToDate)
            try commands.store(superblock, location)
        }
    }

    /// invalidate: the next connection copies everything from the peer.
    package mutating func invalidate() -> Int32 {
        perform { (commands) throws(Stop) in
            var (superblock, location) = try commands.metadata(silently: true)
            superblock.flags.subtract([.consistent, .wasUpToDate])
            superblock.flags.insert(.fullSync)
            try commands.store(superblock, location)
        }
    }

    /// wipe-md: only the super block.
    package mutating func wipeMetadata() -> Int32 {
        perform { (commands) throws(Stop) in
            let offset = try commands.superblockOffset()
            let block = try commands.read(offset, Superblock.encodedSize)
            do throws(MetaDiskError) {
                _ = try Superblock(decoding: block.rawBytes)
            } catch {
                // What is damaged or of another format can be wiped, too.
                if case .noSuperblock = error {
                    commands.console.complain(
                        lines: "There appears to be no drbd meta data to wipe out?")
                    return
                }
            }
            guard
                commands.console.confirm(
                    "Do you really want to wipe out the DRBD meta data?", force: commands.force)
            else {
                commands.console.print("Operation cancelled.")
                throw .exit(ExitCode.failed)
            }
            commands.console.print("Wiping meta data...")
            do throws(SystemError) {
                try commands.disk.zero(offset..<offset + UInt64(Superblock.encodedSize))
                try commands.disk.flush()
            } catch {
                throw .system(error)
            }
            commands.console.print("DRBD meta data block successfully wiped out.")
        }
    }
}

// MARK: what they share

extension OfflineCommands {
    /// The end of a command before its work is done.
    enum Stop: Error {
        /// Everything has been said.
        case exit(Int32)
        case system(SystemError)
    }

    /// Runs a command and gives its exit code; I/O errors are reported here.
    mutating func perform(_ command: (inout Self) throws(Stop) -> Void) -> Int32 {
        do throws(Stop) {
            try command(&self)
            return ExitCode.success
        } catch {
            switch error {
            case .exit(let code): return code
            case .system(let error):
                console.complain(lines: OfflineDiskError.system(error).description)
                return ExitCode.badValue
            }
        }
    }

    mutating func read(_ offset: UInt64, _ count: Int) throws(Stop) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        do throws(SystemError) {
            try bytes.withMutableRawBytes { (span) throws(SystemError) in
                try disk.read(at: offset, into: &span)
            }
        } catch {
            throw .system(error)
        }
        return bytes
    }

    mutating func store(_ superblock: Superblock, _ location: MetaLocation) throws(Stop) {
        do throws(SystemError) {
            try disk.writeSuperblock(superblock, at: location.superblockOffset)
            try disk.flush()
        } catch {
            throw .system(error)
        }
    }

    mutating func superblockOffset() throws(Stop) -> UInt64 {
        do throws(MetaDiskError) {
            return try MetaLocation.superblockOffset(placement: placement, deviceSize: disk.size)
        } catch {
            complain(about: error)
            throw .exit(ExitCode.badValue)
        }
    }

    /// The meta data of the disk; what is damaged or of another format is named.
    ///
    /// - Parameter silently: if there is nothing at all, say nothing.
    mutating func metadata(
        silently: Bool = false
    ) throws(Stop) -> (superblock: Superblock, location: MetaLocation) {
        let block = try read(try superblockOffset(), Superblock.encodedSize)
        do throws(MetaDiskError) {
            let superblock = try Superblock(decoding: block.rawBytes)
            let location = try superblock.locate(deviceSize: disk.size, placement: placement)
            return (superblock, location)
        } catch {
            if case .noSuperblock(let magic) = error {
                if let format = try olderFormat() {
                    console.complain(lines: "\(disk.path): \(MetaDiskError.otherFormat(format))")
                } else if magic != 0, !silently {
                    // Not just an empty disk.
                    console.complain(lines: "\(disk.path): \(error)")
                }
                if !silently { console.complain(lines: "No valid meta data found") }
            } else {
                console.complain(lines: "\(disk.path): \(error)", "No valid meta data found")
            }
            throw .exit(ExitCode.failed)
        }
    }

    /// Of internal meta data in the place that only v07 had; nil if there are none.
    mutating func olderFormat() throws(Stop) -> String? {
        guard
            let offset = MetaLocation.fixedInternalOffset(
                placement: placement, deviceSize: disk.size)
        else { return nil }
        let block = try read(offset, Superblock.encodedSize)
        return Superblock.olderFormat(block.rawBytes)
    }

    /// In the words of the tool where it has them.
    mutating func complain(about error: MetaDiskError) {
        switch error {
        case .tooSmall(let device, _) where device < MetaLocation.minimumDeviceSize:
            console.complain(
                lines: "\(disk.path) is only \(device) bytes. That's not enough.")
        case .slotOutsideDevice(let slot, let device, _)
        where UInt64(slot) * MetaLocation.slotBytes + 4096 > device:
            console.complain(
                lines: "Device too small: expecting meta data block at",
                "byte offset \(UInt64(slot) * MetaLocation.slotBytes), "
                    + "but \(disk.path) is only \(device) bytes.")
        case .tooSmall, .tooLarge, .slotOutsideDevice, .slotOutOfRange, .logShape, .wrongSize,
            .noSuperblock, .otherFormat, .badField, .shrunk, .bitmapTooSmall:
            console.complain(lines: "\(disk.path): \(error)")
        }
    }
}

/// The comment lines at the top of a dump.
///
/// - Parameters:
///   - now: seconds since 1970.
///   - commandLine: the words of the command, the program's name first.
package func dumpHeader(now: Int, host: String, commandLine: [String]) -> [String] {
    var seconds = time_t(now)
    var parts = unsafe tm()
    var text = [CChar](repeating: 0, count: 64)
    _ = unsafe localtime_r(&seconds, &parts)
    let capacity = text.count
    let count = unsafe strftime(&text, capacity, "%Y-%m-%d %H:%M:%S %z", &parts)
    let date = String(decoding: text[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // A line end in an argument would end the comment.
    let words = commandLine.joined(separator: " ").replacing("\n", with: " ")
    return ["# DRBD meta data dump", "# \(date) [\(now)]", "# \(host)> \(words)", "#", ""]
}
