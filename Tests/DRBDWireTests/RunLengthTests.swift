import DRBDWire
import Support
import Testing

/// Macros cannot call a mutating method.
private func append(_ run: UInt64, to encoder: inout RunLengthEncoder) -> Bool {
    encoder.append(run: run)
}

@Suite struct RunLengthTests {
    /// Examples 1 to 3 of section 9.4.
    static let examples: [(firstValue: Bool, runs: [UInt64], payload: String)] = [
        (true, [3, 1, 2, 17, 9, 200, 5000], "d2 c1 07 0e df e5 cf 95 04"),
        (false, [100, 2, 2898, 1, 1085], "42 df 8c 3f 21 8a 1f 86 01"),
        (true, [2038], "b2 3f c5 06"),
        (false, [2038], "32 3f c5 06"),
    ]

    static func payload(_ runs: [UInt64], firstValue: Bool = false, limit: Int = 4080) -> [UInt8]? {
        var encoder = RunLengthEncoder(firstValue: firstValue, limit: limit)
        for run in runs {
            guard encoder.append(run: run) else { return nil }
        }
        return encoder.payload
    }

    /// What goes wrong with a payload that is accepted at first.
    static func fault(of payload: [UInt8]) -> WireError? {
        guard var decoder = RunLengthDecoder(payload) else { return nil }
        do {
            while try decoder.next() != nil {}
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: examples)
    func `the examples of the reference encode and decode as it says`(
        example: (firstValue: Bool, runs: [UInt64], payload: String)
    ) throws {
        let payload = bytes(example.payload)
        #expect(Self.payload(example.runs, firstValue: example.firstValue) == payload)
        let back = try #require(runs(of: payload))
        #expect(back.firstValue == example.firstValue)
        #expect(back.lengths == example.runs)
    }

    /// The smallest and the largest run of each level, with the bits it takes.
    static let levels: [(smallest: UInt64, largest: UInt64, bits: Int)] = [
        (1, 2, 2), (3, 4, 3), (5, 8, 5), (9, 16, 7), (17, 48, 10), (49, 304, 14),
        (305, 8496, 21), (8497, 2_105_648, 29), (2_105_649, 17_181_974_832, 42),
        (17_181_974_833, 72_057_611_219_902_768, 64),
    ]

    @Test(arguments: levels)
    func `the ends of each level take the bits of the table`(
        level: (smallest: UInt64, largest: UInt64, bits: Int)
    ) throws {
        for run in [level.smallest, level.smallest + 1, level.largest - 1, level.largest] {
            // At every position within a byte: each run of 1 or 2 takes two bits, of 3 or 4 three.
            for before in [[], [1], [3], [1, 1], [1, 3], [1, 1, 1], [1, 1, 3], [1, 1, 1, 3]] {
                var encoder = RunLengthEncoder(firstValue: true, limit: 4080)
                for short in before { #expect(append(UInt64(short), to: &encoder)) }
                let start = encoder.codeBitCount
                #expect(append(run, to: &encoder))
                #expect(encoder.codeBitCount - start == level.bits)
                let back = try #require(runs(of: encoder.payload))
                #expect(back.lengths == before.map(UInt64.init) + [run])
            }
        }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func `random runs come back`(seed: UInt64) throws {
        var random = RandomSource(seed: seed)
        let firstValue = random.chance(1, in: 2)
        var encoder = RunLengthEncoder(firstValue: firstValue, limit: 4080)
        var lengths: [UInt64] = []
        var total: UInt64 = 0
        for _ in 0..<random.next() % 3000 {
            let level = Self.levels[Int(random.next() % 9)]
            let run = level.smallest + random.next() % (level.largest - level.smallest + 1)
            guard encoder.append(run: run) else { break }
            lengths.append(run)
            total += run
        }
        guard !lengths.isEmpty else {
            #expect(encoder.isEmpty)
            return
        }
        #expect(!encoder.isEmpty)
        let payload = encoder.payload
        #expect(payload.count <= 4080)
        let back = try #require(runs(of: payload))
        #expect(back.firstValue == firstValue)
        #expect(back.lengths == lengths)
        #expect(back.lengths.reduce(0, +) == total)
    }

    @Test func `a run that does not fit changes nothing`() throws {
        var encoder = RunLengthEncoder(firstValue: false, limit: 3)
        #expect(append(200, to: &encoder))
        let before = encoder.payload
        #expect(!append(3, to: &encoder))
        #expect(!append(72_057_611_219_902_768, to: &encoder))
        #expect(encoder.payload == before)
        // Two bits are left: a run of one still fits, and fills the last byte.
        #expect(append(1, to: &encoder))
        #expect(!append(1, to: &encoder))
        #expect(encoder.payload.count == 3)
        #expect(try #require(runs(of: encoder.payload)).lengths == [200, 1])
    }

    @Test func `an encoder without runs is empty`() {
        var encoder = RunLengthEncoder(firstValue: true, limit: 2)
        #expect(encoder.isEmpty)
        #expect(!append(305, to: &encoder))
        #expect(encoder.isEmpty)
        #expect(append(1, to: &encoder))
        #expect(!encoder.isEmpty)
    }

    @Test func `a payload without code, of another type or longer than any packet is refused`() {
        #expect(RunLengthDecoder([UInt8]()) == nil)
        #expect(RunLengthDecoder([0x02]) == nil)
        for type in UInt8(0)...15 where type != 2 {
            #expect(RunLengthDecoder([type, 0x00]) == nil)
        }
        #expect(RunLengthDecoder([UInt8](repeating: 0x02, count: 4089)) == nil)
        #expect(RunLengthDecoder([0x02, 0x00]) != nil)
    }

    @Test func `a code that ends within a run is refused`() {
        // A prefix of eight bits, and nothing behind it.
        #expect(Self.fault(of: [0x02, 0xff]) == .runCutOff(bit: 0, bitCount: 8))
        // Four runs of one, but the padding takes half of the last.
        #expect(Self.fault(of: [0x12, 0x00]) == .runCutOff(bit: 6, bitCount: 7))
        #expect(Self.fault(of: [0x72, 0x00]) == .runCutOff(bit: 0, bitCount: 1))
        #expect(Self.fault(of: [0x02, 0x00]) == nil)
    }

    @Test func `every shortening of a code is noticed or a shorter code`() throws {
        let payload = bytes("d2 c1 07 0e df e5 cf 95 04")
        let whole: [UInt64] = [3, 1, 2, 17, 9, 200, 5000]
        for bitCount in 1..<59 {
            var short = Array(payload.prefix(1 + (bitCount + 7) / 8))
            short[0] = 0x82 | UInt8((8 - bitCount % 8) % 8) << 4
            guard Self.fault(of: short) == nil else { continue }
            let lengths = try #require(runs(of: short)).lengths
            #expect(lengths == Array(whole.prefix(lengths.count)))
            #expect(lengths.count < whole.count)
        }
    }

    @Test func `runs that overflow 64 bits are refused`() throws {
        // 256 runs of 2^56 and more.
        let code = [UInt8](repeating: 0xff, count: 300 * 8)
        let payload: [UInt8] = [0x02] + code
        #expect(Self.fault(of: payload) == .runsTooLong(bit: 256 * 64))
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func `junk ends, with runs of at least one or an error`(seed: UInt64) {
        var random = RandomSource(seed: seed)
        var junk = (0..<2 + random.next() % 4079).map { _ in
            UInt8(truncatingIfNeeded: random.next())
        }
        junk[0] = junk[0] & 0xf0 | 2
        var count = 0
        if var decoder = RunLengthDecoder(junk) {
            while let run = try? decoder.next() {
                #expect(run >= 1)
                count += 1
            }
        }
        // No run takes fewer than two bits.
        #expect(count <= junk.count * 4)
    }

    @Test func `a span reads as an array does`() {
        let payload = bytes("42 df 8c 3f 21 8a 1f 86 01")
        let lengths = reading(payload) { span in
            var lengths: [UInt64] = []
            guard var decoder = RunLengthDecoder(span) else { return lengths }
            while let run = try? decoder.next() { lengths.append(run) }
            return lengths
        }
        #expect(lengths == [100, 2, 2898, 1, 1085])
    }

    @Test func `errors say where the code is wrong`() {
        #expect(
            WireError.runCutOff(bit: 6, bitCount: 7).description
                == "compressed bitmap: the run at bit 6 goes past the 7 bits of the code")
        #expect(
            WireError.runsTooLong(bit: 64).description
                == "compressed bitmap: the runs up to bit 64 of the code overflow 64 bits")
    }

    @Test func `encoding a run of nothing is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var encoder = RunLengthEncoder(firstValue: false, limit: 4080)
            _ = encoder.append(run: 0)
        }
    }
}
