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
        switch profile.seed % 6 {
        case 0: playKilledBesidePeer()
        case 1: playSuccessorOfTheDead()
        case 2: playResumedAlone(writes: false)
        case 3: playResumedAlone(writes: true)
        case 4: playTwoDeathsAsSource()
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

    /// Nobody answers, so it goes on alone; what it writes then makes a generation, a flush does not.
    private func playResumedAlone(writes: Bool) {
        expectSuccess(ask(0, .flush))
        let before = nodes[0].engine.superblock.uuids.current & ~1
        stop(nodes[0], losesPower: false)
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        restart(nodes[0])
        if profile.seed % 3 == 0 {
            // Another death before it has met anybody.
            linger(.milliseconds(1))
            stop(nodes[0], losesPower: false)
            restart(nodes[0])
        }
        expectResumed(0)
        wakeClients()
        expectSuccess(ask(0, .flush))
        let isSame = nodes[0].engine.superblock.uuids.current & ~1 == before
        if violation == nil, !isSame {
            violate("scenario", "a generation although nothing was written")
        }
        guard writes else {
            faults.serial += 1
            healAll()
            expectPair()
            return
        }
        expectSuccess(ask(0, .write, block: 9))
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
                && nodes[1].engine.state.connection < .connected
        }
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 5))
        faults.serial += 1
        healAll()
        expect("the split brain") { [self] in director.refusals.contains { $0 == .splitBrain } }
    }

    /// A source dies whose target has ended the resync unheard, and its successor dies, too, before it
    /// has met the peer: what the third one writes alone needs a generation of its own.
    private func playTwoDeathsAsSource() {
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in nodes[0].engine.state.connection < .connected }
        for block in 0..<24 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(10))
        start(nodes[1])
        expect("the end of the resync at its target") { [self] in
            nodes[1].engine.state.connection == .connected
                && nodes[1].engine.state.disk == .upToDate
                && nodes[0].engine.state.connection == .syncSource
        }
        stop(nodes[0], losesPower: false)
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        restart(nodes[0])
        expect("the disk") { [self] in nodes[0].engine.state.disk == .upToDate }
        linger(.milliseconds(5))
        stop(nodes[0], losesPower: false)
        restart(nodes[0])
        expectResumed(0)
        wakeClients()
        expectSuccess(ask(0, .write, block: 3))
        expectSuccess(ask(0, .flush))
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
                && nodes[1].engine.state.connection < .connected
        }
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 4))
        faults.serial += 1
        healAll()
        expect("the split brain") { [self] in director.refusals.contains { $0 == .splitBrain } }
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
