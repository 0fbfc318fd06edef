import DRBDWire
import Testing

@testable import Replication
@testable import Simulator

@Suite struct WorldTests {
    @Test func `equal seeds give equal histories, whatever ran before (I-29)`() {
        let world = World()
        #expect(world.run(seed: 12) == nil)
        let (hash, count) = (world.hash, world.eventCount)
        #expect(world.run(seed: 13) == nil)
        #expect(world.hash != hash)
        #expect(world.run(seed: 12) == nil)
        #expect(world.hash == hash)
        #expect(world.eventCount == count)
        let fresh = World()
        #expect(fresh.run(seed: 12, recordsTrace: true) == nil)
        #expect(fresh.hash == hash)
        #expect(!fresh.trace.isEmpty)
    }

    @Test(arguments: Scenario.allCases)
    func `no accident of safety.md happens`(scenario: Scenario) {
        let world = World()
        for seed in 0..<2 { #expect(world.run(scenario, seed: UInt64(seed)) == nil) }
    }

    @Test func `every mechanism that can be switched off has an accident that shows it`() {
        let shown = Scenario.allCases.flatMap(\.lacks)
        for fault in Sabotage.allCases { #expect(shown.contains(fault), "\(fault)") }
        for number in 1...15 {
            let scenario = Scenario(rawValue: "s\(number)")
            #expect(scenario?.lacks.isEmpty == false, "s\(number)")
        }
    }

    /// Seeds that once found a fault, and the first few of the swarm.
    @Test(arguments: [
        0..<8, 24..<26, 45..<46, 65..<66, 98..<99, 336..<337, 517..<518, 805..<806, 12340..<12341,
        16361..<16362, 17384..<17385, 23969..<23970,
    ])
    func `a seed ends well`(seeds: Range<UInt64>) {
        let world = World()
        for seed in seeds { #expect(world.run(seed: seed) == nil) }
        #expect(world.report.runs == seeds.count)
    }

    @Test func `counts of several processes add up`() {
        let world = World()
        #expect(world.run(seed: 3) == nil)
        var sum = Report()
        sum.add(counts: world.report.counts)
        sum.add(counts: world.report.counts)
        #expect(sum.runs == 2)
        #expect(sum.events == 2 * world.report.events)
        sum.add(counts: [1, 2, 3])
        #expect(sum.runs == 2)
    }

    @Test func `complaints of several processes add up`() {
        var (one, two) = (Report(), Report())
        one.count(complaint: "the peer sent 17 things")
        two.count(complaint: "the peer sent 4 things")
        two.count(complaint: "the peer sent nothing")
        var sum = Report()
        sum.add(counts: one.counts)
        sum.add(counts: two.counts)
        #expect(sum.complaints.map(\.count) == [2, 1])
        #expect(sum.complaints.map(\.text).last == "the peer sent nothing")
        // A row that was cut off adds what is whole.
        sum.add(counts: Array(two.counts.dropLast()))
        #expect(sum.complaints.map(\.count) == [3, 1])
    }

    @Test func `what did not occur is named`() {
        let missing = Report().missing
        #expect(missing.first == "cut")
        #expect(missing.last == "rule 100")
        let world = World()
        #expect(world.run(.rule41, seed: 1) == nil)
        #expect(!world.report.missing.contains("rule 41"))
        #expect(world.report.missing.contains("rule 60"))
    }

    @Test func `two Primaries that are connected are noticed`() {
        let world = World()
        world.reset(Profile(quiet: 1))
        world.begin()
        world.expectPair()
        world.expectPrimary(0)
        #expect(world.violation == nil)
        world.nodes[1].engine.change("a lie") { $0.role = .primary }
        world.drain(world.nodes[1])
        #expect(world.violation?.invariant == "I-15")
    }

    @Test func `a disk that changes behind the engine's back is noticed`() {
        let world = World()
        var profile = Profile(quiet: 1)
        profile.deviceSizes = [1 << 20, 1 << 20]
        world.reset(profile)
        world.begin()
        world.expectPair()
        world.expectPrimary(0)
        world.expectSuccess(world.ask(0, .write, block: 5))
        world.expect("the end of all epochs") { world.nodes[0].engine.everythingIsStable }
        #expect(world.violation == nil)
        world.nodes[1].disk.landZeros(5 << 12, 512)
        world.settleDown()
        #expect(world.violation?.invariant == "I-2")
    }

    @Test func `a read that returns the wrong bytes is noticed`() {
        let world = World()
        var profile = Profile(quiet: 1)
        profile.deviceSizes = [1 << 20, 1 << 20]
        world.reset(profile)
        world.begin()
        world.expectPair()
        world.expectPrimary(0)
        world.expectSuccess(world.ask(0, .write, block: 5))
        #expect(world.violation == nil)
        world.nodes[0].disk.landZeros(5 << 12, 512)
        _ = world.ask(0, .read, block: 5)
        world.advance(by: .seconds(1))
        #expect(world.violation?.invariant == "I-12")
    }
}
