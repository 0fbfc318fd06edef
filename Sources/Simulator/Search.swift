import Replication

/// Runs one seed and says what went wrong.
extension World {
    /// A swarm seed, from its beginning to its quiet end.
    package func run(seed: UInt64, recordsTrace: Bool = false) -> Violation? {
        var profile = Profile(swarm: seed)
        profile.recordsTrace = recordsTrace
        reset(profile)
        run()
        return violation
    }

    /// A directed scenario with the chances of `seed`.
    package func run(
        _ scenario: Scenario, seed: UInt64, recordsTrace: Bool = false
    ) -> Violation? {
        var profile = Profile(quiet: seed)
        scenario.prepare(&profile)
        profile.recordsTrace = recordsTrace
        reset(profile)
        scenario.play(in: self)
        return violation
    }

    #if REPD_FAULTS
        /// Breaks one mechanism of the replication, in all runs that follow.
        package static func sabotage(_ name: String) -> Bool {
            guard let fault = Sabotage(rawValue: name) else { return false }
            unsafe Sabotage.active = fault
            return true
        }
    #endif
}

extension Report {
    private var fixedCounts: [Int] {
        [runs, events, requests, errors, crashChecks, resolutions] + faults + rules + packets
            + connections + refusals
    }

    /// Everything that was counted in one row, for another process: first the numbers, then for each
    /// complaint how often, the length of its text, and the text.
    package var counts: [Int] {
        complaints.prefix(Report.complaintsTold).reduce(fixedCounts) { row, complaint in
            let bytes = complaint.text.utf8.map { Int($0) }
            return row + [complaint.count, bytes.count] + bytes
        }
    }

    /// Adds what another process counted; nothing of a row that is not as long as it says.
    package mutating func add(counts: [Int]) {
        guard counts.count >= fixedCounts.count else { return }
        var next = 0
        func take() -> Int {
            next += 1
            return counts[next - 1]
        }
        func fill(_ row: inout [Int]) {
            for index in row.indices { row[index] += take() }
        }
        runs += take()
        events += take()
        requests += take()
        errors += take()
        crashChecks += take()
        resolutions += take()
        fill(&faults)
        fill(&rules)
        fill(&packets)
        fill(&connections)
        fill(&refusals)
        while next + 2 <= counts.count {
            let (count, length) = (take(), take())
            guard length >= 0, length <= counts.count - next else { return }
            let bytes = counts[next..<next + length].map { UInt8(truncatingIfNeeded: $0) }
            next += length
            add(complaint: String(decoding: bytes, as: UTF8.self), count: count)
        }
    }
}
