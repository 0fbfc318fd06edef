import Configuration
import Control
import DRBDWire
import Glibc
import MetaDisk
import Status

// Commands on the meta data of a disk that no daemon has.

extension Administrator {
    mutating func createMetadata(_ resource: String, force: Bool) -> Int32 {
        offline(resource, force: force) { $0.createMetadata() }
    }

    mutating func dumpMetadata(_ resource: String, force: Bool) -> Int32 {
        let header = dumpHeader(
            now: time(nil), host: node.name, commandLine: ["repctl", "dump-md", resource])
        return offline(resource, force: force) { $0.dumpMetadata(header: header) }
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
                settings.disk, placement: .internalData, force: force, console: console,
                do: command)
        } catch {
            return complain(error)
        }
    }
}

extension VolumeStatus {
    /// What show-gi prints of a disk in use; `nil` while diskless.
    var generationText: String? {
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
        // The size and what follows are only known to the disk itself.
        let lines = superblock.generationText.split(
            separator: "\n", omittingEmptySubsequences: false)
        let end = lines.firstIndex { $0.hasPrefix("meta-data:") } ?? lines.endIndex
        return lines[..<end].joined(separator: "\n") + "\nmeta-data: need apply-al\n"
    }
}
