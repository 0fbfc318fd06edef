import DRBDWire
package import Replication
import Support

/// The accidents of safety.md by their numbers; each is played with the chances of many seeds.
package enum Scenario: String, CaseIterable {
    case s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, wideDiscard, s18,
        outdated, lostEnd, lateAttach, law1, law2, rule41, resumed, stuckDisk, lateRefusals,
        passedOn, crossedErrors, minimal

    /// What it shows.
    package var sentence: String {
        switch self {
        case .minimal: "fresh disks, forced promotion, first sync, writes, flush, orderly end"
        case .law1: "bits under equal generations are resynced, not left alone"
        case .s1: "overlapping writes leave the same bytes on both disks"
        case .s2: "a resync read does not overtake a write, nor the other way round"
        case .s3:
            "what a client left undecoded on an old connection does not come over its newer writes"
        case .s4: "what the peer acknowledged and lost with its power comes back to it"
        case .s5: "what a barrier acknowledged survives a power cut of the peer"
        case .s6: "a flush is answered although nobody sends anything afterwards"
        case .s7: "a failed flush fails the disk and is reported"
        case .s8: "writes without the peer make a generation that a later promotion cannot hide"
        case .s9: "a target that loses power in its resync is resynced again"
        case .s10: "a demotion takes everything over to the peer, in protocol A too"
        case .s11: "a Primary whose disk fails answers nothing more with success"
        case .s12:
            "of two promotions at once one is refused; two Primaries that meet are a split brain"
        case .s13: "blocks that a kernel forgot with the last 64 bits of its bitmap are copied"
        case .s14: "create-md that dies anywhere never leaves old generations with an empty bitmap"
        case .s15: "discards are zeros on both nodes, also over more extents than the log has slots"
        case .wideDiscard:
            "a discard of a peer without a disk may be wider than the log here has slots for"
        case .outdated: "an Outdated disk stays what it is beside a peer without a disk"
        case .s18: "a write begins when the role is on disk, however slow that is"
        case .law2: "extents that leave the log leave their bits on disk"
        case .lostEnd:
            "what a source writes alone, after its target ended the resync unheard, is not lost (S8)"
        case .lateAttach:
            "a node that becomes a resync target while it is being promoted does not become Primary"
        case .resumed:
            "a killed Primary is Primary again only where nobody else can be (S18, S8)"
        case .lateRefusals:
            "what a peer refuses while it has no disk reaches it when it has one again"
        case .passedOn:
            "a Primary of whose disk some blocks failed serves the rest while its peer has all (I-13)"
        case .crossedErrors:
            "what only a disk holds of which blocks fail is not answered, and does not make it damaged"
        case .stuckDisk:
            "a disk that does not answer keeps nobody waiting, and its late answers do no harm"
        case .rule41:
            "a copy of the running Primary's disk becomes its peer's, and is brought up to date"
        }
    }

    /// Without each of these mechanisms it happens: scripts/test-faults shows that it is seen.
    package var lacks: [Sabotage] {
        switch self {
        case .s1: [.ignoresOverlap, .acksBeforeLocal]
        case .s2: [.readsUnordered]
        case .s3: [.forgetsStaleRequests, .ignoresOverlap]
        case .s4: [.noBitsAtTheCut, .forgetsAcknowledged]
        case .s5: [.acksBeforeFlush]
        case .s6: [.asksForNoProof, .flushIgnoresPeer]
        case .s7: [.trustsFailedFlush]
        case .s8: [.noNewGeneration, .forgetsCrash]
        case .s9: [.clearsBeforeFlush, .forgetsMergedBitmap, .clearsAtSend]
        case .s10: [.demotesAtOnce]
        case .s11: [.hidesWriteErrors]
        case .s12: [.allowsTwoPrimaries]
        case .s13: [.trustsLastBits]
        case .s14: [.keepsOldSuperblock]
        case .s15: [.discardsUncut]
        case .s18: [.promotesAtOnce]
        case .law1: [.ignoresSetBits]
        case .law2: [.logBeforePages, .forgetsPages]
        case .minimal: [.skipsLogWait]
        case .outdated: [.believesDiskless]
        case .lostEnd: [.trustsTarget]
        case .lateAttach: [.promotesUnchecked]
        case .resumed: [.resumesUnasked, .hurriesGeneration, .noNewGeneration]
        case .stuckDisk: [.waitsForDisk]
        case .lateRefusals: [.trustsRefusals]
        case .passedOn: [.trustsDamagedDisk]
        case .wideDiscard, .rule41, .crossedErrors: []
        }
    }

    func prepare(_ profile: inout Profile) {
        profile.isDirected = true
        profile.duration = .seconds(5)
        profile.deviceSizes = [1 << 20, 1 << 20]
        switch self {
        case .minimal: profile.isPaired = false
        case .s10: profile.replicationProtocol = .a
        case .s1: profile.replicationProtocol = profile.seed % 2 == 0 ? .a : .c
        case .s5: profile.replicationProtocol = profile.seed % 2 == 0 ? .b : .c
        case .lateRefusals: profile.wireTime = .milliseconds(10)
        case .crossedErrors:
            profile.onIOError = .passOn
            profile.onIOErrorOfB = .detach
            profile.wireTime = .milliseconds(20)
        case .passedOn:
            profile.onIOError = .passOn
            profile.replicationProtocol = [.a, .b, .c][Int(profile.seed % 3)]
        case .stuckDisk:
            profile.diskTimeout = .milliseconds(500)
            profile.koCount = 0
        case .s6: profile.hidesRepd = profile.seed % 2 == 0 ? [false, false] : [true, true]
        case .s13:
            profile.hidesRepd = [false, true]
            // 256 bits: the size that a kernel forgets something of.
            profile.deviceSizes = [266 << 12, 266 << 12]
        case .s15:
            guard profile.seed % 2 == 1 else { break }
            profile.deviceSizes = [16 << 20, 16 << 20]
            profile.logExtents = 2
        case .wideDiscard:
            profile.deviceSizes = [20 << 20, 20 << 20]
            profile.logExtentsOfB = 2
        case .law2:
            profile.deviceSizes = [16 << 20, 16 << 20]
            profile.logExtents = 2
        case .lostEnd, .lateAttach, .law1, .s18, .outdated, .s2, .s3, .s4, .s7, .s8, .s9, .s11,
            .s12, .s14, .rule41, .resumed:
            break
        }
    }

    func play(in world: World) {
        world.begin()
        switch self {
        case .minimal: world.playMinimal()
        case .law1: world.playBitUnderEqualGenerations()
        case .s1: world.playOverlap()
        case .s2: world.playResyncRead()
        case .s3: world.playStaleRequest()
        case .s4: world.playLostByPeer(flushes: false)
        case .s5: world.playLostByPeer(flushes: true)
        case .s6: world.playQuietFlush()
        case .s7: world.playFailedFlush()
        case .s8: world.playAlone()
        case .s9: world.playTargetLosesPower()
        case .s10: world.playSwitch()
        case .s11: world.playFailedDisk()
        case .s12: world.playTwoPrimaries()
        case .s13: world.playForgottenBits()
        case .s14: world.playCreation()
        case .s15: world.playDiscards()
        case .wideDiscard: world.playWideDiscard()
        case .outdated: world.playOutdated()
        case .s18: world.playSlowPromotion()
        case .law2: world.playEvictions()
        case .lostEnd: world.playLostEnd()
        case .lateAttach: world.playPromotedTarget()
        case .rule41: world.playCopiedDisk()
        case .stuckDisk: world.playStuckDisk()
        case .lateRefusals: world.playLateRefusals()
        case .resumed: world.playResumption()
        case .passedOn: world.playPassedOn()
        case .crossedErrors: world.playCrossedErrors()
        }
        if world.violation == nil { world.settleDown() }
    }
}

/// Steps of the scenarios. A step that does not come about is a violation of its own.
extension World {
    func begin() {
        isActive = false
        for index in 0..<4 { addClient(index, manual: true) }
    }

    func expect(_ what: String, within limit: Duration = .seconds(20), _ condition: () -> Bool) {
        guard violation == nil else { return }
        settleAll()
        if !advance(by: limit, until: condition), violation == nil {
            violate("scenario", "\(what) did not come about: \(describeStuck())")
        }
    }

    func expectPair() {
        expect("a pair in step") { [self] in
            nodes.allSatisfy {
                let state = $0.engine.state
                return state.connection == .connected && state.disk == .upToDate
                    && state.peerDisk == .upToDate
            }
        }
    }

    func expectPrimary(_ node: Int, force: Bool = false) {
        guard violation == nil else { return }
        promote(nodes[node], force: force)
        expect("the promotion") { [self] in
            nodes[node].engine.state.role == .primary && director.isFree(node)
        }
        expect("the clients' connections") { [self] in
            wakeClients()
            return clients.allSatisfy { $0.number >= 0 }
        }
    }

    func wakeClients() {
        for index in clients.indices where clients[index].number < 0 { clientWakes(index) }
    }

    /// One request of the given client; returns its number.
    @discardableResult
    func ask(
        _ client: Int, _ kind: ClientRequest.Operation, block: Int = 0, blocks: Int = 1,
        durable: Bool = false
    ) -> Int {
        guard violation == nil, clients[client].number >= 0 else { return 0 }
        var operation = ClientOperation()
        operation.kind = kind
        operation.durable = durable
        if kind != .flush {
            operation.offset = block << 12
            operation.length = blocks << 12
        }
        return Int(submit(client, operation))
    }

    func expectAnswer(_ number: Int) {
        expect("the answer to #\(number)") { [self] in
            operations[number].ended != ClientOperation.never
        }
    }

    func expectSuccess(_ number: Int) {
        expectAnswer(number)
        if violation == nil, !operations[number].acked {
            violate("scenario", "#\(number) ends with an error")
        }
    }

    func expectError(_ number: Int) {
        expectAnswer(number)
        if violation == nil, operations[number].acked {
            violate("scenario", "#\(number) ends with success")
        }
    }

    /// Lets a little time pass, less or more.
    func linger(_ mean: Duration) { advance(by: spread(mean)) }
}
