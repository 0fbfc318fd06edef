import MetaDisk
import Support

// create-md: drbd-metadata.md, section 14.3; drbd-admin.md, section 4.5.

/// What create-md is asked to make.
package struct CreationOptions: Equatable, Sendable {
    package var stripes = MetaLocation.defaultStripes
    package var stripeBlocks = MetaLocation.defaultStripeBlocks
    /// Bytes, 0 to 1 MiB.
    package var peerMaximumRequest: UInt32 = 0
    /// Random, or 0.
    package var deviceUUID: UInt64 = 0
    /// Goes on over swap, LVM, and on an external disk file systems; never over a file system that
    /// would lose its end.
    package var ignoresSanityChecks = false

    package init() {}
}

extension OfflineCommands {
    /// create-md. Asks before it replaces meta data or anything else that it finds.
    package mutating func createMetadata(_ options: CreationOptions = CreationOptions()) -> Int32 {
        perform { (commands) throws(Stop) in
            let location = try commands.place(options)
            try commands.considerMetadata(location)
            try commands.considerContent(location, options)
            try commands.create(location, options)
        }
    }

    private mutating func place(_ options: CreationOptions) throws(Stop) -> MetaLocation {
        guard options.peerMaximumRequest <= 1 << 20 else {
            console.complain(lines: "peer-max-bio-size out of range (0...1M)")
            throw .exit(ExitCode.badValue)
        }
        let blocks = UInt64(options.stripes) * UInt64(options.stripeBlocks)
        guard MetaLocation.createdLogBlockLimits.contains(blocks) else {
            let word = blocks < MetaLocation.createdLogBlockLimits.lowerBound ? "small" : "large"
            console.complain(lines: "invalid (too \(word)) al-stripe* settings")
            throw .exit(ExitCode.badValue)
        }
        do throws(MetaDiskError) {
            return try MetaLocation(
                placement: placement, deviceSize: disk.size, stripes: options.stripes,
                stripeBlocks: options.stripeBlocks)
        } catch {
            complain(about: error)
            throw .exit(ExitCode.badValue)
        }
    }

    /// Meta data of any format that is there already, damaged or not.
    private mutating func considerMetadata(_ location: MetaLocation) throws(Stop) {
        let block = try read(location.superblockOffset, Superblock.encodedSize)
        do throws(MetaDiskError) {
            _ = try Superblock(decoding: block.rawBytes)
        } catch {
            if case .otherFormat(let format) = error {
                try considerOther(format, location)
            } else if let format = try olderFormat() {
                try considerOther(format, location)
            }
            return
        }
        if placement == .internalData { announce("v08", location) }
        let isConfirmed =
            placement == .internalData
            ? console.confirm(
                "Do you really want to overwrite the existing meta-data?", force: force)
            : console.confirm(
                "Valid meta data seems to be in place.", "Do you really want to overwrite?",
                force: force)
        guard isConfirmed else { throw cancelled("Operation cancelled.") }
    }

    /// Never replaced by force alone: drbdmeta would convert it and keep its generations.
    private mutating func considerOther(
        _ format: String, _ location: MetaLocation
    ) throws(Stop) {
        announce(format, location)
        guard !force else {
            console.complain(
                lines: "\(disk.path): will not replace \(format) meta-data by force: convert it "
                    + "with drbdmeta, or use wipe-md first")
            throw .exit(ExitCode.unsupported)
        }
        let isConfirmed = console.confirm(
            "So you want me to replace the \(format) meta-data",
            "with newly initialized v08 meta-data?", force: false)
        guard isConfirmed else { throw cancelled("Operation cancelled.") }
    }

    private mutating func announce(_ format: String, _ location: MetaLocation) {
        let kind =
            switch placement {
            case .internalData: "flexible-size internal"
            case .flexExternal: "flexible-size external"
            case .indexed: "fixed-size external"
            }
        console.complain(
            lines: "You want me to create a v08 style \(kind) meta data block.",
            "There appears to be a \(format) \(kind) meta data block",
            "already in place on \(disk.path) at byte offset \(location.superblockOffset)")
    }

    private mutating func cancelled(_ text: String) -> Stop {
        console.print(text)
        return .exit(ExitCode.failed)
    }

    /// Anything else at the start of the disk.
    private mutating func considerContent(
        _ location: MetaLocation, _ options: CreationOptions
    ) throws(Stop) {
        let start = try read(0, ForeignContent.inspectedBytes)
        guard let content = ForeignContent.detect(in: start.rawBytes) else { return }
        console.print(
            "md_offset \(location.superblockOffset)", "al_offset \(location.logOffset)",
            "bm_offset \(location.bitmapOffset)", "", "Found \(content.name)")
        if content.kind == .unknown {
            console.print("", " ==> This might destroy existing data! <==")
        } else if placement != .internalData {
            console.print("", "This would corrupt existing data.")
            try refuse(options)
        } else if let used = content.usedBytes {
            try compare(used: used, usable: location.capacity * 512)
        } else {
            console.print(
                Self.kibibytes(location.capacity / 2, "left usable by current configuration"))
            if content.kind == .physicalVolume {
                console.print("Could not determine the size of the actually used data area.", "")
            }
            console.print(
                "Device size would be truncated, which", "would corrupt data and result in",
                "'access beyond end of device' errors.")
            try refuse(options)
        }
        let isAsked = content.kind == .unknown || content.usedBytes != nil
        guard isAsked, placement == .internalData || content.kind == .unknown else { return }
        guard console.confirm("Do you want to proceed?", force: force) else {
            throw cancelled("Operation canceled.")
        }
    }

    /// A file system that would lose its end is refused whatever was said.
    private mutating func compare(used: UInt64, usable: UInt64) throws(Stop) {
        console.print(
            Self.kibibytes(used / 1024, "data area apparently used"),
            Self.kibibytes(usable / 1024, "left usable by current configuration"), "")
        guard used > usable else {
            console.print(
                "Even though it looks like this would place the new meta data into",
                "unused space, you still need to confirm, as this is only a guess.")
            return
        }
        console.print(
            "Device size would be truncated, which", "would corrupt data and result in",
            "'access beyond end of device' errors.", "You need to either",
            "   * use external meta data (recommended)", "   * shrink that filesystem first",
            "   * zero out the device (destroy the filesystem)", "Operation refused.", "")
        throw .exit(ExitCode.refused)
    }

    private mutating func refuse(_ options: CreationOptions) throws(Stop) {
        if options.ignoresSanityChecks {
            console.print("", "Ignoring sanity check on user request.", "")
            return
        }
        console.print(
            "If you want me to do this, you need to zero out the first part",
            "of the device (destroy the content).", "You should be very sure that you mean it.",
            "Operation refused.", "")
        throw .exit(ExitCode.refused)
    }

    /// What can be made and used here, but not by every peer's kernel.
    func warn(about location: MetaLocation) {
        guard let refusal = location.kernelRefusal else { return }
        console.complain(lines: "\(disk.path): \(refusal)")
    }

    private static func kibibytes(_ count: UInt64, _ what: String) -> String {
        let number = "\(count)"
        return String(repeating: " ", count: max(0, 12 - number.count)) + "\(number) kB \(what)"
    }

    private mutating func create(
        _ location: MetaLocation, _ options: CreationOptions
    ) throws(Stop) {
        let creation: MetaCreation
        do throws(MetaDiskError) {
            creation = try MetaCreation(
                location: location, peerMaximumRequest: options.peerMaximumRequest,
                deviceUUID: options.deviceUUID)
        } catch {
            complain(about: error)
            throw .exit(ExitCode.badValue)
        }
        let bitmap = prettySize(kibibytes: location.bitmapCapacityBytes / 1024)
        console.print("initializing activity log")
        console.complain(lines: "initializing bitmap (\(bitmap)) to all zero")
        console.print("Writing meta data...")
        do throws(SystemError) {
            try creation.perform(on: &disk)
        } catch {
            throw .system(error)
        }
        console.print("New drbd meta data block successfully created.")
        warn(about: location)
    }
}
