import NBD
import Testing

// All bytes are written by hand from the standard.
private let optionMagic = Array("IHAVEOPT".utf8)
private let replyMagic: [UInt8] = [0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9]
private let flags: [UInt8] = [0, 0, 0, 3]
private let export = NBDExport(name: "r0", size: 1 << 20, flags: [.hasFlags, .sendFlush])

private func option(_ number: UInt8, _ data: [UInt8] = []) -> [UInt8] {
    optionMagic + [0, 0, 0, number, 0, 0, UInt8(data.count >> 8), UInt8(data.count & 0xff)] + data
}

private func reply(_ option: UInt8, _ type: [UInt8], _ data: [UInt8] = []) -> [UInt8] {
    replyMagic + [0, 0, 0, option] + type + [0, 0, 0, UInt8(data.count)] + data
}

private func acknowledge(_ option: UInt8) -> [UInt8] { reply(option, [0, 0, 0, 1]) }

private func string(_ text: String) -> [UInt8] { [0, 0, 0, UInt8(text.utf8.count)] + text.utf8 }

/// The data of LIST_ and SET_META_CONTEXT.
private func contexts(_ name: String, _ queries: [String]) -> [UInt8] {
    string(name) + [0, 0, 0, UInt8(queries.count)] + queries.flatMap { string($0) }
}

private let go = option(7, string("r0") + [0, 0])
private let structuredReply = option(8)
private let allocation = Array("base:allocation".utf8)

/// What a client's bytes lead to; the server has the export r0, also by no name.
private struct Outcome: Equatable {
    var sent: [UInt8] = []
    var asked: [String] = []
    var mode = NBDMode.simple
    var hasContext = false
    var transmits = false
    var closed: String?
}

private func talk(pieces: [[UInt8]]) -> Outcome {
    var handshake = NBDHandshake()
    var outcome = Outcome()
    for piece in pieces {
        var rest = piece[...]
        while outcome.closed == nil, !outcome.transmits {
            let (consumed, action) = withSpan(Array(rest)) { handshake.receive($0) }
            rest = rest.dropFirst(consumed)
            if action == .needMore { break }
            var next: NBDHandshake.Action? = action
            while let current = next {
                next = nil
                switch current {
                case .needMore: break
                case .reply(let bytes): outcome.sent += bytes
                case .askExport(let name, let purpose):
                    outcome.asked.append("\(purpose) \(name)")
                    next =
                        name == "r0" || name.isEmpty
                        ? handshake.grant(export) : handshake.refuse(.unknown("no export"))
                case .askList: next = handshake.list([export])
                case .transmit(let bytes):
                    outcome.sent += bytes
                    outcome.transmits = true
                case .close(let bytes, let reason):
                    outcome.sent += bytes
                    outcome.closed = reason
                }
            }
        }
    }
    outcome.mode = handshake.mode
    outcome.hasContext = handshake.hasContext
    return outcome
}

/// In one piece, then cut in two at every byte, then byte by byte: all must lead to the same.
private func talk(_ bytes: [UInt8]) -> Outcome {
    let whole = talk(pieces: [bytes])
    for cut in 0...bytes.count {
        #expect(talk(pieces: [Array(bytes[..<cut]), Array(bytes[cut...])]) == whole)
    }
    #expect(talk(pieces: bytes.map { [$0] }) == whole)
    return whole
}

@Suite struct NBDOptionTests {
    @Test func `structured replies are agreed on, and then reads may be whole`() {
        let end = talk(flags + structuredReply + go)
        #expect(end.mode == .structured)
        #expect(end.transmits)
        #expect(end.sent.starts(with: acknowledge(8)))
        // NBD_INFO_EXPORT: 1 MiB, HAS_FLAGS | SEND_FLUSH | SEND_DF.
        let info: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x85]
        #expect(end.sent.dropFirst(20).starts(with: reply(7, [0, 0, 0, 3], info)))
        let without: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x05]
        #expect(talk(flags + go).sent.starts(with: reply(7, [0, 0, 0, 3], without)))
    }

    @Test func `extended headers take the place of structured replies`() {
        #expect(talk(flags + option(11) + go).mode == .extended)
        #expect(talk(flags + structuredReply + option(11) + go).mode == .extended)
        let end = talk(flags + option(11) + structuredReply + go)
        #expect(end.mode == .extended)
        // NBD_REP_ERR_EXT_HEADER_REQD
        let text = Array("extended headers were agreed on".utf8)
        #expect(
            end.sent.dropFirst(20).starts(with: reply(8, [0x80, 0, 0, 10], text)))
    }

    @Test func `the old option is not for those who have extended headers`() {
        let end = talk(flags + option(11) + option(1, Array("r0".utf8)))
        #expect(!end.transmits)
        #expect(end.closed == "EXPORT_NAME after extended headers were agreed on")
    }

    @Test(arguments: [UInt8(8), 11])
    func `options without data have none`(number: UInt8) {
        let end = talk(flags + option(number, [0]) + go)
        #expect(end.mode == .simple)
        #expect(end.sent.starts(with: replyMagic + [0, 0, 0, number, 0x80, 0, 0, 3]))
    }

    @Test(
        arguments: [
            [], ["base:"], ["base:allocation"], ["qemu:x", "base:allocation"],
        ] as [[String]])
    func `the context is listed to those who ask for it or for all`(queries: [String]) {
        let end = talk(flags + structuredReply + option(9, contexts("r0", queries)) + go)
        #expect(end.asked == ["listContexts r0", "go r0"])
        let listed = reply(9, [0, 0, 0, 4], [0, 0, 0, 0] + allocation) + acknowledge(9)
        #expect(end.sent.dropFirst(20).starts(with: listed))
        // To list is not to choose.
        #expect(!end.hasContext)
    }

    @Test func `what is not there is passed over`() {
        for queries in [["qemu:dirty-bitmap:x"], ["base:nothing"], ["nonsense"], [""]] {
            for number in [UInt8(9), 10] {
                let end = talk(
                    flags + structuredReply + option(number, contexts("r0", queries)) + go)
                #expect(end.sent.dropFirst(20).starts(with: acknowledge(number)))
                #expect(!end.hasContext)
            }
        }
    }

    @Test func `a context is chosen for the export that is then used`() {
        for name in ["r0", ""] {
            let end = talk(
                flags + structuredReply + option(10, contexts(name, ["base:allocation"])) + go)
            #expect(end.hasContext)
            let chosen = reply(10, [0, 0, 0, 4], [0, 0, 0, 1] + allocation) + acknowledge(10)
            #expect(end.sent.dropFirst(20).starts(with: chosen))
        }
        let set = option(10, contexts("r0", ["base:allocation"]))
        let name = option(1, Array("r0".utf8))
        #expect(talk(flags + structuredReply + set + name).hasContext)
        #expect(talk(flags + option(11) + set + go).hasContext)
    }

    @Test func `the last choice counts, also if it failed or was of nothing`() {
        let set = option(10, contexts("r0", ["base:allocation"]))
        let others = [
            option(10, contexts("r0", [])), option(10, contexts("r0", ["base:"])),
            option(10, contexts("x", ["base:allocation"])), option(10, [0, 0]),
        ]
        for other in others {
            #expect(!talk(flags + structuredReply + set + other + go).hasContext)
            #expect(talk(flags + structuredReply + other + set + go).hasContext)
        }
    }

    @Test func `contexts of an export that is not there are refused with its error`() {
        let end = talk(flags + structuredReply + option(9, contexts("x", [])) + go)
        let refused = reply(9, [0x80, 0, 0, 6], Array("no export".utf8))
        #expect(end.sent.dropFirst(20).starts(with: refused))
        #expect(end.transmits)
    }

    @Test(arguments: [UInt8(9), 10])
    func `contexts need structured replies`(number: UInt8) {
        let end = talk(flags + option(number, contexts("r0", ["base:allocation"])) + go)
        #expect(end.sent.starts(with: replyMagic + [0, 0, 0, number, 0x80, 0, 0, 3]))
        #expect(!end.hasContext)
        #expect(end.transmits)
    }

    @Test func `every truncation of a choice is invalid and costs nothing`() {
        let data = contexts("r0", ["base:allocation", "qemu:x"])
        for count in 0..<data.count {
            let bytes = flags + structuredReply + option(10, Array(data.prefix(count))) + go
            let end = talk(pieces: [bytes])
            #expect(
                end.sent.dropFirst(20).starts(
                    with: replyMagic + [0, 0, 0, 10, 0x80, 0, 0, 3]))
            #expect(end.transmits && !end.hasContext)
        }
        let long = talk(flags + structuredReply + option(10, data + [0]) + go)
        #expect(!long.hasContext)
    }

    @Test(
        arguments: [
            // More queries than there are, a query without end, a name without end, not UTF-8.
            [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xc3, 0x28],
        ] as [[UInt8]])
    func `lengths that lie are invalid`(data: [UInt8]) {
        #expect(NBDContextRequest(decoding: data) == nil)
        let end = talk(flags + structuredReply + option(9, data) + go)
        #expect(
            end.sent.dropFirst(20).starts(with: replyMagic + [0, 0, 0, 9, 0x80, 0, 0, 3]))
    }
}
