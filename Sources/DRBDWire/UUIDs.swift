// Generations of the data: drbd-wire section 4.10, P_SYNC_UUID of section 3.
import Support

/// What else a node says of its generations.
package struct UUIDFlags: OptionSet, Sendable, BitwiseCopyable {
    package var rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let discardMyData = UUIDFlags(rawValue: 1)
    /// The sender was primary when it last went down without demotion.
    package static let crashedPrimary = UUIDFlags(rawValue: 2)
    /// If the P_STATE that follows says negotiating: the disk is inconsistent, otherwise consistent.
    package static let inconsistent = UUIDFlags(rawValue: 4)
    /// The receiver adopts the current UUID and clears its bitmap.
    package static let skipInitialSync = UUIDFlags(rawValue: 8)
}

/// P_UUIDS: the generations of the sender's data.
package struct UUIDs: Equatable, Sendable, BitwiseCopyable {
    package var current: UInt64
    package var bitmap: UInt64
    package var history0: UInt64
    package var history1: UInt64
    /// How many bits are set in the sender's bitmap.
    package var bitCount: UInt64
    package var flags: UUIDFlags

    package init(
        current: UInt64, bitmap: UInt64, history0: UInt64, history1: UInt64, bitCount: UInt64,
        flags: UUIDFlags
    ) {
        self.current = current
        self.bitmap = bitmap
        self.history0 = history0
        self.history1 = history1
        self.bitCount = bitCount
        self.flags = flags
    }
}

extension UUIDs {
    private enum Layout {
        static let current = Field<UInt64>(at: 0)
        static let bitmap = Field<UInt64>(at: 8)
        static let history0 = Field<UInt64>(at: 16)
        static let history1 = Field<UInt64>(at: 24)
        static let bitCount = Field<UInt64>(at: 32)
        static let flags = Field<UInt64>(at: 40)
    }

    package static let encodedSize = 48  // Layout.flags.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "UUIDs of \(bytes.byteCount) bytes")
        current = bytes[Layout.current]
        bitmap = bytes[Layout.bitmap]
        history0 = bytes[Layout.history0]
        history1 = bytes[Layout.history1]
        bitCount = bytes[Layout.bitCount]
        flags = UUIDFlags(rawValue: bytes[Layout.flags])
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "UUIDs into \(bytes.byteCount) bytes")
        bytes[Layout.current] = current
        bytes[Layout.bitmap] = bitmap
        bytes[Layout.history0] = history0
        bytes[Layout.history1] = history1
        bytes[Layout.bitCount] = bitCount
        bytes[Layout.flags] = flags.rawValue
    }
}

/// P_SYNC_UUID: the current UUID of the sync target while the resync runs.
package struct SyncUUIDPacket: Equatable, Sendable, BitwiseCopyable {
    package var uuid: UInt64

    package init(uuid: UInt64) { self.uuid = uuid }
}

extension SyncUUIDPacket {
    private enum Layout {
        static let uuid = Field<UInt64>(at: 0)
    }

    package static let encodedSize = 8  // Layout.uuid.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "sync UUID of \(bytes.byteCount) bytes")
        uuid = bytes[Layout.uuid]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "sync UUID into \(bytes.byteCount) bytes")
        bytes[Layout.uuid] = uuid
    }
}
