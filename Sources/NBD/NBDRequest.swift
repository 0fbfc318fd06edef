// The transmission phase: requests and simple replies.
// Source: the NBD protocol (proto.md of the NBD project), "Transmission" and "Request types".
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
}

package struct NBDRequest: Equatable, BitwiseCopyable, Sendable {
    package static let magic: UInt32 = 0x2560_9513

    package var flags: NBDCommandFlags
    /// As sent; `command` is `nil` if it is not known.
    package var type: UInt16
    /// The client's own; comes back with the reply.
    package var cookie: UInt64
    package var offset: UInt64
    package var length: UInt32

    package var command: NBDCommand? { NBDCommand(rawValue: type) }

    /// How many bytes follow the request, also if it is refused.
    package var payloadLength: UInt32 { type == NBDCommand.write.rawValue ? length : 0 }

    package init(
        _ command: NBDCommand, flags: NBDCommandFlags = [], cookie: UInt64, offset: UInt64 = 0,
        length: UInt32 = 0
    ) {
        self.flags = flags
        type = command.rawValue
        self.cookie = cookie
        self.offset = offset
        self.length = length
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
    }

    package static let encodedSize = 28  // Layout.length.end

    /// - Throws: `NBDError` if the bytes are no request; a command this server does not know is one.
    package init(decoding bytes: RawSpan) throws(NBDError) {
        guard bytes.byteCount == Self.encodedSize else {
            throw .wrongSize(expected: Self.encodedSize, actual: bytes.byteCount)
        }
        let magic = bytes[Layout.magic]
        guard magic == Self.magic else { throw .notARequest(magic: magic) }
        flags = NBDCommandFlags(rawValue: bytes[Layout.flags])
        type = bytes[Layout.type]
        cookie = bytes[Layout.cookie]
        offset = bytes[Layout.offset]
        length = bytes[Layout.length]
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "request into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = Self.magic
        bytes[Layout.flags] = flags.rawValue
        bytes[Layout.type] = type
        bytes[Layout.cookie] = cookie
        bytes[Layout.offset] = offset
        bytes[Layout.length] = length
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

/// A simple reply; the data of a successful read follows it.
package enum NBDReply {
    package static let magic: UInt32 = 0x6744_6698
    package static let encodedSize = 16  // Layout.cookie.end

    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let error = Field<UInt32>(at: 4)
        static let cookie = Field<UInt64>(at: 8)
    }

    /// Writes every one of the `encodedSize` bytes.
    ///
    /// - Parameter error: `nil` for success.
    package static func encode(
        cookie: UInt64, error: NBDErrno?, into bytes: inout MutableRawSpan
    ) {
        invariant(bytes.byteCount == encodedSize, "reply into \(bytes.byteCount) bytes")
        bytes[Layout.magic] = magic
        bytes[Layout.error] = error?.rawValue ?? 0
        bytes[Layout.cookie] = cookie
    }
}
