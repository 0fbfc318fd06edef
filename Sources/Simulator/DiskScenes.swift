import DRBDWire
import MetaDisk
import Replication
import Support

/// Directed scenarios about old connections, other people's bits, and disks that are made or copied.
extension World {
    /// The engine stops for a while with W1 undecoded in a connection's buffer; the client comes back
    /// on another one. The node decodes W1 before it answers GO, or drops it with a connection that
    /// its client has shut down (Daemon, NBDClients); the engine keeps the order.
    func playStaleRequest() {
        expectPair()
        expectPrimary(0)
        guard violation == nil else { return }
        let old = clients[0].number
        clients[0].isPaused = true
        let stale = ask(0, .write, block: 5, blocks: 1 + pick(3))
        func comeBack() {
            // Its connection may have been closed meanwhile.
            guard clients[0].number == old else { return }
            clients[0].isPaused = false
            decode(0)
            // A write has its place when its bytes are in.
            expect("the payload") { [self] in clients[0].current == 0 }
        }
        if !sabotaged(.forgetsStaleRequests) {
            if profile.seed % 2 == 0 { comeBack() } else { clientDies(0) }
        }
        let again = ask(1, .write, block: 5)
        if profile.seed % 3 == 0 { expectSuccess(again) }
        let newest = ask(2, .write, block: 5)
        expectSuccess(again)
        expectSuccess(newest)
        comeBack()
        linger(.milliseconds(20))
        expect("the end of the old request") { [self] in
            operations[stale].ended != ClientOperation.never
        }
        let limit = profile.seed % 3 == 0 ? [newest] : [again, newest]
        for node in nodes where violation == nil {
            let found = node.disk.current.bytes.word(5 << 12)
            if !limit.contains(Int(found)) {
                violate("S3", "block 5 holds #\(found) after #\(newest) was answered")
            }
        }
    }

    /// B, taken for a kernel, writes alone; when it attaches again it has forgotten its last bits.
    func playForgottenBits() {
        expectPair()
        expectPrimary(1)
        stop(nodes[0], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[1].engine.state.connection < .connected
        }
        let blocks = checker.volumeSectors / 8
        guard blocks % 64 == 0, let location = checker.locations[1] else {
            violate("scenario", "\(blocks) bits end no word")
            return
        }
        for _ in 0..<8 { expectSuccess(ask(pick(4), .write, block: blocks - 1 - pick(64))) }
        expectSuccess(ask(0, .write, block: pick(64)))
        demote(nodes[1])
        expect("the demotion") { [self] in
            nodes[1].engine.state.role == .secondary && director.isFree(1)
        }
        stop(nodes[1], losesPower: false)
        // What it forgets would be missed there by any power cut.
        imaginesPowerCuts = false
        let disk = nodes[1].disk
        disk.stabilise(before: disk.horizon)
        disk.landZeros(Int(location.bitmapOffset) + blocks / 8 - 8, 8)
        disk.stabilise(before: disk.horizon)
        for node in nodes { start(node) }
        expectPair()
        imaginesPowerCuts = true
    }

    /// A member that holds blocks which its peer lacks is made anew, and the power goes meanwhile.
    func playCreation() {
        expectPair()
        expectPrimary(1)
        stop(nodes[0], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[1].engine.state.connection < .connected
        }
        for block in 0..<16 { expectSuccess(ask(block % 4, .write, block: block * 3)) }
        demote(nodes[1])
        expect("the demotion") { [self] in
            nodes[1].engine.state.role == .secondary && director.isFree(1)
        }
        guard violation == nil else { return }
        stop(nodes[1], losesPower: false)
        // There may be no meta data to look at.
        imaginesPowerCuts = false
        nodes[1].disk.stabilise(before: nodes[1].disk.horizon)
        createMetadata(nodes[1], steps: pick(8))
        nodes[1].disk.losePower(.torn, &random)
        for node in nodes { start(node) }
        expect("the end of the attach") { [self] in director.isFree(1) && director.isFree(0) }
        if violation == nil, !nodes[1].diskIsOpen {
            // There is nothing that could be attached: the operator orders it once more.
            note(nodes[1], "has no meta data")
            stop(nodes[1], losesPower: false)
            createMetadata(nodes[1])
            start(nodes[1])
        }
        expectPair()
        imaginesPowerCuts = true
    }

    /// The disk of a Primary that writes alone is copied, and the copy becomes the other node's: equal
    /// generations, and the mark of a crash that was none (rule 41).
    func playCopiedDisk() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        for block in 0..<16 { expectSuccess(ask(block % 4, .write, block: block)) }
        expectSuccess(ask(0, .flush))
        linger(.milliseconds(200))
        nodes[1].disk.copy(nodes[0].disk)
        checker.mayLose[1] = true
        for block in 8..<32 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(2))
        start(nodes[1])
        expect("a resync") { [self] in nodes[0].engine.state.connection == .syncSource }
        expectPair()
    }

    /// The disk takes its time for the super block, and the clients do not wait.
    func playSlowPromotion() {
        expectPair()
        expectPrimary(0)
        // The extents stay active: the next write need not wait for the log.
        for block in 0..<8 { expectSuccess(ask(block % 4, .write, block: block)) }
        demote(nodes[0])
        expect("the demotion") { [self] in
            nodes[0].engine.state.role == .secondary && director.isFree(0)
        }
        director.isClosed[0] = false
        nodes[0].slowness = 200
        promote(nodes[0], force: false)
        expect("the promotion") { [self] in nodes[0].engine.state.role == .primary }
        expect("the clients' connections") { [self] in
            wakeClients()
            return clients.allSatisfy { $0.number >= 0 }
        }
        for block in 0..<8 { ask(block % 4, .write, block: block) }
        linger(.milliseconds(100))
        nodes[0].slowness = 1
        expect("the end of the promotion") { [self] in director.isFree(0) }
        expectSuccess(ask(0, .flush))
    }

    /// The peer detaches and attaches again while writes and their refusals are on the wire, the states
    /// on one connection and the refusals on the other.
    func playLateRefusals() {
        expectPair()
        expectPrimary(0)
        for _ in 0..<8 {
            for block in 0..<12 { ask(block % 4, .write, block: block * 3 + pick(3)) }
            linger(.milliseconds(2))
            perform(nodes[1], .detach(force: true))
            for block in 0..<12 {
                ask(block % 4, .write, block: block * 3 + pick(3))
                linger(.microseconds(500))
            }
            expect("the end of the detach") { [self] in
                director.isFree(1) && nodes[1].engine.state.disk == .diskless
            }
            attach(nodes[1])
            expectPair()
        }
    }

    /// Operations that take twenty seconds, under disk-timeout of half a second; by the seed on the
    /// Primary or on its peer.
    func playStuckDisk() {
        expectPair()
        expectPrimary(0)
        for block in 0..<8 { expectSuccess(ask(block % 4, .write, block: block)) }
        let node = nodes[Int(profile.seed % 2)]
        node.slowness = 100_000
        var asked: [Int] = []
        for block in 0..<12 {
            asked.append(ask(block % 4, .write, block: block + (block % 3) * 40))
            if block % 4 == 1 { asked.append(ask(block % 4, .read, block: block, blocks: 8)) }
            if block % 4 == 2 { asked.append(ask(block % 4, .flush)) }
        }
        expect("every answer", within: .seconds(4)) { [self] in
            asked.allSatisfy { operations[$0].answered }
        }
        if node.index == 1 {
            // The Primary has nothing to do with it.
            for number in asked { expectSuccess(number) }
            expectSuccess(ask(0, .write, block: 3))
        }
        if node.index == 0 {
            // Not even for the disk that is stuck: the other node can take over.
            demote(nodes[0])
            expect("the demotion") { [self] in
                nodes[0].engine.state.role == .secondary && director.isFree(0)
                    && nodes[1].engine.state.peer == .secondary
            }
            expectPrimary(1)
            expectSuccess(ask(0, .write, block: 5))
        }
        // What is at the disk comes back in its time; what comes then is quick.
        node.slowness = 1
        expect("the end of the disk's operations", within: .seconds(400)) {
            node.engine.state.disk == .diskless && node.running == 0
        }
        attach(node)
        expectPair()
    }

    /// Some blocks of the Primary's disk fail, written or read; the others are served on, but not
    /// without the peer, which has them all.
    func playPassedOn() {
        expectPair()
        expectPrimary(0)
        for block in 0..<16 { expectSuccess(ask(block % 4, .write, block: block)) }
        let kind: ClientRequest.Operation = profile.seed % 2 == 0 ? .write : .read
        nodes[0].failsWrites = kind == .write
        nodes[0].failsReads = kind == .read
        let failed = ask(0, kind, block: 3)
        expectError(failed)
        (nodes[0].failsWrites, nodes[0].failsReads) = (false, false)
        expect("the mark of the damage") { [self] in
            nodes[0].engine.state.disk == .inconsistent
                && nodes[1].engine.state.peerDisk == .inconsistent
        }
        expectError(ask(0, .read, block: 3))
        for block in 4..<16 {
            expectSuccess(ask(block % 4, .read, block: block))
            expectSuccess(ask(block % 4, .write, block: block))
        }
        expectSuccess(ask(0, .write, block: 3))
        expectSuccess(ask(0, .flush))
        let late = (8..<12).map { ask($0 % 4, .write, block: $0) }
        switch profile.seed % 5 {
        case 0, 1:
            stop(nodes[1], losesPower: profile.seed % 5 == 1)
        case 2:
            inject(.blackHole, at: nodes[0])
            faults.serial += 1
        default:
            stop(nodes[0], losesPower: profile.seed % 5 == 3)
            expect("the loss of the peer") { [self] in
                nodes[1].engine.state.connection < .connected
            }
            director.lastPrimary = 0
            expectPrimary(1)
            expectSuccess(ask(0, .write, block: 5))
            return
        }
        for number in late { expectAnswer(number) }
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        expectError(ask(1, .write, block: 5))
        expectError(ask(2, .read, block: 6))
        expectError(ask(3, .flush))
    }

    /// B refuses a write and loses its disk; its refusal is there before the news of the disk, or not,
    /// when blocks fail at A, too. B's disk comes back as good as it was.
    func playCrossedErrors() {
        expectPair()
        expectPrimary(0)
        for block in 0..<16 { expectSuccess(ask(block % 4, .write, block: block)) }
        nodes[1].failsWrites = true
        var asked = (4..<8).map { ask($0 % 4, .write, block: $0) }
        expect("a refusal") { [self] in nodes[0].engine.bitmap.setCount > 0 }
        // It is answered, or about to be.
        if profile.seed % 2 == 0 { linger(.milliseconds(2)) }
        nodes[0].failsWrites = true
        asked.append(ask(0, .write, block: 3))
        linger(.milliseconds(1))
        nodes[0].failsWrites = false
        asked += (8..<12).map { ask($0 % 4, .write, block: $0) }
        for number in asked { expectAnswer(number) }
        expect("the loss of B's disk") { [self] in
            nodes[1].engine.state.disk == .diskless
                && nodes[0].engine.state.peerDisk < .inconsistent
        }
        nodes[1].failsWrites = false
        if nodes[0].engine.state.disk != .upToDate, asked.contains(where: { operations[$0].acked })
        {
            violate("I-1", "A, whose disk is damaged, answered what B has refused")
        }
        // Demoted and connected anew where that is needed, by the operator of the quiet phase.
        attach(nodes[1])
    }

    /// A Primary alone, whose log has room for two of four extents.
    func playEvictions() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        for round in 0..<16 {
            ask(round % 4, .write, block: pick(3) << 10 + pick(16))
            for _ in 0..<4 {
                linger(.microseconds(200))
                checkCrashNow("extents change")
            }
        }
        stop(nodes[0], losesPower: true)
        for node in nodes { start(node) }
        expectPair()
    }

    /// A discard waits at B behind resync data, and when its turn has come A has no disk any more.
    func playWideDiscard() {
        expectPair()
        expectPrimary(0)
        stop(nodes[1], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[0].engine.state.connection < .connected
        }
        for block in 0..<8 { expectSuccess(ask(block % 4, .write, block: block * 300)) }
        start(nodes[1])
        expect("the resync") { [self] in nodes[1].engine.state.connection == .syncTarget }
        nodes[1].slowness = 500
        expect("resync data") { [self] in
            nodes[1].operations.contains { $0.kind == .write }
        }
        // Four extents at once: that many has the log of A.
        ask(1, .trim, block: 0, blocks: 4096)
        linger(.milliseconds(1))
        nodes[0].failsWrites = true
        ask(2, .write, block: 5)
        expect("the failure of the disk") { [self] in
            nodes[1].engine.state.peerDisk < .inconsistent
        }
        nodes[0].failsWrites = false
        nodes[1].slowness = 1
        expect("the end of the discard") { [self] in nodes[1].engine.pending.unacknowledged == 0 }
        checkCrashNow("after the discard")
    }

    /// B is about to be resynced when the connection is lost; then it meets A without its disk.
    func playOutdated() {
        expectPair()
        expectPrimary(0)
        inject(.blackHole, at: nodes[0])
        faults.serial += 1
        expect("the loss of the peer") { [self] in
            nodes.allSatisfy { $0.engine.state.connection < .connected }
        }
        for block in 0..<16 { expectSuccess(ask(block % 4, .write, block: block)) }
        faults.serial += 1
        healAll()
        expect("the comparison") { [self] in nodes[1].engine.state.disk == .outdated }
        stop(nodes[0], losesPower: false)
        expect("the loss of the peer") { [self] in
            nodes[1].engine.state.connection < .connected
        }
        nodes[0].failsMeta = true
        start(nodes[0])
        expect("a connection") { [self] in
            nodes.allSatisfy { $0.engine.state.connection == .connected }
        }
        guard violation == nil, nodes[1].engine.state.disk <= .outdated else {
            violate("I-16", "B, which lacks blocks of A, is \(nodes[1].engine.state.disk.name)")
            return
        }
        promote(nodes[1], force: false)
        expect("an answer") { [self] in director.isFree(1) }
        if nodes[1].engine.state.role == .primary {
            violate("I-16", "B was promoted with an Outdated disk")
        }
    }
}
