import Logging
import Reactor
import Replication
import Support

/// Clients that do not read their answers while others wait for the buffers or the turn that they
/// hold: a stalled client loses only itself.
struct StallWatch {
    /// A client is given up between one and two of these after it stopped reading.
    static let interval = Duration.seconds(10)

    var checkAt = Instant.never
    /// By connection: how far its answers had got at the last check.
    var progress = [UInt32?](repeating: nil, count: Reactor.connectionCount)
}

extension Daemon {
    mutating func watchClients() {
        // Asked at every turn: the time first.
        guard now >= stalls.checkAt || stalls.checkAt == .never else { return }
        let someoneWaits = handshakes.values.contains { $0.waits != nil }
        guard engine.clientsWait || someoneWaits else {
            stalls.checkAt = .never
            return
        }
        if stalls.checkAt != .never { dropStalled(someoneWaits) }
        stalls.checkAt = now + StallWatch.interval
        for index in 0..<Reactor.connectionCount {
            stalls.progress[index] = isClient(index) ? reactor.sendProgress(index) : nil
        }
    }

    private func isClient(_ index: Int) -> Bool {
        uses[index].kind == .client && !uses[index].closing
    }

    private mutating func dropStalled(_ someoneWaits: Bool) {
        var stalled: [Int] = []
        var othersWait = someoneWaits
        for index in 0..<Reactor.connectionCount where isClient(index) {
            if let progress = reactor.sendProgress(index), progress == stalls.progress[index] {
                stalled.append(index)
            } else if uses[index].paused {
                othersWait = true
            }
        }
        guard othersWait else { return }
        for index in stalled {
            log.warning(
                "client \(clientNames[Int(uses[index].id)]) has not read its answers for \(StallWatch.interval) while others wait: dropped"
            )
            drop(index)
        }
    }
}
