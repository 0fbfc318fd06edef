import DRBDWire
import MetaDisk
import Replication
import Support

/// What happens in the directed scenarios.
extension World {
    func playMinimal() {
        expect("a connection") { [self] in
            nodes.allSatisfy {
                $0.engine.state.connection == .connected && $0.engine.state.disk == .inconsistent
            }
        }
        expectPrimary(0, force: true)
        expectPair()
        var asked: [Int] = []
        for index in 0..<64 { asked.append(ask(index % 4, .write, block: index * 3 % 200)) }
        for number in asked { expectSuccess(number) }
        expectSuccess(ask(0, .flush))
        expectSuccess(ask(1, .read, block: 0, blocks: 60))
    }

    /// A disk with a bit of its own, as a tool or another kernel may leave it.
    func playBitUnderEqualGenerations() {
        let disk = nodes[0].disk
        let page = Bytes(count: 4096)
        page.setWord(0, 1 << 7)
        guard let location = checker.locations[0] else { return }
        disk.land(
            from: page, at: 0, to: Int(location.bitmapOffset), count: 4096, durable: false)
        page.fill(0, operation: 99, sector: 56, sectors: 8)
        disk.land(from: page, at: 0, to: 7 << 12, count: 4096, durable: false)
        disk.stabilise(before: disk.horizon)
        checker.isLoose = true
        expectPair()
    }

    func playOverlap() {
        expectPair()
        expectPrimary(0)
        for round in 0..<8 {
            for client in 0..<4 {
                ask(client, .write, block: round, blocks: 1 + pick(8))
                ask(client, .write, block: round + pick(2))
            }
            linger(.microseconds(300))
        }
        expectSuccess(ask(0, .flush))
    }

    /// Writes go on in the very blocks that a resync is reading.
    func playResyncRead() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        for block in 0..<48 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(20))
        start(nodes[1])
        expect("the resync") { [self] in nodes[0].engine.state.connection == .syncSource }
        for _ in 0..<60 {
            ask(pick(4), .write, block: pick(48))
            linger(.microseconds(100))
        }
        expectPair()
        expectSuccess(ask(0, .flush))
    }

    /// W is acknowledged; the peer loses power, and the cache that had W with it.
    func playLostByPeer(flushes: Bool) {
        expectPair()
        expectPrimary(0)
        for block in 0..<16 { ask(block % 4, .write, block: block) }
        if flushes {
            expectSuccess(ask(0, .flush))
            // Nothing may be pending for it: what the barrier covered has to be there by itself.
            expect("the end of all epochs") { [self] in nodes[0].engine.everythingIsStable }
        } else {
            linger(.milliseconds(1))
        }
        checkCrashNow("before the power cut")
        stop(nodes[1], losesPower: true)
        linger(.milliseconds(50))
        start(nodes[1])
        expect("the pair again", within: .seconds(60)) { [self] in
            nodes[0].engine.state.peerDisk == .upToDate
                && nodes[0].engine.state.connection == .connected
        }
    }

    func playQuietFlush() {
        expectPair()
        expectPrimary(0)
        ask(0, .write, block: 1)
        expectSuccess(ask(0, .flush))
        expectSuccess(ask(1, .flush))
        // A kernel's proof is asked for; when no other node is lost the epochs have to end by it.
        guard profile.seed % 2 == 0 else { return }
        // What a flush was answered for is the peer's, too: now nothing else is left of it.
        for block in 8..<24 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(2))
        expectSuccess(ask(0, .flush))
        stop(nodes[1], losesPower: true)
        stop(nodes[0], losesPower: false)
        start(nodes[1])
        expect("the disk") { [self] in
            nodes[1].engine.state.disk == .upToDate && director.isFree(1)
        }
        expectPrimary(1)
    }

    func playFailedFlush() {
        expectPair()
        expectPrimary(0)
        expectSuccess(ask(0, .write, block: 1))
        nodes[0].failsFlushes = true
        let flush = ask(0, .flush)
        expectAnswer(flush)
        if violation == nil, operations[flush].acked {
            violate("S7", "a flush that failed was reported as done")
        }
        expect("the failure of the disk") { [self] in
            nodes[0].engine.state.disk < .inconsistent
        }
        nodes[0].failsFlushes = false
        expectRefusal(ask(0, .write, block: 2))
    }

    private func expectRefusal(_ number: Int) {
        expectAnswer(number)
        if violation == nil, operations[number].acked {
            violate("S11", "#\(number) was answered with success by a Primary without a disk")
        }
    }

    /// The peer is cut off, W is acknowledged alone; the Primary dies, the other is promoted.
    func playAlone() {
        expectPair()
        expectPrimary(0)
        expectSuccess(ask(0, .write, block: 1))
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        expect("the loss of the peer") { [self] in
            nodes.allSatisfy { $0.engine.state.connection < .connected }
        }
        expectSuccess(ask(0, .write, block: 2))
        stop(nodes[0], losesPower: random.chance(1, in: 2))
        faults.serial += 1
        healAll()
        expectPrimary(1)
        expectSuccess(ask(0, .write, block: 3))
        start(nodes[0])
        expect("the split brain") { [self] in
            director.refusals.contains { $0 == .splitBrain }
        }
    }

    /// The target loses power in the middle of a resync, with what it acknowledged in its cache.
    func playTargetLosesPower() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        let isSlow = profile.seed % 2 == 1
        for block in 0..<200 where !isSlow || block % 2 == 0 {
            ask(block % 4, .write, block: block)
        }
        linger(.milliseconds(20))
        start(nodes[1])
        expect("the resync") { [self] in nodes[1].engine.state.connection == .syncTarget }
        if isSlow {
            // So slow that pages with cleared bits are written before the end.
            nodes[1].slowness = 4000
            for _ in 0..<60 {
                linger(.milliseconds(100))
                checkCrashNow("in a slow resync")
            }
            nodes[1].slowness = 1
        } else {
            linger(.milliseconds(3))
        }
        for _ in 0..<4 { checkCrashNow("in the resync") }
        stop(nodes[1], losesPower: true)
        linger(.milliseconds(20))
        start(nodes[1])
        expectPair()
        for _ in 0..<4 { checkCrashNow("after the resync") }
    }

    /// Protocol A: acknowledged, in the send buffer; then the roles change and the link drops.
    func playSwitch() {
        expectPair()
        expectPrimary(0)
        for block in 0..<32 { ask(block % 4, .write, block: block) }
        linger(.microseconds(500))
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
        }
        inject(.cut, at: nodes[0])
        // Everything that was acknowledged is the successor's.
        let acked = operations.indices.filter { operations[$0].acked && operations[$0].changes }
        for number in acked {
            checker.acked(UInt32(number), node: 1, peerHasIt: false, world: self)
        }
        expect("the news of the demotion") { [self] in
            nodes[1].engine.state.peer != .primary
        }
        expectPrimary(1)
    }

    func playFailedDisk() {
        expectPair()
        expectPrimary(0)
        expectSuccess(ask(0, .write, block: 1))
        nodes[0].failsWrites = true
        expectRefusal(ask(0, .write, block: 1))
        nodes[0].failsWrites = false
        expectRefusal(ask(1, .write, block: 1))
        expectRefusal(ask(2, .read, block: 1))
    }

    func playTwoPrimaries() {
        expectPair()
        // At once: both ask the other node for its consent.
        for node in nodes { promote(node, force: false) }
        expect("the answers") { [self] in director.isFree(0) && director.isFree(1) }
        for node in nodes where node.engine.state.role == .primary { demote(node) }
        expect("two Secondaries") { [self] in
            nodes.allSatisfy {
                $0.engine.state.role == .secondary && $0.engine.state.peer == .secondary
            }
        }
        for index in 0..<2 { director.isClosed[index] = false }
        expectPrimary(0)
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        expect("the loss of the peer") { [self] in
            nodes.allSatisfy { $0.engine.state.connection < .connected }
        }
        promote(nodes[1], force: false)
        expect("the second promotion") { [self] in nodes[1].engine.state.role == .primary }
        faults.serial += 1
        healAll()
        expect("the split brain") { [self] in
            director.refusals.contains { $0 == .splitBrain }
        }
    }

    func playDiscards() {
        expectPair()
        expectPrimary(0)
        for block in 0..<64 { ask(block % 4, .write, block: block) }
        ask(0, .trim, block: 4, blocks: 40)
        ask(1, .writeZeroes, block: 30, blocks: 20)
        let length = checker.volumeSectors / 8
        expectSuccess(ask(2, .trim, block: 0, blocks: length))
        expectSuccess(ask(3, .flush))
        expectSuccess(ask(3, .read, block: 0, blocks: 64))
    }
}
