import DRBDWire
package import Support

/// What comes in from the peer: framing, sorting, and the packets that need no more than a line.
extension ReplicationEngine {
    /// Takes the packet at the front of `bytes`, all that is contiguous of what came in.
    ///
    /// - Returns: how many bytes were used; 0: the packet is not complete, or the link was paused.
    package mutating func receive(link id: UInt8, bytes: RawSpan, now: Instant) -> Int {
        self.now = now
        // Refused or lost: nothing of the old connection counts any more.
        guard link.stage != .closing, link.stage != .off else { return bytes.byteCount }
        switch link.uses[Int(id)] {
        case .closing, .free: return bytes.byteCount
        case .accepted:
            guard bytes.byteCount >= ShortHeader.encodedSize else { return 0 }
            guard let header = ShortHeader(decoding: bytes) else {
                record("a connection that does not speak DRBD was closed")
                close(id)
                return bytes.byteCount
            }
            receiveInitial(id, header.packet, length: header.length)
            return ShortHeader.encodedSize
        case .data where link.stage == .connecting || link.stage == .features:
            return receiveFeatures(bytes)
        case .meta where link.stage == .connecting || link.stage == .features: return 0
        case .data, .meta: return receivePacket(id, bytes)
        case .connectingData, .connectingMeta:
            invariantFailed("bytes on link \(id), which is not open")
        }
    }

    private mutating func receivePacket(_ id: UInt8, _ bytes: RawSpan) -> Int {
        let size = PacketHeader.encodedSize
        guard bytes.byteCount >= size else { return 0 }
        let onMeta = id == link.meta
        guard let header = PacketHeader(decoding: bytes) else {
            malformed(onMeta, "a packet without the magic of protocol 101")
            return bytes.byteCount
        }
        guard let packet = Packet(rawValue: header.packet),
            packet.isOnMeta == onMeta || packet == .delayProbe
        else {
            malformed(onMeta, "packet \(header.packet), which is unknown or misplaced")
            return bytes.byteCount
        }
        guard let inline = packet.inlineLength(of: Int(header.length)) else {
            malformed(onMeta, "\(packet.name) of \(header.length) bytes")
            return bytes.byteCount
        }
        guard bytes.byteCount >= size + inline else { return 0 }
        if onMeta { link.lastMeta = now } else { link.lastData = now }
        let body = bytes.extracting(size..<size + inline)
        if header.volume != 0, concernsVolume(packet) {
            return receiveUnknownVolume(packet, header, size + inline)
        }
        if onMeta {
            receiveMeta(packet, body)
            return size + inline
        }
        let taken = receiveData(packet, body, payload: Int(header.length) - inline)
        return taken ? size + inline : 0
    }

    private func concernsVolume(_ packet: Packet) -> Bool {
        switch packet {
        case .ping, .pingAck, .protocolParameters, .protocolUpdate, .barrier, .barrierAck,
            .connectionStateChangeRequest, .connectionStateChangeReply:
            false
        default: true
        }
    }

    /// Parameters of a volume that we do not have are skipped, anything else is an error (wire 5.5).
    private mutating func receiveUnknownVolume(
        _ packet: Packet, _ header: PacketHeader, _ size: Int
    ) -> Int {
        switch packet {
        case .syncParameters89, .sizes, .uuids, .state:
            record("\(packet.name) for volume \(header.volume), which is not configured here")
        default:
            malformed(packet.isOnMeta, "\(packet.name) for volume \(header.volume)")
        }
        return size
    }

    mutating func malformed(_ onMeta: Bool, _ text: String) {
        connectionLost(onMeta ? .networkFailure : .protocolError, "the peer sent \(text)")
    }

    // MARK: meta

    private mutating func receiveMeta(_ packet: Packet, _ body: RawSpan) {
        switch packet {
        case .ping:
            targetPinged()
            output.packet(.pingAck, link: link.meta)
        case .pingAck:
            link.pingAnswers = link.pings
            link.pingSent = nil
            link.pingDeadline = .never
        case .receiveAck, .writeAck: acknowledged(BlockAck(decoding: body), inSync: false)
        case .resyncWriteAck:
            let ack = BlockAck(decoding: body)
            if ack.blockID == BlockAck.syncerBlockID {
                resyncWritten(ack, failed: false)
            } else {
                acknowledged(ack, inSync: true)
            }
        case .negativeAck:
            let ack = BlockAck(decoding: body)
            if ack.blockID == BlockAck.syncerBlockID {
                resyncWritten(ack, failed: true)
            } else {
                refused(ack)
            }
        case .barrierAck: barrierAcknowledged(BarrierAck(decoding: body))
        case .negativeDataReply: probeAnswered(BlockAck(decoding: body).blockID)
        case .negativeResyncReply, .resyncCancel:
            resyncRequestFailed(
                BlockAck(decoding: body), cancelled: packet == .resyncCancel)
        case .stateChangeReply, .connectionStateChangeReply:
            stateReply(StateChangeReply(decoding: body).code)
        case .delayProbe: break
        case .superseded, .retryWrite, .verifyResult, .resyncIsInSync:
            malformed(true, "\(packet.name), which nothing here asked for")
        default: invariantFailed("\(packet.name) is not on the meta connection")
        }
    }

    private mutating func acknowledged(_ ack: BlockAck, inSync: Bool) {
        guard let id = transfer.entry(blockID: ack.blockID, sector: ack.sector) else {
            malformed(true, "an ack for a write that was not sent (sector \(ack.sector))")
            return
        }
        let entry = transfer.entries[Int(id)]
        proveThrough(entry.epoch &- 1)
        transfer.entries[Int(id)].acknowledged = true
        guard entry.slot != none else { return }
        let slot = Int(entry.slot)
        slots[slot].confirmedInSync = inSync
        guard slots[slot].ackPending else { return }
        slots[slot].ackPending = false
        settleWrite(entry.slot)
    }

    /// P_NEG_ACK: the bits of its own range, whatever it names (safety.md S4).
    private mutating func refused(_ ack: BlockAck) {
        let sectors = UInt64(ack.size >> 9)
        guard ack.sector < size, sectors <= size - ack.sector, sectors > 0 else {
            malformed(true, "P_NEG_ACK for sector \(ack.sector), behind the end")
            return
        }
        let id = transfer.entry(blockID: ack.blockID, sector: ack.sector)
        if let id, transfer.entries[Int(id)].missed {
            // Its bits were set when the peer's disk was lost, and may have been resynced since.
            proveThrough(transfer.entries[Int(id)].epoch &- 1)
            return
        }
        bitmap.set(Int(ack.sector >> 3), through: Int((ack.sector + sectors - 1) >> 3))
        guard let id else { return }
        proveThrough(transfer.entries[Int(id)].epoch &- 1)
        refuseEntry(id)
    }

    // MARK: data

    /// - Returns: false when there is no place for it now: the link is paused before the packet.
    private mutating func receiveData(_ packet: Packet, _ body: RawSpan, payload: Int) -> Bool {
        guard link.stage == .running || !packet.needsRunning else {
            malformed(false, "\(packet.name) before the states were exchanged")
            return true
        }
        switch packet {
        case .data: return receiveWrite(DataPacket(decoding: body), UInt32(payload))
        case .trim, .zeroes:
            return receiveZero(DiscardPacket(decoding: body), trim: packet == .trim)
        case .resyncDataReply: return receiveResyncData(DataPacket(decoding: body), UInt32(payload))
        case .resyncDataRequest, .thinResyncRequest:
            return receiveResyncRequest(BlockRequest(decoding: body))
        case .dataRequest: return receiveReadRequest(BlockRequest(decoding: body))
        case .dataReply:
            output.commands.append(.skipFromPeer(link: link.data, length: UInt32(payload)))
            probeAnswered(DataPacket(decoding: body).blockID)
        case .barrier: receiveBarrier(Barrier(decoding: body).number)
        case .unplugRemote, .delayProbe: break
        case .outOfSync: receiveOutOfSync(OutOfSync(decoding: body))
        case .bitmap, .compressedBitmap:
            receiveBitmap(body, compressed: packet == .compressedBitmap)
        case .syncUUID: receiveSyncUUID(SyncUUIDPacket(decoding: body).uuid)
        case .stateChangeRequest, .connectionStateChangeRequest:
            receiveStateRequest(
                StateChangeRequest(decoding: body),
                connection: packet == .connectionStateChangeRequest)
        case .protocolParameters, .protocolUpdate:
            receiveProtocol(ProtocolParameters(decoding: body), update: packet == .protocolUpdate)
        case .syncParameters89: receiveSyncParameters(SyncParameters(decoding: body))
        case .sizes: receiveSizes(Sizes(decoding: body))
        case .uuids: receiveUUIDs(UUIDs(decoding: body))
        case .state: receiveState(StatePacket(decoding: body).word)
        case .authenticationChallenge, .authenticationResponse:
            standAlone(
                "the peer wants authentication (cram-hmac-alg), which repd does not do yet: "
                    + "remove it there")
        case .checksumResyncRequest, .verifyRequest, .verifyReply, .resyncDeallocated:
            malformed(false, "\(packet.name), which was not agreed upon")
        default: malformed(false, "\(packet.name), which does not belong here")
        }
        return true
    }

    /// No slot or buffer: nothing more is read from data until one is free.
    mutating func pauseData(for length: UInt32) {
        receiver.starved = true
        receiver.starvedFor = length
        output.commands.append(.pauseLink(link: link.data))
    }

    mutating func resumeData() {
        guard receiver.starved, link.data != PeerLink.none else { return }
        guard freePeerSlots.count > 0, pool.hasRoom(receiver.starvedFor) else { return }
        receiver.starved = false
        output.commands.append(.resumeLink(link: link.data))
    }
}

extension Packet {
    /// Whether it means anything only after both P_STATE were exchanged.
    fileprivate var needsRunning: Bool {
        switch self {
        case .data, .trim, .zeroes, .resyncDataReply, .resyncDataRequest, .thinResyncRequest,
            .dataRequest, .dataReply, .barrier, .outOfSync, .bitmap, .compressedBitmap, .syncUUID:
            true
        default: false
        }
    }
}
