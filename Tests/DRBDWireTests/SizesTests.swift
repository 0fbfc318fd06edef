import DRBDWire
import Testing

@Suite struct SizesTests {
    static let head = "0102030405060708 1112131415161718 2122232425262728 31323334 0000 0002"
    static let limits = "41424344 51525354 00000000 61626364 71727374 01 00 00 00"

    @Test func `without queue limits there are 32 bytes`() {
        let sizes = Sizes(
            diskSize: 0x0102_0304_0506_0708, userSize: 0x1112_1314_1516_1718,
            currentSize: 0x2122_2324_2526_2728, maximumRequest: 0x3132_3334,
            flags: Sizes.assumeClean)
        #expect(sizes.encodedSize == 32)
        #expect(encoded(sizes, size: 32) == bytes(Self.head))
        #expect(reading(bytes(Self.head), Sizes.init(decoding:)) == sizes)
    }

    @Test func `with queue limits there are 56 bytes`() {
        let sizes = Sizes(
            diskSize: 0x0102_0304_0506_0708, userSize: 0x1112_1314_1516_1718,
            currentSize: 0x2122_2324_2526_2728, maximumRequest: 0x3132_3334, flags: 2,
            physicalBlockSize: 0x4142_4344, logicalBlockSize: 0x5152_5354,
            minimumIO: 0x6162_6364, optimalIO: 0x7172_7374, discards: true)
        let text = Self.head + Self.limits
        #expect(sizes.encodedSize == 56)
        #expect(encoded(sizes, size: 56) == bytes(text))
        #expect(reading(bytes(text), Sizes.init(decoding:)) == sizes)
    }

    @Test func `what is not used is ignored`() {
        var used = bytes(Self.head + Self.limits)
        let sizes = reading(used, Sizes.init(decoding:))
        for offset in [28, 29, 40, 41, 42, 43, 53, 54, 55] { used[offset] = 0xff }
        #expect(reading(used, Sizes.init(decoding:)) == sizes)
    }

    @Test func `any other size is a bug`() async {
        await #expect(processExitsWith: .failure) {
            _ = reading([UInt8](repeating: 0, count: 55), Sizes.init(decoding:))
        }
    }
}
