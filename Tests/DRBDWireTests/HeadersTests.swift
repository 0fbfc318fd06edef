import DRBDWire
import Testing

@Suite struct HeadersTests {
    static let long = bytes("8620ec20 0007 0016 00000018 00000000")
    static let short = bytes("83740267 fffe 0048")
    static let large = bytes("835a 0000 00010018")

    @Test func `the long header has volume, command and length`() {
        let header = PacketHeader(packet: .writeAck, volume: 7, length: 24)
        #expect(encoded(header, size: PacketHeader.encodedSize) == Self.long)
        #expect(reading(Self.long, PacketHeader.init(decoding:)) == header)
    }

    @Test func `the short header has command and length`() {
        let header = ShortHeader(packet: .connectionFeatures, length: 72)
        #expect(encoded(header, size: ShortHeader.encodedSize) == Self.short)
        #expect(reading(Self.short, ShortHeader.init(decoding:)) == header)
    }

    @Test func `the large header has command and a long length`() {
        let header = LargeHeader(packet: Packet.data.rawValue, length: 65_560)
        #expect(encoded(header, size: LargeHeader.encodedSize) == Self.large)
        #expect(reading(Self.large, LargeHeader.init(decoding:)) == header)
    }

    @Test func `an unknown command is read, for the caller to judge`() {
        let unknown = bytes("8620ec20 0000 0042 ffffffff 00000000")
        let header = reading(unknown, PacketHeader.init(decoding:))
        #expect(header == PacketHeader(packet: 0x42, volume: 0, length: .max))
    }

    @Test func `any wrong bit of magic or padding is refused`() {
        func isRefused<Header>(
            _ bytes: [UInt8], checked: [Int], _ type: Header.Type,
            _ read: ([UInt8]) -> Header?
        ) -> Bool {
            checked.allSatisfy { index in
                (0..<8).allSatisfy { bit in
                    var wrong = bytes
                    wrong[index] ^= 1 << UInt8(bit)
                    return read(wrong) == nil
                }
            }
        }
        #expect(
            isRefused(Self.long, checked: [0, 1, 2, 3, 12, 13, 14, 15], PacketHeader.self) {
                reading($0, PacketHeader.init(decoding:))
            })
        #expect(
            isRefused(Self.short, checked: [0, 1, 2, 3], ShortHeader.self) {
                reading($0, ShortHeader.init(decoding:))
            })
        #expect(
            isRefused(Self.large, checked: [0, 1], LargeHeader.self) {
                reading($0, LargeHeader.init(decoding:))
            })
    }

    @Test func `encoding into a place of another size is a bug`() async {
        await #expect(processExitsWith: .failure) {
            _ = encoded(PacketHeader(packet: .ping, length: 0), size: 8)
        }
    }

    @Test func `decoding a header that has not all arrived is a bug`() async {
        await #expect(processExitsWith: .failure) {
            _ = reading(Array(HeadersTests.long.prefix(15)), PacketHeader.init(decoding:))
        }
    }
}
