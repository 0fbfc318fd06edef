// What a server offers.
// Source: the NBD protocol, "Transmission flags", "Block size constraints".

package struct NBDTransmissionFlags: OptionSet, Equatable, BitwiseCopyable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Always set.
    package static let hasFlags = NBDTransmissionFlags(rawValue: 1)
    package static let readOnly = NBDTransmissionFlags(rawValue: 2)
    package static let sendFlush = NBDTransmissionFlags(rawValue: 4)
    package static let sendFUA = NBDTransmissionFlags(rawValue: 8)
    package static let rotational = NBDTransmissionFlags(rawValue: 16)
    package static let sendTrim = NBDTransmissionFlags(rawValue: 32)
    package static let sendWriteZeroes = NBDTransmissionFlags(rawValue: 64)
    package static let sendDF = NBDTransmissionFlags(rawValue: 128)
    /// A flush on one connection covers what all connections have written.
    package static let canMultiConn = NBDTransmissionFlags(rawValue: 256)
    package static let sendResize = NBDTransmissionFlags(rawValue: 512)
    package static let sendCache = NBDTransmissionFlags(rawValue: 1024)
    package static let sendFastZero = NBDTransmissionFlags(rawValue: 2048)

    /// What repd serves; the handshake adds `sendDF` for those who have structured replies.
    package static let standard: NBDTransmissionFlags = [
        .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn, .sendCache,
        .sendFastZero,
    ]
}

/// One volume as its clients see it.
package struct NBDExport: Equatable, Sendable {
    package var name: String
    /// Bytes.
    package var size: UInt64
    package var flags: NBDTransmissionFlags
    /// Offsets and lengths are multiples of it.
    package var minimumBlock: UInt32
    package var preferredBlock: UInt32
    /// The longest payload.
    package var maximumBlock: UInt32
    /// For people.
    package var description: String

    package init(
        name: String, size: UInt64, flags: NBDTransmissionFlags = .standard,
        minimumBlock: UInt32 = 512, preferredBlock: UInt32 = 4096, maximumBlock: UInt32 = 32 << 20,
        description: String = ""
    ) {
        self.name = name
        self.size = size
        self.flags = flags
        self.minimumBlock = minimumBlock
        self.preferredBlock = preferredBlock
        self.maximumBlock = maximumBlock
        self.description = description
    }

    package var limits: NBDLimits {
        NBDLimits(
            size: size, flags: flags, minimumBlock: minimumBlock, maximumBlock: maximumBlock)
    }
}
