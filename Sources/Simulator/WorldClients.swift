import DRBDWire
import Replication
import Support

/// A request of a client, and what the world knows of it. Moments are counts of `World.clock`.
struct ClientOperation: BitwiseCopyable {
    static let never = UInt32.max

    var kind = ClientRequest.Operation.write
    var client: UInt8 = 0
    var node: UInt8 = 0
    var durable = false
    var offset = 0
    var length = 0
    /// The process at the peer when the client asked; 0: none.
    var peerLife: UInt32 = 0
    /// When the client asked.
    var submitted: UInt32 = 0
    /// When it could change nothing more: answered, or its engine is done with it.
    var ended = never
    /// Answered without error.
    var acked = false
    var answered = false
    /// Acknowledged by a Primary whose peer had everything.
    var wasMirrored = false
    /// When a part of it went to the disk, the peer was not sent it.
    var beganAlone = false
    /// The peer answered a part of it with P_NEG_ACK.
    var wasRefused = false

    var changes: Bool { kind == .write || kind == .trim || kind == .writeZeroes }
}

/// An NBD connection, or none at the moment.
struct SimulatedClient {
    var node = 0
    /// Its number at the engine; -1: not connected.
    var number = -1
    var serial: UInt32 = 0
    /// Sent and not yet decoded.
    var socket: [UInt32] = []
    /// Sent and not yet answered.
    var waiting: [UInt32] = []
    var isPaused = false
    /// The write whose payload is coming in.
    var current: UInt32 = 0
    var progress = 0
    var slot = Pipe.noSlot
    var place = 0
    var length = 0
    /// The operation whose payload is being given to it.
    var reading: UInt32 = 0
    var readProgress = 0
    /// Directed scenarios give requests themselves.
    var isManual = false
}

extension World {
    func addClient(_ index: Int, manual: Bool = false) {
        var client = SimulatedClient()
        client.isManual = manual
        clients.append(client)
        schedule(.clientWakes(client: UInt8(index)), in: spread(profile.pause))
    }

    private func client(at node: SimulatedNode, _ number: UInt8) -> Int? {
        let index = Int(node.clientOf[Int(number)])
        return index >= 0 ? index : nil
    }

    /// Connects where the volume is served, asks for something.
    func clientWakes(_ index: Int) {
        if !clients[index].isManual {
            schedule(.clientWakes(client: UInt8(index)), in: spread(profile.pause))
        }
        if clients[index].number < 0 { connectClient(index) }
        guard isActive, !clients[index].isManual, clients[index].number >= 0 else { return }
        let room = profile.depth - clients[index].waiting.count
        guard room > 0 else { return }
        for _ in 0..<min(room, pick(4) + 1) { _ = submit(index, randomRequest()) }
    }

    private func connectClient(_ index: Int) {
        for node in nodes
        where node.isAlive && director.admits(node.index)
            && (node.engine.state.role == .primary || node.engine.isResuming)
        {
            guard let number = node.clientOf.firstIndex(of: -1) else { continue }
            node.clientOf[number] = Int16(index)
            clients[index].node = Int(node.index)
            clients[index].number = number
            clients[index].serial += 1
            clients[index].isPaused = false
            clients[index].current = 0
            clients[index].slot = Pipe.noSlot
            clients[index].reading = 0
            return
        }
    }

    private func randomRequest() -> ClientOperation {
        var operation = ClientOperation()
        let sectors = checker.volumeSectors
        let dice = random.next() % 100
        switch dice {
        case 0..<55: operation.kind = .write
        case 55..<80: operation.kind = .read
        case 80..<90: operation.kind = .flush
        case 90..<95: operation.kind = .trim
        default: operation.kind = .writeZeroes
        }
        guard operation.kind != .flush else { return operation }
        let area =
            random.chance(3, in: 4) ? min(profile.hotBlocks * 8, sectors) : sectors
        var length = random.chance(3, in: 4) ? 8 : pick(profile.largestWrite >> 9) + 1
        var first = pick(area)
        if random.chance(3, in: 4) {
            first = first / 8 * 8
            length = (length + 7) / 8 * 8
        }
        if operation.kind == .trim || operation.kind == .writeZeroes {
            length = random.chance(1, in: 40) ? 20_000 : length * (pick(4) + 1)
        }
        length = min(length, sectors - first)
        operation.offset = first << 9
        operation.length = max(length, 1) << 9
        operation.durable = operation.changes && random.chance(1, in: 8)
        return operation
    }

    /// The client asks; returns the operation's number.
    func submit(_ index: Int, _ request: ClientOperation) -> UInt32 {
        var operation = request
        operation.client = UInt8(index)
        operation.node = UInt8(clients[index].node)
        let peer = nodes[1 - clients[index].node]
        operation.peerLife = peer.isAlive ? peer.life : 0
        clock += 1
        operation.submitted = clock
        let number = UInt32(operations.count)
        operations.append(operation)
        if operation.changes { checker.submitted(number, operation) }
        if operation.kind == .read { openReads.append(number) }
        clients[index].socket.append(number)
        clients[index].waiting.append(number)
        decode(index)
        return number
    }

    /// The node takes requests from the client's socket until one has a payload to come.
    func decode(_ index: Int) {
        while clients[index].number >= 0, !clients[index].isPaused, clients[index].current == 0,
            !clients[index].socket.isEmpty
        {
            let node = nodes[clients[index].node]
            guard node.isAlive else { return }
            let number = clients[index].socket.removeFirst()
            let operation = operations[Int(number)]
            let request = ClientRequest(
                operation.kind, offset: UInt64(operation.offset),
                length: UInt64(operation.length), cookie: UInt64(number),
                options: operation.durable ? .durable : [])
            note(
                node,
                "client \(index) asks #\(number) \(operation.kind)"
                    + "\(operation.durable ? " FUA" : "") sector \(operation.offset >> 9)"
                    + "+\(operation.length >> 9)")
            if operation.kind == .write {
                clients[index].current = number
                clients[index].progress = 0
            }
            report.requests += 1
            handle(node, .request(client: UInt8(clients[index].number), request))
        }
    }

    var oldestOpenRead: UInt32 {
        openReads.reduce(UInt32.max) { min($0, operations[Int($1)].submitted) }
    }

    // MARK: payload of writes

    func receive(
        _ node: SimulatedNode, _ number: UInt8, _ slot: UInt16, _ buffer: BufferID, _ length: Int
    ) {
        guard let index = client(at: node, number) else {
            violate("I-14", "a receive for client \(number), which is gone")
            return
        }
        clients[index].slot = slot
        clients[index].place = BufferPool.offset(of: buffer)
        clients[index].length = length
        schedule(
            .payload(client: UInt8(index), serial: clients[index].serial),
            in: random.chance(3, in: 4) ? .nanoseconds(1) : spread(profile.wireTime))
    }

    func payloadComes(_ index: Int, _ serial: UInt32) {
        guard clients[index].serial == serial, clients[index].number >= 0,
            clients[index].slot != Pipe.noSlot
        else { return }
        let node = nodes[clients[index].node]
        let number = clients[index].current
        let operation = operations[Int(number)]
        let slot = clients[index].slot
        node.buffers.fill(
            clients[index].place, operation: UInt64(number),
            sector: UInt64((operation.offset + clients[index].progress) >> 9),
            sectors: clients[index].length >> 9)
        clients[index].slot = Pipe.noSlot
        advancePayload(index, clients[index].length)
        handle(node, .payload(slot: slot))
        decode(index)
    }

    private func advancePayload(_ index: Int, _ length: Int) {
        clients[index].progress += length
        let operation = operations[Int(clients[index].current)]
        if clients[index].progress >= operation.length { clients[index].current = 0 }
    }

    func skip(_ node: SimulatedNode, _ number: UInt8, _ length: Int) {
        guard let index = client(at: node, number) else { return }
        advancePayload(index, length)
    }

    func pauseClient(_ node: SimulatedNode, _ number: UInt8, _ isPaused: Bool) {
        guard let index = client(at: node, number) else { return }
        clients[index].isPaused = isPaused
        if !isPaused { schedule(.decode(client: UInt8(index)), in: .nanoseconds(1)) }
    }

    // MARK: replies

    func reply(
        _ node: SimulatedNode, _ number: UInt8, _ request: UInt16, _ cookie: UInt64, _ error: UInt8
    ) {
        let operation = Int(cookie)
        schedule(
            .replied(node: node.index, life: node.life, request: request),
            in: .nanoseconds(Int64(random.next() % 20_000)))
        node.replies[Int(request)] = SimulatedNode.Reply(
            operation: UInt32(operation), number: number, error: error)
        guard let index = client(at: node, number),
            clients[index].waiting.contains(UInt32(operation))
        else {
            violate("I-14", "a reply to #\(operation) for client \(number), which did not ask")
            return
        }
        note(node, "replies to #\(operation)\(error == 0 ? "" : " error \(error)")")
        if ![0, 5, 22, 28, 108].contains(error) { violate("I-14", "errno \(error) in a reply") }
        if operations[operation].answered { violate("I-14", "#\(operation) is answered twice") }
        operations[operation].answered = true
        if error == 0 {
            checkAcceptable(node, operations[operation], operation)
            checkFailedDisk(node, UInt32(operation))
        }
        clients[index].reading = error == 0 ? UInt32(operation) : 0
        clients[index].readProgress = 0
    }

    func clientPayload(
        _ node: SimulatedNode, _ number: UInt8, _ slot: UInt16, _ buffer: BufferID, _ length: Int
    ) {
        guard let index = client(at: node, number) else {
            violate("I-14", "payload for client \(number), which is gone")
            return
        }
        node.leaving[Int(slot)] = SimulatedNode.Leaving(
            isClient: true, operation: clients[index].reading,
            progress: clients[index].readProgress, place: BufferPool.offset(of: buffer),
            length: length)
        clients[index].readProgress += length
        schedule(
            .sent(node: node.index, life: node.life, slot: slot),
            in: .nanoseconds(Int64(random.next() % 30_000)))
    }

    /// The bytes of a read leave now: they have to be right now.
    func clientPayloadLeft(_ node: SimulatedNode, _ slot: UInt16) {
        let leaving = node.leaving[Int(slot)]
        node.leaving[Int(slot)].isClient = false
        guard openReads.contains(leaving.operation) else { return }
        let operation = operations[Int(leaving.operation)]
        checker.checkRead(
            node: Int(node.index), bytes: node.buffers, at: leaving.place,
            sector: (operation.offset + leaving.progress) >> 9, sectors: leaving.length >> 9,
            submitted: operation.submitted, what: "read #\(leaving.operation)", world: self)
        if leaving.progress + leaving.length == operation.length { closeRead(leaving.operation) }
    }

    func replyLeft(_ node: SimulatedNode, _ life: UInt32, _ request: UInt16) {
        guard node.isAlive, node.life == life else { return }
        let reply = node.replies[Int(request)]
        let number = Int(reply.operation)
        if let index = client(at: node, reply.number),
            let place = clients[index].waiting.firstIndex(of: reply.operation)
        {
            clients[index].waiting.remove(at: place)
            clock += 1
            operations[number].ended = clock
            operations[number].acked = reply.error == 0
            if reply.error != 0 {
                report.errors += 1
                closeRead(reply.operation)
            }
            if reply.error == 0 { acknowledge(node, reply.operation) }
        }
        handle(node, .replied(request: request))
    }

    /// The peer could not write this range: whoever asked for it has only one copy.
    func refuse(_ first: Int, _ bytes: Int) {
        for client in clients {
            for number in client.waiting {
                let operation = operations[Int(number)]
                guard operation.offset < first + bytes,
                    first < operation.offset + operation.length
                else { continue }
                operations[Int(number)].wasRefused = true
            }
        }
    }

    private func acknowledge(_ node: SimulatedNode, _ number: UInt32) {
        let state = node.engine.state
        let peerHasAll = state.connection >= .connected && state.peerDisk == .upToDate
        let operation = operations[Int(number)]
        switch operation.kind {
        case .write, .trim, .writeZeroes:
            // A refusal comes on the other socket than the state that explains it.
            let mirrored = peerHasAll && !operation.wasRefused
            operations[Int(number)].wasMirrored = mirrored
            // A peer that has died since may have lost it, and nobody has noticed yet.
            let peer = other(node)
            let peerHasIt = mirrored && peer.isAlive && peer.life == operation.peerLife
            checker.acked(number, node: Int(node.index), peerHasIt: peerHasIt, world: self)
        case .flush:
            let peerToo = peerHasAll && node.engine.options.waitsForPeer
            checker.flushed(
                node: Int(node.index), since: operation.submitted, peerToo: peerToo,
                settled: peerHasAll && node.engine.everythingIsStable
                    && node.engine.bitmap.setCount == 0, world: self)
        case .read: break
        }
    }

    // MARK: ends

    /// The client goes away, with whatever it has asked for.
    func clientDies(_ index: Int) {
        guard clients[index].number >= 0 else { return }
        let node = nodes[clients[index].node]
        let number = clients[index].number
        note(node, "client \(index) dies with \(clients[index].waiting.count) requests")
        for operation in clients[index].socket { end(operation) }
        for operation in clients[index].waiting { node.orphans[number].append(operation) }
        node.clientOf[number] = -2
        forgetClient(index)
        handle(node, .clientClosed(client: UInt8(number)))
    }

    /// Nothing of the read leaves any more.
    private func closeRead(_ number: UInt32) {
        guard operations[Int(number)].kind == .read else { return }
        openReads.removeAll { $0 == number }
    }

    private func end(_ number: UInt32) {
        closeRead(number)
        guard operations[Int(number)].ended == ClientOperation.never else { return }
        clock += 1
        operations[Int(number)].ended = clock
    }

    private func forgetClient(_ index: Int) {
        clients[index].number = -1
        clients[index].serial += 1
        clients[index].socket.removeAll()
        clients[index].waiting.removeAll()
        clients[index].current = 0
        clients[index].slot = Pipe.noSlot
        clients[index].reading = 0
    }

    func engineClosesClient(_ node: SimulatedNode, _ number: UInt8) {
        guard let index = client(at: node, number) else { return }
        schedule(.clientEnds(client: UInt8(index)), in: .nanoseconds(1))
    }

    func freeClient(_ node: SimulatedNode, _ number: UInt8) {
        if node.clientOf[Int(number)] != -2 {
            violate("I-14", "client \(number) is given back, but it is still connected")
        }
        node.clientOf[Int(number)] = -1
        for operation in node.orphans[Int(number)] { end(operation) }
        node.orphans[Int(number)].removeAll()
    }

    /// The node stopped: its clients lose their connections.
    func clientsLoseNode(_ node: SimulatedNode) {
        for index in clients.indices
        where clients[index].number >= 0 && clients[index].node == Int(node.index) {
            for operation in clients[index].waiting { end(operation) }
            forgetClient(index)
        }
        for orphans in node.orphans { for operation in orphans { end(operation) } }
    }
}
