import DRBDWire
import MetaDisk
package import Support

/// Primary again after the death of the process (safety.md S18).
///
/// The disk is attached without giving up PRIMARY_IND, the connection made as Secondary, and the peer
/// asked as for any promotion; clients are let in meanwhile, their requests wait. What only the node
/// knows, it looks at when everything else is settled: that is the moment of becoming Primary.
///
///     settling ─▶ asking ─▶ confirming ─▶ Primary
///        └─── nobody there ─────▲  └─────▶ Secondary
struct Resumption {
    /// How long the peer may be silent before this node goes on alone.
    static let patience = Duration.seconds(1)
    /// The same where the connection was down already.
    static let shortPatience = Duration.milliseconds(200)
    /// How many times that a peer that has spoken may take for its answer.
    static let patienceCount = 20

    /// From before the attach until it is decided.
    var isWanted = false
    /// PRIMARY_IND was found on the disk.
    var foundIndicator = false
    /// The attach is over, and the time for the peer's answer runs.
    var isTimed = false
    /// Whether a connection is to be made: then its end in StandAlone is an answer.
    var connects = false
    /// The peer has agreed in the connection with this serial; `nil`: it was not there.
    var agreedIn: UInt32?
    var waits = 0
    /// The connection was up at death: the peer's silence has to last.
    var waitsForPeer = false
    /// An attempt to connect has failed.
    var attemptFailed = false
    /// It went on alone under protocol C, and nothing was written since: what was answered before is on
    /// the peer, too, so that a flush alone is no reason for a generation.
    var isUntouched = false
}

extension ReplicationEngine {
    /// To be called before the disk is attached by a process that replaces one that died as Primary;
    /// `resume` has to be ordered afterwards.
    package mutating func expectResumption() { resumption.isWanted = true }

    /// Whether it may become Primary again: clients may be let in, what they ask for waits.
    package var isResuming: Bool { resumption.isWanted }

    mutating func startResumption(_ id: UInt32, connects: Bool) {
        guard resumption.isWanted else {
            finish(id, .success)
            return
        }
        resumption.connects = connects
        beginOrder(
            id, .resume(connects: connects), .settling, within: options.requestDeadline)
    }

    mutating func advanceResumption(_ current: PendingOrders.Order) {
        guard current.stage == .settling, !attachment.isUnderWay else { return }
        guard state.disk != .negotiating else { return }
        guard diskUsable, state.disk == .upToDate else {
            refuseResumption("the disk is \(state.disk.name)")
            return
        }
        guard resumption.foundIndicator else {
            refuseResumption("the disk does not say that it was Primary")
            return
        }
        if !resumption.isTimed {
            resumption.isTimed = true
            resumption.waitsForPeer = crashedConnected && resumption.connects
            let patience =
                resumption.waitsForPeer ? Resumption.patience : Resumption.shortPatience
            let waits = resumption.connects && !sabotaged(.resumesUnasked)
            order.current?.deadline = waits ? now + patience : now
        }
        if resumption.connects, link.stage == .off {
            refuseResumption("the nodes do not fit together")
            return
        }
        // Where the connection was down at death, a peer that refuses the first one is still away.
        if !resumption.waitsForPeer, resumption.attemptFailed, link.data == PeerLink.none,
            link.stage == .connecting
        {
            confirmResumption(agreedIn: nil)
            return
        }
        guard state.connection >= .connected, isSettled, !sabotaged(.resumesUnasked) else { return }
        if let refusal = resumptionRefusal {
            refuseResumption(refusal)
            return
        }
        sendPing()
        ask(mask: 0x3, value: 0x1)
    }

    /// What speaks against a Primary here, by the rules of any promotion.
    private var resumptionRefusal: String? {
        var new = state
        new.role = .primary
        if let refusal = softRefusal(new) { return refusal.text }
        guard state.disk == .upToDate, diskUsable else { return "the disk is \(state.disk.name)" }
        return nil
    }

    mutating func resumptionAnswered(_ accepted: Bool, _ code: Int32) {
        if accepted {
            confirmResumption(agreedIn: link.serial)
            return
        }
        switch StateCode(rawValue: code) {
        case .concurrentChange?, .inTransientState?: order.current?.stage = .settling
        default: refuseResumption("the peer does not agree (\(code))")
        }
    }

    /// The peer did not answer in time: it is gone, or as good as gone.
    mutating func resumptionTimedOut() {
        guard resumption.isTimed else {
            order.current?.deadline = now + options.requestDeadline
            return
        }
        let isThere = link.stage == .parameters || link.stage == .running
        // Somebody has accepted our connection, or made one: a moment more for his first word.
        let mayBe = link.stage == .features || link.data != PeerLink.none
        let limit = isThere ? Resumption.patienceCount : mayBe ? 1 : 0
        if resumption.waits < limit, !sabotaged(.resumesUnasked) {
            // It has spoken: only its answer counts.
            resumption.waits += 1
            order.current?.deadline = now + Resumption.patience
            return
        }
        switch link.stage {
        case .features, .parameters, .running:
            connectionLost(.timeout, "the peer does not say whether this node may be Primary again")
        case .off, .connecting, .closing: break
        }
        confirmResumption(agreedIn: nil)
    }

    private mutating func confirmResumption(agreedIn serial: UInt32?) {
        resumption.agreedIn = serial
        order.current?.stage = .confirming
        order.current?.deadline = .never
        output.commands.append(.confirmResumption)
    }

    /// The node has looked at what it alone knows.
    mutating func resumptionConfirmed(_ confirmed: Bool) {
        guard let current = order.current, current.stage == .confirming else { return }
        guard confirmed else {
            refuseResumption("a condition for it does not hold")
            return
        }
        if let serial = resumption.agreedIn, serial != link.serial || !isSettled {
            // The connection in which it agreed is gone, or a resync begins: once more.
            order.current?.stage = .settling
            order.current?.deadline = now + Resumption.patience
            return
        }
        if let refusal = resumptionRefusal {
            refuseResumption(refusal)
            return
        }
        peer.discardMyData = false
        let alone = state.connection < .connected
        change(
            alone ? "resumed as Primary without the peer" : "resumed as Primary, the peer agrees",
            alone ? .warning : .information
        ) { $0.role = .primary }
        resumption = Resumption()
        resumption.isUntouched = alone && options.replicationProtocol == .c
        if alone, sabotaged(.hurriesGeneration) { beginGenerationAlone() }
        superblock.uuids.current |= 1
        touchSuperblock()
        if state.connection >= .connected { sendState() }
        endOrder(.success)
    }

    /// The node knows that it is not to be.
    package mutating func giveUpResumption(_ reason: String, now: Instant) {
        guard isResuming else { return }
        self.now = now
        if let current = order.current, case .resume = current.command {
            refuseResumption(reason)
            return
        }
        resumption = Resumption()
        record("not Primary again: \(reason)", .error)
        output.commands.append(.eraseRole)
        refreshFlags()
    }

    /// It stays Secondary, and what would let a later process resume goes.
    private mutating func refuseResumption(_ reason: String) {
        resumption = Resumption()
        record("not Primary again: \(reason)", .error)
        output.commands.append(.eraseRole)
        refreshFlags()
        // The peer may have agreed.
        if state.connection >= .connected { sendState() }
        endOrder(.noUpToDateDisk, "not Primary again: \(reason)")
    }

    /// For a generation that a Primary begins: its record names it from now on. While it is being
    /// promoted there is none.
    mutating func recordGeneration() {
        guard state.role == .primary, !order.promoting else { return }
        output.commands.append(.recordRole(generation: superblock.uuids.current))
    }
}
