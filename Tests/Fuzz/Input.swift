import Support

/// The bytes of one input, taken from the front; behind the end all is zero, so that every prefix of an
/// input means something.
struct Input {
    private(set) var bytes: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func number<Value: FixedWidthInteger & UnsignedInteger>(_: Value.Type) -> Value {
        var value: Value = 0
        for _ in 0..<Value.bitWidth / 8 {
            value = (value << 7) << 1 | Value(bytes.popFirst() ?? 0)
        }
        return value
    }

    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }

    mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(bytes.prefix(count))
        bytes = bytes.dropFirst(count)
        return taken
    }

    /// All that is left.
    mutating func rest() -> [UInt8] { take(bytes.count) }
}

/// `bytes` in pieces of random lengths, most of them short, none empty.
func pieces(of bytes: [UInt8], seed: UInt64) -> [ArraySlice<UInt8>] {
    var random = RandomSource(seed: seed)
    var rest = bytes[...]
    var pieces: [ArraySlice<UInt8>] = []
    while !rest.isEmpty {
        let limit: UInt64 = random.chance(1, in: 4) ? 4096 : 24
        let count = 1 + Int(random.next() % limit)
        pieces.append(rest.prefix(count))
        rest = rest.dropFirst(count)
    }
    return pieces
}

extension [UInt8] {
    /// Lends the bytes to a decoder.
    func read<Result, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        // Elements seen as bytes, which they are.
        let bytes = unsafe span.bytes
        return try body(bytes)
    }

    /// Lends them to an encoder.
    mutating func write(_ body: (inout MutableRawSpan) -> Void) {
        var span = mutableSpan
        var bytes = unsafe span.mutableBytes
        body(&bytes)
    }
}
