// Requests for blocks and answers about them: drbd-wire sections 4.3, 4.4 and 4.13.
import Support

/// The acknowledgements and refusals on the meta socket: P_RECV_ACK, P_WRITE_ACK, P_RS_WRITE_ACK,
/// P_SUPERSEDED, P_RETRY_WRITE, P_NEG_ACK, P_NEG_DREPLY, P_NEG_RS_DREPLY, P_RS_IS_IN_SYNC,
/// P_RS_CANCEL and P_OV_RESULT.
package struct BlockAck: Equatable, Sendable, BitwiseCopyable {
    package var sector: UInt64
    /// The echo of the packet answered. In P_OV_RESULT a verdict instead (`inSync`, `outOfSync`); a
    /// kernel's P_RS_IS_IN_SYNC, and its P_NEG_RS_DREPLY to a checksum request, hold garbage.
    package var blockID: UInt64
    /// Bytes of the packet answered, without digest.
    package var size: UInt32
    package var sequence: UInt32

    package init(sector: UInt64, blockID: UInt64, size: UInt32, sequence: UInt32) {
        self.sector = sector
        self.blockID = blockID
        self.size = size
        self.sequence = sequence
    }
}

extension BlockAck {
    private enum Layout {
        static let sector = Field<UInt64>(at: 0)
        static let blockID = Field<UInt64>(at: 8)
        static let size = Field<UInt32>(at: 16)
        static let sequence = Field<UInt32>(at: 20)
    }

    package static let encodedSize = 24  // Layout.sequence.end
    /// The block id of resync data.
    package static var syncerBlockID: UInt64 { .max }
    /// The block id of P_OV_RESULT for equal blocks.
    package static var inSync: UInt64 { 4711 }
    /// The block id of P_OV_RESULT for different blocks.
    package static var outOfSync: UInt64 { 4712 }

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "block ack of \(bytes.byteCount) bytes")
        sector = bytes[Layout.sector]
        blockID = bytes[Layout.blockID]
        size = bytes[Layout.size]
        sequence = bytes[Layout.sequence]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "block ack into \(bytes.byteCount) bytes")
        bytes[Layout.sector] = sector
        bytes[Layout.blockID] = blockID
        bytes[Layout.size] = size
        bytes[Layout.sequence] = sequence
    }
}

/// P_DATA_REQUEST, P_RS_DATA_REQUEST, P_RS_THIN_REQ and P_OV_REQUEST; also the fixed part of
/// P_CSUM_RS_REQUEST and P_OV_REPLY, where a digest follows.
package struct BlockRequest: Equatable, Sendable, BitwiseCopyable {
    package var sector: UInt64
    /// Chosen by the reader in P_DATA_REQUEST, otherwise `syncerBlockID`.
    package var blockID: UInt64
    /// Bytes: 512 to 1 MiB, a multiple of 512.
    package var size: UInt32

    package init(sector: UInt64, blockID: UInt64, size: UInt32) {
        self.sector = sector
        self.blockID = blockID
        self.size = size
    }
}

extension BlockRequest {
    private enum Layout {
        static let sector = Field<UInt64>(at: 0)
        static let blockID = Field<UInt64>(at: 8)
        static let size = Field<UInt32>(at: 16)
        /// Old buffer contents when it comes from a kernel.
        static let padding = Field<UInt32>(at: 20)
    }

    package static let encodedSize = 24  // Layout.padding.end
    /// The block id of all requests but P_DATA_REQUEST.
    package static var syncerBlockID: UInt64 { .max }

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "block request of \(bytes.byteCount) bytes")
        sector = bytes[Layout.sector]
        blockID = bytes[Layout.blockID]
        size = bytes[Layout.size]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(
            bytes.byteCount == Self.encodedSize, "block request into \(bytes.byteCount) bytes")
        bytes[Layout.sector] = sector
        bytes[Layout.blockID] = blockID
        bytes[Layout.size] = size
        bytes[Layout.padding] = 0
    }
}

/// P_OUT_OF_SYNC and P_RS_DEALLOCATED: a range and nothing else.
package struct OutOfSync: Equatable, Sendable, BitwiseCopyable {
    package var sector: UInt64
    /// Bytes.
    package var size: UInt32

    package init(sector: UInt64, size: UInt32) {
        self.sector = sector
        self.size = size
    }
}

extension OutOfSync {
    private enum Layout {
        static let sector = Field<UInt64>(at: 0)
        static let size = Field<UInt32>(at: 8)
        /// Old buffer contents in a kernel's P_OUT_OF_SYNC.
        static let padding = Field<UInt32>(at: 12)
    }

    package static let encodedSize = 16  // Layout.padding.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "range of \(bytes.byteCount) bytes")
        sector = bytes[Layout.sector]
        size = bytes[Layout.size]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "range into \(bytes.byteCount) bytes")
        bytes[Layout.sector] = sector
        bytes[Layout.size] = size
        bytes[Layout.padding] = 0
    }
}
