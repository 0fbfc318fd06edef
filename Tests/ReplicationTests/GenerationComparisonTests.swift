import DRBDWire
import MetaDisk
import Testing

@testable import Replication

/// One line of the table in the reference, wire section 8.4.
private struct Line: Sendable, CustomTestStringConvertible {
    var rule: Int
    var own: [UInt64]
    var peer: [UInt64]
    var result: GenerationComparison.Result
    var crashed = (own: false, peer: false)
    var roles = (own: Role.secondary, peer: Role.secondary)
    var resolves = false
    var testDescription: String { "rule \(rule): \(result)" }
}

private let offset: UInt64 = 0x0001_0000_0000_0000

private let lines: [Line] = [
    Line(rule: 10, own: [4, 0, 0, 0], peer: [4, 0, 0, 0], result: .equal),
    Line(rule: 20, own: [4, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .target(full: true)),
    Line(rule: 30, own: [0xa0, 0, 0, 0], peer: [5, 0, 0, 0], result: .source(full: true)),
    Line(
        rule: 34, own: [0xa1, 0xb0, 0xc0, 0], peer: [0xa0, 0, 0xb1, 0xc1],
        result: .source(full: false)),
    Line(
        rule: 36, own: [0xa0, 0xb0, 0xc0, 0], peer: [0xa0, 0, 0, 0], result: .source(full: false)),
    Line(
        rule: 35, own: [0xa0, 0, 0xb0, 0xc0], peer: [0xa0, 0xb0, 0xc0, 0],
        result: .target(full: false)),
    Line(rule: 37, own: [0xa0, 0, 0, 0], peer: [0xa0, 0xb0, 0, 0], result: .target(full: false)),
    Line(rule: 40, own: [0xa1, 0, 0xb0, 0], peer: [0xa0, 0, 0xb0, 0], result: .equal),
    Line(
        rule: 40, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .source(full: false),
        crashed: (true, false)),
    Line(
        rule: 40, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .target(full: false),
        crashed: (false, true)),
    Line(
        rule: 40, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .target(full: false),
        crashed: (true, true), resolves: true),
    Line(
        rule: 40, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .source(full: false),
        crashed: (true, true)),
    Line(
        rule: 41, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0], result: .source(full: false),
        crashed: (false, true), roles: (.primary, .secondary)),
    Line(
        rule: 41, own: [0xa0, 0, 0, 0], peer: [0xa0, 0, 0, 0],
        result: .splitBrain(related: false), crashed: (true, false), roles: (.primary, .primary)),
    Line(rule: 50, own: [0xa0, 0, 0, 0], peer: [0xb0, 0xa1, 0, 0], result: .target(full: false)),
    Line(
        rule: 51, own: [0xa0, 0, 0, 0], peer: [0xb0, 0xa0 &+ offset, 0xa0, 0xc0],
        result: .target(full: false)),
    Line(
        rule: 60, own: [0xa0, 0, 0, 0], peer: [0xb0, 0xd0, 0xa0, 0], result: .target(full: true)),
    Line(rule: 70, own: [0xb0, 0xa0, 0, 0], peer: [0xa1, 0, 0, 0], result: .source(full: false)),
    Line(
        rule: 71, own: [0xb0, 0xa0 &+ offset, 0xa0, 0xc0], peer: [0xa0, 0, 0, 0],
        result: .source(full: false)),
    Line(
        rule: 80, own: [0xb0, 0xd0, 0, 0xa0], peer: [0xa0, 0, 0, 0], result: .source(full: true)),
    Line(
        rule: 90, own: [0xb0, 0xa0, 0, 0], peer: [0xc0, 0xa1, 0, 0],
        result: .splitBrain(related: true)),
    Line(
        rule: 100, own: [0xb0, 0xd0, 0xe0, 0xf0], peer: [0xc0, 0xa0, 0xf0, 0x10],
        result: .splitBrain(related: false)),
    Line(
        rule: 100, own: [0xb0, 0xd0, 0xe0, 0xf0], peer: [0xc0, 0xa0, 0x20, 0x10],
        result: .unrelated),
]

private func uuids(_ list: [UInt64]) -> GenerationUUIDs {
    GenerationUUIDs(current: list[0], bitmap: list[1], history0: list[2], history1: list[3])
}

private func mirror(_ result: GenerationComparison.Result) -> GenerationComparison.Result {
    switch result {
    case .source(let full): .target(full: full)
    case .target(let full): .source(full: full)
    case .equal, .splitBrain, .unrelated, .failed: result
    }
}

@Suite struct GenerationComparisonTests {
    @Test(arguments: lines) private func `every rule gives its result`(_ line: Line) {
        var context = ComparisonContext()
        context.ownCrashed = line.crashed.own
        context.peerCrashed = line.crashed.peer
        context.ownRole = line.roles.own
        context.peerRole = line.roles.peer
        context.resolvesConflicts = line.resolves
        let answer = compareGenerations(own: uuids(line.own), peer: uuids(line.peer), context)
        #expect(answer.rule == line.rule)
        #expect(answer.result == line.result)
    }

    @Test(arguments: lines) private func `both nodes come to opposite results`(_ line: Line) {
        var context = ComparisonContext()
        context.ownCrashed = line.crashed.peer
        context.peerCrashed = line.crashed.own
        context.ownRole = line.roles.peer
        context.peerRole = line.roles.own
        context.resolvesConflicts = !line.resolves
        let answer = compareGenerations(own: uuids(line.peer), peer: uuids(line.own), context)
        #expect(answer.result == mirror(line.result))
    }

    @Test func `a missed end of the resync is corrected`() {
        let answer = compareGenerations(
            own: uuids([0xa1, 0xb0, 0xc0, 0xd0]), peer: uuids([0xa0, 0, 0xb1, 0xc1]),
            ComparisonContext())
        #expect(answer.own == uuids([0xa1, 0, 0xb0, 0xc0]))
    }

    @Test func `a sync UUID that did not arrive is taken back`() {
        let answer = compareGenerations(
            own: uuids([0xb0, 0xa0 &+ offset, 0xa0, 0xc0]), peer: uuids([0xa0, 0, 0, 0]),
            ComparisonContext())
        #expect(answer.own == uuids([0xb0, 0xa0, 0xc0, 0xc0]))
    }

    @Test func `rule 41 fails with a peer that cannot decide it`() {
        var context = ComparisonContext()
        context.peerCrashed = true
        context.ownRole = .primary
        context.knowsRule41 = false
        let answer = compareGenerations(
            own: uuids([0xa0, 0, 0, 0]), peer: uuids([0xa0, 0, 0, 0]), context)
        #expect(answer.result == .failed)
    }
}
