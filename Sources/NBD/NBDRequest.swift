// The transmission phase: requests.
// Source: the NBD protocol (proto.md of the NBD project), "Request message", "Request types",
// "Command flags", "Error values"; extended requests: its extension-ext-header, the same sections.
import Support

/// What a client sent is not NBD; the stream has lost its framing and can only be closed.
package enum NBDError: Error, Equatable, CustomStringConvertible {
    case wrongSize(expected: Int, actual: Int)
    case notARequest(magic: UInt32)

    package var description: String {
        switch self {
        case .wrongSize(let expected, let actual):
            "NBD request of \(actual) bytes, not \(expected)"
        case .notARequest(let magic):
            "NBD request with magic 0x\(String(magic, radix: 16))"
        }
    }
}

/// How requests and replies are framed, as the client has negotiated it.
package enum NBDMode: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    /// Compact requests, simple replies.
    case simple
    /// Compact requests; NBD_OPT_STRUCTURED_REPLY.
    case structured
    /// Extended requests, and every reply extended; NBD_OPT_EXTENDED_HEADERS.
    case extended
}

package enum NBDCommand: UInt16, Sendable, CaseIterable {
    case read = 0
    case write = 1
    case disconnect = 2
    case flush = 3
    case trim = 4
    case cache = 5
    case writeZeroes = 6
    case blockStatus = 7
}

@frozen @usableFromInline
package struct NBDCommandFlags: OptionSet, Equatable, BitwiseCopyable, Sendable {
    @usableFromInline package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Reply when it is durable.
    @inlinable package static var fua: NBDCommandFlags { NBDCommandFlags(rawValue: 1) }
    /// Write zeroes without giving the space back.
    @inlinable package static var noHole: NBDCommandFlags { NBDCommandFlags(rawValue: 2) }
    /// Do not fragment the reply; for structured replies.
    @inlinable package static var df: NBDCommandFlags { NBDCommandFlags(rawValue: 4) }
    /// One extent is enough; for block status.
    @inlinable package static var reqOne: NBDCommandFlags { NBDCommandFlags(rawValue: 8) }
    /// Fail rather than write zeroes slowly.
    @inlinable package static var fastZero: NBDCommandFlags { NBDCommandFlags(rawValue: 16) }
    /// The length is that of the payload that follows; in extended requests only.
    @inlinable package static var payloadLength: NBDCommandFlags { NBDCommandFlags(rawValue: 32) }
}

package struct NBDRequest: Equatable, BitwiseCopyable, Sendable {
    package static let magic: UInt32 = 0x2560_9513
    package static let extendedMagic: UInt32 = 0x21e4_1c71

    package var flags: NBDCommandFlags
    /// As sent; `command` is `nil` if it is not known.
    package var type: UInt16
    /// The client's own; comes back with the reply.
    package var cookie: UInt64
    package var offset: UInt64
    package var length: UInt64
    /// Whether it came with the extended header.
    package let isExtended: Bool

    package var command: NBDCommand? { NBDCommand(rawValue: type) }

    /// How many bytes follow the request, also if it is refused.
    package var payloadLength: UInt64 {
        let follows =
            isExtended ? flags.contains(.payloadLength) : type == NBDCommand.write.rawValue
        return follows ? length : 0
    }

    package init(
        _ command: NBDCommand, flags: NBDCommandFlags = [], cookie: UInt64, offset: UInt64 = 0,
        length: UInt64 = 0, isExtended: Bool = false
    ) {
        self.flags = flags
        type = command.rawValue
        self.cookie = cookie
        self.offset = offset
        self.length = length
        self.isExtended = isExtended
    }
}

extension NBDRequest {
    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let flags = Field<UInt16>(at: 4)
        static let type = Field<UInt16>(at: 6)
        static let cookie = Field<UInt64>(at: 8)
        static let offset = Field<UInt64>(at: 16)
        static let length = Field<UInt32>(at: 24)
        static let extendedLength = Field<UInt64>(at: 24)
    }

    package static let encodedSize = 28  // Layout.length.end
    package static let extendedSize = 32  // Layout.extendedLength.end

    /// The bytes of a request's header.
    package static func size(_ mode: NBDMode) -> Int {
        mode == .extended ? extendedSize : encodedSize
    }

    /// - Throws: `NBDError` if the bytes are no request; a command this server does not know is one.
    package init(decoding bytes: RawSpan, _ mode: NBDMode) throws(NBDError) {
        guard bytes.byteCount == Self.size(mode) else {
            throw .wrongSize(expected: Self.size(mode), actual: bytes.byteCount)
        }
        isExtended = mode == .extended
        let magic = bytes[Layout.magic]
        guard magic == (isExtended ? Self.extendedMagic : Self.magic) else {
            throw .notARequest(magic: magic)
        }
        flags = NBDCommandFlags(rawValue: bytes[Layout.flags])
        type = bytes[Layout.type]
        cookie = bytes[Layout.cookie]
        offset = bytes[Layout.offset]
        length = isExtended ? bytes[Layout.extendedLength] : UInt64(bytes[Layout.length])
    }

    /// Writes every one of the bytes of the header.
    package func encode(into bytes: inout MutableRawSpan) {
        let size = isExtended ? Self.extendedSize : Self.encodedSize
        invariant(bytes.byteCount == size, "request into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = isExtended ? Self.extendedMagic : Self.magic
        bytes[Layout.flags] = flags.rawValue
        bytes[Layout.type] = type
        bytes[Layout.cookie] = cookie
        bytes[Layout.offset] = offset
        if isExtended {
            bytes[Layout.extendedLength] = length
        } else {
            bytes[Layout.length] = UInt32(length)
        }
    }
}

/// The error values that a reply can carry.
package enum NBDErrno: UInt32, Sendable, CaseIterable {
    case notPermitted = 1  // EPERM
    case inputOutput = 5  // EIO
    case noMemory = 12  // ENOMEM
    case invalid = 22  // EINVAL
    case noSpace = 28  // ENOSPC
    case overflow = 75  // EOVERFLOW
    case notSupported = 95  // ENOTSUP
    case shuttingDown = 108  // ESHUTDOWN
}
