import DRBDWire
import Testing

/// The packet's fixed part, decoded and encoded again; `nil` if it cannot be decoded.
func reencoded(_ packet: CapturedPacket) -> [UInt8]? {
    let inline = packet.inline
    switch packet.packet {
    case .data, .dataReply, .resyncDataReply:
        return again(inline, DataPacket.self)
    case .trim, .zeroes:
        return again(inline, DiscardPacket.self)
    case .dataRequest, .resyncDataRequest, .thinResyncRequest, .verifyRequest, .verifyReply,
        .checksumResyncRequest:
        return again(inline, BlockRequest.self)
    case .receiveAck, .writeAck, .resyncWriteAck, .superseded, .negativeAck, .negativeDataReply,
        .negativeResyncReply, .verifyResult, .resyncIsInSync, .resyncCancel, .retryWrite:
        return again(inline, BlockAck.self)
    case .outOfSync, .resyncDeallocated: return again(inline, OutOfSync.self)
    case .barrier: return again(inline, Barrier.self)
    case .barrierAck: return again(inline, BarrierAck.self)
    case .state: return again(inline, StatePacket.self)
    case .stateChangeRequest, .connectionStateChangeRequest:
        return again(inline, StateChangeRequest.self)
    case .stateChangeReply, .connectionStateChangeReply:
        return again(inline, StateChangeReply.self)
    case .uuids: return again(inline, UUIDs.self)
    case .syncUUID: return again(inline, SyncUUIDPacket.self)
    case .connectionFeatures: return again(inline, Features.self)
    case .syncParameters89: return again(inline, SyncParameters.self)
    case .sizes:
        let sizes = reading(inline, Sizes.init(decoding:))
        return encoded(sizes, size: sizes.encodedSize)
    case .protocolParameters, .protocolUpdate:
        guard let parameters = reading(inline, ProtocolParameters.init(decoding:)) else {
            return nil
        }
        return encoded(parameters, size: parameters.encodedSize)
    case .compressedBitmap: return reencodedRuns(inline)
    // Bytes without a layout: plain bitmaps, challenges and responses, and nothing at all.
    case .bitmap, .authenticationChallenge, .authenticationResponse, .unplugRemote, .ping,
        .pingAck, .initialMeta, .initialData:
        return inline
    case .becomeSyncTarget, .becomeSyncSource, .syncParameters, .delayProbe, .writeSame:
        return nil
    }
}

/// The fixed part by way of `type`, and the digest behind it, if any, as it is.
private func again<Value: FixedCodec>(_ inline: [UInt8], _ type: Value.Type) -> [UInt8] {
    encoded(decoded(inline, as: type)) + inline.dropFirst(type.encodedSize)
}

/// Runs of a compressed bitmap, encoded again with the room that a packet has.
private func reencodedRuns(_ payload: [UInt8]) -> [UInt8]? {
    guard let runs = runs(of: payload) else { return nil }
    var encoder = RunLengthEncoder(firstValue: runs.firstValue, limit: Packet.maximumBitmap)
    for run in runs.lengths {
        guard encoder.append(run: run) else { return nil }
    }
    return encoder.payload
}

/// All runs of a payload; `nil` if it is no code.
func runs(of payload: [UInt8]) -> (firstValue: Bool, lengths: [UInt64])? {
    guard var decoder = RunLengthDecoder(payload) else { return nil }
    var lengths: [UInt64] = []
    do {
        while let run = try decoder.next() { lengths.append(run) }
    } catch {
        return nil
    }
    return (decoder.firstValue, lengths)
}

/// `inline` with zeros in place of what the kernel does not initialise.
func masked(_ inline: [UInt8], of packet: Packet) -> [UInt8] {
    let padding: Range<Int>
    switch packet {
    case .dataRequest, .resyncDataRequest, .thinResyncRequest, .verifyRequest, .verifyReply,
        .checksumResyncRequest:
        padding = 20..<24
    case .outOfSync: padding = 12..<16
    default: return inline
    }
    var inline = inline
    for offset in padding { inline[offset] = 0 }
    return inline
}
