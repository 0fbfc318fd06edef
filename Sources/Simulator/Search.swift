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
}
