import DRBDWire
import Replication
import Support

struct FaultState {
    /// No new connection comes through.
    var isolates = false
    var serial: UInt32 = 0
}

extension World {
    func somethingBreaks() {
        guard isActive else { return }
        schedule(.fault, in: spread(profile.faultInterval))
        let total = profile.faultWeights.reduce(0, +)
        guard total > 0 else { return }
        var dice = random.next() % total
        for kind in FaultKind.allCases {
            let weight = profile.faultWeights[kind.rawValue]
            if dice < weight {
                inject(kind, at: nodes[pick(2)])
                return
            }
            dice -= weight
        }
    }

    func inject(_ kind: FaultKind, at node: SimulatedNode) {
        note(node, "FAULT \(kind.name)")
        if takesEffect(kind, at: node) { report.faults[kind.rawValue] += 1 }
        switch kind {
        case .cut: cut(node, onlyOne: false)
        case .cutOneSocket: cut(node, onlyOne: true)
        case .blackHole: block(from: nil)
        case .blackHoleOneWay: block(from: node.index)
        case .kill: fall(node, losesPower: false)
        case .powerLoss: fall(node, losesPower: true)
        case .killBoth: for each in nodes { fall(each, losesPower: false) }
        case .powerLossBoth: for each in nodes { fall(each, losesPower: true) }
        case .writeError: node.failsWrites = true
        case .readError: node.failsReads = true
        case .flushError: node.failsFlushes = true
        case .metaError: node.failsMeta = true
        case .slowDisk: node.slowness = 1 << (2 + pick(6))
        case .clientDeath:
            if profile.clientsDie, !clients.isEmpty { clientDies(pick(clients.count)) }
        }
        switch kind {
        case .cut, .cutOneSocket, .kill, .powerLoss, .killBoth, .powerLossBoth, .clientDeath: break
        case .blackHole, .blackHoleOneWay: healLater(.milliseconds(2500))
        case .writeError, .readError, .flushError, .metaError, .slowDisk:
            healLater(.milliseconds(300))
        }
    }

    /// Errors of the disk are counted where an operation meets them.
    private func takesEffect(_ kind: FaultKind, at node: SimulatedNode) -> Bool {
        switch kind {
        case .cut, .cutOneSocket: node.links.contains { $0.state == .open }
        case .kill, .powerLoss: node.isAlive
        case .killBoth, .powerLossBoth: nodes.allSatisfy(\.isAlive)
        case .blackHole, .blackHoleOneWay:
            nodes.contains { $0.links.contains { $0.state == .open } }
        case .writeError, .readError, .flushError, .metaError: false
        case .clientDeath: profile.clientsDie && clients.contains { $0.number >= 0 }
        case .slowDisk: node.isAlive && node.diskIsOpen
        }
    }

    private func healLater(_ mean: Duration) {
        faults.serial += 1
        schedule(.heal(serial: faults.serial), in: spread(mean))
    }

    private func fall(_ node: SimulatedNode, losesPower: Bool) {
        guard node.isAlive else { return }
        stop(node, losesPower: losesPower)
        if profile.isSupervised, !losesPower {
            schedule(.restart(node: node.index), in: spread(.milliseconds(50)))
        } else {
            schedule(.start(node: node.index), in: spread(.milliseconds(800)))
        }
    }

    /// Resets what is open between the nodes, all of it or one connection.
    private func cut(_ node: SimulatedNode, onlyOne: Bool) {
        let open = node.links.filter { $0.state == .open }
        guard !open.isEmpty else { return }
        let chosen = pick(open.count)
        for (index, link) in open.enumerated() where !onlyOne || index == chosen {
            let (mine, theirs) = (UInt32(link.incoming), UInt32(link.outgoing))
            schedule(.ending(pipe: mine, reset: true), in: spread(.microseconds(200)))
            schedule(.ending(pipe: theirs, reset: true), in: spread(.microseconds(200)))
        }
    }

    private func block(from node: UInt8?) {
        faults.isolates = true
        for index in 0..<pipeCount where node == nil || pipes[index].from == node {
            pipes[index].isBlocked = true
        }
    }

    func heal(_ serial: UInt32) {
        guard serial == faults.serial else { return }
        healAll()
    }

    func healAll() {
        note(nil, "faults are over")
        faults.isolates = false
        for node in nodes {
            (node.failsWrites, node.failsReads) = (false, false)
            (node.failsFlushes, node.failsMeta) = (false, false)
            node.slowness = 1
        }
        for index in 0..<pipeCount where pipes[index].isBlocked {
            let pipe = pipes[index]
            pipe.isBlocked = false
            let held = pipe.held
            pipe.held = 0
            let ending = pipe.heldEnding
            pipe.heldEnding = .none
            if !pipe.isPumping, !pipe.isEmpty {
                pipe.isPumping = true
                schedule(.pump(pipe: UInt32(index)), in: spread(.microseconds(100)))
            }
            // Retransmission takes its time, and the end stays behind the rest.
            pipe.lastArrival = max(pipe.lastArrival, now.nanoseconds)
            arriveLater(index, held, ending)
        }
    }

    private func arriveLater(_ index: Int, _ held: Int, _ ending: Pipe.Ending) {
        let pipe = pipes[index]
        let time = pipe.lastArrival + UInt64(spread(.milliseconds(5)).inNanoseconds)
        pipe.lastArrival = time + 1
        if held > 0 {
            queue.add(
                .arrival(pipe: UInt32(index), count: UInt32(held)),
                at: Instant(nanoseconds: time), tie: random.next())
        }
        guard ending != .none else { return }
        queue.add(
            .ending(pipe: UInt32(index), reset: ending == .reset),
            at: Instant(nanoseconds: time + 1), tie: random.next())
    }
}
