import DRBDWire
import MetaDisk
package import Support

/// The operator's orders that take more than one step. One at a time changes the role or the connection.
struct PendingOrders {
    enum Stage: Equatable {
        /// Waits until the connection is in no passing state.
        case settling
        /// The peer was asked; the answer is awaited.
        case asking
        /// The super block with the new role is being written.
        case storing(UInt32)
        // Demotion.
        case draining, flushing, pages(UInt32), leaving(UInt32)
        // Detach.
        case closing
        /// Waits until the sockets are gone.
        case disconnecting
        /// The node is asked.
        case confirming
    }

    struct Order: Equatable {
        var id: UInt32
        var command: AdministratorCommand
        var stage: Stage
        var deadline: Instant
        /// The disk becomes UpToDate because the operator says so.
        var forced = false
        var refusedOnce = false
    }

    var current: Order?
    /// The detach that the closing of the disk belongs to.
    var detach: UInt32?
    /// The version of the super block that holds the generation a missed write needs.
    var generationVersion: UInt32 = 0

    var demoting: Bool {
        guard let current, current.command == .secondary else { return false }
        switch current.stage {
        case .draining, .flushing, .pages, .leaving: return true
        case .settling, .asking, .storing, .closing, .disconnecting, .confirming: return false
        }
    }

    /// Primary in memory, but not yet on disk: nothing is accepted.
    var promoting: Bool {
        guard let current, case .primary = current.command else { return false }
        return true
    }

    var requestIsOut: Bool { current?.stage == .asking }
    var deadline: Instant { current?.deadline ?? .never }
}

extension ReplicationEngine {
    /// Carries out an order; its end is a `CommandResult` with `id`.
    package mutating func perform(_ command: AdministratorCommand, id: UInt32, now: Instant) {
        self.now = now
        guard order.current == nil else {
            finish(id, .inTransientState, "another command is being carried out; try again")
            return
        }
        switch command {
        case .attach(let size, let block, let metadata): startAttach(id, size, block, metadata)
        case .detach(let force): startDetach(id, force: force)
        case .connect(let discard): startConnect(id, discard)
        case .disconnect(let force): startDisconnect(id, force: force)
        case .primary(let force): startPromotion(id, force: force)
        case .secondary: startDemotion(id)
        case .invalidate: startInvalidate(id)
        case .outdate: startOutdate(id)
        case .resume(let connects): startResumption(id, connects: connects)
        }
    }

    mutating func finish(_ id: UInt32, _ code: StateCode, _ text: String? = nil) {
        results.append(
            CommandResult(
                id: id, code: code.rawValue,
                text: text ?? (code.rawValue >= 1 ? "" : code.text)))
    }

    /// A failure number of the administration reference (101 and above).
    mutating func fail(_ id: UInt32, _ number: Int32, _ text: String) {
        results.append(CommandResult(id: id, code: -number, text: text))
    }

    mutating func beginOrder(
        _ id: UInt32, _ command: AdministratorCommand, _ stage: PendingOrders.Stage,
        within limit: Duration
    ) {
        order.current = PendingOrders.Order(
            id: id, command: command, stage: stage, deadline: now + limit)
    }

    mutating func endOrder(_ code: StateCode, _ text: String? = nil) {
        guard let current = order.current else { return }
        order.current = nil
        finish(current.id, code, text)
    }

    mutating func advanceOrders() {
        guard let current = order.current else { return }
        switch current.command {
        case .primary: advancePromotion(current)
        case .secondary: advanceDemotion(current)
        case .detach: advanceDetach(current)
        case .invalidate: advanceInvalidate(current)
        case .outdate: advanceOutdate(current)
        case .disconnect: advanceDisconnect(current)
        case .resume: advanceResumption(current)
        case .attach, .connect: break
        }
    }

    mutating func tickOrders() {
        guard let current = order.current, now >= current.deadline else { return }
        switch current.command {
        case .secondary where state.role == .secondary:
            // Only the super block is missing; giving up would leave the role half changed.
            order.current?.deadline = now + options.requestDeadline
        case .secondary:
            order.current = nil
            record("demotion gave up; the node stays Primary", .warning)
            finish(
                current.id, .inTransientState,
                "the peer did not confirm all writes in time; the node stays Primary")
        case .primary where state.role == .primary:
            // Only the disk is missing; giving up would leave the role half changed.
            order.current?.deadline = now + options.requestDeadline
        case .primary, .invalidate, .outdate, .disconnect, .detach:
            order.detach = nil
            endOrder(.inTransientState, "no answer in time: \(explainWait(current))")
        case .attach: order.current?.deadline = now + options.requestDeadline
        case .resume: resumptionTimedOut()
        case .connect: endOrder(.inTransientState)
        }
    }

    private func explainWait(_ current: PendingOrders.Order) -> String {
        switch current.stage {
        case .settling: "the connection stays in \(state.connection.name)"
        case .asking: "the peer does not answer the state request"
        case .storing, .pages, .leaving: "the meta data could not be written"
        case .draining, .flushing, .closing: "operations are still at the disk"
        case .disconnecting: "the sockets are not closed yet"
        case .confirming: "the node does not confirm it"
        }
    }

    // MARK: requests to the peer

    mutating func ask(mask: UInt32, value: UInt32, connection: Bool = false) {
        output.packet(
            connection ? .connectionStateChangeRequest : .stateChangeRequest, link: link.data,
            length: StateChangeRequest.encodedSize)
        var bytes = output.bytes.append(StateChangeRequest.encodedSize)
        StateChangeRequest(mask: mask, value: value).encode(into: &bytes)
        order.current?.stage = .asking
    }

    mutating func stateReply(_ code: Int32) {
        guard let current = order.current, current.stage == .asking else {
            record("an answer of the peer (\(code)) to a request that was given up")
            // If it agreed, it believes in what did not come.
            if code >= 1, state.connection >= .connected { sendState() }
            return
        }
        let accepted = code >= 1
        switch current.command {
        case .primary: promotionAnswered(current, accepted, code)
        case .detach: detachAnswered(accepted, code)
        case .invalidate: invalidateAnswered(accepted, code)
        case .disconnect: disconnectAnswered(current, accepted, code)
        case .resume: resumptionAnswered(accepted, code)
        case .attach, .connect, .secondary, .outdate: break
        }
    }

    /// With the connection gone a request is no longer cluster-wide (wire 6.3).
    mutating func ordersLostConnection(_ cause: String) {
        guard let current = order.current, current.stage == .asking else { return }
        switch current.command {
        case .primary, .resume: order.current?.stage = .settling
        case .detach: detachAnswered(true, 1)
        case .invalidate: endOrder(.needConnection, "the connection was lost: \(cause)")
        case .disconnect:
            link.reconnects = false
            order.current?.stage = .disconnecting
        case .attach, .connect, .secondary, .outdate: break
        }
    }

    mutating func orderConnectionClosed() {
        guard let current = order.current, current.stage == .disconnecting,
            link.stage == .off
        else { return }
        endOrder(.success)
    }

    // MARK: connect, disconnect

    private mutating func startConnect(_ id: UInt32, _ discard: Bool) {
        if discard, state.role == .primary {
            fail(id, 123, "--discard-my-data not allowed when primary.")
            return
        }
        guard link.stage == .off || link.stage == .closing && !link.reconnects else {
            if discard, link.stage == .connecting {
                peer.discardMyData = true
                finish(id, .success)
                return
            }
            fail(id, 102, "Local address(port) already in use.")
            return
        }
        peer.discardMyData = discard
        if link.stage == .closing {
            link.reconnects = true
        } else {
            startConnecting()
        }
        finish(id, .success)
    }

    private mutating func startDisconnect(_ id: UInt32, force: Bool) {
        switch link.stage {
        case .off:
            fail(id, 162, "Invalid configuration request: unknown connection")
        case .closing:
            link.reconnects = false
            beginOrder(id, .disconnect(force: force), .disconnecting, within: .seconds(10))
        case .connecting, .features:
            beginOrder(id, .disconnect(force: force), .disconnecting, within: .seconds(10))
            standAlone("disconnected by the operator", weight: .information)
        case .parameters, .running:
            beginOrder(
                id, .disconnect(force: force), .settling,
                within: options.requestDeadline)
            if force {
                order.current?.stage = .disconnecting
                standAlone("disconnected by the operator", weight: .information)
            }
        }
        advanceReconnect()
    }

    private mutating func advanceDisconnect(_ current: PendingOrders.Order) {
        guard current.stage == .settling else { return }
        guard link.stage == .running else {
            if link.stage != .parameters {
                order.current?.stage = .disconnecting
                link.reconnects = false
                standAlone("disconnected by the operator", weight: .information)
                advanceReconnect()
            }
            return
        }
        if state.role == .primary, state.disk < .upToDate {
            endOrder(.noUpToDateDisk)
            return
        }
        ask(mask: 0x1f0, value: 0x10, connection: true)
    }

    private mutating func disconnectAnswered(
        _ current: PendingOrders.Order, _ accepted: Bool, _ code: Int32
    ) {
        if accepted {
            order.current?.stage = .disconnecting
            standAlone("disconnected by the operator", weight: .information)
            return
        }
        if !current.refusedOnce, state.role != .primary, state.disk > .outdated {
            order.current?.refusedOnce = true
            ask(mask: 0x1ff0, value: 0xa10, connection: true)
            return
        }
        endOrder(.failedByPeer, "the peer refuses to be left (\(code)); --force disconnects")
    }

    // MARK: invalidate

    private mutating func startInvalidate(_ id: UInt32) {
        guard diskUsable else {
            finish(id, .isDiskless)
            return
        }
        guard state.role != .primary else {
            finish(
                id, .noUpToDateDisk,
                "a Primary cannot give up its data: make it Secondary first")
            return
        }
        if link.stage == .off {
            beginOrder(id, .invalidate, .storing(0), within: options.requestDeadline)
            setAllBits()
            change("invalidated by the operator") { $0.disk = .inconsistent }
            let version = touchSuperblock()
            order.current?.stage = .storing(version)
            return
        }
        guard state.connection >= .connected else {
            finish(id, .needConnection)
            return
        }
        guard state.connection == .connected else {
            finish(id, .resyncRunning)
            return
        }
        guard state.peerDisk == .upToDate else {
            finish(id, .noUpToDateDisk)
            return
        }
        beginOrder(id, .invalidate, .asking, within: options.requestDeadline)
        ask(mask: 0x1f0, value: 0xc0)
    }

    /// Reference, wire 7.3: refused by a Primary, by worse data, and while connected.
    private mutating func startOutdate(_ id: UInt32) {
        if state.disk == .outdated {
            finish(id, .success)
        } else if state.role == .primary || isResuming {
            finish(id, .noUpToDateDisk)
        } else if !diskUsable || state.disk < .outdated || state.disk == .unknown {
            finish(id, .lowerThanOutdated)
        } else if state.connection >= .connected {
            finish(id, .connectedOutdates)
        } else {
            beginOrder(id, .outdate, .storing(0), within: options.requestDeadline)
            change("outdated by the operator") { $0.disk = .outdated }
            let version = touchSuperblock()
            order.current?.stage = .storing(version)
        }
    }

    private mutating func advanceOutdate(_ current: PendingOrders.Order) {
        guard case .storing(let version) = current.stage else { return }
        guard diskUsable else {
            endOrder(.lowerThanOutdated, "the disk failed")
            return
        }
        guard meta.superblockDurable >= version else { return }
        endOrder(.success)
    }

    private mutating func invalidateAnswered(_ accepted: Bool, _ code: Int32) {
        guard accepted, state.connection == .connected else {
            endOrder(.failedByPeer, "the peer refuses to be the source (\(code))")
            return
        }
        prepareStartingTarget()
        change("invalidated by the operator") { $0.connection = .startingSyncT }
        endOrder(.success)
    }

    private mutating func advanceInvalidate(_ current: PendingOrders.Order) {
        guard case .storing(let version) = current.stage,
            meta.superblockDurable >= version, resync.fullStage == 0
        else { return }
        endOrder(.success)
    }
}
