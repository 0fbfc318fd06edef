// States, and the changes that both nodes agree on: drbd-wire sections 4.11, 6.1 and 6.3.
import Support

/// P_STATE: the sender's state of one volume, a `StateWord`.
package struct StatePacket: Equatable, Sendable, BitwiseCopyable {
    package var word: UInt32

    package init(word: UInt32) { self.word = word }
}

extension StatePacket {
    private enum Layout {
        static let word = Field<UInt32>(at: 0)
    }

    package static let encodedSize = 4  // Layout.word.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "state of \(bytes.byteCount) bytes")
        word = bytes[Layout.word]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "state into \(bytes.byteCount) bytes")
        bytes[Layout.word] = word
    }
}

/// P_STATE_CHG_REQ and P_CONN_ST_CHG_REQ, from the sender's point of view: see `mirrored`.
package struct StateChangeRequest: Equatable, Sendable, BitwiseCopyable {
    /// The fields to change.
    package var mask: UInt32
    /// Their new values.
    package var value: UInt32

    package init(mask: UInt32, value: UInt32) {
        self.mask = mask
        self.value = value
    }
}

extension StateChangeRequest {
    private enum Layout {
        static let mask = Field<UInt32>(at: 0)
        static let value = Field<UInt32>(at: 4)
    }

    package static let encodedSize = 8  // Layout.value.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "state request of \(bytes.byteCount) bytes")
        mask = bytes[Layout.mask]
        value = bytes[Layout.value]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(
            bytes.byteCount == Self.encodedSize, "state request into \(bytes.byteCount) bytes")
        bytes[Layout.mask] = mask
        bytes[Layout.value] = value
    }
}

/// P_STATE_CHG_REPLY and P_CONN_ST_CHG_REPLY.
package struct StateChangeReply: Equatable, Sendable, BitwiseCopyable {
    /// A `StateCode`, or a number that only the peer knows.
    package var code: Int32
    /// The requester enters the state; otherwise the request failed, whatever the code.
    package var accepted: Bool { code >= 1 }

    package init(code: Int32) { self.code = code }

    package init(_ code: StateCode) { self.code = code.rawValue }
}

extension StateChangeReply {
    private enum Layout {
        static let code = Field<Int32>(at: 0)
    }

    package static let encodedSize = 4  // Layout.code.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "state reply of \(bytes.byteCount) bytes")
        code = bytes[Layout.code]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "state reply into \(bytes.byteCount) bytes")
        bytes[Layout.code] = code
    }
}
