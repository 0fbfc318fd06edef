// What precedes every packet: drbd-wire section 2.
import Support

/// The header of protocol versions from 100 on (h100): every packet on both sockets, except the
/// first one of each and the features.
package struct PacketHeader: Equatable, Sendable, BitwiseCopyable {
    /// The raw command: `Packet(rawValue:)` tells whether it is known.
    package var packet: UInt16
    /// 0 for packets that concern the connection.
    package var volume: UInt16
    /// Bytes after the header.
    package var length: UInt32

    package init(packet: UInt16, volume: UInt16, length: UInt32) {
        self.packet = packet
        self.volume = volume
        self.length = length
    }

    package init(packet: Packet, volume: UInt16 = 0, length: UInt32) {
        self.init(packet: packet.rawValue, volume: volume, length: length)
    }
}

extension PacketHeader {
    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let volume = Field<UInt16>(at: 4)
        static let packet = Field<UInt16>(at: 6)
        static let length = Field<UInt32>(at: 8)
        static let padding = Field<UInt32>(at: 12)
    }

    package static let encodedSize = 16  // Layout.padding.end
    private static let magic: UInt32 = 0x8620_ec20

    /// `nil` if the magic is wrong or the padding is not zero: the connection is lost.
    package init?(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "header of \(bytes.byteCount) bytes")
        guard bytes[Layout.magic] == Self.magic, bytes[Layout.padding] == 0 else { return nil }
        volume = bytes[Layout.volume]
        packet = bytes[Layout.packet]
        length = bytes[Layout.length]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "header into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = Self.magic
        bytes[Layout.volume] = volume
        bytes[Layout.packet] = packet
        bytes[Layout.length] = length
        bytes[Layout.padding] = 0
    }
}

/// The header of the first packets of every connection (h80): initial packets and features.
package struct ShortHeader: Equatable, Sendable, BitwiseCopyable {
    /// The raw command.
    package var packet: UInt16
    /// Bytes after the header.
    package var length: UInt16

    package init(packet: UInt16, length: UInt16) {
        self.packet = packet
        self.length = length
    }

    package init(packet: Packet, length: UInt16) {
        self.init(packet: packet.rawValue, length: length)
    }
}

extension ShortHeader {
    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let packet = Field<UInt16>(at: 4)
        static let length = Field<UInt16>(at: 6)
    }

    package static let encodedSize = 8  // Layout.length.end
    private static let magic: UInt32 = 0x8374_0267

    /// `nil` if the magic is wrong.
    package init?(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "header of \(bytes.byteCount) bytes")
        guard bytes[Layout.magic] == Self.magic else { return nil }
        packet = bytes[Layout.packet]
        length = bytes[Layout.length]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "header into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = Self.magic
        bytes[Layout.packet] = packet
        bytes[Layout.length] = length
    }
}

/// The header of long packets of the protocol versions 95 to 99 (h95): read from captures only.
package struct LargeHeader: Equatable, Sendable, BitwiseCopyable {
    /// The raw command.
    package var packet: UInt16
    /// Bytes after the header.
    package var length: UInt32

    package init(packet: UInt16, length: UInt32) {
        self.packet = packet
        self.length = length
    }
}

extension LargeHeader {
    private enum Layout {
        static let magic = Field<UInt16>(at: 0)
        static let packet = Field<UInt16>(at: 2)
        static let length = Field<UInt32>(at: 4)
    }

    package static let encodedSize = 8  // Layout.length.end
    private static let magic: UInt16 = 0x835a

    /// `nil` if the magic is wrong.
    package init?(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "header of \(bytes.byteCount) bytes")
        guard bytes[Layout.magic] == Self.magic else { return nil }
        packet = bytes[Layout.packet]
        length = bytes[Layout.length]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "header into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = Self.magic
        bytes[Layout.packet] = packet
        bytes[Layout.length] = length
    }
}
