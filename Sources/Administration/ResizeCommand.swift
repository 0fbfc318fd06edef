import Foundation
import MetaDisk
import Support

// check-resize: drbd-metadata.md, sections 12.2 and 14.8.

/// The size that a backing disk had when drbdmeta last saw it.
package struct LastKnownSize: Equatable, Sendable {
    /// Bytes.
    package let bytes: UInt64
    /// Of the meta data it saw, if they had one.
    package let deviceUUID: UInt64?

    package init(bytes: UInt64, deviceUUID: UInt64? = nil) {
        self.bytes = bytes
        self.deviceUUID = deviceUUID
    }

    /// - Parameter text: `<bytes>TAB<device>`, then perhaps `uuid:TAB<16 hex digits>`.
    package init?(text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let bytes = lines.first.flatMap({ UInt64($0.prefix { $0 != "\t" }) }) else {
            return nil
        }
        self.bytes = bytes
        deviceUUID = lines.dropFirst().first.flatMap { line in
            line.hasPrefix("uuid:\t") ? UInt64(line.dropFirst(6), radix: 16) : nil
        }
    }

    /// What drbdmeta remembers about a minor; nil if it knows nothing.
    package static func recorded(minor: Int) -> LastKnownSize? {
        // Who may not read it knows as little as who has none.
        (try? String(contentsOfFile: "/var/lib/drbd/drbd-minor-\(minor).lkbd", encoding: .utf8))
            .flatMap { LastKnownSize(text: $0) }
    }
}

extension OfflineCommands {
    /// check-resize: silent if the meta data are where they belong; else they are looked for where
    /// the disk once ended, and moved to its end.
    ///
    /// - Parameter known: where that may have been.
    package mutating func checkResize(_ known: LastKnownSize?) -> Int32 {
        perform { (commands) throws(Stop) in
            let block = try commands.read(
                try commands.superblockOffset(), Superblock.encodedSize)
            guard Self.isFree(block) else {
                // Damage and other formats are named there.
                _ = try commands.metadata()
                return
            }
            if try commands.olderFormat() != nil {
                _ = try commands.metadata()
            }
            guard commands.placement == .internalData, let known,
                let found = try commands.metadata(ofSize: known)
            else {
                commands.console.complain(lines: "no suitable meta data found :(")
                if commands.placement == .internalData {
                    commands.console.complain(
                        lines:
                            "\(commands.disk.path) has \(commands.disk.size) bytes now; if it had "
                            + "another size before, name that: --old-size BYTES")
                }
                throw .exit(ExitCode.failed)
            }
            try commands.move(found.superblock, from: found.location)
        }
    }

    private static func isFree(_ block: [UInt8]) -> Bool {
        do throws(MetaDiskError) {
            _ = try Superblock(decoding: block.rawBytes)
            return false
        } catch {
            if case .noSuperblock = error { return true }
            return false
        }
    }

    /// Nil if there is none.
    private mutating func metadata(
        ofSize known: LastKnownSize
    ) throws(Stop) -> (superblock: Superblock, location: MetaLocation)? {
        guard known.bytes < disk.size else { return nil }
        do throws(MetaDiskError) {
            let offset = try MetaLocation.superblockOffset(
                placement: .internalData, deviceSize: known.bytes)
            let block = try readForMetadata(offset)
            let superblock = try Superblock(decoding: block.rawBytes)
            let location = try superblock.validate(
                deviceSize: known.bytes, placement: .internalData)
            if let uuid = known.deviceUUID, uuid != superblock.deviceUUID { return nil }
            return (superblock, location)
        } catch {
            switch error {
            case .noSuperblock, .tooSmall: return nil
            case .tooLarge, .slotOutsideDevice, .slotOutOfRange, .logShape, .wrongSize,
                .otherFormat, .badField, .shrunk, .bitmapTooSmall:
                complain(about: error)
                throw .exit(ExitCode.failed)
            }
        }
    }

    /// A block that cannot be read holds no meta data; the error is reported by who writes there.
    private mutating func readForMetadata(_ offset: UInt64) throws(MetaDiskError) -> [UInt8] {
        do throws(Stop) {
            return try read(offset, Superblock.encodedSize)
        } catch {
            throw .noSuperblock(magic: 0)
        }
    }

    private mutating func move(
        _ superblock: Superblock, from location: MetaLocation
    ) throws(Stop) {
        do {
            // What was hot at a crash becomes bits first: the log does not move along.
            let applied = try LogApplication.apply(
                to: &disk, superblock: superblock, location: location)
            for message in applied.messages { console.complain(message + "\n") }
            let relocation = try MetaRelocation(
                applied.superblock, from: location, deviceSize: disk.size)
            console.print(
                "Moving the internal meta data from byte \(location.superblockOffset) to "
                    + "\(relocation.new.superblockOffset)")
            try relocation.perform(on: &disk)
            console.print("The meta data are at the end of \(disk.path) again.")
        } catch let error as SystemError {
            throw .system(error)
        } catch let error as MetaDiskError {
            complain(about: error)
            throw .exit(ExitCode.failed)
        } catch {
            invariantFailed("moving meta data failed with \(error)")
        }
    }
}
