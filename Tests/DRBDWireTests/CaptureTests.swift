import DRBDWire
import Support
import Testing

/// Every packet that two kernels, or a kernel and a test program, sent each other in 72 captures.
@Suite struct CaptureTests {
    /// How often each packet occurs: counted by another decoder when the captures were made.
    static let expected: [Packet: Int] = [
        .verifyReply: 4214, .verifyRequest: 4214, .verifyResult: 4214, .resyncWriteAck: 772,
        .resyncDataReply: 673, .unplugRemote: 585, .state: 558, .data: 495,
        .resyncDataRequest: 462, .writeAck: 340, .barrier: 294, .barrierAck: 271, .uuids: 233,
        .sizes: 213, .connectionFeatures: 205, .protocolParameters: 201, .syncParameters89: 198,
        .ping: 197, .pingAck: 197, .checksumResyncRequest: 172, .thinResyncRequest: 151,
        .compressedBitmap: 126, .outOfSync: 112, .initialData: 104, .initialMeta: 103,
        .resyncDeallocated: 95, .syncUUID: 73, .stateChangeReply: 72, .stateChangeRequest: 72,
        .receiveAck: 61, .connectionStateChangeReply: 50, .connectionStateChangeRequest: 50,
        .bitmap: 21, .resyncIsInSync: 14, .retryWrite: 12, .syncParameters: 12, .superseded: 10,
        .authenticationChallenge: 7, .dataRequest: 7, .authenticationResponse: 6, .dataReply: 6,
        .zeroes: 5, .protocolUpdate: 4, .trim: 3, .negativeAck: 2, .resyncCancel: 2,
        .negativeDataReply: 1, .negativeResyncReply: 1,
    ]

    /// Packets of older protocol versions that this one reads differently.
    static func isOlder(_ packet: CapturedPacket) -> Bool {
        packet.packet == .syncParameters
            || packet.packet == .syncParameters89 && packet.length == 132
            || packet.packet == .protocolParameters && packet.length == 24
    }

    /// Read once for all tests.
    static let all = Result {
        try CapturedStream.all().map { (stream: $0, packets: try CapturedPackets($0)) }
    }

    let streams: [(stream: CapturedStream, packets: CapturedPackets)]

    init() throws { streams = try Self.all.get() }

    @Test func `every packet of every capture encodes to the bytes it was decoded from`() throws {
        var counts: [Packet: Int] = [:]
        var checked: [Packet: Int] = [:]
        for (stream, packets) in streams {
            for packet in packets.packets {
                counts[packet.packet, default: 0] += 1
                #expect(packet.encodedHeader == packet.header, "\(stream.name)")
                guard !Self.isOlder(packet) else { continue }
                let original = masked(packet.inline, of: packet.packet)
                let again = try #require(
                    reencoded(packet), "\(stream.name): \(packet.packet.name)")
                #expect(again == original, "\(stream.name): \(packet.packet.name)")
                checked[packet.packet, default: 0] += 1
            }
        }
        #expect(counts == Self.expected)
        // Only these have forms that the protocol version 101 does not.
        for (packet, count) in counts where checked[packet] != count {
            #expect([.syncParameters, .syncParameters89, .protocolParameters].contains(packet))
        }
        let summary = checked.sorted { $0.key.rawValue < $1.key.rawValue }
            .map { "\($0.key.name): \($0.value)" }
        print("packets checked: \(summary.joined(separator: ", "))")
    }

    @Test func `every packet says what the decoded text says`() {
        var compared = 0
        for (stream, packets) in streams {
            for packet in packets.packets {
                guard let note = packet.note else { continue }
                let volume = packet.volume == 0 ? "" : " v\(packet.volume)"
                let start = "\(packet.packet.name)\(volume) len=\(packet.length)"
                #expect(note == start || note.hasPrefix(start + " "), "\(stream.name)")
                guard !Self.isOlder(packet) else { continue }
                let words = packet.words
                for word in described(packet) {
                    #expect(words.contains(word[...]), "\(stream.name): \(note): \(word)")
                }
                compared += 1
            }
        }
        #expect(compared > 7000)
    }

    @Test func `packets come on the socket where they belong`() {
        for (stream, packets) in streams {
            for packet in packets.packets {
                #expect(
                    packet.packet.isOnMeta == stream.isMeta, "\(stream.name): \(packet.packet)")
            }
        }
    }

    @Test func `the header changes behind the features of protocol version 100`() throws {
        var long = 0
        for (stream, packets) in streams where !stream.isMeta {
            let both = streams.filter {
                $0.stream.capture == stream.capture && $0.stream.number == stream.number
            }
            let features = both.flatMap(\.packets.packets).filter {
                $0.packet == .connectionFeatures
            }
            guard features.count == 2 else { continue }
            let version = features.map { decoded($0.inline, as: Features.self).maximum }.min()
            for packet in packets.packets {
                switch packet.packet {
                case .initialData, .connectionFeatures: #expect(!packet.isLong)
                default:
                    #expect(packet.isLong == (try #require(version) >= 100), "\(stream.name)")
                    long += packet.isLong ? 1 : 0
                }
            }
        }
        #expect(long > 10_000)
    }

    @Test func `one capture ends within a packet`() {
        let cut = streams.filter(\.packets.endsWithin)
        #expect(cut.map(\.stream.name) == ["27b-congestion-disconnect D2 A>B"])
    }

    @Test func `states and requests of the captures are ones that exist`() throws {
        for (stream, packets) in streams {
            for packet in packets.packets {
                switch packet.packet {
                case .state:
                    let word = decoded(packet.inline, as: StatePacket.self).word
                    #expect(StateWord(word)?.word == word, "\(stream.name)")
                case .stateChangeRequest, .connectionStateChangeRequest:
                    let request = decoded(packet.inline, as: StateChangeRequest.self)
                    let ours = mirrored(mask: request.mask, value: request.value)
                    #expect(ours != nil, "\(stream.name): \(request)")
                case .stateChangeReply, .connectionStateChangeReply:
                    let reply = decoded(packet.inline, as: StateChangeReply.self)
                    #expect(reply.accepted && StateCode(rawValue: reply.code) == .success)
                default: break
                }
            }
        }
    }
}
