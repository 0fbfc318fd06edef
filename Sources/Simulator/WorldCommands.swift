import DRBDWire
import MetaDisk
import Replication
import Support

/// Performs the engine's commands, as the daemon does.
extension World {
    func perform(_ node: SimulatedNode, _ command: Command) {
        switch command {
        case .receive(let client, let slot, let buffer, let length, _):
            receive(node, client, slot, buffer, Int(length))
        case .skip(let client, let length): skip(node, client, Int(length))
        case .pauseClient(let client): pauseClient(node, client, true)
        case .resumeClient(let client): pauseClient(node, client, false)
        case .reply(let client, let error, let request, _, let cookie, _, _):
            reply(node, client, request, cookie, error)
        case .clientPayload(let client, let slot, let buffer, let length):
            clientPayload(node, client, slot, buffer, Int(length))
        case .closeClient(let client): engineClosesClient(node, client)
        case .freeClient(let client): freeClient(node, client)
        case .connect(let link): connect(node, link)
        case .closeLink(let link): closeLink(node, link)
        case .send(let link, let at, let length): send(node, link, Int(at), Int(length))
        case .sendPayload(let link, let slot, let buffer, let length):
            sendPayload(node, link, slot, buffer, Int(length))
        case .receiveFromPeer(let link, let slot, let buffer, let length, _):
            let place = BufferPool.offset(of: buffer)
            node.links[Int(link)].slot = slot
            node.links[Int(link)].place = place
            node.links[Int(link)].left = Int(length)
            node.epochOfSlot[Int(slot)] = node.lastPacketIsData ? node.incomingEpoch : 0
        case .skipFromPeer(let link, let length): node.links[Int(link)].skip += Int(length)
        case .pauseLink(let link): node.links[Int(link)].isPaused = true
        case .resumeLink(let link):
            node.links[Int(link)].isPaused = false
            wakeReceiver(node, link)
        case .reportDrained(let link): reportDrained(node, link)
        case .write, .read, .zero, .flush, .metaWrite, .metaRead, .closeDisk:
            performDisk(node, command)
        case .recordRole(let generation):
            node.roleRecord = [generation] + node.roleRecord.prefix(1)
        case .eraseRole: node.roleRecord = []
        case .callHandler: break
        case .confirmResumption:
            schedule(
                .confirm(node: node.index, life: node.life), in: spread(.microseconds(100)))
        }
    }

    // MARK: the disk

    private func performDisk(_ node: SimulatedNode, _ command: Command) {
        var operation = SimulatedNode.Operation()
        switch command {
        case .write(let slot, let buffer, let length, let offset, let durable):
            operation.kind = .write
            operation.number = slot
            operation.place = BufferPool.offset(of: buffer)
            operation.length = Int(length)
            operation.offset = Int(offset)
            operation.durable = durable
            checkWrite(node, slot, Int(offset), Int(length), &operation)
        case .read(let slot, let buffer, let length, let offset):
            operation.kind = .read
            operation.number = slot
            operation.place = BufferPool.offset(of: buffer)
            operation.length = Int(length)
            operation.offset = Int(offset)
        case .zero(let slot, let length, let offset, _):
            operation.kind = .zero
            operation.number = slot
            operation.length = Int(length)
            operation.offset = Int(offset)
            checkWrite(node, slot, Int(offset), Int(length), &operation)
        case .flush(let purpose, let index):
            operation.kind = .flush
            operation.purpose = purpose
            operation.number = index
            operation.horizon = node.disk.horizon
        case .metaWrite(let id, let at, let length, let offset, let durable):
            operation.kind = .metaWrite
            operation.number = id
            operation.place = node.takeMetaPlace()
            operation.length = Int(length)
            operation.offset = Int(offset)
            operation.durable = durable
            node.metaBytes.copy(
                outputOf: node.engine, at: Int(at), count: Int(length), to: operation.place)
        case .metaRead(let id, let length, let offset):
            operation.kind = .metaRead
            operation.number = id
            operation.length = Int(length)
            operation.offset = Int(offset)
            guard expectOpen(node) else { return }
            let number = node.takeOperation(operation)
            schedule(
                .metaRead(node: node.index, life: node.life, operation: number), in: diskTime(node))
            return
        case .closeDisk:
            if node.running > 0 { violate("I-22", "the disk is closed with operations at it") }
            node.diskIsOpen = false
            note(node, "closes the disk")
            return
        default: invariantFailed("\(command) is not about the disk")
        }
        guard expectOpen(node) else { return }
        let number = node.takeOperation(operation)
        schedule(
            .disk(node: node.index, life: node.life, operation: number), in: diskTime(node))
    }

    private func expectOpen(_ node: SimulatedNode) -> Bool {
        if !node.diskIsOpen { violate("I-22", "an operation for a disk that was closed") }
        return node.diskIsOpen
    }

    private func diskTime(_ node: SimulatedNode) -> Duration {
        spread(profile.diskTime * node.slowness)
    }

    /// An operation of the disk ends; its effect is of this moment.
    func diskEnds(_ node: SimulatedNode, _ life: UInt32, _ number: UInt32) {
        guard node.isAlive, node.life == life else { return }
        let operation = node.operations[Int(number)]
        node.endOperation(number)
        let errno = outcome(node, operation)
        switch operation.kind {
        case .write, .zero, .read:
            if operation.kind == .read, errno == 0 {
                node.buffers.copy(
                    from: node.disk.current.bytes, at: operation.offset, to: operation.place,
                    count: operation.length)
            } else if operation.kind != .read {
                land(node, operation, whole: errno == 0)
            }
            note(
                node,
                "disk \(operation.kind) slot \(operation.number) sector "
                    + "\(operation.offset >> 9)+\(operation.length >> 9)"
                    + (errno == 0 ? "" : " errno \(errno)"))
            handle(node, .disk(slot: operation.number, errno: errno))
        case .flush:
            if errno == 0 { node.disk.stabilise(before: operation.horizon) }
            note(node, "disk flush for \(operation.purpose)\(errno == 0 ? "" : " fails")")
            handle(node, .flushed(operation.purpose, index: operation.number, errno: errno))
        case .metaWrite:
            land(node, operation, whole: errno == 0)
            node.freeMetaPlaces.append(operation.place)
            noteMeta(node, operation, errno)
            handle(node, .metaWritten(id: operation.number, errno: errno))
            superblockMayHaveChanged(node, operation)
        case .free, .metaRead: invariantFailed("\(operation.kind) ends")
        }
    }

    private func noteMeta(
        _ node: SimulatedNode, _ operation: SimulatedNode.Operation, _ errno: UInt8
    ) {
        guard profile.recordsTrace, let place = checker.locations[Int(node.index)] else { return }
        let offset = UInt64(operation.offset)
        let what =
            offset == place.superblockOffset
            ? "super block" : offset >= place.logOffset ? "log block" : "bitmap"
        note(node, "meta write \(what) +\(operation.length)\(errno == 0 ? "" : " fails")")
    }

    /// Puts the operation's bytes, or some of them, on the disk.
    private func land(_ node: SimulatedNode, _ operation: SimulatedNode.Operation, whole: Bool) {
        var start = 0
        var end = operation.length
        // A part of a write that failed, and was refused, belongs to no epoch.
        let epoch = whole ? operation.epoch : 0
        if !whole {
            let sectors = operation.length >> 9
            start = pick(sectors + 1) << 9
            end = start + pick(sectors - start >> 9 + 1) << 9
            if end <= start { return }
        }
        switch operation.kind {
        case .write:
            node.disk.land(
                from: node.buffers, at: operation.place + start, to: operation.offset + start,
                count: end - start, durable: operation.durable && whole, epoch: epoch)
        case .zero:
            node.disk.landZeros(operation.offset + start, end - start, epoch: epoch)
        case .metaWrite:
            node.disk.land(
                from: node.metaBytes, at: operation.place + start, to: operation.offset + start,
                count: end - start, durable: operation.durable && whole)
        case .free, .read, .flush, .metaRead: return
        }
    }

    /// The process is gone: what the kernel was doing may still be done, wholly or in part.
    func landUnfinishedWrites(_ node: SimulatedNode) {
        for index in node.operations.indices {
            let operation = node.operations[index]
            switch random.next() % 3 {
            case 0: land(node, operation, whole: false)
            case 1:
                var plain = operation
                plain.durable = false
                land(node, plain, whole: true)
            default: break
            }
        }
    }

    private func outcome(_ node: SimulatedNode, _ operation: SimulatedNode.Operation) -> UInt8 {
        let (fails, kind): (Bool, FaultKind) =
            switch operation.kind {
            case .write, .zero: (node.failsWrites, .writeError)
            case .read: (node.failsReads, .readError)
            case .flush: (node.failsFlushes, .flushError)
            case .metaWrite, .metaRead: (node.failsMeta, .metaError)
            case .free: (false, .metaError)
            }
        guard fails else { return 0 }
        report.faults[kind.rawValue] += 1
        return 5
    }

    func metaReadEnds(_ node: SimulatedNode, _ life: UInt32, _ number: UInt32) {
        guard node.isAlive, node.life == life else { return }
        let operation = node.operations[Int(number)]
        node.endOperation(number)
        let errno = outcome(node, operation)
        if errno != 0 {
            handle(node, .metaReadFailed(id: operation.number, errno: errno))
            return
        }
        note(node, "meta read at \(operation.offset) +\(operation.length)")
        node.disk.current.bytes.with(operation.offset, count: operation.length) {
            node.engine.metaRead(id: operation.number, bytes: $0, now: now)
        }
        drain(node)
    }
}
