import DRBDWire
import MetaDisk
import Replication
import Support

/// A Primary that is killed and started again by its supervisor (safety.md S18, S8).
extension World {
    /// What only the node knows: here, that the record names what the disk says.
    func confirmResumption(_ node: SimulatedNode, _ life: UInt32) {
        guard node.isAlive, node.life == life else { return }
        let current = node.engine.superblock.uuids.current & ~1
        let fits = node.roleRecord.contains { $0 & ~1 == current }
        note(node, "resuming as Primary is \(fits ? "confirmed" : "not confirmed")")
        handle(node, .resumptionConfirmed(fits))
    }

    func playResumption() {
        expectPair()
        expectPrimary(0)
        for block in 0..<8 { ask(block % 4, .write, block: block) }
        linger(.microseconds(500))
        switch profile.seed % 5 {
        case 0: playKilledBesidePeer()
        case 1: playSuccessorOfTheDead()
        case 2: playResumedAlone(writes: false)
        case 3: playResumedAlone(writes: true)
        default: playDemotedWhileDead()
        }
    }

    /// The peer is there and agrees; unanswered requests come again.
    private func playKilledBesidePeer() {
        stop(nodes[0], losesPower: false)
        linger(.milliseconds(20))
        restart(nodes[0])
        wakeClients()
        expectResumed(0)
        guard violation == nil else { return }
        if nodes[0].engine.state.connection < .connected {
            violate("scenario", "it did not wait for its peer")
        }
        wakeClients()
        for block in 0..<8 { expectSuccess(ask(block % 4, .write, block: block)) }
        expectPair()
    }

    /// While it was dead the other one was promoted.
    private func playSuccessorOfTheDead() {
        stop(nodes[0], losesPower: false)
        expect("the loss of the peer") { [self] in nodes[1].engine.state.connection < .connected }
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 3))
        restart(nodes[0])
        expectRefused(0)
        expectPair()
    }

    /// Nobody answers, so it goes on alone, and is demoted later; then the other one is promoted.
    private func playResumedAlone(writes: Bool) {
        expectSuccess(ask(0, .flush))
        stop(nodes[0], losesPower: false)
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        restart(nodes[0])
        expectResumed(0)
        wakeClients()
        if writes { expectSuccess(ask(0, .write, block: 9)) }
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
                && nodes[1].engine.state.connection < .connected
        }
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 5))
        faults.serial += 1
        healAll()
        if writes {
            expect("the split brain") { [self] in
                director.refusals.contains { $0 == .splitBrain }
            }
        } else {
            expectPair()
            if director.refusals.contains(where: { $0 == .splitBrain }) {
                violate("scenario", "a split brain although only one node wrote")
            }
        }
    }

    /// `secondary` while the process is dead: the record goes, and no start brings a Primary.
    private func playDemotedWhileDead() {
        stop(nodes[0], losesPower: false)
        if profile.seed % 2 == 0 {
            nodes[0].roleRecord = []
            restart(nodes[0])
        } else {
            restart(nodes[0])
            linger(.microseconds(profile.seed % 7 * 100))
            // Too late if it is Primary already.
            guard nodes[0].engine.state.role == .secondary else { return }
            nodes[0].roleRecord = []
        }
        expect("the disk") { [self] in nodes[0].engine.state.disk == .upToDate }
        expectPair()
        if nodes[0].engine.state.role == .primary {
            violate("scenario", "it was demoted while it was dead, and is Primary")
        }
    }

    private func expectResumed(_ index: Int) {
        expect("a Primary again") { [self] in
            nodes[index].engine.state.role == .primary && director.isFree(index)
        }
    }

    private func expectRefused(_ index: Int) {
        expect("the end of the attempt") { [self] in
            !nodes[index].engine.isResuming && director.isFree(index)
        }
        if violation == nil, nodes[index].engine.state.role == .primary {
            violate("scenario", "it is Primary although its peer is")
        }
    }
}
