// Packets that write, and data that was asked for: drbd-wire sections 4.1, 4.2 and 10.3.
import Support

/// What the writer wants of a write (dp_flags).
@frozen @usableFromInline package struct DataFlags: OptionSet, Sendable, BitwiseCopyable {
    @usableFromInline package var rawValue: UInt32
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Somebody waits for it.
    @inlinable package static var readWriteSync: DataFlags { DataFlags(rawValue: 2) }
    /// The writer is in a resync: the receiver may clear bits that the write covers.
    @inlinable package static var maySetInSync: DataFlags { DataFlags(rawValue: 4) }
    /// On stable storage before it is acknowledged.
    @inlinable package static var fua: DataFlags { DataFlags(rawValue: 16) }
    /// The receiver flushes its disk before this write.
    @inlinable package static var flush: DataFlags { DataFlags(rawValue: 32) }
    /// In P_TRIM always; in P_ZEROES: may deallocate.
    @inlinable package static var discard: DataFlags { DataFlags(rawValue: 64) }
    /// P_RECV_ACK is wanted (protocol B).
    @inlinable package static var wantsReceiveAck: DataFlags { DataFlags(rawValue: 128) }
    /// P_WRITE_ACK is wanted (protocol C; any protocol with `maySetInSync`).
    @inlinable package static var wantsWriteAck: DataFlags { DataFlags(rawValue: 256) }
    /// In P_ZEROES.
    @inlinable package static var zeroes: DataFlags { DataFlags(rawValue: 1024) }
}

/// The fixed part of P_DATA, P_DATA_REPLY and P_RS_DATA_REPLY; a digest, if any, and the data follow.
package struct DataPacket: Equatable, Sendable, BitwiseCopyable {
    package var sector: UInt64
    /// Chosen by the writer or reader and echoed; `syncerBlockID` in P_RS_DATA_REPLY.
    package var blockID: UInt64
    /// Orders the two sockets (10.2); 0 in replies.
    package var sequence: UInt32
    /// Empty in replies.
    package var flags: DataFlags

    package init(sector: UInt64, blockID: UInt64, sequence: UInt32, flags: DataFlags) {
        self.sector = sector
        self.blockID = blockID
        self.sequence = sequence
        self.flags = flags
    }
}

extension DataPacket {
    private enum Layout {
        static let sector = Field<UInt64>(at: 0)
        static let blockID = Field<UInt64>(at: 8)
        static let sequence = Field<UInt32>(at: 16)
        static let flags = Field<UInt32>(at: 20)
    }

    package static let encodedSize = 24  // Layout.flags.end
    /// The block id of resync data.
    package static var syncerBlockID: UInt64 { .max }

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "data packet of \(bytes.byteCount) bytes")
        sector = bytes[Layout.sector]
        blockID = bytes[Layout.blockID]
        sequence = bytes[Layout.sequence]
        flags = DataFlags(rawValue: bytes[Layout.flags])
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "data packet into \(bytes.byteCount) bytes")
        bytes[Layout.sector] = sector
        bytes[Layout.blockID] = blockID
        bytes[Layout.sequence] = sequence
        bytes[Layout.flags] = flags.rawValue
    }
}

/// P_TRIM and P_ZEROES: a write without data. No digest follows.
package struct DiscardPacket: Equatable, Sendable, BitwiseCopyable {
    package var sector: UInt64
    /// Chosen by the writer and echoed.
    package var blockID: UInt64
    package var sequence: UInt32
    package var flags: DataFlags
    /// Bytes.
    package var size: UInt32

    package init(
        sector: UInt64, blockID: UInt64, sequence: UInt32, flags: DataFlags, size: UInt32
    ) {
        self.sector = sector
        self.blockID = blockID
        self.sequence = sequence
        self.flags = flags
        self.size = size
    }
}

extension DiscardPacket {
    private enum Layout {
        static let sector = Field<UInt64>(at: 0)
        static let blockID = Field<UInt64>(at: 8)
        static let sequence = Field<UInt32>(at: 16)
        static let flags = Field<UInt32>(at: 20)
        static let size = Field<UInt32>(at: 24)
    }

    package static let encodedSize = 28  // Layout.size.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "discard of \(bytes.byteCount) bytes")
        sector = bytes[Layout.sector]
        blockID = bytes[Layout.blockID]
        sequence = bytes[Layout.sequence]
        flags = DataFlags(rawValue: bytes[Layout.flags])
        size = bytes[Layout.size]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "discard into \(bytes.byteCount) bytes")
        bytes[Layout.sector] = sector
        bytes[Layout.blockID] = blockID
        bytes[Layout.sequence] = sequence
        bytes[Layout.flags] = flags.rawValue
        bytes[Layout.size] = size
    }
}
