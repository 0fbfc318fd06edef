import Replication
import Testing

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
        for seed in 0..<4 { #expect(world.run(scenario, seed: UInt64(seed)) == nil) }
    }

    /// Seeds that once found a fault, and the first few of the swarm.
    @Test(arguments: [0..<8, 24..<26, 45..<46, 65..<66, 98..<99, 336..<337, 517..<518, 805..<806])
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
