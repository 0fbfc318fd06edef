// The text of dump-md, read back: drbd-metadata.md, section 14.4.

/// Why a text is no dump that can be restored.
package struct DumpError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Counts from 1; 0 if it is not about a line.
    package let line: Int
    private let text: String

    init(line: Int = 0, _ text: String) {
        self.line = line
        self.text = text
    }

    package var description: String { line > 0 ? "Parse error in line \(line): \(text)" : text }
}

/// What a dump says in front of its bitmap.
package struct DumpHeader: Equatable, Sendable {
    package var uuids: GenerationUUIDs
    package var flags: MetaFlags
    /// Sectors.
    package var lastAgreedSize: UInt64
    package var deviceUUID: UInt64
    package var peerMaximumRequest: UInt32
    package var stripes: UInt32
    package var stripeBlocks: UInt32
}

/// Equal words of 64 bits that follow each other in the bitmap.
package struct DumpRun: Equatable, Sendable {
    package let count: UInt64
    package let word: UInt64

    package init(count: UInt64, word: UInt64) {
        self.count = count
        self.word = word
    }
}

/// Reads a dump piece by piece: its text can be longer than the memory.
package struct DumpReader {
    /// Words of the largest bitmap that the format has.
    private static let wordLimit = BitmapLayout.wordCount(sectors: BitmapLayout.maximumSectors)

    private var tokens: DumpTokens
    private var words: UInt64 = 0

    /// - Parameter more: the next part of the text, empty at its end.
    package init(more: @escaping () -> [UInt8]) { tokens = DumpTokens(more: more) }

    /// Everything in front of the bitmap; to be called once, before `nextRun`.
    package mutating func header() throws(DumpError) -> DumpHeader {
        try tokens.keyword("version")
        let version = try tokens.string()
        guard version == "v08" else {
            throw DumpError(
                "dump is '\(version)' you requested 'v08'.\nConvert it with drbdmeta: restore it as "
                    + "\(version), then create-md as v08 offers to convert.")
        }
        try tokens.semicolon()
        try tokens.keyword("uuid")
        try tokens.symbol("{", "opening brace ({)")
        var numbers: [UInt64] = []
        for _ in 0..<4 {
            numbers.append(try tokens.hexadecimal(digits: 16))
            try tokens.semicolon()
        }
        try tokens.keyword("flags")
        let flags = try tokens.hexadecimal(digits: 8)
        try tokens.semicolon()
        try tokens.symbol("}", "closing brace (})")
        let size = try tokens.field("la-size-sect", in: 0...BitmapLayout.maximumSectors)
        let perBit = try tokens.field("bm-byte-per-bit", in: 0...UInt64(UInt32.max))
        guard perBit == BitmapLayout.bytesPerBit else {
            throw DumpError("Invalid value for bm-byte-per-bit: \(perBit), v08 has 4096")
        }
        try tokens.keyword("device-uuid")
        let device = try tokens.hexadecimal(digits: 16)
        try tokens.semicolon()
        let request = try tokens.field("la-peer-max-bio-size", in: 0...UInt64(UInt32.max))
        let stripes = try tokens.field("al-stripes", in: 1...UInt64(UInt32.max))
        let blocks = try tokens.field("al-stripe-size-4k", in: 1...UInt64(UInt32.max))
        try tokens.keyword("bm")
        try tokens.symbol("{", "opening brace ({)")
        return DumpHeader(
            uuids: GenerationUUIDs(
                current: numbers[0], bitmap: numbers[1], history0: numbers[2],
                history1: numbers[3]),
            flags: MetaFlags(rawValue: UInt32(flags)), lastAgreedSize: size, deviceUUID: device,
            peerMaximumRequest: UInt32(request), stripes: UInt32(stripes),
            stripeBlocks: UInt32(blocks))
    }

    /// The bitmap, run after run; nil when it and the text have ended as they should.
    package mutating func nextRun() throws(DumpError) -> DumpRun? {
        let token = try tokens.next()
        var count: UInt64 = 1
        switch token {
        case .symbol(UInt8(ascii: "}")):
            try tokens.end()
            return nil
        case .number(let number):
            count = number
            try tokens.keyword("times")
        case .hexadecimal:
            tokens.unread(token)
        case .symbol, .word, .string, .end:
            throw tokens.expected("a 16-digit hex number, a count or closing brace (})", token)
        }
        let word = try tokens.hexadecimal(digits: 16)
        try tokens.semicolon()
        let (sum, overflow) = words.addingReportingOverflow(count)
        guard !overflow, sum <= Self.wordLimit else {
            throw tokens.complaint("the bitmap is larger than that of 1 PiB")
        }
        words = sum
        return DumpRun(count: count, word: word)
    }
}

/// Words, numbers and signs; comments and white space lie between them.
private struct DumpTokens {
    enum Token: Equatable {
        case word(String)
        case string(String)
        case number(UInt64)
        case hexadecimal(UInt64, digits: Int)
        case symbol(UInt8)
        case end
    }

    private static let longestWord = 64

    private let more: () -> [UInt8]
    private var bytes: [UInt8] = []
    private var place = 0
    private var line = 1
    private var kept: Token?

    init(more: @escaping () -> [UInt8]) { self.more = more }

    // MARK: bytes

    private mutating func peek() -> UInt8? {
        if place == bytes.count {
            bytes = more()
            place = 0
        }
        return place < bytes.count ? bytes[place] : nil
    }

    private mutating func skip() {
        if bytes[place] == UInt8(ascii: "\n") { line += 1 }
        place += 1
    }

    private mutating func skipBlanks() {
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"):
                skip()
            case UInt8(ascii: "#"):
                while let byte = peek(), byte != UInt8(ascii: "\n") { skip() }
            default: return
            }
        }
    }

    // MARK: tokens

    mutating func unread(_ token: Token) { kept = token }

    mutating func next() throws(DumpError) -> Token {
        if let token = kept {
            kept = nil
            return token
        }
        skipBlanks()
        guard let byte = peek() else { return .end }
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: ";"):
            skip()
            return .symbol(byte)
        case UInt8(ascii: "\""): return try quoted()
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: return .word(try word())
        }
    }

    private mutating func quoted() throws(DumpError) -> Token {
        skip()
        var text: [UInt8] = []
        while let byte = peek(), byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\n") {
            guard text.count < Self.longestWord else { throw complaint("a string without end") }
            text.append(byte)
            skip()
        }
        guard peek() == UInt8(ascii: "\"") else { throw complaint("a string without end") }
        skip()
        return .string(String(decoding: text, as: UTF8.self))
    }

    /// Up to the next blank or sign.
    private mutating func word() throws(DumpError) -> String {
        var text: [UInt8] = []
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"),
                UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: ";"), UInt8(ascii: "#"),
                UInt8(ascii: "\""):
                return String(decoding: text, as: UTF8.self)
            default: break
            }
            guard text.count < Self.longestWord else {
                let start = String(decoding: text, as: UTF8.self)
                throw complaint("unknown token: \(start) ...")
            }
            text.append(byte)
            skip()
        }
        return String(decoding: text, as: UTF8.self)
    }

    private mutating func number() throws(DumpError) -> Token {
        let text = try word()
        if text.hasPrefix("0x") {
            let digits = text.utf8.count - 2
            // UInt64 takes a sign, too.
            guard digits == 8 || digits == 16, let value = UInt64(text.dropFirst(2), radix: 16),
                text.dropFirst(2).allSatisfy(\.isHexDigit)
            else {
                throw complaint(
                    "invalid hex number (only 8 or 16 hex digits accepted): \(text)")
            }
            return .hexadecimal(value, digits: digits)
        }
        guard text.utf8.count <= 19, let value = UInt64(text) else {
            throw complaint("'\(text)' is no number of at most 19 digits")
        }
        return .number(value)
    }

    // MARK: what has to come

    mutating func keyword(_ word: String) throws(DumpError) {
        let token = try next()
        guard token == .word(word) else { throw expected("keyword '\(word)'", token) }
    }

    mutating func symbol(_ character: Unicode.Scalar, _ name: String) throws(DumpError) {
        let token = try next()
        guard token == .symbol(UInt8(ascii: character)) else { throw expected(name, token) }
    }

    mutating func semicolon() throws(DumpError) { try symbol(";", "semicolon (;)") }

    mutating func string() throws(DumpError) -> String {
        let token = try next()
        guard case .string(let text) = token else { throw expected("a string", token) }
        return text
    }

    mutating func hexadecimal(digits: Int) throws(DumpError) -> UInt64 {
        let token = try next()
        guard case .hexadecimal(let value, digits) = token else {
            throw expected("\(digits == 8 ? "an 8" : "a 16")-digit hex number", token)
        }
        return value
    }

    /// `name number;`
    mutating func field(_ name: String, in limits: ClosedRange<UInt64>) throws(DumpError) -> UInt64
    {
        try keyword(name)
        let token = try next()
        guard case .number(let value) = token else { throw expected("a number", token) }
        guard limits.contains(value) else {
            throw complaint(
                "\(name) \(value) is out of range (\(limits.lowerBound)...\(limits.upperBound))")
        }
        try semicolon()
        return value
    }

    mutating func end() throws(DumpError) {
        let token = try next()
        guard token == .end else { throw expected("end of file", token) }
    }

    func complaint(_ text: String) -> DumpError { DumpError(line: line, text) }

    func expected(_ what: String, _ token: Token) -> DumpError {
        let found =
            switch token {
            case .word(let text), .string(let text): "not '\(text)'"
            case .number(let value): "not '\(value)'"
            case .hexadecimal(let value, 8): "not '\(MetaDisk.hexadecimal(UInt32(value)))'"
            case .hexadecimal(let value, _): "not '\(MetaDisk.hexadecimal(value))'"
            case .symbol(let byte): "not '\(Character(Unicode.Scalar(byte)))'"
            case .end: "but end of file encountered"
            }
        return complaint("\(what) expected, \(found)")
    }
}
