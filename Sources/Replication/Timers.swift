import DRBDWire
package import Support

/// What happens because time has passed (reference, wire section 17).
extension ReplicationEngine {
    /// When `tick` is to be called next, at the latest.
    package var nextDeadline: Instant {
        var deadline = min(link.handshakeDeadline, link.pingDeadline, link.nextDeadline)
        if link.stage == .connecting { deadline = min(deadline, link.retryAt) }
        if link.stage == .parameters || link.stage == .running {
            if link.pingSent == nil {
                deadline = min(deadline, max(link.lastMeta, link.lastData) + pace.pingInterval)
            }
            deadline = min(deadline, slowPeerDeadline)
            if transfer.open.count > 0 {
                deadline = min(deadline, transfer.open.opened + pace.epochAge)
                deadline = min(deadline, link.lastDataSent + pace.idleTime)
            } else if transfer.epochCount > 1, needsProof {
                deadline = min(deadline, link.lastDataSent + pace.idleTime)
            }
        }
        deadline = min(deadline, order.deadline, watch.at)
        deadline = min(deadline, resync.finishBefore)
        if held.count > 0 { deadline = min(deadline, resync.exchangeLimit) }
        if resync.stage == .targetRunning || resync.stage == .sourceRunning {
            if meta.bitmapWanted == meta.bitmapDurable {
                deadline = min(deadline, resync.nextWriteOut)
            }
            if options.resyncRateLimit != nil, resync.allowance <= 0 {
                deadline = min(deadline, resync.allowanceAt + .milliseconds(100))
            }
        }
        return deadline
    }

    /// The oldest write or barrier without its answer is this old: the peer is given up.
    private var slowPeerDeadline: Instant {
        guard let limit = pace.slowPeer else { return .never }
        for index in 0..<transfer.epochCount {
            let epoch = transfer[epoch: index]
            if epoch.acknowledged || epoch.count == 0 { continue }
            return epoch.opened + limit
        }
        return .never
    }

    package mutating func tick(now: Instant) {
        self.now = now
        if now >= link.handshakeDeadline {
            if link.stage == .features {
                connectionLost(.networkFailure, "the peer did not answer the handshake in time")
            } else if link.stage == .parameters {
                connectionLost(.networkFailure, "the peer closed the meta connection")
            }
        }
        if now >= link.nextDeadline { closeLate() }
        tryConnecting()
        tickPing()
        if link.stage == .running, now >= slowPeerDeadline {
            connectionLost(
                .timeout,
                "the peer did not finish a write within ko-count \(options.koCount) x timeout "
                    + "\(options.timeout)")
        }
        if link.stage == .running, held.count > 0, now >= resync.exchangeLimit {
            connectionLost(
                .timeout,
                "the peer did not send its bitmap within ko-count \(options.koCount) x timeout "
                    + "\(options.timeout), and writes wait for it")
        }
        if now >= watch.at { lookAtDisk() }
        tickOrders()
    }

    private mutating func closeLate() {
        for index in 0..<Self.linkLimit where now >= link.deadlines[index] {
            if link.uses[index] == .accepted { record("a connection that said nothing was closed") }
            close(UInt8(index))
        }
        link.findNextDeadline()
    }

    private mutating func tickPing() {
        guard link.stage == .parameters || link.stage == .running else { return }
        if let sent = link.pingSent {
            guard now >= link.pingDeadline else { return }
            // A packet header on either socket is life; only P_PING_ACK ends the waiting.
            let life = max(link.lastMeta, link.lastData)
            if life > sent, life + options.pingTimeout > now {
                link.pingDeadline = life + options.pingTimeout
            } else {
                connectionLost(.networkFailure, "PingAck did not arrive in time")
            }
        } else if now >= max(link.lastMeta, link.lastData) + options.pingInterval {
            sendPing()
        }
    }
}
