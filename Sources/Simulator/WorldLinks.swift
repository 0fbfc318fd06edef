import DRBDWire
import Replication
import Support

/// The network: streams between the two nodes that take their time, break, or fall silent.
extension World {
    // MARK: opening

    func connect(_ node: SimulatedNode, _ link: UInt8) {
        node.links[Int(link)] = SimulatedNode.Link()
        node.links[Int(link)].state = .connecting
        schedule(
            .connecting(node: node.index, life: node.life, link: link), in: spread(profile.wireTime)
        )
    }

    func connects(_ node: SimulatedNode, _ life: UInt32, _ link: UInt8) {
        guard node.isAlive, node.life == life, node.links[Int(link)].state == .connecting else {
            return
        }
        let peer = other(node)
        if faults.isolates {
            closeLater(node, link, in: profile.options.connectInterval)
            return
        }
        guard peer.isAlive, let number = peer.engine.freeLinkNumber(),
            peer.links[Int(number)].state == .free
        else {
            closeLater(node, link, in: spread(profile.wireTime))
            return
        }
        let forth = takePipe()
        let back = takePipe()
        pipes[forth].reset(
            from: node.index, senderLink: link, receiverLink: number, reverse: back)
        pipes[back].reset(
            from: peer.index, senderLink: number, receiverLink: link, reverse: forth)
        node.links[Int(link)].state = .opening
        node.links[Int(link)].outgoing = forth
        node.links[Int(link)].incoming = back
        peer.links[Int(number)] = SimulatedNode.Link()
        peer.links[Int(number)].state = .open
        peer.links[Int(number)].outgoing = back
        peer.links[Int(number)].incoming = forth
        schedule(
            .opened(node: node.index, life: life, link: link), in: spread(profile.wireTime))
        handle(peer, .linkAccepted(link: number))
    }

    func opened(_ node: SimulatedNode, _ life: UInt32, _ link: UInt8) {
        guard node.isAlive, node.life == life, node.links[Int(link)].state == .opening else {
            return
        }
        node.links[Int(link)].state = .open
        let isUnwanted = node.links[Int(link)].closeWasEarly
        node.links[Int(link)].closeWasEarly = false
        handle(node, .linkOpened(link: link))
        if isUnwanted, node.links[Int(link)].state == .open {
            violate("I-22", "link \(link) stays open although it was ordered to be closed")
        }
        receive(node, link)
    }

    private func takePipe() -> Int {
        if pipeCount == pipes.count { pipes.append(Pipe()) }
        pipeCount += 1
        return pipeCount - 1
    }

    private func closeLater(_ node: SimulatedNode, _ link: UInt8, in delay: Duration) {
        node.links[Int(link)].state = .closing
        schedule(.linkClosed(node: node.index, life: node.life, link: link), in: delay)
    }

    // MARK: sending

    func send(_ node: SimulatedNode, _ link: UInt8, _ at: Int, _ length: Int) {
        guard node.links[Int(link)].state == .open else { return }
        let index = node.links[Int(link)].outgoing
        noteSent(node, at, length)
        let pipe = pipes[index]
        if profile.hidesRepd[Int(node.index)], masksFeatures(node, at, length) {
            pipe.staging.append(from: scratch, at: 0, count: length)
        } else {
            pipe.staging.append(outputOf: node.engine, at: at, count: length)
        }
        pipe.add(
            Pipe.Item(left: length, slot: Pipe.noSlot, place: -1, reportsDrained: false))
        startPump(index)
    }

    /// P_CONNECTION_FEATURES as a kernel would send it, in `scratch`.
    private func masksFeatures(_ node: SimulatedNode, _ at: Int, _ length: Int) -> Bool {
        guard length == ShortHeader.encodedSize + Features.encodedSize else { return false }
        scratch.copy(outputOf: node.engine, at: at, count: length, to: 0)
        let header = scratch.with(0, count: length) { ShortHeader(decoding: $0) }
        guard header?.packet == Packet.connectionFeatures.rawValue else { return false }
        // The highest bit of the flags, which follow the minimum version.
        let place = ShortHeader.encodedSize
        scratch.setWord(place, scratch.word(place) & ~(1 << 39))
        return true
    }

    func sendPayload(
        _ node: SimulatedNode, _ link: UInt8, _ slot: UInt16, _ buffer: BufferID, _ length: Int
    ) {
        node.leaving[Int(slot)].isClient = false
        guard node.links[Int(link)].state == .open else {
            schedule(
                .sent(node: node.index, life: node.life, slot: slot), in: .microseconds(1))
            return
        }
        let index = node.links[Int(link)].outgoing
        pipes[index].add(
            Pipe.Item(
                left: length, slot: slot, place: BufferPool.offset(of: buffer),
                reportsDrained: false))
        startPump(index)
    }

    func reportDrained(_ node: SimulatedNode, _ link: UInt8) {
        guard node.links[Int(link)].state == .open else { return }
        let index = node.links[Int(link)].outgoing
        pipes[index].add(
            Pipe.Item(left: 0, slot: Pipe.noSlot, place: -1, reportsDrained: true))
        startPump(index)
    }

    private func startPump(_ index: Int) {
        let pipe = pipes[index]
        guard !pipe.isPumping else { return }
        pipe.isPumping = true
        schedule(.pump(pipe: UInt32(index)), in: .nanoseconds(Int64(random.next() % 20_000)))
    }

    /// The socket takes some of what is queued.
    func pump(_ index: Int) {
        let pipe = pipes[index]
        pipe.isPumping = false
        guard pipe.senderIsOpen || pipe.endsWhenEmpty else { return }
        let node = nodes[Int(pipe.from)]
        if pipe.isBlocked, pipe.wire.count > 256 << 10 {
            if pipe.endsWhenEmpty { abandon(index) }
            return
        }
        var room = random.chance(1, in: 4) ? pick(profile.chunk) + 1 : profile.chunk
        var moved = 0
        var drained = false
        while room > 0 || drainsNext(pipe), !pipe.isEmpty {
            var item = pipe.items[pipe.head]
            let length = min(room, item.left)
            if item.place < 0 {
                pipe.wire.take(length, from: &pipe.staging)
            } else {
                pipe.wire.append(from: node.buffers, at: item.place, count: length)
                item.place += length
            }
            item.left -= length
            room -= length
            moved += length
            pipe.items[pipe.head] = item
            guard item.left == 0 else { break }
            pipe.head += 1
            if item.reportsDrained { drained = true }
            if item.slot != Pipe.noSlot {
                schedule(
                    .sent(node: node.index, life: node.life, slot: item.slot),
                    in: .nanoseconds(Int64(random.next() % 5000)))
            }
        }
        if moved > 0 { ship(index, moved) }
        if !pipe.isEmpty {
            pipe.isPumping = true
            let pause = profile.chunk < 4096 ? Duration.microseconds(2) : spread(.microseconds(20))
            schedule(.pump(pipe: UInt32(index)), in: pause)
        } else if pipe.endsWhenEmpty {
            finishSending(index, reset: false)
        }
        if drained, pipe.senderIsOpen {
            handle(node, .linkDrained(link: pipe.senderLink))
        }
    }

    private func drainsNext(_ pipe: Pipe) -> Bool {
        !pipe.isEmpty && pipe.items[pipe.head].left == 0
    }

    private func ship(_ index: Int, _ count: Int) {
        let pipe = pipes[index]
        let time = max(
            pipe.lastArrival + 1,
            now.nanoseconds + UInt64(spread(profile.wireTime).inNanoseconds))
        pipe.lastArrival = time
        queue.add(
            .arrival(pipe: UInt32(index), count: UInt32(count)), at: Instant(nanoseconds: time),
            tie: random.next())
    }

    // MARK: receiving

    func arrive(_ index: Int, _ count: Int) {
        let pipe = pipes[index]
        guard pipe.receiverIsOpen else { return }
        if pipe.isBlocked {
            pipe.held += count
            return
        }
        pipe.available += count
        receive(nodes[1 - Int(pipe.from)], pipe.receiverLink)
    }

    /// After `resumeLink`: goes on as an event of its own.
    func wakeReceiver(_ node: SimulatedNode, _ link: UInt8) {
        guard node.links[Int(link)].state == .open else { return }
        let index = node.links[Int(link)].incoming
        schedule(.arrival(pipe: UInt32(index), count: 0), in: .nanoseconds(100))
    }

    /// Gives the engine what has arrived, packet by packet.
    private func receive(_ node: SimulatedNode, _ link: UInt8) {
        let place = Int(link)
        var stalled = false
        while node.isAlive, node.links[place].state == .open, !stalled {
            let pipe = pipes[node.links[place].incoming]
            if node.links[place].slot != Pipe.noSlot {
                stalled = !receivePayload(node, place, pipe)
            } else if node.links[place].skip > 0 {
                let length = min(node.links[place].skip, pipe.available)
                pipe.wire.drop(length)
                pipe.available -= length
                node.links[place].skip -= length
                stalled = length == 0
            } else {
                guard !node.links[place].isPaused, pipe.available > 0 else { break }
                observeIncoming(node, pipe)
                let used = pipe.wire.with(pipe.available) {
                    node.engine.receive(link: link, bytes: $0, now: now)
                }
                invariant(used <= pipe.available, "the engine used \(used) bytes")
                pipe.wire.drop(used)
                pipe.available -= used
                stalled = used == 0
                drain(node)
            }
        }
        noticeEnding(node, link)
    }

    private func receivePayload(_ node: SimulatedNode, _ place: Int, _ pipe: Pipe) -> Bool {
        let length = min(node.links[place].left, pipe.available)
        pipe.wire.take(length, to: node.buffers, at: node.links[place].place)
        pipe.available -= length
        node.links[place].place += length
        node.links[place].left -= length
        guard node.links[place].left == 0 else { return length > 0 }
        let slot = node.links[place].slot
        node.links[place].slot = Pipe.noSlot
        handle(node, .payload(slot: slot))
        return true
    }

    /// The peer's end of the stream counts when all before it was read, a reset at once.
    private func noticeEnding(_ node: SimulatedNode, _ link: UInt8) {
        guard node.isAlive, node.links[Int(link)].state == .open else { return }
        let pipe = pipes[node.links[Int(link)].incoming]
        guard pipe.ending != .none else { return }
        if pipe.ending == .orderly, node.links[Int(link)].isPaused, pipe.available > 0 { return }
        note(node, "link \(link) was closed by the peer")
        closeEnd(node, link, gracefully: false)
    }

    // MARK: closing

    func closeLink(_ node: SimulatedNode, _ link: UInt8) {
        switch node.links[Int(link)].state {
        case .free, .closing: return
        case .connecting: closeLater(node, link, in: .microseconds(10))
        // The node hears that it stands in the same turn, and cannot cancel it any more.
        case .opening where random.chance(1, in: 3): node.links[Int(link)].closeWasEarly = true
        case .opening, .open:
            closeEnd(node, link, gracefully: random.chance(2, in: 3))
        }
    }

    /// Our end closes; what is queued may still leave.
    private func closeEnd(_ node: SimulatedNode, _ link: UInt8, gracefully: Bool) {
        node.links[Int(link)].state = .closing
        let incoming = pipes[node.links[Int(link)].incoming]
        incoming.receiverIsOpen = false
        let index = node.links[Int(link)].outgoing
        let pipe = pipes[index]
        pipe.senderIsOpen = false
        if gracefully, !pipe.isBlocked, !pipe.isEmpty {
            pipe.endsWhenEmpty = true
            return
        }
        if gracefully, pipe.isEmpty {
            finishSending(index, reset: false)
        } else {
            abandon(index)
        }
    }

    /// What is queued is given up.
    private func abandon(_ index: Int) {
        let pipe = pipes[index]
        let node = nodes[Int(pipe.from)]
        while !pipe.isEmpty {
            let item = pipe.items[pipe.head]
            pipe.head += 1
            guard item.slot != Pipe.noSlot else { continue }
            schedule(
                .sent(node: node.index, life: node.life, slot: item.slot),
                in: .nanoseconds(Int64(random.next() % 20_000)))
        }
        pipe.staging.removeAll()
        finishSending(index, reset: true)
    }

    /// Nothing more is sent: the peer hears of it, and the number will be free.
    private func finishSending(_ index: Int, reset: Bool) {
        let pipe = pipes[index]
        pipe.endsWhenEmpty = false
        let node = nodes[Int(pipe.from)]
        shipEnding(index, reset: reset)
        schedule(
            .linkClosed(node: node.index, life: node.life, link: pipe.senderLink),
            in: .microseconds(30) + spread(.microseconds(20)))
    }

    private func shipEnding(_ index: Int, reset: Bool, after delay: Duration = .zero) {
        let pipe = pipes[index]
        let time = max(
            pipe.lastArrival + 1,
            (now + delay).nanoseconds + UInt64(spread(profile.wireTime).inNanoseconds))
        pipe.lastArrival = time
        queue.add(
            .ending(pipe: UInt32(index), reset: reset), at: Instant(nanoseconds: time),
            tie: random.next())
    }

    func endArrives(_ index: Int, reset: Bool) {
        let pipe = pipes[index]
        guard pipe.receiverIsOpen else { return }
        if pipe.isBlocked {
            pipe.heldEnding = reset ? .reset : .orderly
            return
        }
        pipe.ending = reset ? .reset : .orderly
        let node = nodes[1 - Int(pipe.from)]
        guard node.links[Int(pipe.receiverLink)].state == .open else { return }
        if reset, random.chance(1, in: 2) {
            noticeEnding(node, pipe.receiverLink)
        } else {
            receive(node, pipe.receiverLink)
        }
    }

    func linkIsClosed(_ node: SimulatedNode, _ life: UInt32, _ link: UInt8) {
        guard node.isAlive, node.life == life, node.links[Int(link)].state == .closing else {
            return
        }
        node.links[Int(link)] = SimulatedNode.Link()
        handle(node, .linkClosed(link: link))
    }

    func payloadLeft(_ node: SimulatedNode, _ life: UInt32, _ slot: UInt16) {
        guard node.isAlive, node.life == life else { return }
        if node.leaving[Int(slot)].isClient { clientPayloadLeft(node, slot) }
        handle(node, .sent(slot: slot))
    }

    /// The node stopped: its sockets end, or nobody says anything any more.
    func dropConnections(_ node: SimulatedNode, silently: Bool) {
        for link in node.links where link.state == .open || link.state == .opening {
            pipes[link.incoming].receiverIsOpen = false
            let pipe = pipes[link.outgoing]
            pipe.senderIsOpen = false
            pipe.items.removeAll()
            pipe.head = 0
            pipe.staging.removeAll()
            if !silently { shipEnding(link.outgoing, reset: random.chance(1, in: 2)) }
        }
        for link in node.links where link.state == .closing {
            // What the process had not handed to its kernel is lost.
            let pipe = pipes[link.outgoing]
            guard pipe.from == node.index, pipe.endsWhenEmpty else { continue }
            pipe.endsWhenEmpty = false
            pipe.items.removeAll()
            pipe.head = 0
            pipe.staging.removeAll()
            shipEnding(link.outgoing, reset: true)
        }
    }
}
