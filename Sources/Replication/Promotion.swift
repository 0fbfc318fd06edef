import DRBDWire
import MetaDisk
import Support

/// Promotion and demotion (reference, wire 7.3, 7.4; safety.md S10).
extension ReplicationEngine {
    mutating func startPromotion(_ id: UInt32, force: Bool) {
        guard state.role != .primary else {
            finish(id, .success)
            return
        }
        beginOrder(id, .primary(force: force), .settling, within: options.requestDeadline)
    }

    var isSettled: Bool {
        switch state.connection {
        case .wfReportParams, .startingSyncS, .startingSyncT, .wfBitMapS, .wfBitMapT,
            .wfSyncUUID, .disconnecting, .timeout, .brokenPipe, .networkFailure, .protocolError,
            .tearDown, .unconnected:
            false
        case .standAlone, .wfConnection, .connected, .syncSource, .syncTarget, .verifyS, .verifyT,
            .pausedSyncS, .pausedSyncT, .ahead, .behind:
            link.stage != .features
        }
    }

    mutating func advancePromotion(_ current: PendingOrders.Order) {
        switch current.stage {
        case .settling:
            guard isSettled else { return }
            attemptPromotion(current)
        case .storing(let version):
            guard state.disk >= .inconsistent else {
                // The super block can no longer say so.
                change("promotion failed with the disk") { $0.role = .secondary }
                endOrder(.noUpToDateDisk, "the disk failed")
                return
            }
            guard meta.superblockDurable >= version || sabotaged(.promotesAtOnce) else { return }
            output.commands.append(.recordRole(generation: superblock.uuids.current))
            if current.forced { sendUUIDsIfConnected() }
            if state.connection >= .connected { sendState() }
            endOrder(.success)
        case .asking, .draining, .flushing, .pages, .leaving, .closing, .disconnecting, .confirming:
            break
        }
    }

    /// Whether it has to be forced; `nil`: it is not possible, and the order has ended.
    private mutating func checkPromotion(_ current: PendingOrders.Order) -> Bool? {
        guard case .primary(let force) = current.command else { return nil }
        var new = state
        new.role = .primary
        var forced = false
        if force, state.disk >= .inconsistent, state.disk < .upToDate,
            state.connection <= .connected, state.peerDisk < .upToDate || state.peerDisk == .unknown
        {
            new.disk = .upToDate
            forced = true
        }
        if let refusal = softRefusal(new) {
            endOrder(refusal)
            return nil
        }
        // Reads from the peer do not exist yet: the local disk has to be good.
        guard new.disk == .upToDate, diskUsable else {
            endOrder(
                .noUpToDateDisk,
                "Need access to UpToDate data: the local disk is \(state.disk.name)")
            return nil
        }
        return forced
    }

    private mutating func attemptPromotion(_ current: PendingOrders.Order) {
        guard let forced = checkPromotion(current) else { return }
        order.current?.forced = forced
        guard state.connection >= .connected else {
            becomePrimary()
            return
        }
        sendPing()
        ask(mask: forced ? 0x1e03 : 0x3, value: forced ? 0x1001 : 0x1)
    }

    mutating func promotionAnswered(
        _ current: PendingOrders.Order, _ accepted: Bool, _ code: Int32
    ) {
        guard accepted else {
            switch StateCode(rawValue: code) {
            case .twoPrimaries?: endOrder(.twoPrimaries)
            case .concurrentChange?, .inTransientState?: order.current?.stage = .settling
            default: endOrder(.failedByPeer, "State change was refused by peer node (\(code))")
            }
            return
        }
        if sabotaged(.allowsTwoPrimaries) || sabotaged(.promotesUnchecked) {
            becomePrimary()
            return
        }
        // The peer believes in a Primary here from now on, and anything may have happened meanwhile:
        // its disk was attached, and ours has become the target of a resync.
        guard isSettled else {
            order.current?.stage = .settling
            sendState()
            return
        }
        guard let forced = checkPromotion(current) else {
            sendState()
            return
        }
        guard forced == current.forced else {
            order.current?.stage = .settling
            sendState()
            return
        }
        becomePrimary()
    }

    private mutating func becomePrimary() {
        let forced = order.current?.forced ?? false
        // Whoever promotes it wants its data.
        peer.discardMyData = false
        change(forced ? "forced to Primary: local data counts as UpToDate" : "promoted") {
            $0.role = .primary
            if forced { $0.disk = .upToDate }
        }
        if forced {
            beginGeneration("forced promotion")
        } else if state.connection < .connected || state.peerDisk <= .failed {
            beginGenerationAlone()
        }
        superblock.uuids.current |= 1
        let version = touchSuperblock()
        order.current?.stage = .storing(version)
    }

    private mutating func sendUUIDsIfConnected() {
        if state.connection >= .connected { sendUUIDs() }
    }

    // MARK: demotion

    mutating func startDemotion(_ id: UInt32) {
        guard state.role == .primary else {
            finish(id, .success)
            return
        }
        beginOrder(id, .secondary, .draining, within: options.demotionDeadline)
    }

    /// The writes of clients that were accepted, wherever they are.
    private var acceptedRequests: Int { Self.requestLimit - freeRequests.count }

    /// Everything on both disks, or known to be missing on the peer; only then the role ends.
    mutating func advanceDemotion(_ current: PendingOrders.Order) {
        switch current.stage {
        case .draining:
            // Held writes are new ones: they fail, their clients are being sent away.
            failHeldByDemotion()
            if sabotaged(.demotesAtOnce) {
                leaveRole()
                return
            }
            guard writesAtDisk == 0, acceptedWritesAreDone, everythingIsStable else { return }
            guard generationCoversLoss() else { return }
            guard diskUsable else {
                leaveRole()
                return
            }
            order.current?.stage = .flushing
            flushOperations += 1
            output.commands.append(.flush(.procedure, index: 0))
        case .pages(let version):
            guard diskUsable else {
                leaveRole()
                return
            }
            guard meta.bitmapDurable >= version else { return }
            leaveRole()
        case .leaving(let version):
            guard meta.superblockDurable >= version || !diskInUse || meta.dead else { return }
            output.commands.append(.eraseRole)
            if state.connection >= .connected { sendState() }
            endOrder(.success)
        case .flushing where !diskUsable: leaveRole()
        case .flushing, .settling, .asking, .storing, .closing, .disconnecting, .confirming: break
        }
    }

    /// No write of a client is on its way, and no entry is left: each was stable on the peer, or became bits.
    private var acceptedWritesAreDone: Bool {
        transfer.freeCount == TransferLog.entryLimit && gated.count == 0 && logWaiting.count == 0
            && logQueue.count == 0
    }

    /// Where the peer lacks something, a generation says so durably.
    private mutating func generationCoversLoss() -> Bool {
        if state.peerDisk == .upToDate || bitmap.setCount == 0 { return true }
        guard hasGoodData else { return true }
        beginGenerationIfNeeded("demotion with blocks that the peer lacks")
        return generationIsDurable
    }

    private mutating func failHeldByDemotion() {
        for _ in 0..<held.count {
            guard let id = held.take() else { break }
            if isOfPeer(id) {
                held.append(id)
                continue
            }
            slots[Int(id)].failed = true
            settleWrite(id)
        }
    }

    mutating func procedureFlushed(failed: Bool) {
        if let current = order.current, current.command == .secondary, current.stage == .flushing {
            let version = failed ? 0 : writeOutBitmap()
            order.current?.stage = failed ? .draining : .pages(version)
        } else if !failed {
            resyncFlushed()
        }
    }

    private mutating func leaveRole() {
        change("demoted") { $0.role = .secondary }
        failHeldByDemotion()
        superblock.uuids.current &= ~1
        let version = diskUsable ? touchSuperblock() : 0
        order.current?.stage = .leaving(version)
    }
}
