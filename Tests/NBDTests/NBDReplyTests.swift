import NBD
import Support
import Testing

private let subject = NBDReply.Subject(cookie: 0x1122_3344_5566_7788, offset: 0x1_0000_1000)
private let cookie: [UInt8] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]
private let offset: [UInt8] = [0, 0, 0, 1, 0, 0, 0x10, 0]

/// What `encode` writes into `size` bytes.
private func encoded(_ size: Int, _ encode: (inout MutableRawSpan) -> Void) -> [UInt8] {
    var arena = ByteArena(capacity: 4096)
    var bytes = arena.append(size)
    encode(&bytes)
    return unsafe bytes.withUnsafeMutableBytes { unsafe Array($0) }
}

/// NBD_STRUCTURED_REPLY_MAGIC, flags, type, cookie, length.
private func structured(_ flags: UInt8, _ type: [UInt8], _ payload: [UInt8]) -> [UInt8] {
    [0x66, 0x8e, 0x33, 0xef, 0, flags] + type + cookie + [0, 0, 0, UInt8(payload.count)] + payload
}

/// NBD_EXTENDED_REPLY_MAGIC, flags, type, cookie, offset of the request, length.
private func extended(_ flags: UInt8, _ type: [UInt8], _ payload: [UInt8]) -> [UInt8] {
    [0x6e, 0x8a, 0x27, 0x8c, 0, flags] + type + cookie + offset
        + [0, 0, 0, 0, 0, 0, 0, UInt8(payload.count)] + payload
}

private func simple(_ error: UInt8) -> [UInt8] {
    [0x67, 0x44, 0x66, 0x98, 0, 0, 0, error] + cookie
}

// All bytes are written by hand from the standard.
@Suite struct NBDReplyTests {
    @Test func `success without data is simple wherever it may be`() {
        for mode in [NBDMode.simple, .structured] {
            let bytes = encoded(NBDReply.doneSize(mode)) {
                NBDReply.encodeDone(mode, subject, into: &$0)
            }
            #expect(bytes == simple(0))
        }
        let bytes = encoded(NBDReply.doneSize(.extended)) {
            NBDReply.encodeDone(.extended, subject, into: &$0)
        }
        #expect(bytes == extended(1, [0, 0], []))
    }

    @Test func `a read is answered with its data behind the head`() {
        func head(_ mode: NBDMode) -> [UInt8] {
            encoded(NBDReply.readSize(mode)) {
                NBDReply.encodeRead(mode, subject, offset: subject.offset, length: 512, into: &$0)
            }
        }
        #expect(head(.simple) == simple(0))
        // NBD_REPLY_TYPE_OFFSET_DATA, last; 8 + 512 bytes follow, of which the offset is here.
        #expect(
            head(.structured)
                == [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1] + cookie + [0, 0, 2, 8] + offset)
        #expect(
            head(.extended)
                == [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 1] + cookie + offset
                + [0, 0, 0, 0, 0, 0, 2, 8] + offset)
    }

    @Test func `a part of a read has its own offset, and only the last says so`() {
        let bytes = encoded(NBDReply.readSize(.extended)) {
            NBDReply.encodeRead(
                .extended, subject, offset: 0x1_0004_1000, length: 0x4_0000, isLast: false,
                into: &$0)
        }
        #expect(
            bytes == [0x6e, 0x8a, 0x27, 0x8c, 0, 0, 0, 1] + cookie + offset
                + [0, 0, 0, 0, 0, 4, 0, 8] + [0, 0, 0, 1, 0, 4, 0x10, 0])
        let end = encoded(NBDReply.endSize(.structured)) {
            NBDReply.encodeEnd(.structured, subject, into: &$0)
        }
        #expect(end == structured(1, [0, 0], []))
    }

    @Test(arguments: [
        (NBDErrno.notPermitted, UInt8(1)), (.inputOutput, 5), (.noMemory, 12), (.invalid, 22),
        (.noSpace, 28), (.overflow, 75), (.notSupported, 95), (.shuttingDown, 108),
    ])
    func `an error has the standard's number, and a message where there is room for one`(
        error: NBDErrno, number: UInt8
    ) {
        func reply(_ mode: NBDMode, _ message: String, isLast: Bool = true) -> [UInt8] {
            encoded(NBDReply.errorSize(mode, message: message.utf8.count)) {
                NBDReply.encodeError(
                    mode, subject, error, message: message, isLast: isLast, into: &$0)
            }
        }
        #expect(reply(.simple, "why") == simple(number))
        let payload: [UInt8] = [0, 0, 0, number, 0, 3] + "why".utf8
        #expect(reply(.structured, "why") == structured(1, [0x80, 1], payload))
        #expect(reply(.structured, "why", isLast: false) == structured(0, [0x80, 1], payload))
        #expect(reply(.extended, "why") == extended(1, [0x80, 1], payload))
        #expect(reply(.structured, "") == structured(1, [0x80, 1], [0, 0, 0, number, 0, 0]))
    }

    @Test func `a block status lists extents, with 64 bits behind extended headers`() {
        let extents = [
            NBDExtent(length: 4096, status: []), NBDExtent(length: 512, status: [.hole, .zero]),
        ]
        let compact = encoded(NBDReply.statusSize(.structured, extents: 2)) {
            NBDReply.encodeStatus(.structured, subject, context: 1, extents, into: &$0)
        }
        #expect(
            compact
                == structured(
                    1, [0, 5],
                    [0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3]))
        let wide = [NBDExtent(length: 1 << 40, status: .zero)]
        let bytes = encoded(NBDReply.statusSize(.extended, extents: 1)) {
            NBDReply.encodeStatus(.extended, subject, context: 1, wide, into: &$0)
        }
        #expect(
            bytes
                == extended(
                    1, [0, 6],
                    [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]))
    }

    @Test func `a reply into too few bytes is a bug`() async {
        await #expect(processExitsWith: .failure) {
            _ = encoded(15) { NBDReply.encodeDone(.simple, subject, into: &$0) }
        }
        await #expect(processExitsWith: .failure) {
            _ = encoded(NBDReply.readSize(.simple)) {
                NBDReply.encodeRead(.structured, subject, offset: 0, length: 512, into: &$0)
            }
        }
    }
}
