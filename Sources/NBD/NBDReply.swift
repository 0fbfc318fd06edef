// The transmission phase: replies of all three kinds.
// Source: the NBD protocol, "Simple reply message", "Structured reply chunk message", "Structured
// reply types", "The base:allocation metadata context"; extended chunks: its extension-ext-header,
// the same sections.
import Support

/// A part of the export and what is known of it.
package struct NBDExtent: Equatable, BitwiseCopyable, Sendable {
    /// Of the context base:allocation.
    package struct Status: OptionSet, Equatable, BitwiseCopyable, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        /// NBD_STATE_HOLE: no space is allocated for it.
        package static let hole = Status(rawValue: 1)
        /// NBD_STATE_ZERO: it reads as zeroes.
        package static let zero = Status(rawValue: 2)
    }

    package var length: UInt64
    package var status: Status

    package init(length: UInt64, status: Status) {
        self.length = length
        self.status = status
    }
}

/// Replies to requests; each function writes every one of the bytes that its size function says.
package enum NBDReply {
    package static let magic: UInt32 = 0x6744_6698
    package static let structuredMagic: UInt32 = 0x668e_33ef
    package static let extendedMagic: UInt32 = 0x6e8a_278c

    package static let simpleSize = 16  // Simple.cookie.end
    /// NBD's limit for strings.
    package static let maximumMessage = 4096

    private enum Simple {
        static let magic = Field<UInt32>(at: 0)
        static let error = Field<UInt32>(at: 4)
        static let cookie = Field<UInt64>(at: 8)
    }

    /// The head of a chunk; an extended one has the request's offset before the length.
    private enum Chunk {
        static let magic = Field<UInt32>(at: 0)
        static let flags = Field<UInt16>(at: 4)
        static let type = Field<UInt16>(at: 6)
        static let cookie = Field<UInt64>(at: 8)
        static let length = Field<UInt32>(at: 16)
        static let size = 20  // Chunk.length.end
        static let extendedOffset = Field<UInt64>(at: 16)
        static let extendedLength = Field<UInt64>(at: 24)
        static let extendedSize = 32  // Chunk.extendedLength.end
    }

    private enum ChunkType: UInt16 {
        case none = 0
        case offsetData = 1
        case blockStatus = 5
        case extendedBlockStatus = 6
        case error = 0x8001
    }

    /// NBD_REPLY_FLAG_DONE: no other chunk of this reply follows.
    private static let done: UInt16 = 1

    /// What a reply answers: it comes back in the head.
    package struct Subject: Equatable, BitwiseCopyable, Sendable {
        package var cookie: UInt64
        /// Of the request, not of a part of it.
        package var offset: UInt64

        package init(cookie: UInt64, offset: UInt64) {
            self.cookie = cookie
            self.offset = offset
        }
    }

    private static func headSize(_ mode: NBDMode) -> Int {
        mode == .extended ? Chunk.extendedSize : Chunk.size
    }

    /// - Parameter length: of the payload behind the head.
    private static func encodeHead(
        _ mode: NBDMode, _ type: ChunkType, _ subject: Subject, isLast: Bool = true, length: Int,
        into bytes: inout MutableRawSpan
    ) {
        bytes[Chunk.magic] = mode == .extended ? extendedMagic : structuredMagic
        bytes[Chunk.flags] = isLast ? done : 0
        bytes[Chunk.type] = type.rawValue
        bytes[Chunk.cookie] = subject.cookie
        if mode == .extended {
            bytes[Chunk.extendedOffset] = subject.offset
            bytes[Chunk.extendedLength] = UInt64(length)
        } else {
            bytes[Chunk.length] = UInt32(length)
        }
    }

    private static func encodeSimple(
        cookie: UInt64, error: UInt32, into bytes: inout MutableRawSpan
    ) {
        bytes[Simple.magic] = magic
        bytes[Simple.error] = error
        bytes[Simple.cookie] = cookie
    }

    // MARK: success

    /// The bytes of a reply without data.
    package static func doneSize(_ mode: NBDMode) -> Int {
        mode == .extended ? Chunk.extendedSize : simpleSize
    }

    /// Success of anything but a read or a block status. Simple if it may be: that is shorter.
    package static func encodeDone(
        _ mode: NBDMode, _ subject: Subject, into bytes: inout MutableRawSpan
    ) {
        invariant(bytes.byteCount == doneSize(mode), "reply into \(bytes.byteCount) bytes")
        switch mode {
        case .simple, .structured: encodeSimple(cookie: subject.cookie, error: 0, into: &bytes)
        case .extended: encodeHead(mode, .none, subject, length: 0, into: &bytes)
        }
    }

    /// The bytes of the end of a reply whose other chunks have been sent.
    package static func endSize(_ mode: NBDMode) -> Int { headSize(mode) }

    /// - Parameter mode: structured or extended.
    package static func encodeEnd(
        _ mode: NBDMode, _ subject: Subject, into bytes: inout MutableRawSpan
    ) {
        invariant(mode != .simple, "the end of chunks in a simple reply")
        invariant(bytes.byteCount == endSize(mode), "reply into \(bytes.byteCount) bytes")
        encodeHead(mode, .none, subject, length: 0, into: &bytes)
    }

    /// The bytes of a read's reply in front of the data.
    package static func readSize(_ mode: NBDMode) -> Int {
        mode == .simple ? simpleSize : headSize(mode) + 8
    }

    /// Success of a read, or of a part of it: the data follow.
    ///
    /// - Parameters:
    ///   - offset: of the data. A simple reply has all of them.
    ///   - length: of the data, in bytes, up to 2^32 - 9.
    package static func encodeRead(
        _ mode: NBDMode, _ subject: Subject, offset: UInt64, length: UInt32, isLast: Bool = true,
        into bytes: inout MutableRawSpan
    ) {
        invariant(bytes.byteCount == readSize(mode), "reply into \(bytes.byteCount) bytes")
        guard mode != .simple else {
            encodeSimple(cookie: subject.cookie, error: 0, into: &bytes)
            return
        }
        encodeHead(
            mode, .offsetData, subject, isLast: isLast, length: Int(length) + 8, into: &bytes)
        bytes[Field<UInt64>(at: headSize(mode))] = offset
    }

    // MARK: errors

    /// The bytes of an error with a message of so many bytes, which simple replies do not have.
    package static func errorSize(_ mode: NBDMode, message: Int) -> Int {
        mode == .simple ? simpleSize : headSize(mode) + 6 + message
    }

    /// - Parameter message: for people; at most `maximumMessage` bytes.
    package static func encodeError(
        _ mode: NBDMode, _ subject: Subject, _ error: NBDErrno, message: String,
        isLast: Bool = true, into bytes: inout MutableRawSpan
    ) {
        let count = message.utf8.count
        invariant(count <= maximumMessage, "a message of \(count) bytes")
        invariant(
            bytes.byteCount == errorSize(mode, message: count),
            "reply into \(bytes.byteCount) bytes")
        guard mode != .simple else {
            encodeSimple(cookie: subject.cookie, error: error.rawValue, into: &bytes)
            return
        }
        encodeHead(mode, .error, subject, isLast: isLast, length: 6 + count, into: &bytes)
        let head = headSize(mode)
        bytes[Field<UInt32>(at: head)] = error.rawValue
        bytes[Field<UInt16>(at: head + 4)] = UInt16(count)
        var position = head + 6
        for byte in message.utf8 {
            bytes[Field<UInt8>(at: position)] = byte
            position += 1
        }
    }

    // MARK: block status

    /// The bytes of a block status of so many extents.
    package static func statusSize(_ mode: NBDMode, extents: Int) -> Int {
        mode == .extended ? Chunk.extendedSize + 8 + 16 * extents : Chunk.size + 4 + 8 * extents
    }

    /// The status of consecutive extents from the request's offset on, for one metadata context.
    ///
    /// - Parameters:
    ///   - mode: structured or extended.
    ///   - extents: at least one; none is empty, and without extended headers none has 4 GiB.
    package static func encodeStatus(
        _ mode: NBDMode, _ subject: Subject, context: UInt32, _ extents: [NBDExtent],
        into bytes: inout MutableRawSpan
    ) {
        invariant(mode != .simple && !extents.isEmpty, "\(extents.count) extents, \(mode)")
        invariant(
            bytes.byteCount == statusSize(mode, extents: extents.count),
            "reply into \(bytes.byteCount) bytes")
        let head = headSize(mode)
        encodeHead(
            mode, mode == .extended ? .extendedBlockStatus : .blockStatus, subject,
            length: bytes.byteCount - head, into: &bytes)
        bytes[Field<UInt32>(at: head)] = context
        guard mode == .extended else {
            for (index, extent) in extents.enumerated() {
                bytes[Field<UInt32>(at: head + 4 + 8 * index)] = UInt32(extent.length)
                bytes[Field<UInt32>(at: head + 8 + 8 * index)] = extent.status.rawValue
            }
            return
        }
        bytes[Field<UInt32>(at: head + 4)] = UInt32(extents.count)
        for (index, extent) in extents.enumerated() {
            bytes[Field<UInt64>(at: head + 8 + 16 * index)] = extent.length
            bytes[Field<UInt64>(at: head + 16 + 16 * index)] = UInt64(extent.status.rawValue)
        }
    }
}
