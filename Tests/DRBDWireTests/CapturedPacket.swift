import DRBDWire
import Support

/// One packet of a capture, its fixed part not yet decoded.
struct CapturedPacket {
    let packet: Packet
    let volume: UInt16
    let length: Int
    /// Its header is that of protocol versions from 100 on.
    let isLong: Bool
    let header: [UInt8]
    /// The header as our encoder writes it.
    let encodedHeader: [UInt8]
    /// The fixed part, or the whole packet if it has no data.
    let inline: [UInt8]
    /// What the decoded text says of it; only the first 200 of a type have it.
    let note: String?
    /// The note's words, without explanations in parentheses.
    var words: Set<Substring> {
        Set((note ?? "").split(separator: " ").map { $0.prefix { $0 != "(" } })
    }
}

/// Why a capture does not read as a stream of packets.
enum CaptureFault: Error, Equatable {
    case noHeader(position: Int)
    case unknownPacket(number: UInt16, position: Int)
    case illegalLength(Packet, length: Int)
    case cutInside(Packet, position: Int)
}

/// The packets of a stream.
struct CapturedPackets {
    private(set) var packets: [CapturedPacket] = []
    /// The stream ends within a packet.
    private(set) var endsWithin = false

    /// What a digest of each algorithm is long.
    private static let digests = ["": 0, "crc32c": 4, "sha1": 20]

    init(_ stream: CapturedStream) throws {
        var reader = CaptureReader(stream)
        var digest = 0
        while !reader.atEnd {
            let position = reader.position
            let found = try Self.header(&reader)
            guard let packet = Packet(rawValue: found.packet) else {
                throw CaptureFault.unknownPacket(number: found.packet, position: position)
            }
            let hasDigest = found.isLong ? digest : 0
            let inlineSize =
                packet.inlineLength(of: found.length, digest: hasDigest)
                ?? (found.isLong ? nil : Self.older(packet, found.length))
            guard let inlineSize else {
                throw CaptureFault.illegalLength(packet, length: found.length)
            }
            guard let inline = reader.take(inlineSize) else {
                throw CaptureFault.cutInside(packet, position: position)
            }
            guard reader.skip(found.length - inlineSize) else {
                endsWithin = true
                break
            }
            packets.append(
                CapturedPacket(
                    packet: packet, volume: found.volume, length: found.length,
                    isLong: found.isLong, header: found.bytes, encodedHeader: found.encoded,
                    inline: inline, note: stream.notes[position]))
            if packet == .protocolParameters || packet == .protocolUpdate,
                let parameters = reading(inline, ProtocolParameters.init(decoding:))
            {
                digest = Self.digests[parameters.integrityAlgorithm] ?? 0
            }
        }
    }

    private struct Header {
        let packet: UInt16
        let volume: UInt16
        let length: Int
        let isLong: Bool
        let bytes: [UInt8]
        let encoded: [UInt8]
    }

    private static func header(_ reader: inout CaptureReader) throws(CaptureFault) -> Header {
        let position = reader.position
        if let bytes = reader.peek(PacketHeader.encodedSize),
            let header = reading(bytes, PacketHeader.init(decoding:))
        {
            _ = reader.take(bytes.count)
            return Header(
                packet: header.packet, volume: header.volume, length: Int(header.length),
                isLong: true, bytes: bytes, encoded: encodedBytes(header, bytes.count))
        }
        guard let bytes = reader.take(ShortHeader.encodedSize) else {
            throw .noHeader(position: position)
        }
        if let header = reading(bytes, ShortHeader.init(decoding:)) {
            return Header(
                packet: header.packet, volume: 0, length: Int(header.length), isLong: false,
                bytes: bytes, encoded: encodedBytes(header, bytes.count))
        }
        guard let header = reading(bytes, LargeHeader.init(decoding:)) else {
            throw .noHeader(position: position)
        }
        return Header(
            packet: header.packet, volume: 0, length: Int(header.length), isLong: false,
            bytes: bytes, encoded: encodedBytes(header, bytes.count))
    }

    private static func encodedBytes(_ header: some Encodable, _ size: Int) -> [UInt8] {
        encoded(header, size: size)
    }

    /// The lengths that only older protocol versions have.
    private static func older(_ packet: Packet, _ length: Int) -> Int? {
        switch (packet, length) {
        case (.syncParameters, 4...68), (.syncParameters89, 132): length
        default: nil
        }
    }
}
