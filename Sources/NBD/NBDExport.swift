// What a server offers, and what of it a request may ask for.
// Source: the NBD protocol, "Transmission flags", "Size constraints", "Request types".

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

    /// What repd serves.
    package static let standard: NBDTransmissionFlags = [
        .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn,
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

/// What of an export decides whether a request is valid; trivial, for the request path.
package struct NBDLimits: Equatable, BitwiseCopyable, Sendable {
    package var size: UInt64
    package var flags: NBDTransmissionFlags
    /// A power of two.
    package var minimumBlock: UInt32
    package var maximumBlock: UInt32

    package init(
        size: UInt64, flags: NBDTransmissionFlags = .standard, minimumBlock: UInt32 = 512,
        maximumBlock: UInt32 = 32 << 20
    ) {
        self.size = size
        self.flags = flags
        self.minimumBlock = minimumBlock
        self.maximumBlock = maximumBlock
    }

    /// The error to answer with, `nil` if the request is to be carried out (or is a disconnect,
    /// which has no answer). A refused write's payload follows all the same.
    package func verdict(_ request: NBDRequest) -> NBDErrno? {
        guard let command = request.command else { return .invalid }
        if let refusal = support(command) { return refusal }
        if !request.flags.isSubset(of: permitted(command)) { return .invalid }
        switch command {
        case .disconnect:
            return nil
        case .flush:
            return request.offset == 0 && request.length == 0 ? nil : .invalid
        case .read:
            return payload(request) ?? range(request, outside: .invalid)
        case .write:
            return payload(request) ?? range(request, outside: .noSpace)
        case .trim, .writeZeroes:
            return range(request, outside: .noSpace)
        case .cache, .blockStatus:
            return range(request, outside: .invalid)
        }
    }

    private func support(_ command: NBDCommand) -> NBDErrno? {
        switch command {
        case .read, .disconnect: nil
        case .write: flags.contains(.readOnly) ? .notPermitted : nil
        case .flush: flags.contains(.sendFlush) ? nil : .invalid
        case .trim:
            flags.contains(.readOnly)
                ? .notPermitted : flags.contains(.sendTrim) ? nil : .invalid
        case .writeZeroes:
            flags.contains(.readOnly)
                ? .notPermitted : flags.contains(.sendWriteZeroes) ? nil : .invalid
        case .cache: flags.contains(.sendCache) ? nil : .invalid
        // Needs structured replies, which this server does not negotiate.
        case .blockStatus: .invalid
        }
    }

    private func permitted(_ command: NBDCommand) -> NBDCommandFlags {
        // A client may set it on every command; where nothing is written it means nothing.
        var permitted: NBDCommandFlags = flags.contains(.sendFUA) ? .fua : []
        if command == .writeZeroes {
            permitted.insert(.noHole)
            if flags.contains(.sendFastZero) { permitted.insert(.fastZero) }
        }
        return permitted
    }

    private func payload(_ request: NBDRequest) -> NBDErrno? {
        request.length > maximumBlock ? .invalid : nil
    }

    private func range(_ request: NBDRequest, outside: NBDErrno) -> NBDErrno? {
        // The standard leaves it open; nothing sensible asks for it.
        if request.length == 0 { return .invalid }
        let mask = minimumBlock &- 1
        if request.length & mask != 0 || request.offset & UInt64(mask) != 0 { return .invalid }
        let length = UInt64(request.length)
        return length <= size && request.offset <= size - length ? nil : outside
    }
}
