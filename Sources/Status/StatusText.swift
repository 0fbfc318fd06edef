import DRBDWire

/// What `drbdadm status` prints over an 8.4 module (reference, section 8.2).
package struct StatusText {
    /// Longer lines are wrapped, the rest indented by four more.
    private static let width = 80

    private let verbose: Bool
    private let statistics: Bool
    private var text = ""

    /// One block for each resource, by name, each with an empty line behind it.
    ///
    /// - Parameters:
    ///   - verbose: says what is usual too.
    ///   - statistics: adds the counters.
    package static func text(
        of snapshots: [StatusSnapshot], verbose: Bool = false, statistics: Bool = false
    ) -> String {
        var status = StatusText(verbose: verbose, statistics: statistics)
        for snapshot in snapshots.sorted(by: { $0.resource < $1.resource }) {
            status.add(snapshot)
        }
        return status.text
    }

    private init(verbose: Bool, statistics: Bool) {
        self.verbose = verbose
        self.statistics = statistics
    }

    /// Words on one line, as many as fit, the rest on lines indented by `wrapped`.
    private mutating func line(_ indent: Int, wrapped: Int? = nil, _ words: [String]) {
        var line = String(repeating: " ", count: indent)
        var isFirst = true
        for word in words {
            if !isFirst, line.count + 1 + word.count > Self.width {
                text += line + "\n"
                line = String(repeating: " ", count: wrapped ?? indent + 4) + word
            } else {
                line += (isFirst ? "" : " ") + word
            }
            isFirst = false
        }
        text += line + "\n"
    }

    private mutating func add(_ snapshot: StatusSnapshot) {
        // Role and suspension are those of the resource: all volumes have the same.
        let role = snapshot.volumes.first?.role ?? .secondary
        let suspended = suspension(snapshot)
        var words = [snapshot.resource, "role:\(role.name)"]
        if suspended != "no" || verbose { words.append("suspended:\(suspended)") }
        line(0, words)
        if statistics, let volume = snapshot.volumes.first {
            line(4, ["write-ordering:\(volume.writeOrdering.rawValue)"])
        }
        let numbered = verbose || snapshot.volumes.count > 1
        for volume in snapshot.volumes { addDevice(volume, numbered) }
        addPeer(snapshot.volumes, numbered)
        text += "\n"
    }

    private mutating func addDevice(_ volume: VolumeStatus, _ numbered: Bool) {
        var words = numbered ? ["volume:\(volume.number)", "minor:\(volume.minor)"] : []
        words.append("disk:\(volume.disk.name)")
        let blocked = blocking(volume.flags)
        if !statistics, blocked != "no" || verbose { words.append("blocked:\(blocked)") }
        line(2, words)
        guard statistics else { return }
        let counters = volume.counters
        line(
            6, wrapped: 6,
            [
                "size:\(volume.size / 2)", "read:\(counters.read / 2)",
                "written:\(counters.written / 2)", "al-writes:\(counters.activityLogWrites)",
                "bm-writes:\(counters.bitmapWrites)",
                "upper-pending:\(counters.applicationPending)",
                "lower-pending:\(counters.localPending)",
                "al-suspended:\(volume.flags.activityLogSuspended ? "yes" : "no")",
                "blocked:\(blocked)",
            ])
    }

    /// The connection is always called `peer` by the tools for 8.4.
    private mutating func addPeer(_ volumes: [VolumeStatus], _ numbered: Bool) {
        guard let first = volumes.first, first.connection != .standAlone else { return }
        let congested = volumes.contains {
            $0.flags.congestion == .network || $0.flags.congestion == .both
        }
        let isConnected = first.connection >= .wfReportParams
        var words = ["peer"]
        if !isConnected || verbose {
            words.append("connection:\(connection(first.connection))")
        }
        if isConnected || verbose { words.append("role:\(first.peerRole.name)") }
        if congested || verbose { words.append("congested:\(congested ? "yes" : "no")") }
        line(2, words)
        for volume in volumes where volume.connection >= .connected || verbose {
            addPeerVolume(volume, numbered)
        }
    }

    private mutating func addPeerVolume(_ volume: VolumeStatus, _ numbered: Bool) {
        var words = numbered ? ["volume:\(volume.number)"] : []
        words.append("replication:\(replication(volume.connection))")
        words.append("peer-disk:\(volume.peerDisk.name)")
        if volume.connection >= .syncSource, volume.connection <= .pausedSyncT {
            words.append("done:\(done(volume))")
        }
        let paused = pauses(volume.flags)
        if paused != "no" || verbose { words.append("resync-suspended:\(paused)") }
        line(4, words)
        guard statistics else { return }
        let counters = volume.counters
        line(
            8, wrapped: 8,
            [
                "received:\(counters.received / 2)", "sent:\(counters.sent / 2)",
                "out-of-sync:\(volume.outOfSync)", "pending:\(counters.peerPending)",
                "unacked:\(counters.unacknowledged)",
            ])
    }

    // MARK: Words

    private func suspension(_ snapshot: StatusSnapshot) -> String {
        list([
            ("user", snapshot.volumes.contains { $0.flags.suspendedByUser }),
            ("no-data", snapshot.volumes.contains { $0.flags.suspendedNoData }),
            ("fencing", snapshot.volumes.contains { $0.flags.suspendedFencing }),
        ])
    }

    private func blocking(_ flags: StatusFlags) -> String {
        list([
            ("upper", flags.suspended || flags.congestion == .driver),
            ("lower", flags.congestion == .backingDisk || flags.congestion == .both),
        ])
    }

    private func pauses(_ flags: StatusFlags) -> String {
        list([
            ("user", flags.pausedByUser), ("peer", flags.pausedByPeer),
            ("dependency", flags.pausedByDependency),
        ])
    }

    private func list(_ words: [(String, Bool)]) -> String {
        let present = words.filter(\.1).map(\.0)
        return present.isEmpty ? "no" : present.joined(separator: ",")
    }

    private func connection(_ state: ConnectionState) -> String {
        if state == .wfConnection { return "Connecting" }
        return state >= .wfReportParams ? "Connected" : state.name
    }

    private func replication(_ state: ConnectionState) -> String {
        if state < .connected { return "Off" }
        return state == .connected ? "Established" : state.name
    }

    /// Percent of the device in sync, with two decimals.
    private func done(_ volume: VolumeStatus) -> String {
        let size = volume.size / 2
        guard size > 0 else { return "100.00" }
        // A device has at most 2^40 KiB, so nothing overflows.
        let inSync = size - min(volume.outOfSync, size)
        let hundredths = (inSync * 20_000 + size) / (2 * size)
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
    }
}
