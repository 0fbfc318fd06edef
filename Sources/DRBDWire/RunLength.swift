// The run-length code of P_COMPRESSED_BITMAP: drbd-wire sections 9.3 and 9.4.
import Support

/// How the runs from `smallest` to `largest` are written: the prefix, then `run - smallest`, both
/// least significant bit first.
private struct Level {
    let prefix: UInt64
    let prefixBits: Int
    let dataBits: Int
    let smallest: UInt64

    var largest: UInt64 { smallest + (1 << UInt64(dataBits)) - 1 }
    var totalBits: Int { prefixBits + dataBits }

    static let all = [
        Level(prefix: 0x00, prefixBits: 1, dataBits: 1, smallest: 1),
        Level(prefix: 0x01, prefixBits: 2, dataBits: 1, smallest: 3),
        Level(prefix: 0x03, prefixBits: 3, dataBits: 2, smallest: 5),
        Level(prefix: 0x07, prefixBits: 4, dataBits: 3, smallest: 9),
        Level(prefix: 0x0f, prefixBits: 5, dataBits: 5, smallest: 17),
        Level(prefix: 0x1f, prefixBits: 6, dataBits: 8, smallest: 49),
        Level(prefix: 0x3f, prefixBits: 8, dataBits: 13, smallest: 305),
        Level(prefix: 0x7f, prefixBits: 8, dataBits: 21, smallest: 8497),
        Level(prefix: 0xbf, prefixBits: 8, dataBits: 34, smallest: 2_105_649),
        Level(prefix: 0xff, prefixBits: 8, dataBits: 56, smallest: 17_181_974_833),
    ]

    /// The level that codes `run`: from 1 to 72,057,611,219,902,768.
    static func of(run: UInt64) -> Level {
        for level in all where run <= level.largest && run >= level.smallest { return level }
        invariantFailed("a run of \(run) bits")
    }

    /// The level whose prefix `code` starts with: one always does.
    static func of(code: UInt64) -> Level {
        for level in all where code & ((1 << UInt64(level.prefixBits)) - 1) == level.prefix {
            return level
        }
        invariantFailed("no prefix in \(code)")
    }
}

/// The first byte of a payload.
private enum Encoding {
    static let typeMask: UInt8 = 0x0f
    /// The only code there is.
    static let type: UInt8 = 2
    static let paddingShift: UInt8 = 4
    static let paddingMask: UInt8 = 0x07
    static let firstValue: UInt8 = 0x80
}

/// Writes runs of alternating value into the payload of one P_COMPRESSED_BITMAP.
package struct RunLengthEncoder {
    private var bytes: [UInt8]
    private let limit: Int
    /// How many bits of code there are.
    package private(set) var codeBitCount = 0

    /// - Parameters:
    ///   - firstValue: of the first run.
    ///   - limit: the payload's largest size, with the encoding byte.
    package init(firstValue: Bool, limit: Int) {
        invariant(limit >= 1, "limit of \(limit) bytes")
        bytes = [Encoding.type | (firstValue ? Encoding.firstValue : 0)]
        self.limit = limit
    }

    /// No run was appended.
    package var isEmpty: Bool { codeBitCount == 0 }

    /// Appends a run of at least one bit.
    /// - Returns: false if it does not fit; then nothing has changed.
    package mutating func append(run: UInt64) -> Bool {
        let level = Level.of(run: run)
        let end = codeBitCount + level.totalBits
        guard 1 + (end + 7) / 8 <= limit else { return false }
        write(level.prefix, bits: level.prefixBits)
        write(run - level.smallest, bits: level.dataBits)
        invariant(codeBitCount == end, "\(codeBitCount) code bits instead of \(end)")
        return true
    }

    private mutating func write(_ value: UInt64, bits: Int) {
        var rest = value
        var count = bits
        while count > 0 {
            let used = codeBitCount % 8
            if used == 0 { bytes.append(0) }
            bytes[bytes.count - 1] |= UInt8(truncatingIfNeeded: rest << UInt64(used))
            let written = min(8 - used, count)
            rest >>= UInt64(written)
            count -= written
            codeBitCount += written
        }
    }

    /// What follows the header.
    package var payload: [UInt8] {
        var payload = bytes
        let padding = UInt8((8 - codeBitCount % 8) % 8)
        payload[0] |= padding << Encoding.paddingShift
        return payload
    }
}

/// Reads the runs of one P_COMPRESSED_BITMAP.
package struct RunLengthDecoder {
    private let bytes: [UInt8]
    private let bitCount: Int
    private var position = 0
    private var total: UInt64 = 0

    /// Of the first run; the values alternate.
    package var firstValue: Bool { bytes[0] & Encoding.firstValue != 0 }

    /// - Parameter payload: what follows the header.
    ///
    /// `nil` if it is no run-length code: too short, too long, or of a type that nobody knows.
    package init?(_ payload: [UInt8]) {
        guard payload.count >= 2, payload.count <= 4088,
            payload[0] & Encoding.typeMask == Encoding.type
        else { return nil }
        bytes = payload
        let padding = payload[0] >> Encoding.paddingShift & Encoding.paddingMask
        bitCount = (payload.count - 1) * 8 - Int(padding)
    }

    package init?(_ payload: RawSpan) {
        self.init((0..<payload.byteCount).map { payload[Field<UInt8>(at: $0)] })
    }

    /// The next run, at least 1; `nil` at the end of the code.
    ///
    /// Whether it goes past the bitmap is for the caller to see: `WireError` says that the code
    /// itself is wrong.
    package mutating func next() throws(WireError) -> UInt64? {
        guard position < bitCount else { return nil }
        let code = bits(at: position)
        let level = Level.of(code: code)
        guard position + level.totalBits <= bitCount else {
            throw .runCutOff(bit: position, bitCount: bitCount)
        }
        // A code of 64 bits has 56 bits of data above its prefix: nothing is shifted in.
        let data = code >> UInt64(level.prefixBits) & ((1 << UInt64(level.dataBits)) - 1)
        let run = level.smallest + data
        let (sum, overflow) = total.addingReportingOverflow(run)
        guard !overflow else { throw .runsTooLong(bit: position + level.totalBits) }
        total = sum
        position += level.totalBits
        return run
    }

    /// 64 bits from `position` on, with zeros behind the end.
    private func bits(at position: Int) -> UInt64 {
        let first = 1 + position / 8
        let shift = UInt64(position % 8)
        var word: UInt64 = 0
        for index in first..<min(first + 8, bytes.count) {
            word |= UInt64(bytes[index]) << UInt64((index - first) * 8)
        }
        guard shift > 0 else { return word }
        let last = first + 8 < bytes.count ? UInt64(bytes[first + 8]) : 0
        return word >> shift | last << (64 - shift)
    }
}
