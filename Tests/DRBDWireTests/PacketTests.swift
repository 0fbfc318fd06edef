import DRBDWire
import Testing

@Suite struct PacketTests {
    @Test func `numbers and names are those of the packet table`() {
        let table: [(UInt16, String)] = [
            (0x00, "P_DATA"), (0x01, "P_DATA_REPLY"), (0x02, "P_RS_DATA_REPLY"),
            (0x03, "P_BARRIER"), (0x04, "P_BITMAP"), (0x05, "P_BECOME_SYNC_TARGET"),
            (0x06, "P_BECOME_SYNC_SOURCE"), (0x07, "P_UNPLUG_REMOTE"), (0x08, "P_DATA_REQUEST"),
            (0x09, "P_RS_DATA_REQUEST"), (0x0a, "P_SYNC_PARAM"), (0x0b, "P_PROTOCOL"),
            (0x0c, "P_UUIDS"), (0x0d, "P_SIZES"), (0x0e, "P_STATE"), (0x0f, "P_SYNC_UUID"),
            (0x10, "P_AUTH_CHALLENGE"), (0x11, "P_AUTH_RESPONSE"), (0x12, "P_STATE_CHG_REQ"),
            (0x13, "P_PING"), (0x14, "P_PING_ACK"), (0x15, "P_RECV_ACK"), (0x16, "P_WRITE_ACK"),
            (0x17, "P_RS_WRITE_ACK"), (0x18, "P_SUPERSEDED"), (0x19, "P_NEG_ACK"),
            (0x1a, "P_NEG_DREPLY"), (0x1b, "P_NEG_RS_DREPLY"), (0x1c, "P_BARRIER_ACK"),
            (0x1d, "P_STATE_CHG_REPLY"), (0x1e, "P_OV_REQUEST"), (0x1f, "P_OV_REPLY"),
            (0x20, "P_OV_RESULT"), (0x21, "P_CSUM_RS_REQUEST"), (0x22, "P_RS_IS_IN_SYNC"),
            (0x23, "P_SYNC_PARAM89"), (0x24, "P_COMPRESSED_BITMAP"), (0x27, "P_DELAY_PROBE"),
            (0x28, "P_OUT_OF_SYNC"), (0x29, "P_RS_CANCEL"), (0x2a, "P_CONN_ST_CHG_REQ"),
            (0x2b, "P_CONN_ST_CHG_REPLY"), (0x2c, "P_RETRY_WRITE"), (0x2d, "P_PROTOCOL_UPDATE"),
            (0x31, "P_TRIM"), (0x32, "P_RS_THIN_REQ"), (0x33, "P_RS_DEALLOCATED"),
            (0x34, "P_WSAME"), (0x36, "P_ZEROES"), (0xfff1, "P_INITIAL_META"),
            (0xfff2, "P_INITIAL_DATA"), (0xfffe, "P_CONNECTION_FEATURES"),
        ]
        #expect(Packet.allCases.map(\.rawValue) == table.map(\.0))
        #expect(Packet.allCases.map(\.name) == table.map(\.1))
    }

    @Test(arguments: [0x25, 0x26, 0x2e, 0x2f, 0x30, 0x35, 0x37, 0x40, 0x100, 0xfff0, 0xffff])
    func `numbers that the protocol does not use are no packets`(number: UInt16) {
        #expect(Packet(rawValue: number) == nil)
    }

    /// The shortest and the longest legal length, for packets without data.
    static let lengths: [(Packet, ClosedRange<Int>)] = [
        (.barrier, 8...8), (.unplugRemote, 0...0), (.dataRequest, 24...24),
        (.resyncDataRequest, 24...24), (.protocolParameters, 24...88), (.uuids, 48...48),
        (.state, 4...4), (.syncUUID, 8...8), (.authenticationChallenge, 64...128),
        (.authenticationResponse, 1...64), (.stateChangeRequest, 8...8), (.ping, 0...0),
        (.pingAck, 0...0), (.receiveAck, 24...24), (.writeAck, 24...24),
        (.resyncWriteAck, 24...24), (.superseded, 24...24), (.negativeAck, 24...24),
        (.negativeDataReply, 24...24), (.negativeResyncReply, 24...24), (.barrierAck, 8...8),
        (.stateChangeReply, 4...4), (.verifyRequest, 24...24), (.verifyReply, 25...88),
        (.verifyResult, 24...24), (.checksumResyncRequest, 25...88), (.resyncIsInSync, 24...24),
        (.syncParameters89, 148...148), (.compressedBitmap, 2...4080), (.delayProbe, 8...8),
        (.outOfSync, 16...16), (.resyncCancel, 24...24), (.connectionStateChangeRequest, 8...8),
        (.connectionStateChangeReply, 4...4), (.retryWrite, 24...24), (.protocolUpdate, 25...88),
        (.trim, 28...28), (.thinResyncRequest, 24...24), (.resyncDeallocated, 16...16),
        (.zeroes, 28...28), (.initialMeta, 0...0), (.initialData, 0...0),
        (.connectionFeatures, 72...72),
    ]

    @Test(arguments: lengths)
    func `a packet without data is decoded as a whole`(packet: Packet, legal: ClosedRange<Int>) {
        for length in legal { #expect(packet.inlineLength(of: length) == length) }
        for length in [legal.lowerBound - 1, legal.upperBound + 1, 1 << 20, Int(UInt32.max)] {
            #expect(packet.inlineLength(of: length) == nil, "\(length)")
        }
    }

    @Test func `every packet is in a table of lengths`() {
        let others: Set<Packet> = [
            .data, .dataReply, .resyncDataReply, .bitmap, .sizes, .becomeSyncTarget,
            .becomeSyncSource, .syncParameters, .writeSame,
        ]
        #expect(others.isDisjoint(with: Self.lengths.map(\.0)))
        #expect(others.union(Self.lengths.map(\.0)) == Set(Packet.allCases))
    }

    @Test(arguments: [Packet.becomeSyncTarget, .becomeSyncSource, .syncParameters, .writeSame])
    func `a packet that no peer may send has no legal length`(packet: Packet) {
        for length in 0...600 { #expect(packet.inlineLength(of: length) == nil) }
    }

    @Test func `data is whole sectors behind 24 bytes, at most one mebibyte`() {
        for packet in [Packet.data, .dataReply, .resyncDataReply] {
            for payload in [512, 1024, 4096, 1 << 20] {
                #expect(packet.inlineLength(of: 24 + payload) == 24)
                #expect(packet.inlineLength(of: 28 + payload, digest: 4) == 28)
                #expect(packet.inlineLength(of: 24 + payload, digest: 4) == nil)
            }
            for length in [0, 23, 25, 24 + 511, 24 + 513, 24 + (1 << 20) + 512, Int(UInt32.max)] {
                #expect(packet.inlineLength(of: length) == nil, "\(length)")
            }
        }
    }

    @Test func `only a write may have no data`() {
        #expect(Packet.data.inlineLength(of: 24) == 24)
        #expect(Packet.dataReply.inlineLength(of: 24) == nil)
        #expect(Packet.resyncDataReply.inlineLength(of: 24) == nil)
    }

    @Test func `a plain bitmap is whole words, at most 510`() {
        for words in 0...510 { #expect(Packet.bitmap.inlineLength(of: words * 8) == words * 8) }
        for length in [1, 7, 4076, 4081, 4088] {
            #expect(Packet.bitmap.inlineLength(of: length) == nil)
        }
    }

    @Test func `sizes come with or without queue limits`() {
        for length in 0...100 {
            let legal = length == 32 || length == 56
            #expect(Packet.sizes.inlineLength(of: length) == (legal ? length : nil))
        }
    }
}
