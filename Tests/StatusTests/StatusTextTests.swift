import DRBDWire
import Status
import Testing

@Suite struct StatusTextTests {
    /// A `status` command of a transcript with what it printed.
    struct Call: CustomTestStringConvertible {
        let name: String
        let command: String
        let output: String

        var testDescription: String { "\(name): \(command)" }
    }

    static func calls() throws -> [Call] {
        try ProcFixture.names(in: "commands").flatMap { name in
            try ProcFixture.text("commands/\(name)").split(separator: "\n[exit 0]\n").compactMap {
                block in
                let lines = block.split(separator: "\n", omittingEmptySubsequences: false)
                    .drop(while: \.isEmpty)
                guard let first = lines.first, let command = first.split(separator: "$ ").last
                else { return nil }
                let words = command.split(separator: " ")
                guard words.count > 1, words[1] == "status" else { return nil }
                let output = lines.dropFirst().joined(separator: "\n") + "\n"
                return Call(name: name, command: String(command), output: output)
            }
        }
    }

    @Test(arguments: try calls())
    func `what the tool printed comes out of its values again`(_ call: Call) throws {
        let isVerbose = call.command.contains("--verbose")
        let rendered = StatusText.text(
            of: try StatusReader.snapshots(call.output), verbose: isVerbose,
            statistics: call.command.contains("--statistics"))
        #expect(rendered == call.output)
    }

    @Test func `all transcripts are there`() throws {
        #expect(try Self.calls().count == 39)
    }

    private func snapshot(_ change: (inout VolumeStatus) -> Void) -> StatusSnapshot {
        var volume = VolumeStatus(
            number: 0, minor: 0, device: "/dev/drbd0", role: .primary, peerRole: .secondary,
            connection: .connected, disk: .upToDate, peerDisk: .upToDate)
        change(&volume)
        return StatusSnapshot(resource: "r0", node: "a", peer: "b", volumes: [volume])
    }

    @Test func `several volumes have their numbers, and one peer line`() {
        var snapshot = snapshot { _ in }
        snapshot.volumes.append(snapshot.volumes[0])
        snapshot.volumes[1].number = 1
        snapshot.volumes[1].minor = 11
        #expect(
            StatusText.text(of: [snapshot]) == """
                r0 role:Primary
                  volume:0 minor:0 disk:UpToDate
                  volume:1 minor:11 disk:UpToDate
                  peer role:Secondary
                    volume:0 replication:Established peer-disk:UpToDate
                    volume:1 replication:Established peer-disk:UpToDate


                """)
    }

    @Test func `resources are sorted by name, without any there is nothing`() {
        var other = snapshot { $0.connection = .standAlone }
        other.resource = "a1"
        let text = StatusText.text(of: [snapshot { _ in }, other])
        #expect(text.hasPrefix("a1 role:Primary\n  disk:UpToDate\n\nr0 role:Primary\n"))
        #expect(StatusText.text(of: []).isEmpty)
    }

    @Test func `all reasons are listed`() {
        let text = StatusText.text(
            of: [
                snapshot {
                    $0.flags.suspendedByUser = true
                    $0.flags.suspendedNoData = true
                    $0.flags.suspendedFencing = true
                    $0.flags.congestion = .both
                }
            ])
        #expect(text.hasPrefix("r0 role:Primary suspended:user,no-data,fencing\n"))
        #expect(text.contains("disk:UpToDate blocked:upper,lower\n"))
        #expect(text.contains("peer role:Secondary congested:yes\n"))
    }

    @Test(arguments: [
        (UInt64(0), UInt64(0), "100.00"), (2 << 40, 1 << 40, "0.00"), (2 << 40, 1, "100.00"),
        (200, 50, "50.00"), (200_000, 3, "100.00"), (200_000, 6, "99.99"), (200, 1000, "0.00"),
        (200, 99, "1.00"),
    ])
    func `done is rounded to two decimals`(
        _ sectors: UInt64, _ outOfSync: UInt64, _ text: String
    ) {
        let status = StatusText.text(
            of: [
                snapshot {
                    $0.connection = .syncSource
                    $0.size = sectors
                    $0.outOfSync = outOfSync
                }
            ])
        #expect(status.contains(" done:\(text)\n"))
    }

    @Test func `the one-line answers have local first and nothing configured as one word`() {
        var snapshot = snapshot { $0.peerDisk = .inconsistent }
        snapshot.volumes.append(VolumeStatus(number: 1, minor: 1, device: ""))
        #expect(StatusLines.roles(snapshot) == "Primary/Secondary\nUnconfigured\n")
        #expect(StatusLines.connections(snapshot) == "Connected\nUnconfigured\n")
        #expect(StatusLines.disks(snapshot) == "UpToDate/Inconsistent\nUnconfigured\n")
    }
}

/// Reads the text of `status` back into the values that it was made of.
enum StatusReader {
    static func snapshots(_ text: String) throws -> [StatusSnapshot] {
        var snapshots: [StatusSnapshot] = []
        var isPeer = false
        for line in text.split(separator: "\n") {
            var words = line.split(separator: " ")
            if !line.hasPrefix(" ") {
                let volume = VolumeStatus(number: 0, minor: 0, device: "")
                snapshots.append(
                    StatusSnapshot(
                        resource: String(words.removeFirst()), node: "", peer: "",
                        volumes: [volume]))
                isPeer = false
            }
            for word in words {
                guard word != "peer" else {
                    isPeer = true
                    continue
                }
                let pair = word.split(separator: ":")
                let place = snapshots.count - 1
                try set(
                    &snapshots[place].volumes[0], String(pair[0]), String(pair[1]), isPeer: isPeer)
            }
        }
        return snapshots
    }

    private static func state<State: CaseIterable>(
        _ name: KeyPath<State, String>, _ text: String
    ) throws -> State {
        try #require(State.allCases.first { $0[keyPath: name] == text })
    }

    private static func set(
        _ volume: inout VolumeStatus, _ key: String, _ value: String, isPeer: Bool
    ) throws {
        switch key {
        case "role" where isPeer:
            volume.peerRole = try state(\Role.name, value)
            // Only a connection shows a role without being named itself.
            if volume.connection == .standAlone { volume.connection = .wfReportParams }
        case "role": volume.role = try state(\Role.name, value)
        case "disk": volume.disk = try state(\DiskState.name, value)
        case "peer-disk": volume.peerDisk = try state(\DiskState.name, value)
        case "connection":
            volume.connection = value == "Connecting" ? .wfConnection : .wfReportParams
        case "replication" where value == "Established": volume.connection = .connected
        case "replication" where value != "Off":
            volume.connection = try state(\ConnectionState.name, value)
        case "suspended":
            volume.flags.suspendedByUser = value.contains("user")
            volume.flags.suspendedFencing = value.contains("fencing")
        case "resync-suspended":
            volume.flags.pausedByUser = value.contains("user")
            volume.flags.pausedByPeer = value.contains("peer")
            volume.flags.pausedByDependency = value.contains("dependency")
        case "congested": if value == "yes" { volume.flags.congestion = .network }
        case "done" where volume.size == 0:
            let digits = value.filter { $0 != "." }
            volume.size = 20_000
            volume.outOfSync = 10_000 - (try #require(UInt64(digits)))
        case "al-suspended": volume.flags.activityLogSuspended = value == "yes"
        case "write-ordering":
            volume.writeOrdering = try #require(WriteOrdering(rawValue: value))
        case "volume", "minor", "replication", "done":
            break
        // That requests wait is known from their suspension in all transcripts.
        case "blocked":
            try #require(value == "no" || volume.flags.suspended)
        default:
            try setCounter(&volume, key, try #require(UInt64(value)))
        }
    }

    private static func setCounter(
        _ volume: inout VolumeStatus, _ key: String, _ value: UInt64
    ) throws {
        switch key {
        case "size": volume.size = value * 2
        case "read": volume.counters.read = value * 2
        case "written": volume.counters.written = value * 2
        case "received": volume.counters.received = value * 2
        case "sent": volume.counters.sent = value * 2
        case "al-writes": volume.counters.activityLogWrites = value
        case "bm-writes": volume.counters.bitmapWrites = value
        case "upper-pending": volume.counters.applicationPending = value
        case "lower-pending": volume.counters.localPending = value
        case "out-of-sync": volume.outOfSync = value
        case "pending": volume.counters.peerPending = value
        case "unacked": volume.counters.unacknowledged = value
        default: Issue.record("unknown word \(key)")
        }
    }
}
