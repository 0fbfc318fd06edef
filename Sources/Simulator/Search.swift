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

    package static var sabotageNames: [String] { Sabotage.allCases.map(\.rawValue) }
}

extension Report {
    /// All counts in one row, for another process.
    package var counts: [Int] {
        [runs, events, requests, errors, crashChecks, resolutions] + faults + rules + packets
            + connections + refusals
    }

    package mutating func add(counts: [Int]) {
        guard counts.count == self.counts.count else { return }
        runs += counts[0]
        events += counts[1]
        requests += counts[2]
        errors += counts[3]
        crashChecks += counts[4]
        resolutions += counts[5]
        var next = 6
        func take(_ row: inout [Int]) {
            for index in row.indices { row[index] += counts[next + index] }
            next += row.count
        }
        take(&faults)
        take(&rules)
        take(&packets)
        take(&connections)
        take(&refusals)
    }
}
