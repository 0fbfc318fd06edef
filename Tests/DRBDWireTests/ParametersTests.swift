import DRBDWire
import Testing

@Suite struct ProtocolParametersTests {
    static let numbers = "00000003 00000004 00000005 0000000a 00000002 00000001"

    static func parameters(_ algorithm: String) -> ProtocolParameters {
        ProtocolParameters(
            protocolNumber: 3, afterSplitBrain0: 4, afterSplitBrain1: 5, afterSplitBrain2: 10,
            connectionFlags: ProtocolParameters.dryRun, twoPrimaries: 1,
            integrityAlgorithm: algorithm)
    }

    static func read(_ bytes: [UInt8]) -> ProtocolParameters? {
        reading(bytes, ProtocolParameters.init(decoding:))
    }

    @Test func `a name ends with a NUL`() {
        let wire = bytes(Self.numbers + "637263333263 00")
        let parameters = Self.parameters("crc32c")
        #expect(parameters.encodedSize == 31)
        #expect(encoded(parameters, size: 31) == wire)
        #expect(Self.read(wire) == parameters)
    }

    @Test func `without algorithm there is only the NUL`() {
        let wire = bytes(Self.numbers + "00")
        #expect(encoded(Self.parameters(""), size: 25) == wire)
        #expect(Self.read(wire) == Self.parameters(""))
    }

    @Test func `the longest name has 63 bytes`() {
        let longest = String(repeating: "x", count: 63)
        let wire = encoded(Self.parameters(longest), size: 88)
        #expect(Self.read(wire) == Self.parameters(longest))
    }

    @Test func `no name, a name without end and a longer one are refused`() {
        #expect(Self.read([]) == nil)
        #expect(Self.read(bytes(Self.numbers).dropLast()) == nil)
        #expect(Self.read(bytes(Self.numbers)) == nil)
        #expect(Self.read(bytes(Self.numbers + "637263")) == nil)
        let long = String(repeating: "78", count: 64) + "00"
        #expect(Self.read(bytes(Self.numbers + long)) == nil)
    }

    @Test func `a name stops at its first NUL`() {
        #expect(Self.read(bytes(Self.numbers + "6372 00 63 00")) == Self.parameters("cr"))
    }

    @Test func `bytes of a name that are not ASCII become question marks`() {
        #expect(Self.read(bytes(Self.numbers + "63ffc3a4 00")) == Self.parameters("c???"))
    }

    @Test func `protocols have letters, other numbers have none`() {
        let letters = (0...4).map { number in
            var parameters = Self.parameters("")
            parameters.protocolNumber = UInt32(number)
            return parameters.replicationProtocol
        }
        #expect(letters == [nil, .a, .b, .c, nil])
    }

    @Test func `encoding a name that is too long is a bug`() async {
        await #expect(processExitsWith: .failure) {
            let long = ProtocolParametersTests.parameters(String(repeating: "x", count: 64))
            _ = encoded(long, size: long.encodedSize)
        }
    }
}

@Suite struct SyncParametersTests {
    static let parameters = SyncParameters(
        resyncRate: 0x0102_0304, planAhead: 0x1112_1314, delayTarget: 0x2122_2324,
        fillTarget: 0x3132_3334, maxRate: 0x4142_4344, verifyAlgorithm: "md5",
        checksumAlgorithm: "sha1")

    static let wire = bytes(
        "01020304" + "6d6435" + String(repeating: "00", count: 61) + "73686131"
            + String(repeating: "00", count: 60) + "11121314 21222324 31323334 41424344")

    @Test func `two names of 64 bytes stand between the rate and the controller`() {
        #expect(Self.wire.count == SyncParameters.encodedSize)
        #expect(encoded(Self.parameters) == Self.wire)
        #expect(decoded(Self.wire) == Self.parameters)
    }

    @Test func `a name without end has 63 bytes, so that it can be sent again`() {
        var unending = Self.wire
        for offset in 4..<68 { unending[offset] = UInt8(ascii: "x") }
        let parameters = decoded(unending, as: SyncParameters.self)
        #expect(parameters.verifyAlgorithm == String(repeating: "x", count: 63))
        #expect(parameters.checksumAlgorithm == "sha1")
        #expect(decoded(encoded(parameters)) == parameters)
    }

    @Test func `a name of any bytes can be sent again`() {
        var any = Self.wire
        for offset in 4..<132 { any[offset] = 0xff }
        let parameters = decoded(any, as: SyncParameters.self)
        #expect(parameters.verifyAlgorithm == String(repeating: "?", count: 63))
        #expect(decoded(encoded(parameters)) == parameters)
    }
}
