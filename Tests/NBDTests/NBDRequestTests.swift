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

@Suite struct NBDRequestTests {
    @Test func `a request is read as the standard lays it out`() throws {
        let request = try withSpan(write) { try NBDRequest(decoding: $0) }
        #expect(request.command == .write)
        #expect(request.flags == .fua)
        #expect(request.cookie == 0x0123_4567_89ab_cdef)
        #expect(request.offset == 0x1_0000_1000)
        #expect(request.length == 8192)
        #expect(request.payloadLength == 8192)
    }

    @Test func `a request is written as it is read`() throws {
        let request = try withSpan(write) { try NBDRequest(decoding: $0) }
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
            try withSpan(bytes) { _ = try NBDRequest(decoding: $0) }
        }
        #expect(
            NBDError.notARequest(magic: 0x2560_9514).description
                == "NBD request with magic 0x25609514")
    }

    @Test(arguments: [0, 27, 29])
    func `another size is no request`(size: Int) {
        #expect(throws: NBDError.wrongSize(expected: 28, actual: size)) {
            try withSpan(Array((write + [0]).prefix(size))) { _ = try NBDRequest(decoding: $0) }
        }
    }

    @Test func `an unknown command is a request, which has no payload`() throws {
        var bytes = write
        bytes[7] = 99
        let request = try withSpan(bytes) { try NBDRequest(decoding: $0) }
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

    @Test(arguments: [
        (NBDErrno?.none, UInt8(0)), (.notPermitted, 1), (.inputOutput, 5), (.noMemory, 12),
        (.invalid, 22), (.noSpace, 28), (.overflow, 75), (.notSupported, 95),
        (.shuttingDown, 108),
    ])
    func `a reply is written as the standard lays it out`(error: NBDErrno?, number: UInt8) {
        var arena = ByteArena(capacity: 64)
        var bytes = arena.append(NBDReply.encodedSize)
        NBDReply.encode(cookie: 0x1122_3344_5566_7788, error: error, into: &bytes)
        let written = unsafe bytes.withUnsafeMutableBytes { unsafe Array($0) }
        #expect(
            written == [
                0x67, 0x44, 0x66, 0x98, 0, 0, 0, number,
                0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
            ])
    }
}

@Suite struct NBDVerdictTests {
    static let size: UInt64 = 1 << 30
    let limits = NBDLimits(size: size)

    private func verdict(
        _ command: NBDCommand, _ offset: UInt64, _ length: UInt32,
        _ flags: NBDCommandFlags = []
    ) -> NBDErrno? {
        limits.verdict(
            NBDRequest(command, flags: flags, cookie: 1, offset: offset, length: length))
    }

    @Test(arguments: [NBDCommand.read, .write, .trim, .writeZeroes])
    func `what lies inside is carried out`(command: NBDCommand) {
        #expect(verdict(command, 0, 512) == nil)
        #expect(verdict(command, Self.size - 512, 512) == nil)
        #expect(verdict(command, 512, 32 << 20) == nil)
        #expect(verdict(command, 0, 512, .fua) == nil)
    }

    @Test(arguments: [
        (NBDCommand.read, NBDErrno.invalid), (.write, .noSpace), (.trim, .noSpace),
        (.writeZeroes, .noSpace),
    ])
    func `what lies outside is refused`(command: NBDCommand, error: NBDErrno) {
        #expect(verdict(command, Self.size, 512) == error)
        #expect(verdict(command, Self.size - 512, 1024) == error)
        // The sum of offset and length does not fit into 64 bits.
        #expect(verdict(command, UInt64.max - 511, 1024) == error)
        #expect(verdict(command, 1 << 63, 512) == error)
    }

    @Test(arguments: [NBDCommand.read, .write, .trim, .writeZeroes])
    func `what is not whole sectors is refused`(command: NBDCommand) {
        #expect(verdict(command, 1, 512) == .invalid)
        #expect(verdict(command, 0, 511) == .invalid)
        #expect(verdict(command, 256, 256) == .invalid)
        #expect(verdict(command, 0, 0) == .invalid)
    }

    @Test func `a disk of 4 KiB blocks refuses single sectors`() {
        let limits = NBDLimits(size: Self.size, minimumBlock: 4096)
        let one = NBDRequest(.write, cookie: 1, offset: 512, length: 512)
        let block = NBDRequest(.write, cookie: 1, offset: 4096, length: 4096)
        #expect(limits.verdict(one) == .invalid)
        #expect(limits.verdict(block) == nil)
    }

    @Test func `a payload of more than 32 MiB is refused, space may be given back at once`() {
        let tooMuch: UInt32 = 32 << 20 + 512
        #expect(verdict(.read, 0, tooMuch) == .invalid)
        #expect(verdict(.write, 0, tooMuch) == .invalid)
        #expect(verdict(.trim, 0, 1 << 30) == nil)
        #expect(verdict(.writeZeroes, 0, 1 << 30) == nil)
    }

    @Test func `a flush has no range`() {
        #expect(verdict(.flush, 0, 0) == nil)
        #expect(verdict(.flush, 0, 0, .fua) == nil)
        #expect(verdict(.flush, 512, 0) == .invalid)
        #expect(verdict(.flush, 0, 512) == .invalid)
    }

    @Test func `a disconnect is never answered`() {
        #expect(verdict(.disconnect, 0, 0) == nil)
    }

    @Test func `flags are for the commands that know them`() {
        #expect(verdict(.read, 0, 512, .fua) == nil)
        #expect(verdict(.writeZeroes, 0, 512, [.noHole, .fua]) == nil)
        #expect(verdict(.write, 0, 512, .noHole) == .invalid)
        #expect(verdict(.read, 0, 512, .df) == .invalid)
        #expect(verdict(.read, 0, 512, .reqOne) == .invalid)
        #expect(verdict(.writeZeroes, 0, 512, .fastZero) == .invalid)
        #expect(verdict(.write, 0, 512, NBDCommandFlags(rawValue: 0x8000)) == .invalid)
        let fast = NBDLimits(size: Self.size, flags: [.standard, .sendFastZero])
        let zeroes = NBDRequest(.writeZeroes, flags: .fastZero, cookie: 1, length: 512)
        #expect(fast.verdict(zeroes) == nil)
    }

    @Test func `what was not advertised is refused`() {
        let bare = NBDLimits(size: Self.size, flags: .hasFlags)
        for command in [NBDCommand.trim, .writeZeroes, .cache, .blockStatus] {
            #expect(
                bare.verdict(NBDRequest(command, cookie: 1, offset: 0, length: 512)) == .invalid)
        }
        #expect(bare.verdict(NBDRequest(.flush, cookie: 1)) == .invalid)
        let durable = NBDRequest(.write, flags: .fua, cookie: 1, length: 512)
        #expect(bare.verdict(durable) == .invalid)
        #expect(verdict(.cache, 0, 512) == .invalid)
        #expect(verdict(.blockStatus, 0, 512) == .invalid)
    }

    @Test func `an export for reading is not written`() {
        let limits = NBDLimits(size: Self.size, flags: [.standard, .readOnly])
        for command in [NBDCommand.write, .trim, .writeZeroes] {
            #expect(limits.verdict(NBDRequest(command, cookie: 1, length: 512)) == .notPermitted)
        }
        #expect(limits.verdict(NBDRequest(.read, cookie: 1, length: 512)) == nil)
    }

    @Test func `an unknown command is invalid`() {
        var request = NBDRequest(.read, cookie: 1, offset: 0, length: 512)
        request.type = 8
        #expect(limits.verdict(request) == .invalid)
    }
}
