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

/// A client that negotiates: what it asked for, and what its answer waits for.
struct NBDSession {
    var handshake = NBDHandshake()
    var name: String
    /// The export was granted, but older connections still hold requests that come first.
    var waits: [(connection: Int, bytes: Int)]?
}

/// NBD connections: negotiation, requests, and the order between old and new connections (S3).
extension Daemon {
    mutating func clientAccepted(_ index: Int, unix: Bool) {
        uses[index].kind = .handshake
        let name = Sockets.peerName(reactor.descriptor(index))
        if !unix {
            var options = SocketOptions()
            options.keepAlive = SocketOptions.KeepAlive(
                idle: .seconds(10), interval: .seconds(5), count: 4)
            options.userTimeout = .seconds(30)
            do throws(SystemError) { try options.apply(to: reactor.descriptor(index)) } catch {
                log.debug("\(name): \(error)")
            }
        }
        handshakes[index] = NBDSession(name: name)
        queue(index, NBDHandshake.greeting)
        pump(index)
    }

    mutating func queue(_ index: Int, _ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        // The span lives as long as the array, which is copied before the call returns.
        let span = unsafe bytes.span.bytes
        reactor.send(index, copying: span)
    }

    // MARK: negotiation

    mutating func pumpHandshake(_ index: Int) {
        while uses[index].kind == .handshake, !uses[index].closing, !uses[index].paused {
            _ = reactor.next(index, count: 0)
            let available = reactor.available(index)
            guard available > 0 else {
                reactor.receive(index)
                return
            }
            guard var session = handshakes[index] else { return }
            let (consumed, action) = Self.offer(&session.handshake, reactor, index, available)
            _ = reactor.take(index, count: consumed)
            handshakes[index] = session
            switch action {
            case .needMore:
                reactor.receive(index)
                return
            default: answer(index, action)
            }
        }
    }

    private static func offer(
        _ handshake: inout NBDHandshake, _ reactor: borrowing Reactor, _ index: Int, _ count: Int
    ) -> (Int, NBDHandshake.Action) {
        let (consumed, action) = handshake.receive(reactor.peek(index, count: count))
        return (consumed, action)
    }

    private mutating func answer(_ index: Int, _ action: NBDHandshake.Action) {
        switch action {
        case .needMore: break
        case .reply(let bytes): queue(index, bytes)
        case .askList:
            let exports = [export]
            guard let reply = handshakes[index]?.handshake.list(exports) else { return }
            answer(index, reply)
        case .askExport(let name, let purpose): ask(index, name, purpose)
        case .transmit(let bytes): transmit(index, bytes)
        case .close(let bytes, let reason):
            log.debug("client \(handshakes[index]?.name ?? "?"): \(reason)")
            queue(index, bytes)
            dropWhenSent(index)
        }
    }

    private var export: NBDExport {
        NBDExport(
            name: directory.name, size: engine.size << 9, minimumBlock: UInt32(disk.blockSize),
            description: "repd resource \(directory.name) on \(nodeName)")
    }

    /// Why nobody may use the export now.
    private var refusal: NBDHandshake.Refusal? {
        let resource = directory.name
        if stopping { return .shuttingDown("\(resource) is being stopped") }
        guard engine.servesClients, !engine.isDemoting, !drainsClients else {
            let role = engine.servesClients ? "being demoted" : engine.state.role.name
            return .policy(
                "\(resource) is \(role) on \(nodeName): 'repctl primary \(resource)' here, or use "
                    + "the node where it is Primary")
        }
        guard engine.size > 0 else { return .policy("\(resource) has no disk on \(nodeName)") }
        return nil
    }

    /// It may be Primary again, and does not know its size yet.
    private var awaitsDisk: Bool { engine.isResuming && engine.size == 0 }

    private mutating func ask(_ index: Int, _ name: String, _ purpose: NBDHandshake.Purpose) {
        let resource = directory.name
        guard name.isEmpty || name == resource || name == "\(resource)/0" else {
            refuse(index, .unknown("no export '\(name)': this repd serves '\(resource)'"))
            return
        }
        // What metadata there is does not depend on the role.
        if purpose == .listContexts || purpose == .setContexts {
            grant(index)
            return
        }
        if awaitsDisk {
            handshakes[index]?.waits = []
            uses[index].paused = true
            return
        }
        if let refusal {
            refuse(index, refusal)
            return
        }
        if purpose == .info {
            grant(index)
            return
        }
        // Whatever lies undecoded in older connections comes before this client's requests.
        var waits: [(connection: Int, bytes: Int)] = []
        for other in 0..<Reactor.connectionCount
        where uses[other].kind == .client && !uses[other].closing {
            let bytes = reactor.available(other) + reactor.pendingInSocket(other)
            if bytes > 0 || uses[other].paused { waits.append((other, max(bytes, 1))) }
        }
        guard waits.isEmpty else {
            handshakes[index]?.waits = waits
            uses[index].paused = true
            for wait in waits {
                if uses[wait.connection].paused {
                    dropIfStalled(wait.connection)
                } else {
                    pump(wait.connection)
                }
            }
            grantWaiting()
            return
        }
        grant(index)
    }

    /// Clients whose answer waited for older connections to be read.
    mutating func grantWaiting() {
        guard !awaitsDisk else { return }
        for index in handshakes.keys.sorted() {
            guard let waits = handshakes[index]?.waits else { continue }
            // A connection that is not paused has been read as far as it made whole requests.
            let left = waits.filter {
                uses[$0.connection].kind == .client && !uses[$0.connection].closing
                    && (uses[$0.connection].paused || reactor.pendingInSocket($0.connection) > 0)
            }
            handshakes[index]?.waits = left
            guard left.isEmpty else { continue }
            handshakes[index]?.waits = nil
            uses[index].paused = false
            // Much may have happened while it waited.
            if let refusal { refuse(index, refusal) } else { grant(index) }
            uses[index].resumed = true
            anyResumed = true
        }
    }

    private mutating func grant(_ index: Int) {
        let granted = export
        guard let action = handshakes[index]?.handshake.grant(granted) else { return }
        answer(index, action)
    }

    private mutating func refuse(_ index: Int, _ refusal: NBDHandshake.Refusal) {
        log.info("client \(handshakes[index]?.name ?? "?") refused: \(refusal)")
        guard let action = handshakes[index]?.handshake.refuse(refusal) else { return }
        answer(index, action)
    }

    private mutating func transmit(_ index: Int, _ bytes: [UInt8]) {
        guard let session = handshakes[index] else { return }
        queue(index, bytes)
        guard admit(index, name: session.name) else { return }
        uses[index].mode = session.handshake.mode
        uses[index].hasContext = session.handshake.hasContext
        handshakes[index] = nil
        log.info("client \(session.name) uses the export")
        pump(index)
    }

    /// Makes a connection that of a client; it is dropped where there is no place for one.
    mutating func admit(_ index: Int, name: String) -> Bool {
        var id = 0
        // An engine's client is free when its last reply is accounted for, not when it is closed.
        while id < Self.clientLimit,
            clientConnections[id] != Use.none || engine.requestsInFlight(client: UInt8(id)) > 0
        {
            id += 1
        }
        guard id < Self.clientLimit else {
            log.warning("more than \(Self.clientLimit) clients: one was refused")
            drop(index)
            return false
        }
        clientConnections[id] = UInt8(index)
        clientNames[id] = name
        clientsSince[id] = now
        uses[index].kind = .client
        uses[index].id = UInt8(id)
        limits = export.limits
        reactor.watchHangup(index)
        return true
    }

    // MARK: sending clients away

    /// Clients past GO, as the refusal to demote lists them. The kernel device is none of them: whether
    /// somebody uses it is asked of the kernel.
    var clientList: [String] {
        var lines: [String] = []
        for id in 0..<Self.clientLimit
        where clientConnections[id] != Use.none
            && kernel.connection != Int(clientConnections[id])
        {
            let seconds = (now - clientsSince[id]).components.seconds
            let inFlight = requestsInFlight(id)
            lines.append("\(clientNames[id]), for \(seconds) s, \(inFlight) requests in flight")
        }
        return lines
    }

    /// Of an engine's client, with what is answered without the engine.
    func requestsInFlight(_ id: Int) -> Int {
        let connection = clientConnections[id]
        let pending = connection == Use.none ? 0 : Int(uses[Int(connection)].pending)
        return engine.requestsInFlight(client: UInt8(id)) + pending
    }

    /// A client that sends nothing for so long, and has nothing in flight, is closed.
    private static let drainTime = Duration.milliseconds(100)

    /// Lets what is in flight end, answers what else arrives with ESHUTDOWN, and closes who has gone
    /// quiet. - Returns: whether nobody is left.
    mutating func drainClients(force: Bool) -> Bool {
        var left = false
        for id in 0..<Self.clientLimit where clientConnections[id] != Use.none {
            left = true
            let index = Int(clientConnections[id])
            if force { drop(index) }
            if uses[index].drainsUntil == .never { stillDrains(index) }
            guard !uses[index].closing, requestsInFlight(id) == 0, now >= uses[index].drainsUntil
            else { continue }
            dropWhenSent(index)
        }
        return !left
    }

    /// The client has just sent something.
    mutating func stillDrains(_ index: Int) { uses[index].drainsUntil = now + Self.drainTime }

    // MARK: clients that have finished sending

    /// The client sends nothing more. What was in flight is answered; then the connection is closed.
    mutating func clientFinished(_ index: Int) {
        // Nobody is there to read answers.
        guard !reactor.isAbandoned(index) else {
            drop(index)
            return
        }
        guard !uses[index].finished else { return }
        uses[index].finished = true
        finishedClients += 1
        closeFinished()
    }

    mutating func closeFinished() {
        for id in 0..<Self.clientLimit where clientConnections[id] != Use.none {
            let index = Int(clientConnections[id])
            guard uses[index].finished, !uses[index].closing else { continue }
            // A write that did not come to its end never will.
            let unfinished = engine.isReceiving(client: UInt8(id)) ? 1 : 0
            if requestsInFlight(id) == unfinished { dropWhenSent(index) }
        }
    }
}
