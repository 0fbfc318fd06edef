// What both nodes must have configured alike: drbd-wire sections 4.7 and 5.4.
import Support

/// When a write counts as done; the raw value is the number on the wire.
package enum ReplicationProtocol: UInt32, Equatable, Sendable, CaseIterable {
    /// On the local disk and in the send buffer.
    case a = 1
    /// Also in the peer's memory.
    case b = 2
    /// Also on the peer's disk.
    case c = 3
}

/// P_PROTOCOL and P_PROTOCOL_UPDATE.
package struct ProtocolParameters: Equatable, Sendable {
    /// A `ReplicationProtocol`, or what the peer sent instead.
    package var protocolNumber: UInt32
    /// after-sb-0pri: a number of the table in section 4.7.
    package var afterSplitBrain0: UInt32
    /// after-sb-1pri.
    package var afterSplitBrain1: UInt32
    /// after-sb-2pri.
    package var afterSplitBrain2: UInt32
    /// `discardMyData`, `dryRun`.
    package var connectionFlags: UInt32
    /// allow-two-primaries: 0 or 1.
    package var twoPrimaries: UInt32
    /// data-integrity-alg; empty if none.
    package var integrityAlgorithm: String

    package static var discardMyData: UInt32 { 1 }
    package static var dryRun: UInt32 { 2 }

    /// `nil` if the peer's number is none of them.
    package var replicationProtocol: ReplicationProtocol? {
        ReplicationProtocol(rawValue: protocolNumber)
    }

    package init(
        protocolNumber: UInt32, afterSplitBrain0: UInt32, afterSplitBrain1: UInt32,
        afterSplitBrain2: UInt32, connectionFlags: UInt32, twoPrimaries: UInt32,
        integrityAlgorithm: String
    ) {
        self.protocolNumber = protocolNumber
        self.afterSplitBrain0 = afterSplitBrain0
        self.afterSplitBrain1 = afterSplitBrain1
        self.afterSplitBrain2 = afterSplitBrain2
        self.connectionFlags = connectionFlags
        self.twoPrimaries = twoPrimaries
        self.integrityAlgorithm = integrityAlgorithm
    }
}

extension ProtocolParameters {
    private enum Layout {
        static let protocolNumber = Field<UInt32>(at: 0)
        static let afterSplitBrain0 = Field<UInt32>(at: 4)
        static let afterSplitBrain1 = Field<UInt32>(at: 8)
        static let afterSplitBrain2 = Field<UInt32>(at: 12)
        static let connectionFlags = Field<UInt32>(at: 16)
        static let twoPrimaries = Field<UInt32>(at: 20)
        static let integrityAlgorithm = 24
    }

    /// Of this value: the name with its NUL is as long as it is.
    package var encodedSize: Int { Layout.integrityAlgorithm + integrityAlgorithm.utf8.count + 1 }

    /// - Parameter bytes: the whole packet and nothing else.
    ///
    /// `nil` if it is too short, or too long, or the name has no end.
    package init?(decoding bytes: RawSpan) {
        let nameSize = bytes.byteCount - Layout.integrityAlgorithm
        guard nameSize > 0, nameSize <= algorithmNameSize,
            bytes[Field<UInt8>(at: bytes.byteCount - 1)] == 0
        else { return nil }
        protocolNumber = bytes[Layout.protocolNumber]
        afterSplitBrain0 = bytes[Layout.afterSplitBrain0]
        afterSplitBrain1 = bytes[Layout.afterSplitBrain1]
        afterSplitBrain2 = bytes[Layout.afterSplitBrain2]
        connectionFlags = bytes[Layout.connectionFlags]
        twoPrimaries = bytes[Layout.twoPrimaries]
        integrityAlgorithm = algorithmName(
            in: bytes, at: Layout.integrityAlgorithm..<bytes.byteCount)
    }

    /// Writes every one of the `encodedSize` bytes. The name has at most 63 bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == encodedSize, "protocol into \(bytes.byteCount) bytes")
        invariant(
            integrityAlgorithm.utf8.count < algorithmNameSize,
            "integrity algorithm of \(integrityAlgorithm.utf8.count) bytes")
        bytes[Layout.protocolNumber] = protocolNumber
        bytes[Layout.afterSplitBrain0] = afterSplitBrain0
        bytes[Layout.afterSplitBrain1] = afterSplitBrain1
        bytes[Layout.afterSplitBrain2] = afterSplitBrain2
        bytes[Layout.connectionFlags] = connectionFlags
        bytes[Layout.twoPrimaries] = twoPrimaries
        DRBDWire.encode(
            algorithm: integrityAlgorithm, into: &bytes,
            at: Layout.integrityAlgorithm..<bytes.byteCount)
    }
}
