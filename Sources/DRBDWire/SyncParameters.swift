// The resync rate, its controller, and two algorithms: drbd-wire sections 4.8 and 5.5.
import Support

/// P_SYNC_PARAM89 as protocol versions from 95 on have it.
package struct SyncParameters: Equatable, Sendable {
    /// KiB/s.
    package var resyncRate: UInt32
    /// Tenths of a second; 0: the controller is off, the rate is fixed.
    package var planAhead: UInt32
    /// Tenths of a second.
    package var delayTarget: UInt32
    /// Sectors.
    package var fillTarget: UInt32
    /// KiB/s.
    package var maxRate: UInt32
    /// Empty if none, as `checksumAlgorithm`.
    package var verifyAlgorithm: String
    package var checksumAlgorithm: String

    package init(
        resyncRate: UInt32, planAhead: UInt32, delayTarget: UInt32, fillTarget: UInt32,
        maxRate: UInt32, verifyAlgorithm: String, checksumAlgorithm: String
    ) {
        self.resyncRate = resyncRate
        self.planAhead = planAhead
        self.delayTarget = delayTarget
        self.fillTarget = fillTarget
        self.maxRate = maxRate
        self.verifyAlgorithm = verifyAlgorithm
        self.checksumAlgorithm = checksumAlgorithm
    }
}

extension SyncParameters {
    private enum Layout {
        static let resyncRate = Field<UInt32>(at: 0)
        static let verifyAlgorithm = 4..<68
        static let checksumAlgorithm = 68..<132
        static let planAhead = Field<UInt32>(at: 132)
        static let delayTarget = Field<UInt32>(at: 136)
        static let fillTarget = Field<UInt32>(at: 140)
        static let maxRate = Field<UInt32>(at: 144)
    }

    package static let encodedSize = 148  // Layout.maxRate.end

    package init(decoding bytes: RawSpan) {
        invariant(
            bytes.byteCount >= Self.encodedSize, "sync parameters of \(bytes.byteCount) bytes")
        resyncRate = bytes[Layout.resyncRate]
        verifyAlgorithm = algorithmName(in: bytes, at: Layout.verifyAlgorithm)
        checksumAlgorithm = algorithmName(in: bytes, at: Layout.checksumAlgorithm)
        planAhead = bytes[Layout.planAhead]
        delayTarget = bytes[Layout.delayTarget]
        fillTarget = bytes[Layout.fillTarget]
        maxRate = bytes[Layout.maxRate]
    }

    /// Writes every one of the `encodedSize` bytes. The names have at most 63 bytes each.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(
            bytes.byteCount == Self.encodedSize, "sync parameters into \(bytes.byteCount) bytes")
        bytes[Layout.resyncRate] = resyncRate
        DRBDWire.encode(algorithm: verifyAlgorithm, into: &bytes, at: Layout.verifyAlgorithm)
        DRBDWire.encode(algorithm: checksumAlgorithm, into: &bytes, at: Layout.checksumAlgorithm)
        bytes[Layout.planAhead] = planAhead
        bytes[Layout.delayTarget] = delayTarget
        bytes[Layout.fillTarget] = fillTarget
        bytes[Layout.maxRate] = maxRate
    }
}
