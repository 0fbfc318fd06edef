import ArgumentParser
import Glibc
import Replication
import Simulator

@main struct Main: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repsim", abstract: "Simulates a pair of nodes, deterministically.",
        discussion:
            "Exit status 1: a promise was broken; the seed and its last events are printed. "
            + "2: --require-coverage found that something did not occur."
    )

    @Option(help: "Replay this seed with a trace.") var seed: UInt64?
    @Option(help: "Run these seeds: FIRST..<END.") var seeds: SeedRange?
    @Option(help: "How many processes search.") var jobs = 1
    @Option(help: "Play this directed scenario instead of the swarm (with --seed or --seeds).")
    var scenario: String?
    @Option(help: "Play every directed scenario, too, with this many seeds each (with --seeds).")
    var scenes: UInt64 = 0
    @Flag(help: "Fail if a fault or a rule of the comparison did not occur (with --seeds).")
    var requireCoverage = false
    @Flag(help: "List the directed scenarios and the deliberate faults.") var list = false
    @Option(help: "Break this mechanism (only in a build with REPD_FAULTS).") var sabotage: String?
    @Flag(help: "Stop at the first violation.") var first = false
    @Option(help: ArgumentHelp("Report to this descriptor.", visibility: .private))
    var worker: Int32?

    func validate() throws {
        if let scenario, Scenario(rawValue: scenario) == nil {
            throw ValidationError("there is no scenario \(scenario); --list names them")
        }
        guard let sabotage else { return }
        #if REPD_FAULTS
            guard World.sabotage(sabotage) else {
                throw ValidationError("there is no fault \(sabotage); --list names them")
            }
        #else
            throw ValidationError("\(sabotage): this build has no deliberate faults in it")
        #endif
    }

    func run() throws {
        if list {
            for scenario in Scenario.allCases {
                print("\(scenario.rawValue): \(scenario.sentence)")
            }
            for scenario in Scenario.allCases {
                for fault in scenario.lacks {
                    print("fault \(fault.rawValue) in \(scenario.rawValue): \(fault.sentence)")
                }
            }
        } else if let seed {
            try replay(seed)
        } else if let seeds {
            if let worker {
                work(seeds.bounds, reporting: worker)
            } else {
                try search(seeds.bounds)
            }
        } else {
            throw ValidationError("give --seed, --seeds or --list")
        }
    }

    private func play(_ seed: UInt64, in world: World, recordsTrace: Bool) -> Violation? {
        guard let scenario = scenario.flatMap(Scenario.init(rawValue:)) else {
            return world.run(seed: seed, recordsTrace: recordsTrace)
        }
        return world.run(scenario, seed: seed, recordsTrace: recordsTrace)
    }

    private func replay(_ seed: UInt64) throws {
        let world = World()
        world.show = { line in
            print(line)
            // What comes before a crash has to be seen.
            fflush(nil)
        }
        guard let violation = play(seed, in: world, recordsTrace: true) else {
            print("seed \(seed): good, \(world.eventCount) events, hash \(world.hash)")
            return
        }
        print("seed \(seed): \(violation.invariant): \(violation.text)")
        throw ExitCode(1)
    }

    /// In a process of its own: says which seed it is at, and at the end what it counted.
    private func work(_ seeds: Range<UInt64>, reporting descriptor: Int32) {
        let world = World()
        for seed in seeds {
            send(seed, to: descriptor)
            guard let violation = play(seed, in: world, recordsTrace: false) else { continue }
            _ = play(seed, in: world, recordsTrace: true)
            let trace = world.trace.suffix(40).joined(separator: "\n")
            let name = scenario.map { "\($0) " } ?? ""
            print("\(trace)\n\(name)seed \(seed): \(violation.invariant): \(violation.text)")
            fflush(nil)
            send(Search.violated, to: descriptor)
            if first { return }
        }
        send(Search.report, to: descriptor)
        for count in world.report.counts { send(UInt64(count), to: descriptor) }
    }

    private func send(_ word: UInt64, to descriptor: Int32) {
        var word = word
        // The parent reads when we have ended: the pipe holds a whole piece's words.
        _ = unsafe withUnsafeBytes(of: &word) { unsafe write(descriptor, $0.baseAddress, $0.count) }
    }

    private func search(_ seeds: Range<UInt64>) throws {
        var arguments: [String] = []
        if let sabotage { arguments += ["--sabotage", sabotage] }
        if first { arguments.append("--first") }
        var search = Search(arguments: arguments, jobs: max(1, jobs), stopsAtFirst: first)
        search.add(seeds, of: scenario)
        if scenes > 0 {
            for scenario in Scenario.allCases { search.add(0..<scenes, of: scenario.rawValue) }
        }
        search.run()
        print(search.report.text)
        guard search.failed.isEmpty else {
            print("failed: \(search.failed.joined(separator: ", "))")
            throw ExitCode(1)
        }
        guard requireCoverage, !search.report.missing.isEmpty else { return }
        throw ExitCode(2)
    }
}

/// FIRST..<END.
struct SeedRange: ExpressibleByArgument {
    var bounds: Range<UInt64>

    init?(argument: String) {
        let parts = argument.split(separator: "..<").compactMap { UInt64($0) }
        guard parts.count == 2, parts[0] <= parts[1] else { return nil }
        bounds = parts[0]..<parts[1]
    }
}
