import DRBDWire
import Support

/// Errors of the NBD standard that the engine gives.
enum ReplyError {
    static let none: UInt8 = 0
    static let io: UInt8 = 5
    static let invalid: UInt8 = 22
    static let noSpace: UInt8 = 28
    static let shutdown: UInt8 = 108
}

/// Requests of NBD clients: cut into segments, given slots and buffers, answered.
extension ReplicationEngine {
    /// What the standard and the state of the volume say against the request.
    @inline(__always)
    private func refusal(_ request: ClientRequest) -> UInt8? {
        guard state.role == .primary, !order.promoting else { return ReplyError.shutdown }
        if request.operation == .flush { return nil }
        if request.offset & 511 != 0 || request.length & 511 != 0 || request.length == 0 {
            return ReplyError.invalid
        }
        let bytes = size << 9
        if request.offset > bytes || request.length > bytes - request.offset {
            return request.operation == .read ? ReplyError.invalid : ReplyError.noSpace
        }
        return hasGoodData ? nil : ReplyError.io
    }

    /// The local disk takes requests.
    package var diskUsable: Bool { diskInUse && state.disk > .failed }

    /// A Primary's disk of which some blocks failed, beside a peer that has them all.
    var servesDamagedDisk: Bool {
        state.disk == .inconsistent && state.connection == .connected
            && state.peerDisk == .upToDate
    }

    /// Without it nothing is answered with success (I-13).
    var hasGoodData: Bool {
        if sabotaged(.trustsDamagedDisk) { return diskUsable }
        return diskInUse && (state.disk == .upToDate || servesDamagedDisk)
    }

    /// What the peer refused may be answered: this copy will not be taken for the worse one.
    var servesAlone: Bool { hasGoodData && !servesDamagedDisk }

    mutating func start(_ request: ClientRequest, _ client: UInt8) {
        let error = refusal(request)
        // A read takes all its places at once, and leaves some for writes.
        let room =
            request.operation != .read || error != nil
            || freeClientSlots.count > Self.segments(request) + Self.clientSlots / 4
                && canBuffer(Self.payload(of: request))
        let isWithinLimits = leavesRoom(request, client) && freeRequests.count > 0
        guard !isResuming, room, isWithinLimits, leavesRoomForReader(request, client),
            let id = freeRequests.take()
        else {
            if !isResuming, !room, isWithinLimits, waitingReader == nil { waitingReader = client }
            clients[Int(client)].waiting = request
            pause(client)
            return
        }
        if waitingReader == client { waitingReader = nil }
        clients[Int(client)].users += 1
        requests[Int(id)] = Request(
            cookie: request.cookie, offset: request.offset, length: Self.payload(of: request),
            operation: request.operation, client: client, isPart: request.options.contains(.isPart))
        clients[Int(client)].bytes += UInt64(Self.payload(of: request))
        if let error {
            requests[Int(id)].error = error
            if request.operation == .write {
                output.commands.append(.skip(client: client, length: Self.payload(of: request)))
            }
            reply(id)
            return
        }
        switch request.operation {
        case .read: startRead(request, id)
        case .flush: startFlush(id)
        case .write, .trim, .writeZeroes: startWrite(request, id)
        }
    }

    private static func segments(_ request: ClientRequest) -> Int {
        (Int(request.length) + Int(segmentSize) - 1) / Int(segmentSize)
    }

    /// The buffers that a request pins until its answer has left, in bytes.
    private static func payload(of request: ClientRequest) -> UInt32 {
        request.operation == .read || request.operation == .write ? UInt32(request.length) : 0
    }

    /// Whoever does not read its answers holds its buffers: so nobody gets most of them.
    private func leavesRoom(_ request: ClientRequest, _ client: UInt8) -> Bool {
        let state = clients[Int(client)]
        guard state.users > 0 else { return true }
        return state.users < Self.clientRequestLimit
            && state.bytes + UInt64(Self.payload(of: request)) <= Self.clientByteLimit
    }

    /// A read needs all of its room at one moment. Beside others who take a buffer as soon as one is
    /// free that moment never comes: so what is missing is left to the one read that waits longest.
    private func leavesRoomForReader(_ request: ClientRequest, _ client: UInt8) -> Bool {
        guard let reader = waitingReader, reader != client, request.operation != .flush,
            let read = clients[Int(reader)].waiting
        else { return true }
        let segments = Self.segments(read)
        // Nobody knows when the answers of other reads are read: it is not waited for by everybody.
        guard readBuffers + segments <= BufferPool.largeForClients else { return true }
        guard freeClientSlots.count > segments + Self.clientSlots / 4 + 1 else { return false }
        let length = Self.payload(of: request)
        return length == 0 || pool.hasSmaller(length)
            || pool.canTake(UInt32(read.length) + Self.segmentSize)
    }

    /// Reads take the buffers of all their segments at once: never half of them.
    private func canBuffer(_ length: UInt32) -> Bool { pool.canTake(length) }

    private mutating func startRead(_ request: ClientRequest, _ id: UInt16) {
        var offset = request.offset
        var left = UInt32(request.length)
        // One more, so that the request cannot end before its last segment has begun.
        requests[Int(id)].segments = 1
        while left > 0 {
            let length = min(left, Self.segmentSize)
            guard let buffer = pool.take(length, client: true), let slot = freeClientSlots.take()
            else { invariantFailed("no place for a read of \(request.length) bytes") }
            slots[Int(slot)] = Slot(
                kind: .read, offset: offset, length: length, buffer: buffer, request: id)
            if BufferPool.isLarge(buffer) { readBuffers += 1 }
            if requests[Int(id)].head == none {
                requests[Int(id)].head = slot
            } else {
                slots[Int(requests[Int(id)].tail)].next = slot
            }
            requests[Int(id)].tail = slot
            requests[Int(id)].segments += 1
            if book.enter(slot, &slots) { begin(slot) }
            offset += UInt64(length)
            left -= length
        }
        segmentDone(id)
    }

    private mutating func startWrite(_ request: ClientRequest, _ id: UInt16) {
        let index = Int(requests[Int(id)].client)
        requests[Int(id)].segments = 1
        clients[index].offset = request.offset
        clients[index].left = request.length
        clients[index].request = id
        clients[index].durable = request.options.contains(.durable)
        clients[index].keepsAllocation = request.options.contains(.keepsAllocation)
        clients[index].zeroing = request.operation != .write
        clients[index].large = request.length >= UInt64(Self.largePayload)
        nextSegment(UInt8(index))
    }

    /// Takes a slot for the next part of the write that is arriving; pauses where there is none.
    private mutating func nextSegment(_ client: UInt8) {
        let index = Int(client)
        while clients[index].left > 0 {
            let arrival = clients[index]
            var length = UInt32(min(arrival.left, UInt64(Self.segmentSize)))
            var buffer = none
            if arrival.zeroing {
                // Not more extents than there are slots in the log (safety.md S15).
                let slots = sabotaged(.discardsUncut) ? 4 : min(log.slotCount, 4)
                let limit = min(Self.zeroSegment, UInt32(slots) << 22)
                let room = UInt64(limit) - arrival.offset % UInt64(limit)
                length = UInt32(min(arrival.left, room))
            } else {
                guard freeClientSlots.count > 0, let taken = pool.take(length, client: true) else {
                    pause(client)
                    return
                }
                buffer = taken
            }
            guard !arrival.zeroing || zeroing < Self.zeroingLimit,
                let slot = freeClientSlots.take()
            else {
                pause(client)
                return
            }
            if arrival.zeroing { zeroing += 1 }
            slots[Int(slot)] = Slot(
                kind: arrival.zeroing ? .zero : .write, offset: arrival.offset, length: length,
                buffer: buffer, request: arrival.request, durable: arrival.durable,
                keepsAllocation: arrival.keepsAllocation)
            requests[Int(arrival.request)].segments += 1
            clients[index].left -= UInt64(length)
            clients[index].offset += UInt64(length)
            if arrival.zeroing {
                if book.enter(slot, &slots) { begin(slot) }
                continue
            }
            clients[index].slot = slot
            output.commands.append(
                .receive(
                    client: client, slot: slot, buffer: buffer, length: length,
                    large: arrival.large))
            return
        }
        let request = clients[index].request
        clients[index].request = none
        segmentDone(request)
    }

    mutating func payloadArrived(_ slot: SlotID) {
        guard slots[Int(slot)].kind == .write else {
            peerPayloadArrived(slot)
            return
        }
        let client = requests[Int(slots[Int(slot)].request)].client
        clients[Int(client)].slot = none
        if book.enter(slot, &slots) { begin(slot) }
        nextSegment(client)
    }

    private mutating func pause(_ client: UInt8) {
        guard !clients[Int(client)].paused else { return }
        clients[Int(client)].paused = true
        pausedClients += 1
        output.commands.append(.pauseClient(client: client))
    }

    /// Clients that waited for a free place go on.
    mutating func resumeClients() {
        guard pausedClients > 0 else { return }
        // Everybody is the first to be asked at times.
        firstResumed = (firstResumed + 1) % Self.clientLimit
        for position in 0..<Self.clientLimit {
            let index = (firstResumed + position) % Self.clientLimit
            guard clients[index].paused else { continue }
            clients[index].paused = false
            pausedClients -= 1
            let client = UInt8(index)
            if clients[index].dead {
                continue
            } else if let request = clients[index].waiting {
                clients[index].waiting = nil
                start(request, client)
            } else {
                nextSegment(client)
            }
            if !clients[index].paused { output.commands.append(.resumeClient(client: client)) }
        }
    }

    // MARK: ends

    /// A part of the request is done; with the last one it is answered.
    mutating func segmentDone(_ id: UInt16) {
        requests[Int(id)].segments -= 1
        guard requests[Int(id)].segments == 0 else { return }
        if requests[Int(id)].missed, servesAlone, !generationIsDurable, !pairIsInStep {
            gated.append(id)
            return
        }
        reply(id)
    }

    mutating func reply(_ id: UInt16) {
        // Diskless operation is not there: nothing is right any more, whoever may have it (S11).
        if !hasGoodData || requests[Int(id)].missed && !servesAlone, requests[Int(id)].error == 0 {
            requests[Int(id)].error = ReplyError.io
        }
        let request = requests[Int(id)]
        if clients[Int(request.client)].dead {
            releaseChain(request.head)
            replied(id)
            return
        }
        let isRead = request.operation == .read && request.error == 0
        output.commands.append(
            .reply(
                client: request.client, error: request.error, request: id,
                length: isRead ? request.length : 0, cookie: request.cookie,
                offset: request.offset, isPart: request.isPart))
        guard request.error == 0 else {
            releaseChain(request.head)
            requests[Int(id)].head = none
            return
        }
        var slot = request.head
        while slot != none {
            let part = slots[Int(slot)]
            slots[Int(slot)].sendPending = true
            output.commands.append(
                .clientPayload(
                    client: request.client, slot: slot, buffer: part.buffer, length: part.length))
            slot = part.next
        }
    }

    private mutating func releaseChain(_ head: UInt16) {
        var slot = head
        while slot != none {
            let next = slots[Int(slot)].next
            // What the disk still has, it gives back itself.
            if !slots[Int(slot)].isDisowned || !slots[Int(slot)].diskPending { release(slot) }
            slot = next
        }
    }

    mutating func replied(_ id: UInt16) {
        let client = Int(requests[Int(id)].client)
        if requests[Int(id)].isAtDisk {
            requests[Int(id)].isReplied = true
        } else {
            freeRequests.give(id)
        }
        clients[client].users -= 1
        clients[client].bytes -= UInt64(requests[Int(id)].length)
        freeClientIfDone(client)
    }

    private mutating func freeClientIfDone(_ client: Int) {
        guard clients[client].dead, clients[client].users == 0 else { return }
        let paused = clients[client].paused
        clients[client] = Client()
        if paused { pausedClients -= 1 }
        output.commands.append(.freeClient(client: UInt8(client)))
    }

    /// What was complete goes on; a payload that was still arriving is given up (F21).
    mutating func clientClosed(_ client: UInt8) {
        let index = Int(client)
        invariant(!clients[index].dead, "client \(client) closed twice")
        clients[index].dead = true
        clients[index].waiting = nil
        if waitingReader == client { waitingReader = nil }
        if clients[index].slot != none {
            let slot = clients[index].slot
            clients[index].slot = none
            release(slot)
            requests[Int(clients[index].request)].segments -= 1
        }
        let request = clients[index].request
        if request != none {
            clients[index].request = none
            clients[index].left = 0
            segmentDone(request)
        }
        freeClientIfDone(index)
    }

    /// Gives the slot and its buffer back.
    mutating func release(_ id: SlotID) {
        let slot = slots[Int(id)]
        invariant(slot.kind != .free, "slot \(id) released twice")
        invariant(!slot.diskPending, "slot \(id) released while the disk has its buffer")
        if slot.buffer != none { pool.give(slot.buffer) }
        if slot.kind == .read, BufferPool.isLarge(slot.buffer) { readBuffers -= 1 }
        if slot.isSole { sole.count -= 1 }
        if slot.kind == .zero { zeroing -= 1 }
        slots[Int(id)].kind = .free
        slots[Int(id)].buffer = none
        if Int(id) < Self.clientSlots {
            freeClientSlots.give(id)
        } else {
            freePeerSlots.give(id - UInt16(Self.clientSlots))
        }
    }
}
