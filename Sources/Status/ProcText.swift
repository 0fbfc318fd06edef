import DRBDWire

/// `/proc/drbd` of DRBD 8.4, to the column (reference, sections 7.1 and 7.2).
package enum ProcText {
    /// The programs that read this text take the first line for the version of the kernel module, so
    /// it is that of the module whose behaviour, wire and disk format repd has.
    static let versionLine = "version: 8.4.11 (api:1/proto:86-101)"

    /// Who this really is, in the form of that line: `GIT-hash:` with the commit of the build, zeros
    /// if it is not known, and behind `build by` the program.
    static func buildLine(_ build: Build) -> String {
        let hash = build.commit.isEmpty ? String(repeating: "0", count: 40) : build.commit
        return "GIT-hash: \(hash) build by repd \(build.version)"
    }

    /// What was built.
    package struct Build: Sendable {
        package var version: String
        /// 40 hexadecimal digits, or empty.
        package var commit: String

        package init(version: String, commit: String = "") {
            self.version = version
            self.commit = commit
        }
    }

    /// All resources of a machine.
    package static func text(of snapshots: [StatusSnapshot], build: Build) -> String {
        versionLine + "\n" + buildLine(build) + "\n" + volumes(snapshots.flatMap(\.volumes))
    }

    /// The lines below the header.
    package static func volumes(_ volumes: [VolumeStatus]) -> String {
        var text = ""
        var next = 0
        for volume in volumes.sorted(by: { $0.minor < $1.minor }) {
            // However many numbers are not in use, they are one empty line.
            if volume.minor > next { text += "\n" }
            next = volume.minor + 1
            text += self.volume(volume)
        }
        return text
    }

    static func volume(_ volume: VolumeStatus) -> String {
        let minor = padded(volume.minor, to: 2)
        guard !volume.isUnconfigured else { return "\(minor): cs:Unconfigured\n" }
        var text =
            "\(minor): cs:\(volume.connection.name) ro:\(StatusLines.role(volume))"
            + " ds:\(StatusLines.disk(volume)) \(volume.protocolLetter ?? " ")"
            + " \(volume.flags.text)\n"
        let counters = volume.counters
        text +=
            "    ns:\(kibibytes(counters.sent)) nr:\(kibibytes(counters.received))"
            + " dw:\(kibibytes(counters.written)) dr:\(kibibytes(counters.read))"
            + " al:\(counters.activityLogWrites) bm:\(counters.bitmapWrites)"
            + " lo:\(counters.localPending) pe:\(counters.peerPending)"
            + " ua:\(counters.unacknowledged) ap:\(counters.applicationPending)"
            + " ep:\(counters.epochs) wo:\(volume.writeOrdering.letter)"
            + " oos:\(volume.outOfSync)\n"
        switch volume.connection {
        case .syncSource, .syncTarget, .verifyS, .verifyT:
            if let progress = volume.progress { text += self.progress(progress, volume.connection) }
        case .standAlone, .disconnecting, .unconnected, .timeout, .brokenPipe, .networkFailure,
            .protocolError, .tearDown, .wfConnection, .wfReportParams, .connected, .startingSyncS,
            .startingSyncT, .wfBitMapS, .wfBitMapT, .wfSyncUUID, .pausedSyncS, .pausedSyncT,
            .ahead, .behind:
            break
        }
        return text
    }

    /// The counters of the kernel are shown in 32 bits.
    private static func kibibytes(_ sectors: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: sectors / 2)
    }

    private static func padded(_ number: Int, to width: Int) -> String {
        let digits = String(number)
        return String(repeating: " ", count: max(0, width - digits.count)) + digits
    }

    // MARK: Progress

    /// Tenths of a percent, with the rounding of the kernel: steps of 4 MiB (256 MiB above 16 TiB).
    static func permil(_ progress: SyncProgress) -> UInt64 {
        guard progress.left <= progress.total else { return progress.total > 0 ? 0 : 1000 }
        let shift = shift(progress)
        return 1000 - (progress.left >> shift) * 1000 / (1 + (progress.total >> shift))
    }

    private static func shift(_ progress: SyncProgress) -> UInt64 {
        progress.total > 0xffff_ffff ? 16 : 10
    }

    static func progress(_ progress: SyncProgress, _ connection: ConnectionState) -> String {
        let total = progress.total
        let left = min(progress.left, total)
        let permil = permil(progress)
        let filled = permil / 50
        let bar =
            String(repeating: "=", count: Int(filled > 0 ? filled - 1 : 0)) + ">"
            + String(repeating: ".", count: Int(20 - filled))
        let isVerify = connection == .verifyS || connection == .verifyT
        let label = isVerify ? "verified:" : "sync'ed:"
        let percent = padded(Int(permil / 10), to: 3)
        let inMebibytes = total > 1_048_576
        let amounts =
            inMebibytes
            ? "(\((left >> 10) * 4)/\((total >> 10) * 4))M" : "(\(left * 4)/\(total * 4))K"
        let showsWanted = connection == .syncTarget || connection == .verifyS
        return "\t[\(bar)] \(label)\(percent).\(permil % 10)% \(amounts)\n"
            + speed(progress, left: left, showsWanted: showsWanted)
    }

    private static func speed(_ progress: SyncProgress, left: UInt64, showsWanted: Bool) -> String {
        let mark = progress.referenceMark
        let stalled = mark.age > 180
        let seconds = max(mark.age, 1)
        let done = mark.left > left ? mark.left - left : 0
        let rest = seconds * (left / (done / 100 + 1)) / 100
        let all = max(
            progress.elapsedSeconds - min(progress.pausedSeconds, progress.elapsedSeconds), 1)
        let minutes = twoDigits(rest % 3600 / 60)
        var text = "\tfinish: \(rest / 3600):\(minutes):\(twoDigits(rest % 60))"
        text += " speed: \(grouped(4 * (done / seconds)))"
        text += " (\(grouped(4 * ((progress.total - left) / all))))"
        if showsWanted { text += " want: \(grouped(progress.wantedRate))" }
        return text + " K/sec" + (stalled ? " (stalled)" : "") + "\n"
    }

    private static func twoDigits(_ number: UInt64) -> String {
        number < 10 ? "0\(number)" : "\(number)"
    }

    /// With a comma between thousands, as far as the kernel puts them: nothing above is a speed.
    static func grouped(_ value: UInt64) -> String {
        func three(_ number: UInt64) -> String {
            let digits = String(number)
            return String(repeating: "0", count: 3 - digits.count) + digits
        }
        if value >= 1_000_000 {
            return "\(value / 1_000_000),\(three(value / 1000 % 1000)),\(three(value % 1000))"
        }
        return value >= 1000 ? "\(value / 1000),\(three(value % 1000))" : "\(value)"
    }
}

extension SyncProgress {
    /// The mark that speeds are measured from: the second oldest of eight, about 18 seconds back.
    var referenceMark: Mark {
        guard let first = marks.first else { return Mark(age: elapsedSeconds, left: total) }
        return marks.count < Self.markCount ? first : marks[1]
    }
}
