import Control
import DRBDWire
import Glibc
import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// The peer's two connections: opened, accepted, fed to the engine.
extension Daemon {
    private var peerOptions: SocketOptions {
        var options = SocketOptions()
        options.noDelay = true
        options.priority = 4
        if let set = settings?.options {
            if set.sendBufferSize > 0 { options.sendBuffer = set.sendBufferSize }
            if set.receiveBufferSize > 0 { options.receiveBuffer = set.receiveBufferSize }
        }
        return options
    }

    mutating func connect(_ link: UInt8) {
        guard let settings,
            let remote = SocketAddress(
                host: settings.peerAddress.host, port: settings.peerAddress.port)
        else {
            late.append(.linkClosed(link: link))
            return
        }
        let local = SocketAddress(host: settings.localAddress.host, port: 0)
        do throws(SystemError) {
            let attempt = try reactor.connect(
                from: local, to: remote, timeout: engine.options.connectInterval,
                options: peerOptions)
            linkAttempts[Int(link)] = Int16(attempt)
        } catch {
            cannotConnect("\(error)")
            late.append(.linkClosed(link: link))
        }
    }

    private func link(ofAttempt attempt: Int) -> UInt8? {
        for link in 0..<linkAttempts.count where linkAttempts[link] == Int16(attempt) {
            return UInt8(link)
        }
        return nil
    }

    mutating func linkConnected(_ attempt: Int, _ descriptor: Int32) {
        guard let link = link(ofAttempt: attempt) else {
            close(descriptor)
            return
        }
        linkAttempts[Int(link)] = -1
        log.debug("peer connection \(link) opened")
        guard let index = reactor.add(descriptor) else {
            close(descriptor)
            tell(.linkClosed(link: link))
            return
        }
        use(index, link)
        tell(.linkOpened(link: link))
        pump(index)
    }

    mutating func linkFailed(_ attempt: Int, _ errno: Int32) {
        guard let link = link(ofAttempt: attempt) else { return }
        linkAttempts[Int(link)] = -1
        if errno != ECANCELED { cannotConnect("\(SystemError("connect", errno: errno))") }
        tell(.linkClosed(link: link))
    }

    /// Told once for each cause; it comes again every few seconds.
    private mutating func cannotConnect(_ cause: String) {
        guard let settings else { return }
        let text = "cannot connect to \(settings.peerAddress): \(cause)"
        guard connectTrouble != text else { return }
        connectTrouble = text
        log.notice("\(text)")
        remember(text)
    }

    private mutating func use(_ index: Int, _ link: UInt8) {
        uses[index] = Use()
        uses[index].kind = .link
        uses[index].id = link
        linkConnections[Int(link)] = UInt8(index)
    }

    mutating func peerAccepted(_ index: Int) {
        do throws(SystemError) { try peerOptions.apply(to: reactor.descriptor(index)) } catch {
            log.debug("peer connection: \(error)")
        }
        guard let link = engine.freeLinkNumber() else {
            reactor.close(index)
            return
        }
        use(index, link)
        tell(.linkAccepted(link: link))
        pump(index)
    }

    mutating func pumpLink(_ index: Int) {
        while !uses[index].paused, !uses[index].closing {
            switch reactor.next(index, count: 1) {
            case .payload: tell(.payload(slot: uses[index].slot))
            case .bytes:
                let count = reactor.available(index)
                let used = Self.feed(&engine, reactor, index, count, uses[index].id, now)
                _ = reactor.take(index, count: used)
                perform()
                if used == 0 {
                    if !uses[index].paused { reactor.receive(index) }
                    return
                }
            case .more:
                reactor.receive(index)
                return
            }
        }
    }

    private static func feed(
        _ engine: inout ReplicationEngine, _ reactor: borrowing Reactor, _ index: Int,
        _ count: Int, _ link: UInt8, _ now: Instant
    ) -> Int {
        engine.receive(link: link, bytes: reactor.peek(index, count: count), now: now)
    }

    // MARK: listening

    /// Listens while there is a connection to have; a refused address is the operator's to solve.
    mutating func listenForPeer() throws(SystemError) {
        guard peerListener < 0, let settings else { return }
        guard
            let address = SocketAddress(
                host: settings.localAddress.host, port: settings.localAddress.port)
        else {
            throw SystemError("bind", "\(settings.localAddress)", errno: EINVAL)
        }
        let name = Self.listenerName(settings)
        let descriptor: Int32
        if let kept = supervision.take(name) {
            descriptor = kept
        } else {
            descriptor = try Sockets.listenTCP(address)
            try supervision.keep(descriptor, as: name)
        }
        peerListener = try reactor.addListener(descriptor)
    }

    /// StandAlone: nobody is to believe that we listen.
    mutating func stopListening() {
        guard peerListener >= 0, !engine.hasConnection else { return }
        reactor.removeListener(peerListener)
        peerListener = -1
        guard let settings else { return }
        do throws(SystemError) { try supervision.forget(Self.listenerName(settings)) } catch {
            log.error("the supervisor keeps the peer's port: \(error)")
        }
    }

    private static func listenerName(_ settings: ResourceSettings) -> String {
        "peer \(settings.localAddress)"
    }
}
