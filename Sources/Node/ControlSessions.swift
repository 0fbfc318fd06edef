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

/// One connection of repctl: what it has sent and not yet a whole line.
struct ControlSession {
    var connection: Int
    var lines = LineBuffer()
}

/// A command that answers when something has come about.
struct Waiter {
    enum Kind { case connect, sync }

    var session: Int
    var kind: Kind
    var deadline: Instant
    var nextReport: Instant
}

/// The control socket: lines of JSON in, answers out (Control's messages).
extension Daemon {
    mutating func controlAccepted(_ index: Int) {
        uses[index].kind = .control
        var place = 0
        while place < controls.count, controls[place] != nil { place += 1 }
        if place == controls.count { controls.append(nil) }
        guard place < 64 else {
            log.warning("more than 64 control connections: one was refused")
            drop(index)
            return
        }
        controls[place] = ControlSession(connection: index)
        uses[index].id = UInt8(place)
        pump(index)
    }

    mutating func controlClosed(_ place: Int) {
        guard place < controls.count else { return }
        controls[place] = nil
        waiters.removeAll { $0.session == place }
        restoration?.deferred.removeAll { $0.session == place }
        // What has not begun does not begin.
        if jobs.count > 1 { jobs = [jobs[0]] + jobs.dropFirst().filter { $0.session != place } }
        for index in 0..<jobs.count where jobs[index].session == place {
            // The command goes on; nobody is told (F22).
            jobs[index].session = nil
        }
    }

    mutating func pumpControl(_ index: Int) {
        let place = Int(uses[index].id)
        while !uses[index].closing {
            _ = reactor.next(index, count: 0)
            let count = reactor.available(index)
            guard count > 0 else {
                reactor.receive(index)
                return
            }
            let bytes = Self.copy(reactor, index, count)
            _ = reactor.take(index, count: count)
            do throws(ControlError) {
                try controls[place]?.lines.append(bytes)
                while let line = try controls[place]?.lines.next() {
                    // Whoever gave up while this process was stopped or busy does not want it now.
                    guard !reactor.isAbandoned(index) else {
                        log.notice("a command was not carried out: its sender is gone")
                        return drop(index)
                    }
                    command(try ControlCoding.decodeRequest(line).command, place)
                }
            } catch {
                send(place, ControlReply(exitCode: 20, message: "\(error)"))
                dropWhenSent(index)
            }
        }
    }

    static func copy(_ reactor: borrowing Reactor, _ index: Int, _ count: Int) -> [UInt8] {
        let span = reactor.peek(index, count: count)
        // The bytes are copied before anything else is received.
        return unsafe span.withUnsafeBytes { unsafe Array($0) }
    }

    mutating func send(_ session: Int?, _ reply: ControlReply) {
        guard let session, session < controls.count, let control = controls[session] else { return }
        let index = control.connection
        guard !uses[index].gone, reactor.canQueue(index) else { return }
        do throws(ControlError) {
            queue(index, try ControlCoding.encode(reply))
        } catch {
            log.error("a control reply could not be encoded: \(error)")
        }
    }

    // MARK: commands

    mutating func command(_ command: ControlCommand, _ session: Int) {
        guard !deferred(command, session) else { return }
        switch command {
        case .ping: send(session, ControlReply())
        case .status: send(session, ControlReply(status: snapshot()))
        case .waitConnect(let timeout): wait(session, .connect, timeout)
        case .waitSync(let timeout): wait(session, .sync, timeout)
        case .up(let new):
            guard adopt(new, session) else { return }
            enqueue(
                session,
                [
                    .reserveDevice(new), .openDisk(new), .attach, .listen,
                    .order(.connect(discardMyData: false)),
                ])
        case .attach(let new):
            guard adopt(new, session) else { return }
            enqueue(session, [.openDisk(new), .attach])
        case .detach(let force):
            wantedDisk = nil
            enqueue(session, [.order(.detach(force: force)), .awaitRelease])
        case .connect(let new, let discard):
            guard adopt(new, session) else { return }
            enqueue(session, [.listen, .order(.connect(discardMyData: discard))])
        case .disconnect(let force): enqueue(session, [.order(.disconnect(force: force))])
        case .primary(let force):
            enqueue(session, [.order(.primary(force: force)), .attachDevice])
        case .secondary(let disconnect):
            enqueue(
                session,
                Job.demotion(
                    force: false,
                    clients: disconnect ? .leave : .stay(option: "--disconnect-clients")))
        case .invalidate: enqueue(session, [.order(.invalidate)])
        case .outdate: enqueue(session, [.order(.outdate)])
        case .upgrade:
            guard supervision.isSupervised else {
                send(
                    session,
                    ControlReply(
                        exitCode: 10,
                        message: "\(directory.name): this repd has no supervisor that could start "
                            + "another one: 'repctl down' and 'repctl up'"))
                return
            }
            enqueue(session, [.quiesce, .makeWay])
        case .down(let force):
            wantedDisk = nil
            enqueue(
                session,
                Job.demotion(force: force, clients: force ? .leave : .stay(option: "--force")) + [
                    .disconnectIfNeeded, .detachIfNeeded, .awaitRelease, .unreserveDevice, .exit,
                ])
        }
    }

    /// Takes over settings; those of another resource, or of a disk in use, are refused.
    private mutating func adopt(_ new: ResourceSettings, _ session: Int) -> Bool {
        guard new.resource == directory.name else {
            send(
                session,
                ControlReply(
                    exitCode: 20,
                    message: "this repd serves \(directory.name), not \(new.resource)"))
            return false
        }
        if let old = settings, engine.isDiskOpen,
            old.disk != new.disk || old.metaDisk != new.metaDisk
        {
            send(
                session,
                ControlReply(
                    exitCode: 10,
                    message: "\(new.resource): attached to \(old.disk)\(old.metaDisk.suffix); the "
                        + "configuration now names \(new.disk)\(new.metaDisk.suffix): detach first")
            )
            return false
        }
        if let old = settings, engine.hasConnection,
            old.localAddress != new.localAddress || old.peerAddress != new.peerAddress
        {
            send(
                session,
                ControlReply(
                    exitCode: 10,
                    message: "\(new.resource): the addresses have changed: disconnect first"))
            return false
        }
        settings = new
        savedState = nil
        do throws(SystemError) { try supervision.limit(new.options.resumeLimit) } catch {
            log.debug("\(error)")
        }
        var options = options(new)
        if engine.hasConnection { options.keepConnection(of: engine.options) }
        engine.options = options
        if let problem = listenForClients(new) {
            send(session, ControlReply(exitCode: 10, message: problem))
            return false
        }
        return true
    }

    /// TCP addresses for NBD clients, besides the socket in the run directory.
    ///
    /// - Returns: what is in the way.
    mutating func listenForClients(_ new: ResourceSettings) -> String? {
        guard nbdListeners.isEmpty else { return nil }
        for text in new.nbdListen {
            do throws(SystemError) {
                let name = "nbd \(text)"
                let descriptor: Int32
                if let kept = supervision.take(name) {
                    descriptor = kept
                } else {
                    guard let address = Self.address(text) else {
                        throw SystemError("bind", text, errno: 22)
                    }
                    descriptor = try Sockets.listenTCP(address)
                    try supervision.keep(descriptor, as: name)
                }
                nbdDescriptors.append(descriptor)
                nbdListeners.append(try reactor.addListener(descriptor))
            } catch {
                return "nbd-listen \(text): \(error)"
            }
        }
        return nil
    }

    private static func address(_ text: String) -> SocketAddress? {
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...])
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        return SocketAddress(host: host, port: port)
    }

    // MARK: waiting

    private mutating func wait(_ session: Int, _ kind: Waiter.Kind, _ timeout: Int?) {
        let deadline = timeout.map { $0 == 0 ? Instant.never : now + .seconds($0) } ?? .never
        waiters.append(
            Waiter(session: session, kind: kind, deadline: deadline, nextReport: now))
        advanceWaiters()
    }

    mutating func advanceWaiters() {
        guard !waiters.isEmpty else { return }
        var left: [Waiter] = []
        for var waiter in waiters {
            let connection = engine.state.connection
            let done =
                switch waiter.kind {
                case .connect: connection >= .connected || connection == .standAlone
                case .sync: connection == .connected || connection == .standAlone
                }
            if done {
                send(waiter.session, ControlReply(status: snapshot()))
            } else if now >= waiter.deadline {
                send(
                    waiter.session,
                    ControlReply(
                        exitCode: 5,
                        message: "\(directory.name): time-out in state \(connection.name)"
                            + (connectTrouble.map { " (\($0))" } ?? ""),
                        status: snapshot()))
            } else {
                if now >= waiter.nextReport {
                    waiter.nextReport = now + .seconds(1)
                    send(
                        waiter.session,
                        ControlReply(
                            status: snapshot(), progress: connection.name, isFinal: false))
                }
                left.append(waiter)
            }
        }
        waiters = left
    }
}
