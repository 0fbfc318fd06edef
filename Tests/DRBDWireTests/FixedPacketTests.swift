import DRBDWire
import Testing

/// Each layout with a different value in every field, against bytes written by hand from the tables
/// of section 4.
@Suite struct FixedPacketTests {
    func check<Value: FixedCodec>(_ value: Value, _ text: String) {
        #expect(encoded(value) == bytes(text))
        #expect(decoded(bytes(text)) == value)
        // What follows belongs to somebody else.
        #expect(decoded(bytes(text) + [0xff]) == value)
    }

    @Test func `a write has sector, block id, sequence and flags`() {
        let data = DataPacket(
            sector: 0x0102_0304_0506_0708, blockID: 0x1112_1314_1516_1718, sequence: 0x2122_2324,
            flags: [.readWriteSync, .fua, .wantsWriteAck])
        check(data, "0102030405060708 1112131415161718 21222324 00000112")
    }

    @Test func `a discard has a size too`() {
        let discard = DiscardPacket(
            sector: 0x0102_0304_0506_0708, blockID: 0x1112_1314_1516_1718, sequence: 0x2122_2324,
            flags: [.discard, .zeroes], size: 0x3132_3334)
        check(discard, "0102030405060708 1112131415161718 21222324 00000440 31323334")
    }

    @Test func `an acknowledgement has the size before the sequence`() {
        let ack = BlockAck(
            sector: 0x0102_0304_0506_0708, blockID: 0x1112_1314_1516_1718, size: 0x2122_2324,
            sequence: 0x3132_3334)
        check(ack, "0102030405060708 1112131415161718 21222324 31323334")
    }

    @Test func `a block request ends with padding that is written as zero and ignored`() {
        let request = BlockRequest(
            sector: 0x0102_0304_0506_0708, blockID: BlockRequest.syncerBlockID, size: 0x2122_2324)
        check(request, "0102030405060708 ffffffffffffffff 21222324 00000000")
        let uninitialised = bytes("0102030405060708 ffffffffffffffff 21222324 b58f11ff")
        #expect(decoded(uninitialised) == request)
    }

    @Test func `a range ends with padding that is written as zero and ignored`() {
        let range = OutOfSync(sector: 0x0102_0304_0506_0708, size: 0x2122_2324)
        check(range, "0102030405060708 21222324 00000000")
        #expect(decoded(bytes("0102030405060708 21222324 b58f11ff")) == range)
    }

    @Test func `a barrier is its number, an acknowledgement counts the writes`() {
        check(Barrier(number: 0x0102_0304), "01020304 00000000")
        #expect(decoded(bytes("01020304 ffffffff")) == Barrier(number: 0x0102_0304))
        check(BarrierAck(number: 0x0102_0304, writeCount: 0x1112_1314), "01020304 11121314")
    }

    @Test func `states and state changes are words`() {
        check(StatePacket(word: 0x0001_10a9), "000110a9")
        check(StateChangeRequest(mask: 0x1e03, value: 0x1001), "00001e03 00001001")
        check(StateChangeReply(.success), "00000001")
        check(StateChangeReply(.concurrentChange), "ffffffed")
    }

    @Test func `a reply accepts from one on`() {
        for code: Int32 in [1, 2, 3, 4, .max] { #expect(StateChangeReply(code: code).accepted) }
        for code: Int32 in [0, -1, -19, .min] { #expect(!StateChangeReply(code: code).accepted) }
    }

    @Test func `generations are four UUIDs, the bits and flags`() {
        let uuids = UUIDs(
            current: 0x0102_0304_0506_0708, bitmap: 0x1112_1314_1516_1718,
            history0: 0x2122_2324_2526_2728, history1: 0x3132_3334_3536_3738,
            bitCount: 0x4142_4344_4546_4748, flags: [.crashedPrimary, .skipInitialSync])
        check(
            uuids,
            "0102030405060708 1112131415161718 2122232425262728 3132333435363738"
                + "4142434445464748 000000000000000a")
        check(SyncUUIDPacket(uuid: 0x0102_0304_0506_0708), "0102030405060708")
    }

    @Test func `features are a range of versions, and zeros that are ignored`() {
        let features = Features(
            minimum: 101, flags: [.trim, .thinResync, .writeSame, .writeZeroes, .repd],
            maximum: 102)
        let text = "00000065 8000000f 00000066"
        check(features, text + String(repeating: "00", count: 60))
        #expect(decoded(bytes(text + String(repeating: "5a", count: 60))) == features)
    }

    @Test func `flags have the bits of the reference`() {
        let data: [DataFlags] = [
            .readWriteSync, .maySetInSync, .fua, .flush, .discard, .wantsReceiveAck,
            .wantsWriteAck, .zeroes,
        ]
        #expect(data.map(\.rawValue) == [2, 4, 16, 32, 64, 128, 256, 1024])
        let uuids: [UUIDFlags] = [.discardMyData, .crashedPrimary, .inconsistent, .skipInitialSync]
        #expect(uuids.map(\.rawValue) == [1, 2, 4, 8])
        let features: [FeatureFlags] = [.trim, .thinResync, .writeSame, .writeZeroes, .repd]
        #expect(features.map(\.rawValue) == [1, 2, 4, 8, 0x8000_0000])
    }

    @Test func `flags that nobody knows are kept`() {
        let data = decoded(
            bytes("0000000000000000 0000000000000000 00000000 ffffffff"), as: DataPacket.self)
        #expect(data.flags.rawValue == .max)
    }

    @Test func `decoding less than a packet is a bug`() async {
        await #expect(processExitsWith: .failure) {
            _ = decoded([UInt8](repeating: 0, count: 23), as: DataPacket.self)
        }
    }
}
