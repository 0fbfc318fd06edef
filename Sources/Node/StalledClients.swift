import Logging
import Reactor
import Replication
import Support

/// Clients that do not read their answers while others wait for the buffers or the turn that they
/// hold: a stalled client loses only itself.
struct StallWatch {
    /// How often it is looked, and after how many looks without any progress a client is given up:
    /// 10 to 12 s after it stopped reading.
    static let interval = Duration.seconds(2)
    static let patience: UInt8 = 5

    var checkAt = Instant.never
    /// By connection: how far its answers had got at the last check, and how many checks in a row have
    /// found it there.
    var progress = [UInt32?](repeating: nil, count: Reactor.connectionCount)
    var unmoved = [UInt8](repeating: 0, count: Reactor.connectionCount)

    func isStalled(_ index: Int) -> Bool { unmoved[index] >= Self.patience }

    mutating func forget(_ index: Int) {
        progress[index] = nil
        unmoved[index] = 0
    }
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
        for index in 0..<Reactor.connectionCount {
            let progress = isClient(index) ? reactor.sendProgress(index) : nil
            if stalls.checkAt != .never, progress != nil, progress == stalls.progress[index] {
                stalls.unmoved[index] = min(stalls.unmoved[index] + 1, StallWatch.patience)
            } else {
                stalls.unmoved[index] = 0
            }
            stalls.progress[index] = progress
        }
        stalls.checkAt = now + StallWatch.interval
        dropStalled(someoneWaits)
    }

    /// Someone new waits for this client's requests to be decoded: if it is known to read nothing, it
    /// is not given another chance.
    mutating func dropIfStalled(_ index: Int) {
        guard stalls.checkAt != .never, stalls.isStalled(index), isClient(index),
            reactor.sendProgress(index) == stalls.progress[index]
        else { return }
        dropStalled(index)
    }

    private func isClient(_ index: Int) -> Bool {
        uses[index].kind == .client && !uses[index].closing
    }

    private mutating func dropStalled(_ someoneWaits: Bool) {
        let othersWait =
            someoneWaits
            || (0..<Reactor.connectionCount).contains {
                isClient($0) && uses[$0].paused && !stalls.isStalled($0)
            }
        guard othersWait else { return }
        for index in 0..<Reactor.connectionCount where stalls.isStalled(index) {
            dropStalled(index)
        }
    }

    private mutating func dropStalled(_ index: Int) {
        let seconds = StallWatch.interval.components.seconds * Int64(StallWatch.patience)
        log.warning(
            "client \(clientNames[Int(uses[index].id)]) has not read its answers for \(seconds) s while others wait: dropped"
        )
        stalls.forget(index)
        drop(index)
    }
}
