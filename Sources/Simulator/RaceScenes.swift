import DRBDWire
import Replication
import Support

/// Directed scenarios about moments at which one node knows what the other does not know yet.
extension World {
    /// The target has ended the resync, and the link goes before the source hears of it. The source
    /// writes alone and is demoted; the target is promoted and writes: they may not meet as a pair of
    /// which one simply has the newer data.
    func playLostEnd() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        for block in 0..<24 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(10))
        start(nodes[1])
        expect("the end of the resync at its target") { [self] in
            nodes[1].engine.state.connection == .connected
                && nodes[1].engine.state.disk == .upToDate
                && nodes[0].engine.state.connection == .syncSource
        }
        let dies = profile.seed % 3 == 0
        if dies {
            stop(nodes[0], losesPower: false)
        }
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        expect("the loss of the peer") { [self] in
            nodes[1].engine.state.connection < .connected
                && (dies || nodes[0].engine.state.connection < .connected)
        }
        if dies {
            start(nodes[0])
            expect("the disk") { [self] in
                nodes[0].engine.state.disk == .upToDate && director.isFree(0)
            }
            promote(nodes[0], force: false)
            expect("the promotion") { [self] in
                nodes[0].engine.state.role == .primary && director.isFree(0)
            }
            wakeClients()
        }
        expectSuccess(ask(0, .write, block: 3))
        expectSuccess(ask(0, .flush))
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
        }
        director.isClosed[1] = false
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 4))
        faults.serial += 1
        healAll()
        expect("the split brain") { [self] in
            director.refusals.contains { $0 == .splitBrain }
        }
    }

    /// The disk of a crashed Primary is attached while the other node asks for its own promotion: that
    /// node may become the target of a resync before it is answered.
    func playPromotedTarget() {
        expectPair()
        expectPrimary(0)
        for block in 0..<40 { expectSuccess(ask(block % 4, .write, block: block)) }
        stop(nodes[0], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[1].engine.state.connection < .connected
        }
        start(nodes[0], attaches: false)
        expect("the connection") { [self] in
            nodes.allSatisfy { $0.engine.state.connection == .connected }
        }
        attach(nodes[0])
        // Its state is on its way; the other node asks without knowing it.
        expect("the disk to be compared") { [self] in
            nodes[0].engine.state.disk == .negotiating
        }
        director.isClosed[1] = false
        promote(nodes[1], force: false)
        expect("the end of both orders") { [self] in
            director.isFree(0) && director.isFree(1)
        }
        let state = nodes[1].engine.state
        if violation == nil, state.role == .primary, state.disk != .upToDate {
            violate("I-16", "promoted with a disk that is \(state.disk.name)")
        }
    }
}
