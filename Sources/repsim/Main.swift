import ArgumentParser
import Glibc
import Simulator

@main struct Main: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repsim", abstract: "Simulates a pair of nodes, deterministically.")

    @Option(help: "Replays this seed with a trace.") var seed: UInt64?
    @Option(help: "Runs these seeds: FIRST..<END.") var seeds: String?
    @Flag(help: "Says which seed is being run.") var verbose = false

    func run() throws {
        let world = World()
        if let seed {
            world.show = { line in
                print(line)
                fflush(nil)
            }
            let violation = world.run(seed: seed, recordsTrace: true)
            print(violation.map { "seed \(seed): \($0.invariant): \($0.text)" } ?? "seed \(seed): good")
            throw ExitCode(violation == nil ? 0 : 1)
        }
        guard let seeds else { return }
        let bounds = seeds.split(separator: "..<").compactMap { UInt64($0) }
        guard bounds.count == 2 else { throw ValidationError("--seeds FIRST..<END") }
        var failures = 0
        for seed in bounds[0]..<bounds[1] {
            if verbose {
                print("running \(seed)")
                fflush(nil)
            }
            if let violation = world.run(seed: seed) {
                print("seed \(seed): \(violation.invariant): \(violation.text)")
                fflush(nil)
                failures += 1
            }
        }
        print(world.report.text)
        if failures > 0 { throw ExitCode(1) }
    }
}
