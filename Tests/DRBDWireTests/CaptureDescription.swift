import DRBDWire

/// Words that the decoded text must have for this packet.
func described(_ packet: CapturedPacket) -> [String] {
    let inline = packet.inline
    switch packet.packet {
    case .data, .dataReply, .resyncDataReply:
        let data = decoded(inline, as: DataPacket.self)
        let words = [
            "sector=\(data.sector)", "block_id=\(hexadecimal(data.blockID, digits: 16))",
            "size=\(packet.length - inline.count)",
        ]
        guard packet.packet == .data else { return words }
        return words + ["seq=\(data.sequence)", "flags=0x\(hexadecimal(data.flags.rawValue))"]
    case .trim, .zeroes:
        let discard = decoded(inline, as: DiscardPacket.self)
        return [
            "sector=\(discard.sector)", "block_id=\(hexadecimal(discard.blockID, digits: 16))",
            "seq=\(discard.sequence)", "flags=0x\(hexadecimal(discard.flags.rawValue))",
            "size=\(discard.size)",
        ]
    case .dataRequest, .resyncDataRequest, .thinResyncRequest, .verifyRequest:
        let request = decoded(inline, as: BlockRequest.self)
        return [
            "sector=\(request.sector)", "size=\(request.size)",
            "block_id=\(hexadecimal(request.blockID, digits: 16))",
        ]
    case .verifyReply, .checksumResyncRequest:
        let request = decoded(inline, as: BlockRequest.self)
        return ["sector=\(request.sector)", "size=\(request.size)"]
    case .receiveAck, .writeAck, .resyncWriteAck, .superseded, .negativeAck, .negativeDataReply,
        .negativeResyncReply, .resyncIsInSync, .resyncCancel, .retryWrite, .verifyResult:
        return described(decoded(inline, as: BlockAck.self), of: packet.packet)
    case .outOfSync, .resyncDeallocated:
        let range = decoded(inline, as: OutOfSync.self)
        return ["sector=\(range.sector)", "size=\(range.size)"]
    case .barrier:
        // The kernel's counter is in the byte order of its host.
        return ["barrier=\(decoded(inline, as: Barrier.self).number.byteSwapped)"]
    case .barrierAck:
        let ack = decoded(inline, as: BarrierAck.self)
        return ["barrier=\(ack.number.byteSwapped)", "set_size=\(ack.writeCount)"]
    case .state: return described(decoded(inline, as: StatePacket.self))
    case .stateChangeRequest, .connectionStateChangeRequest:
        let request = decoded(inline, as: StateChangeRequest.self)
        return ["mask=0x\(hexadecimal(request.mask))", "val=0x\(hexadecimal(request.value))"]
    case .stateChangeReply, .connectionStateChangeReply:
        return ["\(decoded(inline, as: StateChangeReply.self).code)"]
    case .compressedBitmap: return describedRuns(inline)
    case .uuids, .syncUUID, .connectionFeatures, .syncParameters89, .sizes, .protocolParameters,
        .protocolUpdate:
        return describedParameters(packet)
    case .bitmap: return ["\(inline.map(\.nonzeroBitCount).reduce(0, +))"]
    case .authenticationChallenge:
        return [inline.prefix(8).map { hexadecimal($0, digits: 2) }.joined() + "..."]
    case .authenticationResponse:
        return [inline.map { hexadecimal($0, digits: 2) }.joined()]
    case .unplugRemote, .ping, .pingAck, .initialMeta, .initialData, .becomeSyncTarget,
        .becomeSyncSource, .syncParameters, .delayProbe, .writeSame:
        return []
    }
}

private func described(_ ack: BlockAck, of packet: Packet) -> [String] {
    let words = ["sector=\(ack.sector)", "size=\(ack.size)", "seq=\(ack.sequence)"]
    guard packet == .verifyResult else {
        return words + ["block_id=\(hexadecimal(ack.blockID, digits: 16))"]
    }
    switch ack.blockID {
    case BlockAck.inSync: return words + ["result=IN_SYNC"]
    case BlockAck.outOfSync: return words + ["result=OUT_OF_SYNC"]
    default: return words + ["a result that exists"]
    }
}

private func described(_ packet: StatePacket) -> [String] {
    guard let state = StateWord(packet.word) else { return ["a state that exists"] }
    var words = [
        "0x\(hexadecimal(packet.word, digits: 8))", state.connection.name,
        "ro:\(state.role.name)/\(state.peer.name)",
        "ds:\(state.disk.name)/\(state.peerDisk.name)",
    ]
    if state.pausedByDependency { words.append("aftr_isp") }
    if state.pausedByPeer { words.append("peer_isp") }
    if state.pausedByUser { words.append("user_isp") }
    return words
}

private func describedRuns(_ payload: [UInt8]) -> [String] {
    guard let runs = runs(of: payload) else { return ["a code that can be read"] }
    return ["runs[\(runs.lengths.count)]:"]
}

private func describedParameters(_ packet: CapturedPacket) -> [String] {
    let inline = packet.inline
    switch packet.packet {
    case .uuids:
        let uuids = decoded(inline, as: UUIDs.self)
        let words = [
            ("cur", uuids.current), ("bm", uuids.bitmap), ("h0", uuids.history0),
            ("h1", uuids.history1),
        ].map { "\($0.0)=\(hexadecimal($0.1, digits: 16).uppercased())" }
        return words + ["bits=\(uuids.bitCount)", "flags=0x\(hexadecimal(uuids.flags.rawValue))"]
    case .syncUUID:
        let uuid = decoded(inline, as: SyncUUIDPacket.self).uuid
        return [hexadecimal(uuid, digits: 16).uppercased()]
    case .connectionFeatures:
        let features = decoded(inline, as: Features.self)
        return [
            "min=\(features.minimum)", "max=\(features.maximum)",
            "feature_flags=0x\(hexadecimal(features.flags.rawValue))",
        ]
    case .syncParameters89:
        let parameters = decoded(inline, as: SyncParameters.self)
        return [
            "resync_rate=\(parameters.resyncRate)", "verify='\(parameters.verifyAlgorithm)'",
            "csums='\(parameters.checksumAlgorithm)'", "plan_ahead=\(parameters.planAhead)",
            "delay_target=\(parameters.delayTarget)", "fill_target=\(parameters.fillTarget)",
            "max_rate=\(parameters.maxRate)",
        ]
    case .sizes: return described(reading(inline, Sizes.init(decoding:)))
    default:
        guard let parameters = reading(inline, ProtocolParameters.init(decoding:)) else {
            return ["parameters that can be read"]
        }
        return described(parameters)
    }
}

private func described(_ sizes: Sizes) -> [String] {
    let words = [
        "d_size=\(sizes.diskSize)", "u_size=\(sizes.userSize)", "c_size=\(sizes.currentSize)",
        "max_bio=\(sizes.maximumRequest)", "dds_flags=0x\(hexadecimal(sizes.flags))",
    ]
    guard sizes.hasQueueLimits else { return words }
    return words + [
        "phys=\(sizes.physicalBlockSize)", "log=\(sizes.logicalBlockSize)",
        "io_min=\(sizes.minimumIO)", "io_opt=\(sizes.optimalIO)",
        "discard=\(sizes.discards ? 1 : 0)",
    ]
}

private func described(_ parameters: ProtocolParameters) -> [String] {
    // As the decoded text calls them: 9 is call-pri-lost(-after-sb) in the configuration.
    let policies = [
        "disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes",
        "discard-least-changes", "discard-local", "discard-remote", "consensus",
        "discard-secondary", "call-helper", "violently",
    ]
    let chosen = [
        parameters.afterSplitBrain0, parameters.afterSplitBrain1, parameters.afterSplitBrain2,
    ].map { $0 < policies.count ? policies[Int($0)] : "unknown" }
    return [
        "protocol=\(parameters.replicationProtocol.map { "\($0)".uppercased() } ?? "unknown")",
        "asb=\(chosen.joined(separator: "/"))",
        "conn_flags=0x\(hexadecimal(parameters.connectionFlags))",
        "two_primaries=\(parameters.twoPrimaries)",
        "integrity='\(parameters.integrityAlgorithm)'",
    ]
}
