import DRBDWire
import Support

/// Opening, accepting, losing and closing the two TCP connections (reference, wire 1.2 and 19).
extension ReplicationEngine {
    /// The connect order: from StandAlone to WFConnection.
    mutating func startConnecting() {
        link.stage = .connecting
        link.retryAt = now
        change("connect") { $0.connection = .unconnected }
        change("waiting for the peer") { $0.connection = .wfConnection }
        tryConnecting()
    }

    private func freeLink() -> UInt8? {
        for index in 0..<Self.linkLimit where link.uses[index] == .free { return UInt8(index) }
        return nil
    }

    private var attemptIsRunning: Bool {
        for index in 0..<Self.linkLimit
        where link.uses[index] == .connectingData || link.uses[index] == .connectingMeta {
            return true
        }
        return false
    }

    /// Opens what is missing: data first, meta when the data connection was accepted from the peer.
    mutating func tryConnecting() {
        guard link.stage == .connecting, now >= link.retryAt, !attemptIsRunning,
            let free = freeLink()
        else { return }
        link.uses[Int(free)] = link.data == PeerLink.none ? .connectingData : .connectingMeta
        link.retryAt = now + connectPause()
        output.commands.append(.connect(link: free))
    }

    /// connect-int, randomly one seventh longer or shorter.
    private mutating func connectPause() -> Duration {
        let seventh = options.connectInterval / 7
        return options.connectInterval - seventh + seventh * Double(random.next() % 2001) / 1000
    }

    /// Soon, but not at the same moment as the peer.
    mutating func retrySoon() {
        // Whoever resumes is waited for; its peer, which has lost it, does not look for it at once.
        let (least, range): (UInt64, UInt64) = isResuming ? (10, 20) : (50, 950)
        link.retryAt = now + .milliseconds(Int64(least + random.next() % range))
    }

    mutating func linkOpened(_ id: UInt8) {
        switch link.uses[Int(id)] {
        case .connectingData where link.stage == .connecting && link.data == PeerLink.none:
            link.uses[Int(id)] = .data
            link.data = id
            link.openedData = true
            sendInitial(.initialData, id)
            // The acceptor opens the meta connection; if it never does, we do.
            link.retryAt = now + connectPause()
        case .connectingMeta where link.stage == .connecting && link.meta == PeerLink.none:
            link.uses[Int(id)] = .meta
            link.meta = id
            link.resolvesConflicts = false
            sendInitial(.initialMeta, id)
        case .connectingData, .connectingMeta: close(id)
        // It had just been made when it was ordered to be closed.
        case .closing: output.commands.append(.closeLink(link: id))
        case .free, .accepted, .data, .meta:
            invariantFailed("link \(id) opened in use \(link.uses[Int(id)])")
        }
        beginIfComplete()
    }

    private mutating func sendInitial(_ packet: Packet, _ id: UInt8) {
        let at = output.bytes.count
        var bytes = output.bytes.append(ShortHeader.encodedSize)
        ShortHeader(packet: packet, length: 0).encode(into: &bytes)
        output.commands.append(
            .send(link: id, at: UInt32(at), length: UInt32(ShortHeader.encodedSize)))
    }

    /// A stranger, or the peer: the first packet tells, and it has to come soon.
    mutating func linkAccepted(_ id: UInt8) {
        invariant(link.uses[Int(id)] == .free, "accepted link \(id) is in use")
        link.uses[Int(id)] = .accepted
        link.limit(id, to: now + options.pingTimeout * 4)
        // While a connection stands, or is being cleaned up, nobody else is listened to.
        if link.stage != .connecting { close(id) }
    }

    mutating func close(_ id: UInt8) {
        guard link.uses[Int(id)] != .free, link.uses[Int(id)] != .closing else { return }
        link.uses[Int(id)] = .closing
        link.deadlines[Int(id)] = .never
        output.commands.append(.closeLink(link: id))
    }

    mutating func linkClosed(_ id: UInt8) {
        let use = link.uses[Int(id)]
        link.uses[Int(id)] = .free
        link.deadlines[Int(id)] = .never
        dropArriving(id)
        if id == link.data || id == link.meta {
            let meta = id == link.meta
            if id == link.data { link.data = PeerLink.none }
            if id == link.meta { link.meta = PeerLink.none }
            if link.stage == .connecting {
                retrySoon()
            } else if link.stage == .parameters, meta, link.data != PeerLink.none {
                // What the peer said before it left may still lie in the data connection.
                link.handshakeDeadline = now + PeerLink.lingerTime
            } else {
                connectionLost(
                    meta ? .networkFailure : .brokenPipe,
                    "the peer closed the \(meta ? "meta" : "data") connection")
            }
        } else if use == .connectingData || use == .connectingMeta {
            link.retryAt = min(link.retryAt, now + options.connectInterval)
            if isResuming {
                retrySoon()
                resumption.attemptFailed = true
            }
        }
        advanceReconnect()
    }

    /// First packet of an accepted connection.
    mutating func receiveInitial(_ id: UInt8, _ packet: UInt16, length: UInt16) {
        link.deadlines[Int(id)] = .never
        guard link.stage == .connecting, length == 0 else {
            close(id)
            return
        }
        switch packet {
        case Packet.initialData.rawValue:
            if link.data != PeerLink.none {
                // Both opened one at the same moment: both have to keep the same one.
                if link.openedData, options.keepsOwnConnection {
                    record("initial packet of the data connection crossed: keeping ours")
                    close(id)
                    return
                }
                record("initial packet of the data connection crossed: keeping the peer's")
                close(link.data)
            }
            link.uses[Int(id)] = .data
            link.data = id
            link.openedData = false
            if link.meta == PeerLink.none { link.retryAt = now }
        case Packet.initialMeta.rawValue:
            if link.meta != PeerLink.none { close(link.meta) }
            link.uses[Int(id)] = .meta
            link.meta = id
            link.resolvesConflicts = true
        default:
            record("a connection that does not begin like DRBD's was closed")
            close(id)
            return
        }
        beginIfComplete()
        tryConnecting()
    }

    /// Both connections stand: features are exchanged.
    private mutating func beginIfComplete() {
        guard link.stage == .connecting, link.data != PeerLink.none, link.meta != PeerLink.none,
            link.uses[Int(link.data)] == .data, link.uses[Int(link.meta)] == .meta
        else { return }
        for index in 0..<Self.linkLimit {
            switch link.uses[index] {
            case .connectingData, .connectingMeta, .accepted: close(UInt8(index))
            case .free, .data, .meta, .closing: break
            }
        }
        link.stage = .features
        link.begin(now)
        let discardMyData = peer.discardMyData
        peer = PeerView()
        peer.discardMyData = discardMyData
        receiver = EpochReceiver()
        resync.wasAbandoned = false
        // The kernel waits ping-timeout before it looks, and four times that for an answer.
        link.handshakeDeadline = now + options.pingTimeout * 5 + .seconds(1)
        sendFeatures()
    }

    // MARK: the end of a connection

    /// The connection is gone without a word (wire 19, "forced"): states, sockets, books, in this order.
    mutating func connectionLost(_ failure: ConnectionState, _ cause: String) {
        guard link.stage != .off, link.stage != .closing else { return }
        closeConnection(failure, cause, reconnect: true)
    }

    /// Ends in StandAlone: the nodes do not fit together, or the operator wants it.
    mutating func standAlone(_ cause: String, weight: Transition.Weight = .error) {
        guard link.stage != .off else { return }
        peer.discardMyData = false
        closeConnection(.disconnecting, cause, reconnect: false, weight: weight)
    }

    mutating func closeConnection(
        _ failure: ConnectionState, _ cause: String, reconnect: Bool,
        weight: Transition.Weight = .warning
    ) {
        let established = link.stage == .running || link.stage == .parameters
        // A handshake that is refused: the peer has to read what we sent, to come to the same end.
        let lingers = link.stage == .parameters && !reconnect
        link.reconnects = reconnect
        link.stage = .closing
        link.handshakeDeadline = .never
        link.pingSent = nil
        link.pingDeadline = .never
        link.probe = nil
        for index in 0..<Self.linkLimit {
            let id = UInt8(index)
            if lingers, id == link.data || id == link.meta {
                link.limit(id, to: now + PeerLink.lingerTime)
            } else {
                close(id)
            }
        }
        link.data = PeerLink.none
        link.meta = PeerLink.none
        if established || !reconnect {
            change(cause, weight) { $0.connection = failure }
        } else {
            record(cause, weight)
        }
        link.serial &+= 1
        abandonResync()
        dropReceived()
        loseTransfer()
        ordersLostConnection(cause)
        if bitmap.changedPageCount > 0, diskUsable { _ = writeOutBitmap() }
        advanceReconnect()
    }

    /// Every entry without proof of stability becomes bits; then those who wait for it are answered.
    private mutating func loseTransfer() {
        while let epoch = transfer.takeLost() {
            var id = epoch.head
            while id != none {
                let entry = transfer.entries[Int(id)]
                entryMissed(id)
                transfer.entries[Int(id)].settled = true
                if entry.slot != none {
                    slots[Int(entry.slot)].ackPending = false
                    settleWrite(entry.slot)
                }
                if transfer.entries[Int(id)].used { endEntryIfDone(id) }
                id = entry.next
            }
        }
        transfer.restart()
        link.filter.clear()
    }

    /// When the sockets are gone and what the peer sent is on the disk, it starts anew, or stays off.
    mutating func advanceReconnect() {
        guard link.stage == .closing, receiver.operations == 0 else { return }
        for index in 0..<Self.linkLimit where link.uses[index] != .free { return }
        if link.reconnects {
            link.stage = .connecting
            retrySoon()
            if state.connection < .wfConnection {
                change("connection cleaned up") { $0.connection = .unconnected }
                change("waiting for the peer") { $0.connection = .wfConnection }
            }
        } else {
            link.stage = .off
            change("connection cleaned up") { $0.connection = .standAlone }
        }
        orderConnectionClosed()
    }
}
