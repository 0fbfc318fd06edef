import NBD
import Support
import Testing

// All bytes are written by hand from the standard.
private let optionMagic = Array("IHAVEOPT".utf8)
private let replyMagic: [UInt8] = [0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9]
private let flags: [UInt8] = [0, 0, 0, 3]
private let go: [UInt8] = [0, 0, 0, 7]
private let acknowledge: [UInt8] = [0, 0, 0, 1, 0, 0, 0, 0]

private func option(_ number: UInt8, _ data: [UInt8] = []) -> [UInt8] {
    optionMagic + [0, 0, 0, number, 0, 0, UInt8(data.count >> 8), UInt8(data.count & 0xff)] + data
}

/// The data of GO and INFO.
private func request(_ name: String, _ infos: [UInt8] = []) -> [UInt8] {
    [0, 0, 0, UInt8(name.utf8.count)] + name.utf8 + [0, UInt8(infos.count)]
        + infos.flatMap { [0, $0] }
}

private func reply(_ option: UInt8, _ type: [UInt8], _ data: [UInt8]) -> [UInt8] {
    replyMagic + [0, 0, 0, option] + type + [0, 0, 0, UInt8(data.count)] + data
}

private let export = NBDExport(
    name: "r0", size: 0x1_2345_6000, flags: [.hasFlags, .sendFlush, .sendFUA, .canMultiConn],
    description: "resource r0, volume 0")

/// size, flags HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN
private let sizeAndFlags: [UInt8] = [0, 0, 0, 1, 0x23, 0x45, 0x60, 0x00, 0x01, 0x0d]

/// NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE (512, 4096, 32 MiB) and NBD_REP_ACK.
private func described(_ option: UInt8) -> [UInt8] {
    reply(option, [0, 0, 0, 3], [0, 0] + sizeAndFlags)
        + reply(option, [0, 0, 0, 3], [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0])
        + replyMagic + [0, 0, 0, option] + acknowledge
}

/// A client's bytes against a server with the export r0, all offered at once or in pieces.
private struct Conversation {
    var handshake = NBDHandshake()
    var sent: [UInt8] = []
    var asked: [String] = []
    /// Bytes that were not consumed: they belong to the transmission.
    var left: [UInt8] = []
    var transmits = false
    var closed: String?
    var refusal = NBDHandshake.Refusal.unknown("no such export")

    mutating func offer(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while closed == nil, !transmits {
            let (consumed, action) = withSpan(Array(rest)) { handshake.receive($0) }
            rest = rest.dropFirst(consumed)
            if action == .needMore {
                #expect(rest.isEmpty)
                return
            }
            perform(action)
        }
        left += rest
    }

    private mutating func perform(_ action: NBDHandshake.Action) {
        switch action {
        case .needMore: Issue.record("needs more than an answer")
        case .reply(let bytes): sent += bytes
        case .askExport(let name, let purpose):
            asked.append("\(purpose) \(name)")
            perform(name == "r0" ? handshake.grant(export) : handshake.refuse(refusal))
        case .askList: perform(handshake.list([export, NBDExport(name: "r0/1", size: 512)]))
        case .transmit(let bytes):
            sent += bytes
            transmits = true
        case .close(let bytes, let reason):
            sent += bytes
            closed = reason
        }
    }
}

/// Talks to a new server in one piece, then cut in two at every byte, then byte by byte; all must
/// lead to the same.
private func talk(_ bytes: [UInt8], _ refusal: NBDHandshake.Refusal? = nil) -> Conversation {
    func conversation(_ pieces: [[UInt8]]) -> Conversation {
        var conversation = Conversation()
        if let refusal { conversation.refusal = refusal }
        for piece in pieces { conversation.offer(piece) }
        return conversation
    }
    let whole = conversation([bytes])
    var others = (0...bytes.count).map { [Array(bytes[..<$0]), Array(bytes[$0...])] }
    others.append(bytes.map { [$0] })
    for pieces in others {
        let other = conversation(pieces)
        #expect(other.sent == whole.sent)
        #expect(other.asked == whole.asked)
        #expect(other.transmits == whole.transmits)
        #expect(other.closed == whole.closed)
        #expect(other.left == whole.left)
    }
    return whole
}

@Suite struct NBDHandshakeTests {
    @Test func `the greeting offers fixed newstyle without zeroes`() {
        #expect(
            NBDHandshake.greeting == Array("NBDMAGIC".utf8) + Array("IHAVEOPT".utf8) + [0, 3])
    }

    @Test func `GO is answered with the export and its block sizes, and then come requests`() {
        let end = talk(flags + option(7, request("r0")) + [0x25, 0x60])
        #expect(end.asked == ["go r0"])
        #expect(end.sent == described(7))
        #expect(end.transmits)
        #expect(end.left == [0x25, 0x60])
    }

    @Test func `INFO tells the same and goes on`() {
        let end = talk(flags + option(6, request("r0")) + option(7, request("r0")))
        #expect(end.asked == ["info r0", "go r0"])
        #expect(end.sent == described(6) + described(7))
        #expect(end.transmits)
    }

    @Test func `name and description are told to those who ask`() {
        let end = talk(flags + option(6, request("r0", [0, 1, 2, 3, 77])))
        let name = reply(6, [0, 0, 0, 3], [0, 1] + Array("r0".utf8))
        let description = reply(6, [0, 0, 0, 3], [0, 2] + Array("resource r0, volume 0".utf8))
        let tail = replyMagic + [0, 0, 0, 6] + acknowledge
        #expect(end.sent == described(6).dropLast(tail.count) + name + description + tail)
    }

    @Test(arguments: [
        (NBDHandshake.Refusal.policy("r0 is Secondary"), UInt8(2), "r0 is Secondary"),
        (.unknown("no export x"), 6, "no export x"),
        (.shuttingDown("going down"), 7, "going down"),
    ])
    func `a refusal says why, and the client may go on`(
        refusal: NBDHandshake.Refusal, number: UInt8, text: String
    ) {
        let end = talk(flags + option(7, request("x")) + option(7, request("r0")), refusal)
        #expect(
            end.sent == reply(7, [0x80, 0, 0, number], Array(text.utf8)) + described(7))
        #expect(end.transmits)
    }

    @Test func `the answer may come later, and nothing is consumed meanwhile`() {
        var handshake = NBDHandshake()
        let bytes = flags + option(7, request("r0")) + [1, 2, 3]
        let (consumed, action) = withSpan(bytes) { handshake.receive($0) }
        #expect(consumed == bytes.count - 3)
        #expect(action == .askExport(name: "r0", .go))
        #expect(handshake.grant(export) == .transmit(described(7)))
    }

    @Test func `bytes while an answer is owed are a bug`() async {
        await #expect(processExitsWith: .failure) {
            var handshake = NBDHandshake()
            _ = withSpan(flags + option(7, request("r0"))) { handshake.receive($0) }
            _ = withSpan([1]) { handshake.receive($0) }
        }
    }

    @Test func `the old option has an answer without a header`() {
        let end = talk(flags + option(1, Array("r0".utf8)))
        #expect(end.asked == ["exportName r0"])
        #expect(end.sent == sizeAndFlags)
        #expect(end.transmits)
    }

    @Test func `the old option has 124 zeroes for a client that wants them`() {
        let end = talk([0, 0, 0, 1] + option(1, Array("r0".utf8)))
        #expect(end.sent == sizeAndFlags + [UInt8](repeating: 0, count: 124))
        #expect(end.transmits)
    }

    @Test func `the old option cannot be refused but by closing`() {
        let end = talk(flags + option(1, Array("x".utf8)), .policy("r0 is Secondary"))
        #expect(end.sent.isEmpty)
        #expect(end.closed == "r0 is Secondary")
    }

    @Test func `the default export has no name`() {
        let end = talk(flags + option(7, request("")))
        #expect(end.asked == ["go "])
        #expect(talk(flags + option(1)).asked == ["exportName "])
    }

    @Test func `LIST names every export`() {
        let end = talk(flags + option(3))
        let first: [UInt8] = [0, 0, 0, 2] + "r0".utf8 + "resource r0, volume 0".utf8
        let second: [UInt8] = [0, 0, 0, 4] + "r0/1".utf8
        #expect(
            end.sent == reply(3, [0, 0, 0, 2], first) + reply(3, [0, 0, 0, 2], second)
                + replyMagic + [0, 0, 0, 3] + acknowledge)
        #expect(end.closed == nil)
    }

    @Test func `ABORT is acknowledged and closes`() {
        let end = talk(flags + option(2))
        #expect(end.sent == replyMagic + [0, 0, 0, 2] + acknowledge)
        #expect(end.closed == "the client gave up")
    }

    /// STARTTLS, unknown.
    @Test(arguments: [UInt8(5), 0, 4, 12, 200])
    func `what is not supported is said to be so`(number: UInt8) {
        let end = talk(flags + option(number, [1, 2, 3]) + option(7, request("r0")))
        #expect(end.sent == reply(number, [0x80, 0, 0, 1], []) + described(7))
    }

    @Test(
        arguments: [
            [], [0, 0, 0, 0], [0, 0, 0, 0, 0],
            // A name longer than the data, and one longer than any number.
            [0, 0, 0, 9, 0x72, 0x30, 0, 0], [0xff, 0xff, 0xff, 0xff, 0, 0],
            // More and fewer information requests than said.
            [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0xff, 0xff, 0, 0],
            // Not UTF-8.
            [0, 0, 0, 2, 0xc3, 0x28, 0, 0],
        ] as [[UInt8]])
    func `malformed GO and INFO are invalid and cost nothing`(data: [UInt8]) {
        for number in [UInt8(6), 7] {
            let end = talk(flags + option(number, data) + option(7, request("r0")))
            let header = replyMagic + [0, 0, 0, number, 0x80, 0, 0, 3]
            #expect(Array(end.sent.prefix(16)) == header)
            #expect(end.sent.suffix(described(7).count) == described(7)[...])
            #expect(end.asked == ["go r0"])
        }
    }

    @Test func `LIST with data is invalid`() {
        let end = talk(flags + option(3, [0]))
        #expect(Array(end.sent.prefix(16)) == replyMagic + [0, 0, 0, 3, 0x80, 0, 0, 3])
    }

    @Test func `a name of more than 4096 bytes is refused`() {
        let name = [UInt8](repeating: 0x61, count: 4097)
        var bytes = flags + optionMagic + [0, 0, 0, 1, 0, 0, 0x10, 0x01] + name
        var conversation = Conversation()
        conversation.offer(bytes)
        #expect(conversation.closed == "export name of 4097 bytes, or not UTF-8")
        bytes = flags + optionMagic + go + [0, 0, 0x10, 0x07, 0, 0, 0x10, 0x01] + name + [0, 0]
        conversation = Conversation()
        conversation.offer(bytes)
        #expect(Array(conversation.sent.prefix(16)) == replyMagic + go + [0x80, 0, 0, 3])
    }

    @Test func `client flags that are not known close the connection`() {
        #expect(talk([0, 0, 0, 7]).closed == "client flags 0x7")
        #expect(talk([0x80, 0, 0, 3]).closed == "client flags 0x80000003")
    }

    @Test func `a client that is not fixed newstyle may only name its export`() {
        #expect(
            talk([0, 0, 0, 0] + option(7, request("r0"))).closed
                == "option 7 of a client that is not fixed newstyle")
        #expect(talk([0, 0, 0, 0] + option(1, Array("r0".utf8))).transmits)
    }

    @Test func `another option magic closes the connection`() {
        let bytes = flags + Array("IHAVEOPS".utf8) + go + [0, 0, 0, 0]
        #expect(talk(bytes).closed == "option with magic 0x49484156454f5053")
    }

    @Test(arguments: [[0, 0, 0x40, 0x01], [0xff, 0xff, 0xff, 0xff]] as [[UInt8]])
    func `an option longer than any closes before it is read`(length: [UInt8]) {
        let end = talk(flags + optionMagic + go + length)
        #expect(end.closed?.hasPrefix("option 7 of ") == true)
        #expect(end.sent.isEmpty)
    }

    @Test func `options without end close the connection`() {
        var conversation = Conversation()
        conversation.offer(flags)
        for _ in 0..<NBDHandshake.maximumOptionCount { conversation.offer(option(3)) }
        #expect(conversation.closed == nil)
        conversation.offer(option(3))
        #expect(conversation.closed == "more than 1024 options")
    }

    @Test func `whatever a client sends, every answer is framed and answers its option`() {
        for seed in 0..<2000 {
            var source = RandomSource(seed: UInt64(seed))
            var bytes = flags
            for _ in 0..<6 {
                let data = (0..<Int.random(in: 0..<24, using: &source)).map { _ in
                    source.chance(1, in: 2) ? 0 : UInt8.random(in: 0...255, using: &source)
                }
                bytes += option(UInt8.random(in: 0...12, using: &source), data)
            }
            if source.chance(1, in: 4) {
                bytes[Int.random(in: 0..<bytes.count, using: &source)] ^= 1
            }
            var conversation = Conversation()
            conversation.offer(bytes)
            // The old option's answer is the only one without a header, and the last.
            if conversation.asked.last == "exportName r0" {
                #expect(conversation.sent.suffix(10) == sizeAndFlags[...])
                continue
            }
            var rest = conversation.sent[...]
            while !rest.isEmpty {
                #expect(rest.prefix(8) == replyMagic[...])
                guard rest.count >= 20 else {
                    Issue.record("a reply of \(rest.count) bytes with seed \(seed)")
                    return
                }
                let length = rest.dropFirst(16).prefix(4).reduce(0) { $0 << 8 | Int($1) }
                #expect(rest.count >= 20 + length)
                rest = rest.dropFirst(20 + length)
            }
        }
    }
}
