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

/// The engine's commands, performed in order. Nothing here feeds the engine: what a command leads to
/// at once is kept in `late` until all of them are done.
extension Daemon {
    @inline(__always)
    mutating func perform() {
        if engine.output.commands.count > 0 || late.count > 0 { performAll() }
    }

    private mutating func performAll() {
        while true {
            var index = 0
            while index < engine.output.commands.count {
                perform(engine.output.commands[index])
                index += 1
            }
            engine.output.removeAll()
            guard late.count > 0 else { return }
            feedLate()
        }
    }

    private mutating func feedLate() {
        // Commands that these events lead to come on top of `output`; they may add late events.
        let count = late.count
        for index in 0..<count { engine.handle(late[index], now: now) }
        late.removeFirst(count)
    }

    @inline(__always)
    private mutating func perform(_ command: Command) {
        switch command {
        case .write(let slot, let buffer, let length, let offset, let durable):
            write(slot, buffer, length, offset, durable)
        case .sendPayload(let link, let slot, let buffer, let length):
            sendPayload(linkConnections[Int(link)], slot, buffer, length)
        case .send(let link, let at, let length): send(link, Int(at), Int(length))
        case .reply(
            let client, let error, let request, let length, let cookie, let offset, let isPart):
            answer(
                clientConnections[Int(client)], request, error: error, isPart: isPart,
                length: length, NBDReply.Subject(cookie: cookie, offset: offset))
        case .receive(let client, let slot, let buffer, let length, let large):
            expect(clientConnections[Int(client)], slot, buffer, length, large)
        case .receiveFromPeer(let link, let slot, let buffer, let length, let large):
            expect(linkConnections[Int(link)], slot, buffer, length, large)
        case .read(let slot, let buffer, let length, let offset):
            read(slot, buffer, length, offset)
        case .clientPayload(let client, let slot, let buffer, let length):
            sendPayload(clientConnections[Int(client)], slot, buffer, length)
        case .flush(let purpose, let index): flush(purpose, index)
        case .zero(let slot, let length, let offset, let keep): zero(slot, length, offset, keep)
        case .skip(let client, let length): skip(clientConnections[Int(client)], length)
        case .skipFromPeer(let link, let length): skip(linkConnections[Int(link)], length)
        case .pauseClient(let client): pause(clientConnections[Int(client)])
        case .resumeClient(let client): resume(clientConnections[Int(client)])
        case .pauseLink(let link): pause(linkConnections[Int(link)])
        case .resumeLink(let link): resume(linkConnections[Int(link)])
        case .closeClient(let client):
            if clientConnections[Int(client)] != Use.none {
                drop(Int(clientConnections[Int(client)]))
            }
        case .freeClient: break
        case .connect(let link): connect(link)
        case .closeLink(let link): closeLink(link)
        case .reportDrained(let link): reportDrained(link)
        case .metaWrite(let id, let at, let length, let offset, let durable):
            metaWrite(id, Int(at), length, offset, durable)
        case .metaRead(let id, let length, let offset): metaRead(id, length, offset)
        case .closeDisk: closeDisk()
        case .recordRole(let generation): recordRole(generation)
        case .eraseRole: eraseRole()
        case .callHandler: callErrorHandler()
        case .confirmResumption: confirmResumption()
        }
    }

    // MARK: connections

    private mutating func expect(
        _ connection: UInt8, _ slot: SlotID, _ buffer: BufferID, _ length: UInt32, _ large: Bool
    ) {
        guard accepts(connection) else { return }
        uses[Int(connection)].slot = slot
        reactor.expect(
            Int(connection), bufferOffset: BufferPool.offset(of: buffer), length: Int(length),
            large: large)
    }

    private mutating func skip(_ connection: UInt8, _ length: UInt32) {
        guard accepts(connection) else { return }
        reactor.skip(Int(connection), length: Int(length))
    }

    private mutating func pause(_ connection: UInt8) {
        if connection != Use.none { uses[Int(connection)].paused = true }
    }

    private mutating func resume(_ connection: UInt8) {
        guard connection != Use.none else { return }
        uses[Int(connection)].paused = false
        uses[Int(connection)].resumed = true
        anyResumed = true
    }

    private mutating func sendPayload(
        _ connection: UInt8, _ slot: SlotID, _ buffer: BufferID, _ length: UInt32
    ) {
        guard accepts(connection) else {
            late.append(.sent(slot: slot))
            return
        }
        reactor.payload(
            Int(connection), bufferOffset: BufferPool.offset(of: buffer), length: Int(length))
        reactor.notify(Int(connection), owner: Owner.slot(slot))
    }

    private mutating func send(_ link: UInt8, _ at: Int, _ length: Int) {
        let connection = linkConnections[Int(link)]
        guard accepts(connection) else { return }
        // Nobody who answers lets this much pile up.
        guard reactor.canQueue(Int(connection), bytes: length, messages: 2) else {
            drop(Int(connection))
            return
        }
        Self.copy(engine.output, at, length, to: Int(connection), &reactor)
    }

    private static func copy(
        _ output: borrowing Output, _ at: Int, _ length: Int, to connection: Int,
        _ reactor: inout Reactor
    ) {
        reactor.send(connection, copying: output.bytes.bytes(at: at, count: length))
    }

    private mutating func closeLink(_ link: UInt8) {
        let attempt = linkAttempts[Int(link)]
        if attempt >= 0 {
            reactor.cancelConnect(Int(attempt))
            return
        }
        let connection = linkConnections[Int(link)]
        guard connection != Use.none else {
            late.append(.linkClosed(link: link))
            return
        }
        // The last packet, such as the answer to a disconnect, is to be read by the peer.
        if !uses[Int(connection)].gone { dropWhenSent(Int(connection)) }
    }

    private mutating func reportDrained(_ link: UInt8) {
        let connection = linkConnections[Int(link)]
        guard accepts(connection) else { return }
        reactor.notify(Int(connection), owner: Owner.link(link))
    }
}
