import DRBDWire

/// The one-line answers of `role`, `cstate` and `dstate` (reference, section 8.1).
package enum StatusLines {
    private static let unconfigured = "Unconfigured"

    package static func role(_ volume: VolumeStatus) -> String {
        "\(volume.role.name)/\(volume.peerRole.name)"
    }

    package static func disk(_ volume: VolumeStatus) -> String {
        "\(volume.disk.name)/\(volume.peerDisk.name)"
    }

    /// One line for each volume, for the command `role`.
    package static func roles(_ snapshot: StatusSnapshot) -> String {
        lines(snapshot, role)
    }

    /// For the command `cstate`.
    package static func connections(_ snapshot: StatusSnapshot) -> String {
        lines(snapshot) { $0.connection.name }
    }

    /// For the command `dstate`.
    package static func disks(_ snapshot: StatusSnapshot) -> String {
        lines(snapshot, disk)
    }

    private static func lines(
        _ snapshot: StatusSnapshot, _ line: (VolumeStatus) -> String
    ) -> String {
        snapshot.volumes.map { ($0.isUnconfigured ? unconfigured : line($0)) + "\n" }.joined()
    }
}
