import NBD
import Support
import Testing

/// Calls `body` with a span of the bytes.
func withSpan<Result>(_ bytes: [UInt8], _ body: (RawSpan) throws -> Result) rethrows -> Result {
    try unsafe bytes.withUnsafeBytes { try body(unsafe RawSpan(_unsafeBytes: $0)) }
}

// Written by hand from the standard's tables, not by our encoder.
private let write: [UInt8] = [
    0x25, 0x60, 0x95, 0x13,  // NBD_REQUEST_MAGIC
    0x00, 0x01,  // flags: FUA
    0x00, 0x01,  // NBD_CMD_WRITE
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  // cookie
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x10, 0x00,  // offset 4 GiB + 4096
    0x00, 0x00, 0x20, 0x00,  // length 8192
]

private let extendedTrim: [UInt8] = [
    0x21, 0xe4, 0x1c, 0x71,  // NBD_EXTENDED_REQUEST_MAGIC
    0x00, 0x01,  // flags: FUA
    0x00, 0x04,  // NBD_CMD_TRIM
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  // cookie
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x10, 0x00,  // offset 4 GiB + 4096
    0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x20, 0x00,  // length 1 TiB + 8192
]

@Suite struct NBDRequestTests {
    @Test func `a request is read as the standard lays it out`() throws {
        let request = try withSpan(write) { try NBDRequest(decoding: $0, .simple) }
        #expect(request.command == .write)
        #expect(request.flags == .fua)
        #expect(request.cookie == 0x0123_4567_89ab_cdef)
        #expect(request.offset == 0x1_0000_1000)
        #expect(request.length == 8192)
        #expect(request.payloadLength == 8192)
    }

    @Test func `a request is written as it is read`() throws {
        let request = try withSpan(write) { try NBDRequest(decoding: $0, .simple) }
        var arena = ByteArena(capacity: 64)
        var bytes = arena.append(NBDRequest.encodedSize)
        request.encode(into: &bytes)
        let written = unsafe bytes.withUnsafeMutableBytes { unsafe Array($0) }
        #expect(written == write)
    }

    @Test func `another magic is no request`() {
        var bytes = write
        bytes[3] = 0x14
        #expect(throws: NBDError.notARequest(magic: 0x2560_9514)) {
            try withSpan(bytes) { _ = try NBDRequest(decoding: $0, .simple) }
        }
        #expect(
            NBDError.notARequest(magic: 0x2560_9514).description
                == "NBD request with magic 0x25609514")
    }

    @Test(arguments: [0, 27, 29, 32])
    func `another size is no request`(size: Int) {
        #expect(throws: NBDError.wrongSize(expected: 28, actual: size)) {
            try withSpan(Array((write + [0, 0, 0, 0]).prefix(size))) {
                _ = try NBDRequest(decoding: $0, .simple)
            }
        }
    }

    @Test func `an unknown command is a request, which has no payload`() throws {
        var bytes = write
        bytes[7] = 99
        let request = try withSpan(bytes) { try NBDRequest(decoding: $0, .simple) }
        #expect(request.command == nil)
        #expect(request.payloadLength == 0)
    }

    @Test(arguments: [
        (NBDCommand.read, UInt16(0)), (.write, 1), (.disconnect, 2), (.flush, 3), (.trim, 4),
        (.cache, 5),
        (.writeZeroes, 6), (.blockStatus, 7),
    ])
    func `commands have the standard's numbers`(command: NBDCommand, number: UInt16) {
        #expect(command.rawValue == number)
    }

    @Test func `an extended request has a length of 64 bits`() throws {
        let request = try withSpan(extendedTrim) { try NBDRequest(decoding: $0, .extended) }
        #expect(request.command == .trim)
        #expect(request.flags == .fua)
        #expect(request.cookie == 0x0123_4567_89ab_cdef)
        #expect(request.offset == 0x1_0000_1000)
        #expect(request.length == 0x100_0000_2000)
        #expect(request.payloadLength == 0)
        var arena = ByteArena(capacity: 64)
        var bytes = arena.append(NBDRequest.extendedSize)
        request.encode(into: &bytes)
        let written = unsafe bytes.withUnsafeMutableBytes { unsafe Array($0) }
        #expect(written == extendedTrim)
    }

    @Test func `an extended request has a payload if its flag says so, whatever it asks for`()
        throws
    {
        for type in [UInt8(1), 4, 7, 99] {
            var bytes = extendedTrim
            bytes[7] = type
            let without = try withSpan(bytes) { try NBDRequest(decoding: $0, .extended) }
            #expect(without.payloadLength == 0)
            bytes[5] = 0x20
            let with = try withSpan(bytes) { try NBDRequest(decoding: $0, .extended) }
            #expect(with.payloadLength == 0x100_0000_2000)
        }
    }

    @Test func `neither kind of request is taken for the other`() {
        #expect(throws: NBDError.notARequest(magic: 0x2560_9513)) {
            try withSpan(write + [0, 0, 0, 0]) { _ = try NBDRequest(decoding: $0, .extended) }
        }
        #expect(throws: NBDError.notARequest(magic: 0x21e4_1c71)) {
            let bytes = Array(extendedTrim.prefix(28))
            try withSpan(bytes) { _ = try NBDRequest(decoding: $0, .structured) }
        }
        for size in 0..<32 {
            #expect(throws: NBDError.wrongSize(expected: 32, actual: size)) {
                let bytes = Array(extendedTrim.prefix(size))
                try withSpan(bytes) { _ = try NBDRequest(decoding: $0, .extended) }
            }
        }
    }
}
