import DRBDWire
import Replication
import Support

/// The end of every seed: faults stop, the operator is sane, and all has to come right.
extension World {
    private static let limit: Duration = .seconds(120)

    func settleDown() {
        note(nil, "the quiet phase begins")
        isActive = false
        faults.serial += 1
        healAll()
        profile.isInsane = false
        director.successor = nil
        let end = now + Self.limit
        while violation == nil, now < end {
            for node in nodes where !node.isAlive { start(node) }
            keepGoing(patiently: true)
            if advance(by: .milliseconds(500), until: { [self] in isWell }) { break }
        }
        guard violation == nil else { return }
        guard isWell else {
            violate("stuck", describeStuck())
            return
        }
        advance(by: .seconds(3)) { [self] in hasNoEpoch }
        checkEnd()
    }

    /// Connected, both UpToDate, nothing under way.
    private var isWell: Bool {
        for node in nodes {
            guard node.isAlive else { return false }
            let state = node.engine.state
            guard state.connection == .connected, state.disk == .upToDate,
                state.peerDisk == .upToDate, director.isFree(Int(node.index))
            else { return false }
        }
        return isIdle && nodes.allSatisfy { $0.engine.bitmap.setCount == 0 }
    }

    private var hasNoEpoch: Bool { nodes.allSatisfy { $0.engine.leaks().isEmpty } && isIdle }

    func describeStuck() -> String {
        var parts: [String] = []
        for node in nodes {
            let state = node.engine.state
            parts.append(
                "\(node.index == 0 ? "A" : "B") \(state.role.name)/\(state.connection.name)/"
                    + "\(state.disk.name)/\(state.peerDisk.name) bits \(node.engine.bitmap.setCount)"
                    + " disk \(node.running) orders \(director.pending[Int(node.index)].ids) "
                    + node.engine.leaks().joined(separator: ", "))
        }
        let waiting = clients.reduce(0) { $0 + $1.waiting.count }
        return parts.joined(separator: "; ") + "; \(waiting) requests unanswered"
    }

    private func checkEnd() {
        checkQuietPair()
        guard violation == nil else { return }
        for node in nodes {
            let leaks = node.engine.leaks()
            if !leaks.isEmpty {
                violate("leak", "\(node.index == 0 ? "A" : "B"): \(leaks.joined(separator: ", "))")
            }
        }
        compareImages("at the end", "I-2")
        for node in 0..<2 where violation == nil { checkImage(node, "the image at the end") }
        countRules()
        report.runs += 1
        report.events += eventCount
    }

    private func countRules() {
        for node in nodes { report.count(rules: node.engine.rules) }
    }
}
