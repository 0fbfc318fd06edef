// The ends of epochs: drbd-wire sections 4.5, 4.6 and 10.4.
import Support

/// P_BARRIER: everything before it must be durable before anything after it.
package struct Barrier: Equatable, Sendable, BitwiseCopyable {
    /// Opaque: echoed, compared for equality, never counted with.
    package var number: UInt32

    package init(number: UInt32) { self.number = number }
}

extension Barrier {
    private enum Layout {
        static let number = Field<UInt32>(at: 0)
        static let padding = Field<UInt32>(at: 4)
    }

    package static let encodedSize = 8  // Layout.padding.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "barrier of \(bytes.byteCount) bytes")
        number = bytes[Layout.number]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "barrier into \(bytes.byteCount) bytes")
        bytes[Layout.number] = number
        bytes[Layout.padding] = 0
    }
}

/// P_BARRIER_ACK: the epoch is durable.
package struct BarrierAck: Equatable, Sendable, BitwiseCopyable {
    /// The barrier's, as it came.
    package var number: UInt32
    /// How many writes the receiver counted in the epoch.
    package var writeCount: UInt32

    package init(number: UInt32, writeCount: UInt32) {
        self.number = number
        self.writeCount = writeCount
    }
}

extension BarrierAck {
    private enum Layout {
        static let number = Field<UInt32>(at: 0)
        static let writeCount = Field<UInt32>(at: 4)
    }

    package static let encodedSize = 8  // Layout.writeCount.end

    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "barrier ack of \(bytes.byteCount) bytes")
        number = bytes[Layout.number]
        writeCount = bytes[Layout.writeCount]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "barrier ack into \(bytes.byteCount) bytes")
        bytes[Layout.number] = number
        bytes[Layout.writeCount] = writeCount
    }
}
