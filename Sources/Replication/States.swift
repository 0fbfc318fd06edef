import DRBDWire
import MetaDisk
import Support

/// The one function that every change of state passes, and what follows from a change.
extension ReplicationEngine {
    /// Applies `body`, then what it implies (wire 7.2), and records cause, old and new state.
    mutating func change(
        _ cause: String, _ weight: Transition.Weight = .information,
        _ body: (inout StateWord) -> Void
    ) {
        let old = state
        var new = state
        body(&new)
        imply(&new)
        guard new != old else { return }
        state = new
        transitions.append(Transition(cause: cause, old: old, new: new, weight: weight))
        afterChange(old, new, cause)
    }

    /// Something notable that changed no state.
    mutating func record(_ cause: String, _ weight: Transition.Weight = .information) {
        transitions.append(Transition(cause: cause, old: state, new: state, weight: weight))
    }

    /// Wire 7.2, in its order.
    private func imply(_ new: inout StateWord) {
        if new.connection < .connected {
            new.pausedByPeer = false
            new.peer = .unknown
            if new.peerDisk > .unknown || new.peerDisk < .inconsistent { new.peerDisk = .unknown }
        }
        if new.connection > .connected, new.disk <= .failed || new.peerDisk <= .failed {
            new.connection = .connected
        }
        if new.connection < .connected, new.disk == .negotiating {
            new.disk = attachment.found
        }
        if new.connection >= .connected, new.connection < .ahead {
            // Only a comparison with the other disk can tell that an old copy is none. (The kernel
            // believes it of any peer, a diskless one, too.)
            let both =
                new.disk >= .inconsistent && new.peerDisk >= .inconsistent
                || sabotaged(.believesDiskless)
            if both, new.disk == .consistent || new.disk == .outdated { new.disk = .upToDate }
            if both, new.peerDisk == .consistent || new.peerDisk == .outdated {
                new.peerDisk = .upToDate
            }
        }
        let paused = new.pausedByPeer || new.pausedByUser || new.pausedByDependency
        switch new.connection {
        case .syncSource where paused: new.connection = .pausedSyncS
        case .syncTarget where paused: new.connection = .pausedSyncT
        case .pausedSyncS where !paused: new.connection = .syncSource
        case .pausedSyncT where !paused: new.connection = .syncTarget
        default: break
        }
        clamp(&new)
    }

    private func clamp(_ new: inout StateWord) {
        switch new.connection {
        case .wfBitMapS, .pausedSyncS, .startingSyncS, .ahead:
            new.disk = .upToDate
            new.peerDisk = min(max(new.peerDisk, .inconsistent), .consistent)
            if new.peerDisk == .unknown { new.peerDisk = .consistent }
        case .wfBitMapT, .pausedSyncT, .startingSyncT, .wfSyncUUID, .behind:
            new.disk = min(max(new.disk, .inconsistent), .outdated)
            new.peerDisk = .upToDate
        case .syncSource:
            new.disk = .upToDate
            new.peerDisk = .inconsistent
        case .syncTarget:
            new.disk = .inconsistent
            new.peerDisk = .upToDate
        case .verifyS, .verifyT:
            new.disk = .upToDate
            new.peerDisk = .upToDate
        case .standAlone, .disconnecting, .unconnected, .timeout, .brokenPipe, .networkFailure,
            .protocolError, .tearDown, .wfConnection, .wfReportParams:
            if new.peerDisk < .inconsistent { new.peerDisk = .unknown }
        case .connected: break
        }
    }

    /// Wire 7.5: meta data flags, generations and packets that follow from a change.
    private mutating func afterChange(_ old: StateWord, _ new: StateWord, _ cause: String) {
        if new.disk == .upToDate, new.peerDisk == .upToDate, crashedPrimary {
            crashedPrimary = false
            peer.uuids.flags.remove(.crashedPrimary)
        }
        if old.peer == .secondary, new.peer == .primary, old.disk == .inconsistent,
            old.peerDisk == .inconsistent
        {
            // It was forced: what comes next has to be compared again.
            peer.considerResync = true
        }
        refreshFlags()
        if old.connection >= .connected, new.connection >= .connected, diskInUse,
            old.peerDisk <= .failed, new.peerDisk > .failed, new.peerDisk != .unknown
        {
            // The peer attached: it waits for our view, to compare as we did.
            if !peer.knowsUUIDs { sendUUIDs() }
            sendState()
        }
        if new.connection >= .connected {
            crashedConnected = false
            resumption.isUntouched = false
        }
        distrustTarget(old, new)
        if old.connection >= .connected, new.connection >= .connected,
            old.peerDisk > .failed, old.peerDisk != .unknown, new.peerDisk <= .failed,
            !sabotaged(.trustsRefusals)
        {
            missUnstableWrites()
        }
        lostPeerData(old, new)
        if new.disk != old.disk, new.disk == .failed || new.disk == .diskless,
            new.connection >= .connected
        {
            sendState()
        }
        if old.disk == .upToDate, new.disk == .inconsistent, old.connection == .connected,
            new.connection == .connected
        {
            sendState()
        }
        if old.connection > .connected, new.connection <= .connected { abandonResync() }
        if old.connection == .wfReportParams, new.connection >= .connected {
            sendState()
            releaseLostPeer()
        }
    }

    /// The peer's good data is gone, or a Primary without a disk appeared: rows 4 and 5.
    private mutating func lostPeerData(_ old: StateWord, _ new: StateWord) {
        guard diskInUse, new.disk == .upToDate, superblock.uuids.bitmap == 0,
            !sabotaged(.noNewGeneration)
        else { return }
        let hadData =
            old.peerDisk == .inconsistent || old.peerDisk == .consistent
            || old.peerDisk == .upToDate
        let lost =
            new.peerDisk < .inconsistent || new.peerDisk == .unknown || new.peerDisk == .outdated
        let somebodyWrites = new.role == .primary || new.peer == .primary
        let diskless = new.peerDisk < .inconsistent
        if somebodyWrites, hadData && lost || old.peerDisk == .unknown && diskless {
            beginGeneration("the peer's data is lost")
        } else if diskless, new.peer == .primary, old.peer != .primary {
            beginGeneration("a Primary without a disk writes here")
        } else {
            return
        }
        if new.connection >= .connected { sendUUIDs() }
    }

    private mutating func releaseLostPeer() {
        guard state.connection == .connected, bitmap.changedPageCount > 0, diskUsable else {
            return
        }
        _ = writeOutBitmap()
    }

    // MARK: what the super block says about the state

    /// Wire 8.3, "meta data flags": recomputed at every change; written when they differ.
    mutating func refreshFlags() {
        // While it is being attached or has failed the disk keeps the flags it has.
        guard diskInUse, state.disk >= .inconsistent || state.disk == .negotiating else { return }
        let disk = state.disk == .negotiating ? attachment.found : state.disk
        var flags = superblock.flags
        func put(_ flag: MetaFlags, _ value: Bool) {
            if value { flags.insert(flag) } else { flags.remove(flag) }
        }
        put(.consistent, disk > .inconsistent)
        put(.wasUpToDate, disk > .outdated)
        if peerHasNoCopy { sole.keepsIndicator = true }
        let hadIndicator = flags.contains(.primaryIndicator)
        put(.primaryIndicator, state.role == .primary || sole.keepsIndicator || isResuming)
        // A process that dies before it has met the peer again leaves the mark to the next one.
        put(.connectedIndicator, state.connection > .wfReportParams || crashedConnected)
        put(.peerOutdated, state.peerDisk >= .inconsistent && state.peerDisk <= .outdated)
        put(.crashedPrimary, crashedPrimary)
        put(.logClean, false)
        guard flags != superblock.flags else { return }
        superblock.flags = flags
        let version = touchSuperblock()
        if flags.contains(.primaryIndicator), !hadIndicator { sole.indicatorVersion = version }
    }

    // MARK: refusals (wire 7.3)

    /// What speaks against the new state alone; the first that applies.
    func softRefusal(_ new: StateWord) -> StateCode? {
        if new.role == .primary {
            if new.peer == .primary, !sabotaged(.allowsTwoPrimaries) { return .twoPrimaries }
            if new.connection < .connected, new.disk < .upToDate { return .noUpToDateDisk }
            if new.disk <= .inconsistent, new.peerDisk <= .inconsistent { return .noUpToDateDisk }
        }
        if new.connection > .connected {
            if new.disk < .inconsistent { return .noLocalDisk }
            if new.peerDisk < .inconsistent { return .noRemoteDisk }
            if new.disk < .upToDate, new.peerDisk < .upToDate { return .noUpToDateDisk }
        }
        let connected =
            new.connection == .connected || new.connection == .wfBitMapS
            || new.connection == .syncSource || new.connection == .pausedSyncS
        if connected, new.disk == .outdated { return .connectedOutdates }
        if new.connection == .verifyS || new.connection == .verifyT { return .noVerifyAlgorithm }
        if new.role == .primary, new.disk < .upToDate, new.peerDisk < .upToDate {
            return .noUpToDateDisk
        }
        return nil
    }
}
