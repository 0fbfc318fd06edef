import DRBDWire
import MetaDisk
import Support

/// P_STATE: the peer's role and disk, the comparison of generations, the direction of a resync
/// (reference, wire 5.7, 8.5; the laws of the design where they are stronger).
extension ReplicationEngine {
    /// What the comparison leads to.
    enum Verdict: Equatable {
        case connected
        case source(full: Bool), target(full: Bool)
        /// A kernel Secondary is made to follow by a generation of our own.
        case sourceWithGeneration
        /// A kernel Primary makes a generation of its own when it loses us once.
        case reconnect(String)
        case refuse(String)
    }

    mutating func receiveState(_ word: UInt32) {
        guard let theirs = StateWord(word) else {
            malformed(false, "P_STATE \(hex(UInt64(word))), which no state is")
            return
        }
        guard state.connection >= .wfReportParams else { return }
        guard peer.parametersReceived else {
            malformed(false, "P_STATE before P_PROTOCOL")
            return
        }
        var disk = theirs.disk
        if disk == .negotiating {
            disk = peer.uuids.flags.contains(.inconsistent) ? .inconsistent : .consistent
        }
        if sourceSideNews(theirs, &disk) { return }
        // S12: the kernel does not check this in an established connection; we do.
        if theirs.role == .primary, state.role == .primary, state.connection >= .connected,
            !sabotaged(.allowsTwoPrimaries)
        {
            beginGenerationIfNeeded("both nodes would be Primary")
            connectionLost(.protocolError, "the peer became Primary although this node is")
            return
        }
        decide(theirs, disk)
    }

    /// Steps 3 and 5: news from a target that is preparing, or done. - Returns: nothing is left to do.
    private mutating func sourceSideNews(_ theirs: StateWord, _ disk: inout DiskState) -> Bool {
        let mine = state
        if mine.connection >= .syncSource, mine.disk == .upToDate, theirs.connection == .connected,
            mine.connection == .syncSource || mine.connection == .pausedSyncS
        {
            if disk == .upToDate || disk == .inconsistent {
                targetFinished(failed: disk == .inconsistent)
                return true
            }
        }
        if mine.peerDisk == .inconsistent || mine.peerDisk == .consistent, disk == .upToDate,
            mine.connection > .connected, mine.disk == .upToDate,
            theirs.connection > .connected, theirs.connection < .syncSource
        {
            disk = .inconsistent
        }
        if mine.peerDisk == .upToDate, disk == .inconsistent, mine.connection == .connected,
            theirs.connection > .syncSource
        {
            disk = .upToDate
        }
        return false
    }

    private func needsComparison(_ theirs: StateWord) -> Bool {
        guard peer.uuidsReceived, theirs.disk >= .negotiating, diskInUse,
            state.disk >= .negotiating
        else { return false }
        if state.connection < .connected { return true }
        guard state.connection == .connected else { return false }
        if state.disk == .negotiating || theirs.disk == .negotiating { return true }
        if peer.considerResync { return true }
        return theirs.connection >= .startingSyncS && theirs.connection <= .wfBitMapT
    }

    private mutating func decide(_ theirs: StateWord, _ disk: DiskState) {
        let forced =
            state.connection == .connected && state.disk == .inconsistent
            && state.peerDisk == .inconsistent && state.peer == .secondary
            && theirs.role == .primary
        if forced { peer.considerResync = true }
        if state.connection >= .connected, theirs.disk == .negotiating {
            // Before the comparison corrects them: the peer has to see what we compare (rule 34).
            sendUUIDs()
            peer.knowsUUIDs = true
        }
        var verdict = Verdict.connected
        if needsComparison(theirs) {
            verdict = compare(theirs, disk)
            peer.considerResync = false
        }
        let first = state.connection == .wfReportParams
        if first, state.role == .primary, theirs.role == .primary,
            !sabotaged(.allowsTwoPrimaries)
        {
            if case .refuse = verdict {
            } else {
                verdict = .refuse("both nodes are Primary, which the configuration does not allow")
            }
        }
        if first, state.disk < .inconsistent, disk < .inconsistent, state.role == .primary {
            verdict = .refuse("Primary without access to data")
        }
        apply(verdict, theirs, disk, first: first)
        peer.knowsUUIDs = false
    }

    private mutating func apply(
        _ verdict: Verdict, _ theirs: StateWord, _ disk: DiskState, first: Bool
    ) {
        var connection = first ? ConnectionState.connected : state.connection
        switch verdict {
        case .connected, .sourceWithGeneration: break
        case .source: connection = .wfBitMapS
        case .target: connection = .wfBitMapT
        case .reconnect(let text):
            connectionLost(.networkFailure, text)
            return
        case .refuse(let text):
            standAlone(text)
            return
        }
        if theirs.connection == .ahead { connection = .behind }
        if first { link.stage = .running }
        let tellPeer =
            !first && connection > .connected && state.connection <= .connected
            && theirs.connection <= .connected && theirs.disk != .negotiating
        let negotiated = state.disk == .negotiating && !isTarget(verdict)
        let found = attachment.found
        if case .source(let full) = verdict { prepareSource(full: full) }
        if case .target(let full) = verdict { prepareTarget(full: full) }
        change("the peer's state: \(theirs.role.name), \(theirs.disk.name)") {
            $0.peer = theirs.role
            $0.peerDisk = disk
            $0.connection = connection
            $0.pausedByPeer = theirs.pausedByDependency || theirs.pausedByUser
            if negotiated { $0.disk = found }
        }
        peer.discardMyData = false
        if verdict == .sourceWithGeneration { leadKernel() }
        if tellPeer {
            sendUUIDs()
            sendState()
        }
        attachmentDecided()
    }

    private func isTarget(_ verdict: Verdict) -> Bool {
        if case .target = verdict { true } else { false }
    }

    // MARK: comparison

    private mutating func compare(_ theirs: StateWord, _ theirDisk: DiskState) -> Verdict {
        var context = ComparisonContext()
        context.ownCrashed = crashedPrimary
        context.peerCrashed = peer.uuids.flags.contains(.crashedPrimary)
        context.ownRole = state.role
        context.peerRole = theirs.role
        context.resolvesConflicts = link.resolvesConflicts
        context.knowsRule41 = peer.features.contains(.writeSame)
        let other = GenerationUUIDs(
            current: peer.uuids.current, bitmap: peer.uuids.bitmap,
            history0: peer.uuids.history0, history1: peer.uuids.history1)
        let comparison = compareGenerations(own: superblock.uuids, peer: other, context)
        record(
            "sync handshake: self \(text(superblock.uuids)) bits \(peer.reportedBits), "
                + "peer \(text(other)) bits \(peer.uuids.bitCount): "
                + "\(comparison.result) by rule \(comparison.rule)")
        rules.count(comparison.rule)
        if comparison.own != superblock.uuids {
            superblock.uuids = comparison.own
            touchSuperblock()
        }
        peer.uuids.bitmap = comparison.peer.bitmap
        peer.uuids.history0 = comparison.peer.history0
        peer.uuids.history1 = comparison.peer.history1
        let ownDisk = state.disk == .negotiating ? attachment.found : state.disk
        return verdict(comparison, ownDisk, theirs, theirDisk)
    }

    private func text(_ uuids: GenerationUUIDs) -> String {
        "\(hex(uuids.current)):\(hex(uuids.bitmap)):\(hex(uuids.history0)):\(hex(uuids.history1))"
    }

    /// Wire 8.5, steps 1 to 8.
    private func verdict(
        _ comparison: GenerationComparison, _ ownDisk: DiskState, _ theirs: StateWord,
        _ theirDisk: DiskState
    ) -> Verdict {
        var result = comparison.result
        switch result {
        case .unrelated:
            return .refuse(
                "unrelated data (rule 100): the disks never were a pair; \(bitsAtStake). "
                    + "To give up one side's data: 'repctl down', 'repctl create-md' and "
                    + "'repctl up' there")
        case .failed: return .refuse("the peer is too old to decide rule \(comparison.rule)")
        case .equal, .source, .target, .splitBrain: break
        }
        // One disk that is no copy at all decides against itself.
        if (ownDisk == .inconsistent) != (theirDisk == .inconsistent),
            ownDisk >= .inconsistent, theirDisk >= .inconsistent
        {
            var full = false
            switch result {
            case .source(let all), .target(let all): full = all
            case .splitBrain(let related): full = !related
            case .equal, .unrelated, .failed: break
            }
            result = ownDisk > .inconsistent ? .source(full: full) : .target(full: full)
        }
        if case .splitBrain(let related) = result {
            guard let decided = discardVerdict(related: related) else {
                return .refuse(splitBrainText(comparison.rule))
            }
            result = decided
        }
        switch result {
        case .source(let full):
            guard ownDisk > .inconsistent else {
                return .refuse("would be the source of a resync, but the disk here is Inconsistent")
            }
            return .source(full: full)
        case .target(let full):
            guard state.role != .primary else {
                return .refuse(
                    "would become the target of a resync (rule \(comparison.rule)), but is "
                        + "Primary: make it Secondary first")
            }
            return .target(full: full)
        case .equal: return equalVerdict(ownDisk, theirs, theirDisk)
        case .unrelated, .failed, .splitBrain: invariantFailed("\(result) was handled")
        }
    }

    private var bitsAtStake: String {
        "\(peer.reportedBits) blocks of 4 KiB changed here, \(peer.uuids.bitCount) at the peer"
    }

    /// Whose changes are to go, if one operator has said so; `nil`: nobody, or both.
    private func discardVerdict(related: Bool) -> GenerationComparison.Result? {
        let theirs = peer.uuids.flags.contains(.discardMyData)
        guard peer.discardMyData != theirs else { return nil }
        return theirs ? .source(full: !related) : .target(full: !related)
    }

    private func splitBrainText(_ rule: Int) -> String {
        "split brain detected but unresolved (rule \(rule)): both nodes were written while "
            + "apart; \(bitsAtStake). On the node whose changes are to go: 'repctl secondary', "
            + "'repctl connect --discard-my-data'; on the other 'repctl connect'"
    }

    /// Law 1: equal generations with bits set are resynced, or refused with the way out.
    private func equalVerdict(
        _ ownDisk: DiskState, _ theirs: StateWord, _ theirDisk: DiskState
    ) -> Verdict {
        guard ownDisk > .inconsistent, theirDisk > .inconsistent else { return .connected }
        let own = peer.reportedBits
        let other = peer.uuids.bitCount
        guard own > 0 || other > 0, !sabotaged(.ignoresSetBits) else { return .connected }
        let mine: Bool
        if state.role == .primary || theirs.role == .primary {
            mine = state.role == .primary
        } else if own > 0, other > 0 {
            return .refuse(
                "equal generations, but both nodes hold out-of-sync blocks; \(bitsAtStake). "
                    + "On the node whose blocks are to be overwritten: 'repctl invalidate'; "
                    + "then 'repctl connect' on both")
        } else {
            mine = own > 0
        }
        if peer.isRepd { return mine ? .source(full: false) : .target(full: false) }
        if mine { return .sourceWithGeneration }
        if theirs.role == .primary {
            return .reconnect("equal generations with out-of-sync blocks: connecting once more")
        }
        return .refuse(
            "equal generations, but the kernel's Secondary holds out-of-sync blocks; "
                + "\(bitsAtStake). There: 'drbdadm disconnect', 'drbdadm primary', "
                + "'drbdadm connect'; or 'drbdadm invalidate' to take this node's data")
    }

    // MARK: state requests (wire 6.3)

    mutating func receiveStateRequest(_ request: StateChangeRequest, connection: Bool) {
        let reply: StateCode
        if link.resolvesConflicts, order.requestIsOut {
            reply = .concurrentChange
        } else if let ours = mirrored(mask: request.mask, value: request.value) {
            reply = answer(mask: ours.mask, value: ours.value)
        } else {
            reply = .notSupported
        }
        if reply.rawValue >= 1, state.connection == .tearDown {
            // That this disk is outdated must be on it before the peer relies on it.
            link.leavingVersion = meta.superblockWanted
            link.leavingByConnection = connection
            return
        }
        replyToStateRequest(reply, connection: connection)
    }

    /// Answers a disconnect when what it changed here is durable.
    mutating func advanceLeaving() {
        guard let version = link.leavingVersion, link.stage == .running else { return }
        guard meta.superblockDurable >= version || !diskInUse || meta.dead else { return }
        link.leavingVersion = nil
        replyToStateRequest(.success, connection: link.leavingByConnection)
        // The reply has to leave first; the node sends what is queued before it closes.
        closeConnection(.tearDown, "the peer disconnects", reconnect: true, weight: .information)
    }

    private mutating func replyToStateRequest(_ reply: StateCode, connection: Bool) {
        guard link.meta != PeerLink.none else { return }
        output.packet(
            connection ? .connectionStateChangeReply : .stateChangeReply, link: link.meta,
            length: StateChangeReply.encodedSize)
        var bytes = output.bytes.append(StateChangeReply.encodedSize)
        StateChangeReply(reply).encode(into: &bytes)
    }

    private mutating func answer(mask: UInt32, value: UInt32) -> StateCode {
        guard state.connection >= .connected else { return .inTransientState }
        guard var new = StateWord(state.word & ~mask | value & mask) else { return .notSupported }
        let changesConnection = mask & StateMask.connection != 0
        if changesConnection, new.connection == .verifyT { return .noVerifyAlgorithm }
        if changesConnection, new.connection != .tearDown {
            guard new.connection == .startingSyncS || new.connection == .startingSyncT else {
                return .notSupported
            }
            guard state.connection == .connected else { return .resyncRunning }
            guard state.disk >= .inconsistent else { return .noLocalDisk }
            let full = new.connection
            if full == .startingSyncS, state.disk != .upToDate { return .noUpToDateDisk }
            if full == .startingSyncT {
                guard state.peerDisk == .upToDate else { return .noUpToDateDisk }
                guard state.role != .primary else { return .noUpToDateDisk }
            }
            if full == .startingSyncS { prepareStartingSource() } else { prepareStartingTarget() }
            change("the peer orders a full resync") { $0.connection = full }
            return .success
        }
        if changesConnection {
            let outdates = mask & StateMask.disk != 0 && new.disk == .outdated
            if outdates, state.role == .primary || state.disk < .outdated {
                return state.role == .primary ? .noUpToDateDisk : .lowerThanOutdated
            }
            if state.role == .primary, state.disk < .upToDate, mask & StateMask.peerDisk == 0 {
                return .noUpToDateDisk
            }
            change("the peer disconnects") {
                $0.connection = .tearDown
                if mask & StateMask.peerDisk != 0 { $0.peerDisk = new.peerDisk }
                if outdates { $0.disk = .outdated }
            }
            return .success
        }
        imply(preview: &new)
        if let refusal = softRefusal(new), softRefusal(state) != refusal { return refusal }
        change("the peer's request") { $0 = new }
        return .success
    }

    private func imply(preview new: inout StateWord) {
        if new.connection > .connected, new.disk <= .failed || new.peerDisk <= .failed {
            new.connection = .connected
        }
    }
}

/// Which rules of the comparison have decided something; the simulator reports them.
package struct RuleRecord: BitwiseCopyable {
    package static let rules = [
        10, 20, 30, 34, 35, 36, 37, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100,
    ]
    private var seen: UInt64 = 0

    mutating func count(_ rule: Int) {
        guard let index = Self.rules.firstIndex(of: rule) else { return }
        seen |= 1 << UInt64(index)
    }

    package func occurred(_ rule: Int) -> Bool {
        guard let index = Self.rules.firstIndex(of: rule) else { return false }
        return seen >> UInt64(index) & 1 != 0
    }
}
