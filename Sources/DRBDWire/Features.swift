// The first packet of a connection that says something: drbd-wire sections 4.14 and 5.2.
import Support

/// What both nodes can do beside the protocol version; agreed is what both say.
package struct FeatureFlags: OptionSet, Sendable, BitwiseCopyable {
    package var rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// P_TRIM may be sent.
    package static let trim = FeatureFlags(rawValue: 1)
    /// P_RS_THIN_REQ and P_RS_DEALLOCATED may be sent.
    package static let thinResync = FeatureFlags(rawValue: 2)
    /// P_SIZES has queue limits; a trim may cover up to 128 MiB. P_WSAME itself is not sent.
    package static let writeSame = FeatureFlags(rawValue: 4)
    /// P_ZEROES may be sent; P_TRIM means discard only.
    package static let writeZeroes = FeatureFlags(rawValue: 8)
    /// The peer is repd too. No kernel has this bit, and none minds it.
    package static let repd = FeatureFlags(rawValue: 1 << 31)
}

/// P_CONNECTION_FEATURES: the protocol versions and features that a node has.
package struct Features: Equatable, Sendable, BitwiseCopyable {
    package var minimum: UInt32
    package var flags: FeatureFlags
    /// 0 means `minimum`.
    package var maximum: UInt32

    package init(minimum: UInt32, flags: FeatureFlags, maximum: UInt32) {
        self.minimum = minimum
        self.flags = flags
        self.maximum = maximum
    }
}

extension Features {
    private enum Layout {
        static let minimum = Field<UInt32>(at: 0)
        static let flags = Field<UInt32>(at: 4)
        static let maximum = Field<UInt32>(at: 8)
        static let reserved = 12..<72
    }

    package static let encodedSize = 72  // Layout.reserved.upperBound

    /// The reserved bytes are ignored: later versions of the protocol use some.
    package init(decoding bytes: RawSpan) {
        invariant(bytes.byteCount >= Self.encodedSize, "features of \(bytes.byteCount) bytes")
        minimum = bytes[Layout.minimum]
        flags = FeatureFlags(rawValue: bytes[Layout.flags])
        maximum = bytes[Layout.maximum]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "features into \(bytes.byteCount) bytes")
        bytes[Layout.minimum] = minimum
        bytes[Layout.flags] = flags.rawValue
        bytes[Layout.maximum] = maximum
        for offset in Layout.reserved { bytes[Field<UInt8>(at: offset)] = 0 }
    }
}
