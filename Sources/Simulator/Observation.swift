import DRBDWire
import MetaDisk
import Replication
import Support

/// What the checker sees on the wire and on its way to the disk.
extension World {
    // MARK: packets

    func noteSent(_ node: SimulatedNode, _ at: Int, _ length: Int) {
        guard length >= PacketHeader.encodedSize else { return }
        scratch.copy(outputOf: node.engine, at: at, count: length, to: 0)
        scratch.with(0, count: length) { noteSent(node, $0) }
    }

    private func noteSent(_ node: SimulatedNode, _ bytes: RawSpan) {
        guard let header = PacketHeader(decoding: bytes),
            let packet = Packet(rawValue: header.packet)
        else {
            note(node, "sends \(bytes.byteCount) bytes of greeting")
            return
        }
        report.sent(packet)
        let body = bytes.extracting(PacketHeader.encodedSize..<bytes.byteCount)
        let index = Int(node.index)
        switch packet {
        case .data, .trim, .zeroes: checker.epochs.wrote(index)
        case .barrier: checker.epochs.barrier(index, Barrier(decoding: body).number)
        case .negativeAck:
            let ack = BlockAck(decoding: body)
            refuse(Int(ack.sector) << 9, Int(ack.size))
        case .barrierAck:
            let ack = BarrierAck(decoding: body)
            checkBarrierAck(node, ack)
        case .protocolParameters: checker.epochs.newConnection(index)
        default: break
        }
        if profile.recordsTrace { note(node, "-> \(packet.name)\(detail(packet, body))") }
    }

    private func detail(_ packet: Packet, _ body: RawSpan) -> String {
        switch packet {
        case .data, .resyncDataReply, .dataReply:
            " sector \(DataPacket(decoding: body).sector)"
        case .barrier: " \(Barrier(decoding: body).number)"
        case .barrierAck:
            " \(BarrierAck(decoding: body).number) for \(BarrierAck(decoding: body).writeCount)"
        case .receiveAck, .writeAck, .resyncWriteAck, .negativeAck:
            " sector \(BlockAck(decoding: body).sector)+\(BlockAck(decoding: body).size >> 9)"
        case .resyncDataRequest, .dataRequest:
            " sector \(BlockRequest(decoding: body).sector)+\(BlockRequest(decoding: body).size >> 9)"
        case .trim, .zeroes:
            " sector \(DiscardPacket(decoding: body).sector)+\(DiscardPacket(decoding: body).size >> 9)"
        case .outOfSync: " sector \(OutOfSync(decoding: body).sector)"
        case .state:
            StateWord(StatePacket(decoding: body).word).map {
                " \($0.role.name)/\($0.connection.name)/\($0.disk.name)/\($0.peerDisk.name)"
            } ?? ""
        case .stateChangeReply, .connectionStateChangeReply:
            " \(StateChangeReply(decoding: body).code)"
        default: ""
        }
    }

    /// I-10: everything of the epoch is on the receiver's stable storage.
    private func checkBarrierAck(_ node: SimulatedNode, _ ack: BarrierAck) {
        if let wrong = checker.epochs.acknowledged(
            by: Int(node.index), ack.number, ack.writeCount)
        {
            violate("I-10", wrong)
        }
        guard node.diskIsOpen, !node.failsAnything else { return }
        if node.disk.couldLose(epoch: node.incomingEpoch) {
            violate("I-10", "P_BARRIER_ACK \(ack.number) with writes that no flush covers")
        }
        for operation in node.operations
        where operation.kind != .free && operation.epoch == node.incomingEpoch
            && operation.epoch != 0
        {
            violate("I-10", "P_BARRIER_ACK \(ack.number) with a write in flight")
        }
        node.incomingEpoch &+= 1
    }

    /// Before the engine gets a packet.
    func observeIncoming(_ node: SimulatedNode, _ pipe: Pipe) {
        node.lastPacketIsData = false
        guard pipe.available >= PacketHeader.encodedSize else { return }
        let header = pipe.wire.with(PacketHeader.encodedSize) { PacketHeader(decoding: $0) }
        guard let header, let packet = Packet(rawValue: header.packet) else { return }
        switch packet {
        case .data, .trim, .zeroes: node.lastPacketIsData = true
        case .protocolParameters: node.incomingEpoch &+= 1
        default: break
        }
    }

    // MARK: writes

    private static let clientSlots = 512

    /// I-4, when a write of a client goes to the disk; notes the epoch of one of the peer.
    func checkWrite(
        _ node: SimulatedNode, _ slot: UInt16, _ offset: Int, _ length: Int,
        _ operation: inout SimulatedNode.Operation
    ) {
        guard let location = checker.locations[Int(node.index)] else { return }
        if offset + length > Int(location.capacity) << 9 {
            violate("I-30", "a data write at \(offset) reaches the meta data")
        }
        guard Int(slot) < Self.clientSlots else {
            checkResyncWrite(node, slot, location)
            operation.epoch =
                operation.kind == .zero ? node.incomingEpoch : node.epochOfSlot[Int(slot)]
            return
        }
        if operation.kind == .write { noteAlone(node, operation.place) }
        readLog(node, location)
        guard node.logIsUsable else {
            violate("I-4", "a write with an unusable log on disk")
            return
        }
        for extent in offset >> 22...(offset + length - 1) >> 22
        where !node.hotExtents.contains(UInt32(extent)) {
            violate(
                "I-4", "a write into extent \(extent), the log on disk names \(node.hotExtents)")
        }
        let superblock = stableSuperblock(node, location)
        if superblock?.flags.contains(.primaryIndicator) != true {
            violate("I-4", "a write without PRIMARY_IND on disk")
        }
    }

    /// Which writes the peer misses: those that go to the disk while it is not mirrored to (wire 10.1).
    private func noteAlone(_ node: SimulatedNode, _ place: Int) {
        let state = node.engine.state
        let mirrored =
            state.connection >= .connected && state.peerDisk == .upToDate
            || state.connection >= .wfBitMapT && state.connection < .ahead
                && state.peerDisk >= .inconsistent && state.peerDisk != .unknown
        let number = Int(node.buffers.word(place))
        guard !mirrored, number > 0, number < operations.count else { return }
        operations[number].beganAlone = true
    }

    /// What the log on stable storage says, read again when it has changed.
    private func readLog(_ node: SimulatedNode, _ location: MetaLocation) {
        guard node.knownLogVersion != node.disk.logVersion else { return }
        node.knownLogVersion = node.disk.logVersion
        var recovery = LogRecovery(
            stripes: location.stripes, stripeBlocks: location.stripeBlocks)
        for index in 0..<location.logBlockCount {
            node.disk.stable.bytes.with(Int(location.logOffset) + index * 4096, count: 4096) {
                recovery.add(block: $0, at: index)
            }
        }
        switch recovery.result() {
        case .nothingHot: (node.hotExtents, node.logIsUsable) = ([], true)
        case .hot(let extents): (node.hotExtents, node.logIsUsable) = (extents, true)
        case .unusable: (node.hotExtents, node.logIsUsable) = ([], false)
        }
    }

    func stableSuperblock(_ node: SimulatedNode, _ location: MetaLocation) -> Superblock? {
        // What cannot be read is reported by whoever needs it.
        node.disk.stable.bytes.with(
            Int(location.superblockOffset), count: Superblock.encodedSize
        ) { try? Superblock(decoding: $0) }
    }

    /// I-13, I-6: whether this request may be answered with success now.
    func checkAcceptable(_ node: SimulatedNode, _ operation: ClientOperation, _ number: Int) {
        let state = node.engine.state
        if state.disk != .upToDate, state.peerDisk != .upToDate {
            violate("I-13", "#\(number) is answered with success without UpToDate data")
        }
        guard operation.changes, operation.beganAlone, state.peerDisk != .upToDate,
            state.disk == .upToDate,
            let location = checker.locations[Int(node.index)],
            let superblock = stableSuperblock(node, location)
        else { return }
        if superblock.uuids.bitmap == 0 {
            violate(
                "I-6",
                "#\(number) is answered although the peer lacks it and no new generation "
                    + "is durable")
        }
    }

    func superblockMayHaveChanged(
        _ node: SimulatedNode, _ operation: SimulatedNode.Operation
    ) {
        guard let location = checker.locations[Int(node.index)],
            operation.offset == Int(location.superblockOffset)
        else { return }
        if random.chance(1, in: 4) { checkCrashNow("super block written") }
    }
}
