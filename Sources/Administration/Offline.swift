import Configuration
import Control
import DRBDWire
import Glibc
import MetaDisk
import Status

// Commands on the meta data of a disk that no daemon has.

extension Administrator {
    mutating func createMetadata(_ resource: String, _ options: CommandOptions) -> Int32 {
        var creation = CreationOptions()
        if let shape = options.logShape {
            (creation.stripes, creation.stripeBlocks) = (shape.stripes, shape.stripeBlocks)
        }
        creation.peerMaximumRequest = options.peerMaximumRequest
        creation.ignoresSanityChecks = options.ignoresSanityChecks
        return offline(resource, force: options.force) { $0.createMetadata(creation) }
    }

    mutating func dumpMetadata(_ resource: String, force: Bool) -> Int32 {
        let header = dumpHeader(
            now: time(nil), host: node.name, commandLine: ["repctl", "dump-md", resource])
        return offline(resource, force: force) { $0.dumpMetadata(header: header) }
    }

    mutating func restoreMetadata(_ resource: String, _ options: CommandOptions) -> Int32 {
        let shape = options.logShape.map { ($0.stripes, $0.stripeBlocks) }
        return offline(resource, force: options.force) {
            $0.restoreMetadata(options.argument, shape: shape)
        }
    }

    mutating func verifyDump(_ resource: String, _ options: CommandOptions) -> Int32 {
        let shape = options.logShape.map { ($0.stripes, $0.stripeBlocks) }
        return offline(resource, force: options.force) {
            $0.verifyDump(options.argument, shape: shape)
        }
    }

    mutating func wipeMetadata(_ resource: String, force: Bool) -> Int32 {
        offline(resource, force: force) { $0.wipeMetadata() }
    }

    mutating func applyLog(_ resource: String) -> Int32 {
        offline(resource, force: false) { $0.applyLog() }
    }

    mutating func setGenerations(_ resource: String, _ options: CommandOptions) -> Int32 {
        offline(resource, force: options.force) { $0.setGenerations(options.argument) }
    }

    mutating func checkResize(_ resource: String, _ options: CommandOptions) -> Int32 {
        do throws(AdministrationError) {
            let minor = try effective(resource).settings(for: .attach).minor
            let known =
                options.oldSize.map { LastKnownSize(bytes: $0) }
                ?? LastKnownSize.recorded(minor: minor)
            return offline(resource, force: false) { $0.checkResize(known) }
        } catch {
            return complain(error)
        }
    }

    mutating func outdate(_ resource: String) -> Int32 {
        byWhoHasTheDisk(resource, .outdate) { $0.outdate() }
    }

    mutating func invalidate(_ resource: String) -> Int32 {
        byWhoHasTheDisk(resource, .invalidate) { $0.invalidate() }
    }

    /// The daemon does it while it has the disk; else it is done on the disk.
    private mutating func byWhoHasTheDisk(
        _ resource: String, _ command: ControlCommand,
        offline body: (inout OfflineCommands) -> Int32
    ) -> Int32 {
        do throws(AdministrationError) {
            if let volume = try running(resource)?.volumes.first, volume.disk != .diskless {
                return try tell(command, resource, .unknownMinor)
            }
            return offline(resource, force: false, body)
        } catch {
            return complain(error)
        }
    }

    /// As `showGenerations`, one line.
    mutating func getGenerations(_ resource: String) -> Int32 {
        do throws(AdministrationError) {
            if let superblock = try running(resource)?.volumes.first?.asSuperblock {
                console.print(superblock.generationLine)
                return Exit.done
            }
            return offline(resource, force: false) { $0.getGenerations() }
        } catch {
            return complain(error)
        }
    }

    /// From the daemon while it has the disk, else from the disk.
    mutating func showGenerations(_ resource: String) -> Int32 {
        do throws(AdministrationError) {
            if let text = try running(resource)?.volumes.first?.generationText {
                write(text)
                return Exit.done
            }
            return offline(resource, force: false) { $0.showGenerations() }
        } catch {
            return complain(error)
        }
    }

    /// `dstate` answers without a daemon, too: with one word.
    mutating func diskState(_ resource: String) -> Int32 {
        do throws(AdministrationError) {
            if let snapshot = try running(resource) {
                write(StatusLines.disks(snapshot))
                return Exit.done
            }
            return offline(resource, force: false) { $0.showDiskState() }
        } catch {
            return complain(error)
        }
    }

    /// Opens and claims the disk; whoever else has it is named.
    private mutating func offline(
        _ resource: String, force: Bool, _ command: (inout OfflineCommands) -> Int32
    ) -> Int32 {
        do throws(AdministrationError) {
            let settings = try effective(resource).settings(for: .attach)
            // The claim would tell as well, but only after it has waited for its end.
            if let volume = try running(resource)?.volumes.first, volume.disk != .diskless {
                console.complain(
                    "Device '\(volume.minor)' is configured!\n\(resource): repd has the disk: "
                        + "'repctl detach \(resource)' or 'repctl down \(resource)' first\n")
                return Exit.stopsOthers
            }
            return withOfflineDisk(
                settings.metaDisk.path ?? settings.disk, placement: settings.metaDisk.placement,
                force: force, console: console, do: command)
        } catch {
            return complain(error)
        }
    }
}

extension VolumeStatus {
    /// What show-gi prints of a disk in use; `nil` while diskless.
    var generationText: String? {
        guard let superblock = asSuperblock else { return nil }
        // The size and what follows are only known to the disk itself.
        let lines = superblock.generationText.split(
            separator: "\n", omittingEmptySubsequences: false)
        let end = lines.firstIndex { $0.hasPrefix("meta-data:") } ?? lines.endIndex
        return lines[..<end].joined(separator: "\n") + "\nmeta-data: need apply-al\n"
    }

    /// What the super block says or will say of a disk in use; `nil` while diskless.
    var asSuperblock: Superblock? {
        guard uuids.count == 4,
            // Any place will do: nothing that is printed depends on it.
            let location = try? MetaLocation(placement: .internalData, deviceSize: 1 << 20)
        else { return nil }
        var superblock = Superblock.fresh(location: location)
        superblock.uuids = GenerationUUIDs(
            current: uuids[0], bitmap: uuids[1], history0: uuids[2], history1: uuids[3])
        superblock.flags = []
        if disk > .inconsistent { superblock.flags.insert(.consistent) }
        if disk > .outdated { superblock.flags.insert(.wasUpToDate) }
        if role == .primary { superblock.flags.insert(.primaryIndicator) }
        if connection >= .connected { superblock.flags.insert(.connectedIndicator) }
        if (.inconsistent)...(.outdated) ~= peerDisk { superblock.flags.insert(.peerOutdated) }
        return superblock
    }
}

extension ResourceSettings.MetaPlace {
    var placement: MetaLocation.Placement {
        switch self {
        case .internal: .internalData
        case .flexible: .flexExternal
        case .indexed(_, let slot): .indexed(slot)
        }
    }
}
