import NBD
import Testing

@Suite struct NBDVerdictTests {
    static let size: UInt64 = 1 << 30
    let limits = NBDLimits(size: size)

    private func verdict(
        _ command: NBDCommand, _ offset: UInt64, _ length: UInt64,
        _ flags: NBDCommandFlags = [], _ mode: NBDMode = .simple, hasContext: Bool = false
    ) -> NBDErrno? {
        let request = NBDRequest(
            command, flags: flags, cookie: 1, offset: offset, length: length,
            isExtended: mode == .extended)
        return limits.verdict(request, mode, hasContext: hasContext)?.errno
    }

    @Test(arguments: [NBDCommand.read, .write, .trim, .writeZeroes])
    func `what lies inside is carried out`(command: NBDCommand) {
        #expect(verdict(command, 0, 512) == nil)
        #expect(verdict(command, Self.size - 512, 512) == nil)
        #expect(verdict(command, 512, 32 << 20) == nil)
        #expect(verdict(command, 0, 512, .fua) == nil)
    }

    @Test(arguments: [
        (NBDCommand.read, NBDErrno.invalid), (.write, .noSpace), (.trim, .invalid),
        (.writeZeroes, .noSpace), (.cache, .invalid), (.blockStatus, .invalid),
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
        #expect(limits.verdict(one) == .unaligned)
        #expect(limits.verdict(block) == nil)
    }

    @Test func `a payload of more than 32 MiB is refused, space may be given back at once`() {
        let tooMuch: UInt64 = 32 << 20 + 512
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
        #expect(verdict(.writeZeroes, 0, 512, .fastZero) == nil)
        #expect(verdict(.trim, 0, 512, .fastZero) == .invalid)
        #expect(verdict(.write, 0, 512, NBDCommandFlags(rawValue: 0x8000)) == .invalid)
        let slow = NBDLimits(size: Self.size, flags: [.hasFlags, .sendWriteZeroes])
        let zeroes = NBDRequest(.writeZeroes, flags: .fastZero, cookie: 1, length: 512)
        #expect(slow.verdict(zeroes) == .unknownFlag)
    }

    @Test func `what was not advertised is refused`() {
        let bare = NBDLimits(size: Self.size, flags: .hasFlags)
        for command in [NBDCommand.trim, .writeZeroes, .cache, .blockStatus] {
            #expect(
                bare.verdict(NBDRequest(command, cookie: 1, offset: 0, length: 512))?.errno
                    == .invalid)
        }
        #expect(bare.verdict(NBDRequest(.flush, cookie: 1)) == .notOffered)
        let durable = NBDRequest(.write, flags: .fua, cookie: 1, length: 512)
        #expect(bare.verdict(durable) == .unknownFlag)
        #expect(verdict(.cache, 0, 512) == nil)
    }

    @Test func `an export for reading is not written`() {
        let limits = NBDLimits(size: Self.size, flags: [.standard, .readOnly])
        for command in [NBDCommand.write, .trim, .writeZeroes] {
            #expect(limits.verdict(NBDRequest(command, cookie: 1, length: 512)) == .readOnly)
        }
        #expect(limits.verdict(NBDRequest(.read, cookie: 1, length: 512)) == nil)
    }

    @Test func `an unknown command is invalid`() {
        var request = NBDRequest(.read, cookie: 1, offset: 0, length: 512)
        request.type = 8
        #expect(limits.verdict(request) == .unknownCommand)
    }

    @Test(arguments: [NBDMode.structured, .extended])
    func `do not fragment is for those who have structured replies`(mode: NBDMode) {
        #expect(verdict(.read, 0, 32 << 20, .df, mode) == nil)
        #expect(verdict(.cache, 0, 512, .df, mode) == .invalid)
    }

    @Test func `the block status is for those who chose a context`() {
        #expect(verdict(.blockStatus, 0, 512, [], .structured) == .invalid)
        #expect(verdict(.blockStatus, 0, 512, [], .structured, hasContext: true) == nil)
        #expect(verdict(.blockStatus, 0, 512, .reqOne, .structured, hasContext: true) == nil)
        #expect(verdict(.blockStatus, 0, 512, .df, .structured, hasContext: true) == .invalid)
        #expect(
            verdict(.blockStatus, Self.size, 512, [], .structured, hasContext: true) == .invalid)
    }

    @Test func `with extended headers a write and nothing else has a payload`() {
        #expect(verdict(.write, 0, 512, .payloadLength, .extended) == nil)
        #expect(verdict(.write, 0, 512, [.payloadLength, .fua], .extended) == nil)
        #expect(verdict(.write, 0, 512, [], .extended) == .invalid)
        for command in [NBDCommand.read, .flush, .trim, .cache, .writeZeroes, .disconnect] {
            #expect(verdict(command, 0, 512, .payloadLength, .extended) == .invalid)
        }
        #expect(verdict(.write, 0, 512, .payloadLength, .structured) == .invalid)
    }

    @Test func `a request without a payload may be about more than 4 GiB`() {
        let limits = NBDLimits(size: 1 << 42)
        for command in [NBDCommand.trim, .writeZeroes, .cache] {
            let request = NBDRequest(command, cookie: 1, length: 1 << 42, isExtended: true)
            #expect(limits.verdict(request, .extended) == nil)
            let more = NBDRequest(command, cookie: 1, length: 1 << 42 + 512, isExtended: true)
            #expect(limits.verdict(more, .extended) != nil)
        }
        let read = NBDRequest(.read, cookie: 1, length: 1 << 32 + 512, isExtended: true)
        #expect(limits.verdict(read, .extended) == .tooLong)
        let endless = NBDLimits(size: 1 << 60)
        let trim = NBDRequest(.trim, cookie: 1, length: 1 << 60, isExtended: true)
        #expect(endless.verdict(trim, .extended) == .tooLong)
    }

    @Test func `only an extended payload beyond the maximum closes the connection`() {
        let much: UInt64 = 32 << 20 + 512
        let extended = NBDRequest(
            .write, flags: .payloadLength, cookie: 1, length: much, isExtended: true)
        #expect(limits.closes(extended))
        #expect(!limits.closes(NBDRequest(.write, cookie: 1, length: much)))
        #expect(!limits.closes(NBDRequest(.trim, cookie: 1, length: much, isExtended: true)))
    }

    @Test func `every refusal has an errno of the standard and a text`() {
        for refusal in NBDRefusal.allCases {
            #expect(refusal.errno.rawValue > 0)
            #expect(!refusal.text.isEmpty)
        }
        #expect(NBDRefusal.slow.errno == .notSupported)
    }
}
