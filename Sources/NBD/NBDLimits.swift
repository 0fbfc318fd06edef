// What of an offer a request may ask for.
// Source: the NBD protocol, "Block size constraints", "Request types", "Error values", "Command
// flags"; the payload flag: its extension-ext-header, "Request message".

/// Why a request is not carried out: an errno of the standard, and a text for structured replies.
package enum NBDRefusal: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case unknownCommand, notOffered, unknownFlag, readOnly
    case empty, unaligned, tooLong
    /// Beyond the end: of what is read or trimmed, of what is written.
    case outside, noRoom
    case flushHasRange, noContext
    /// Of extended requests: a write without the flag for a payload, any other with it.
    case payloadMissing, payloadUnexpected
    /// Zeroes that were to be fast.
    case slow

    package var errno: NBDErrno {
        switch self {
        case .unknownCommand, .notOffered, .unknownFlag, .empty, .unaligned, .tooLong, .outside,
            .flushHasRange, .noContext, .payloadMissing, .payloadUnexpected:
            .invalid
        case .readOnly: .notPermitted
        case .noRoom: .noSpace
        case .slow: .notSupported
        }
    }

    package var text: String {
        switch self {
        case .unknownCommand: "unknown command"
        case .notOffered: "a command that was not offered"
        case .unknownFlag: "a flag that this command does not have"
        case .readOnly: "the export is read-only"
        case .empty: "the length is 0"
        case .unaligned: "offset or length is not a multiple of the minimum block size"
        case .tooLong: "longer than the maximum block size"
        case .outside, .noRoom: "beyond the end of the export"
        case .flushHasRange: "a flush has neither offset nor length"
        case .noContext: "no metadata context was selected for this export"
        case .payloadMissing: "a write without NBD_CMD_FLAG_PAYLOAD_LEN"
        case .payloadUnexpected: "this command has no payload"
        case .slow: "zeroes would have to be written here"
        }
    }
}

/// What of an export decides whether a request is valid; trivial, for the request path.
package struct NBDLimits: Equatable, BitwiseCopyable, Sendable {
    package var size: UInt64
    package var flags: NBDTransmissionFlags
    /// A power of two.
    package var minimumBlock: UInt32
    /// The longest payload.
    package var maximumBlock: UInt32

    /// What a single request may be about, in bytes: 128 TiB.
    package static let maximumEffect: UInt64 = 1 << 47

    package init(
        size: UInt64, flags: NBDTransmissionFlags = .standard, minimumBlock: UInt32 = 512,
        maximumBlock: UInt32 = 32 << 20
    ) {
        self.size = size
        self.flags = flags
        self.minimumBlock = minimumBlock
        self.maximumBlock = maximumBlock
    }

    /// Whether the payload of an extended request is more than anybody may send: then the
    /// connection is closed before it comes, as the standard recommends. With compact headers it is
    /// read and thrown away.
    package func closes(_ request: NBDRequest) -> Bool {
        request.isExtended && request.payloadLength > UInt64(maximumBlock)
    }

    /// Why the request is not to be carried out; `nil` if it is (or is a disconnect, which has no
    /// answer). A refused request's payload follows all the same.
    ///
    /// - Parameter hasContext: whether base:allocation was selected for this export.
    package func verdict(
        _ request: NBDRequest, _ mode: NBDMode = .simple, hasContext: Bool = false
    ) -> NBDRefusal? {
        guard let command = request.command else { return .unknownCommand }
        if let refusal = support(command, hasContext) { return refusal }
        if let refusal = framing(request, command) { return refusal }
        if !request.flags.isSubset(of: permitted(command, mode)) { return .unknownFlag }
        switch command {
        case .disconnect:
            return nil
        case .flush:
            return request.offset == 0 && request.length == 0 ? nil : .flushHasRange
        case .read:
            return payload(request) ?? range(request, outside: .outside)
        case .write:
            return payload(request) ?? range(request, outside: .noRoom)
        case .writeZeroes:
            return range(request, outside: .noRoom)
        case .trim, .cache, .blockStatus:
            return range(request, outside: .outside)
        }
    }

    private func support(_ command: NBDCommand, _ hasContext: Bool) -> NBDRefusal? {
        switch command {
        case .read, .disconnect: nil
        case .write: flags.contains(.readOnly) ? .readOnly : nil
        case .flush: flags.contains(.sendFlush) ? nil : .notOffered
        case .trim:
            flags.contains(.readOnly) ? .readOnly : flags.contains(.sendTrim) ? nil : .notOffered
        case .writeZeroes:
            flags.contains(.readOnly)
                ? .readOnly : flags.contains(.sendWriteZeroes) ? nil : .notOffered
        case .cache: flags.contains(.sendCache) ? nil : .notOffered
        case .blockStatus: hasContext ? nil : .noContext
        }
    }

    /// With extended headers a flag says whether the length is that of a payload.
    private func framing(_ request: NBDRequest, _ command: NBDCommand) -> NBDRefusal? {
        guard request.isExtended else { return nil }
        let follows = request.flags.contains(.payloadLength)
        if command == .write { return follows ? nil : .payloadMissing }
        return follows ? .payloadUnexpected : nil
    }

    private func permitted(_ command: NBDCommand, _ mode: NBDMode) -> NBDCommandFlags {
        // A client may set it on every command; where nothing is written it means nothing.
        var permitted: NBDCommandFlags = flags.contains(.sendFUA) ? .fua : []
        switch command {
        case .read:
            if mode != .simple { permitted.insert(.df) }
        case .write:
            if mode == .extended { permitted.insert(.payloadLength) }
        case .writeZeroes:
            permitted.insert(.noHole)
            if flags.contains(.sendFastZero) { permitted.insert(.fastZero) }
        case .blockStatus:
            permitted.insert(.reqOne)
        case .disconnect, .flush, .trim, .cache:
            break
        }
        return permitted
    }

    private func payload(_ request: NBDRequest) -> NBDRefusal? {
        request.length > UInt64(maximumBlock) ? .tooLong : nil
    }

    private func range(_ request: NBDRequest, outside: NBDRefusal) -> NBDRefusal? {
        // The standard leaves it open; nothing sensible asks for it.
        if request.length == 0 { return .empty }
        let mask = UInt64(minimumBlock &- 1)
        if request.length & mask != 0 || request.offset & mask != 0 { return .unaligned }
        guard request.length <= size, request.offset <= size - request.length else {
            return outside
        }
        return request.length <= Self.maximumEffect ? nil : .tooLong
    }
}
