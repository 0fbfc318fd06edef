import DRBDWire
import Replication
import Support

/// A peer that answers with as few instructions as the codecs allow.
struct Script {
    /// Writes since the last barrier.
    private var count: UInt32 = 0

    /// - Parameter out: what the peer sends on the meta connection.
    mutating func answer(_ packet: Packet, _ body: RawSpan, _ out: inout ByteArena) {
        switch packet {
        case .data:
            let data = DataPacket(decoding: body)
            count += 1
            if data.flags.contains(.wantsWriteAck) {
                acknowledge(.writeAck, data, &out)
            } else if data.flags.contains(.wantsReceiveAck) {
                acknowledge(.receiveAck, data, &out)
            }
        case .barrier:
            Self.header(.barrierAck, BarrierAck.encodedSize, &out)
            var bytes = out.append(BarrierAck.encodedSize)
            BarrierAck(number: Barrier(decoding: body).number, writeCount: count)
                .encode(into: &bytes)
            count = 0
        default: invariantFailed("\(packet.name) is not in the script")
        }
    }

    private func acknowledge(_ kind: Packet, _ data: DataPacket, _ out: inout ByteArena) {
        Self.header(kind, BlockAck.encodedSize, &out)
        var bytes = out.append(BlockAck.encodedSize)
        BlockAck(sector: data.sector, blockID: data.blockID, size: 4096, sequence: 0)
            .encode(into: &bytes)
    }

    static func header(_ packet: Packet, _ length: Int, _ out: inout ByteArena) {
        var bytes = out.append(PacketHeader.encodedSize)
        PacketHeader(packet: packet, length: UInt32(length)).encode(into: &bytes)
    }
}
