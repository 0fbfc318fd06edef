import DRBDWire
import Foundation
import Status
import Testing

/// Reads `/proc/drbd` text of the kernel back into the values that it was made of.
enum ProcFixture {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Fixtures")

    static func text(_ path: String) throws -> String {
        try String(contentsOf: folder.appending(path: path), encoding: .utf8)
    }

    static func names(in path: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.appending(path: path).path)
            .sorted()
    }

    /// The value behind `key:` in a line.
    private static func value(_ key: String, in line: Substring) throws -> String {
        let word = try #require(line.split(separator: " ").first { $0.hasPrefix(key + ":") })
        return String(word.dropFirst(key.count + 1))
    }

    private static func pair<State: CaseIterable>(
        _ text: String, _ name: KeyPath<State, String>
    ) throws -> (State, State) {
        let states = try text.split(separator: "/").map { word in
            try #require(State.allCases.first { $0[keyPath: name] == word })
        }
        try #require(states.count == 2)
        return (states[0], states[1])
    }

    /// The volumes of a text without its header.
    static func volumes(_ lines: [Substring]) throws -> [VolumeStatus] {
        var volumes: [VolumeStatus] = []
        for line in lines {
            if line.contains(": cs:") {
                volumes.append(try volume(line))
            } else if line.hasPrefix("    ns:") {
                try setCounters(&volumes[volumes.count - 1], line)
            } else if line.hasPrefix("\t[") {
                volumes[volumes.count - 1].progress = try progress(line)
            }
        }
        return volumes
    }

    private static func volume(_ line: Substring) throws -> VolumeStatus {
        let number = line.prefix { $0 != ":" }.filter { $0 != " " }
        let minor = try #require(Int(number))
        var volume = VolumeStatus(number: 0, minor: minor, device: "/dev/drbd\(minor)")
        let connection = try value("cs", in: line)
        guard connection != "Unconfigured" else { return volume }
        volume.connection = try #require(
            ConnectionState.allCases.first { $0.name == connection })
        (volume.role, volume.peerRole) = try pair(try value("ro", in: line), \Role.name)
        (volume.disk, volume.peerDisk) = try pair(try value("ds", in: line), \DiskState.name)
        let words = line.split(separator: " ")
        let flags = Array(try #require(words.last))
        volume.protocolLetter = words[words.count - 2].count == 1 ? String(words[5 - 1]) : nil
        volume.flags.suspendedByUser = flags[0] == "s"
        volume.flags.pausedByDependency = flags[1] == "a"
        volume.flags.pausedByPeer = flags[2] == "p"
        volume.flags.pausedByUser = flags[3] == "u"
        volume.flags.congestion = StatusFlags.Congestion(rawValue: String(flags[4]))
        volume.flags.activityLogSuspended = flags[5] == "s"
        return volume
    }

    private static func setCounters(_ volume: inout VolumeStatus, _ line: Substring) throws {
        func number(_ key: String) throws -> UInt64 {
            try #require(UInt64(try value(key, in: line)))
        }
        volume.counters.sent = try number("ns") * 2
        volume.counters.received = try number("nr") * 2
        volume.counters.written = try number("dw") * 2
        volume.counters.read = try number("dr") * 2
        volume.counters.activityLogWrites = try number("al")
        volume.counters.bitmapWrites = try number("bm")
        volume.counters.localPending = try number("lo")
        volume.counters.peerPending = try number("pe")
        volume.counters.unacknowledged = try number("ua")
        volume.counters.applicationPending = try number("ap")
        volume.counters.epochs = try number("ep")
        volume.outOfSync = try number("oos")
        let letter = try value("wo", in: line)
        volume.writeOrdering = try #require(
            WriteOrdering.allCases.first { $0.rawValue.hasPrefix(letter) })
    }

    /// From the amounts in parentheses, which say all that the bar and the percentage depend on.
    private static func progress(_ line: Substring) throws -> SyncProgress {
        let amounts = try #require(line.split(separator: "(").last)
        let parts = amounts.split { "/)".contains($0) }
        var left = try #require(UInt64(parts[0])) / 4
        var total = try #require(UInt64(parts[1])) / 4
        if amounts.hasSuffix("M") {
            left <<= 10
            // The M is there for more than this only.
            total = max(total << 10, 1_048_577)
        }
        return SyncProgress(total: total, left: left, elapsedSeconds: 1, marks: [])
    }
}
