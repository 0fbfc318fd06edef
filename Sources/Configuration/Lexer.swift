/// One token of a configuration file (reference, section 1.2).
struct Token: Equatable {
    enum Kind: Equatable {
        case word, quoted, integer, ipv4, ipv6
        /// `{ } ; [ ] :`
        case punctuation
        /// A character that means nothing here.
        case other
        case end
    }

    let kind: Kind
    /// Without quotes and escapes.
    let text: String
    let line: Int

    /// A name or value: keywords are not reserved, unlike in DRBD's tool, which is a superset.
    var isWord: Bool { kind == .word || kind == .quoted }
    var isValue: Bool { isWord || kind == .integer || kind == .ipv4 }

    func isPunctuation(_ text: String) -> Bool { kind == .punctuation && self.text == text }

    /// What DRBD's tool prints behind `TK`; known only for the classes seen in live captures.
    var classNumber: Int? {
        switch kind {
        case .punctuation: text.utf8.first.map(Int.init)
        case .other: 283
        case .ipv6: 316
        case .word where text == "on": 260
        case .word where OptionTable.net[text] != nil: 289
        case .word, .quoted: 282
        case .integer, .ipv4, .end: nil
        }
    }
}

/// Cuts one file into tokens.
struct Lexer {
    static let maximumWord = 128
    static let maximumString = 255

    let file: String
    private let bytes: [UInt8]
    private var position = 0
    private(set) var line = 1

    init(_ bytes: [UInt8], file: String) {
        self.bytes = bytes
        self.file = file
    }

    mutating func next() throws(ConfigurationError) -> Token {
        skipBlanks()
        guard let byte = peek() else { return Token(kind: .end, text: "", line: line) }
        switch byte {
        case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: ";"), UInt8(ascii: "["),
            UInt8(ascii: "]"), UInt8(ascii: ":"):
            position += 1
            return token(.punctuation, from: position - 1)
        case UInt8(ascii: "\""):
            return try quoted()
        case _ where Self.isWordByte(byte):
            return try word()
        default:
            let start = position
            position += 1
            // The rest of a character in UTF-8, so that the message shows it whole.
            while let byte = peek(), byte & 0xc0 == 0x80 { position += 1 }
            return token(.other, from: start)
        }
    }

    /// The next token where an IPv6 address may stand: its colons belong to it.
    mutating func nextInIPv6() throws(ConfigurationError) -> Token {
        skipBlanks()
        let start = position
        while let byte = peek(), Self.isHexadecimal(byte) || byte == UInt8(ascii: ":") {
            position += 1
        }
        while let byte = peek(), byte == UInt8(ascii: "."), position > start {
            // An embedded IPv4 address at the end.
            position += 1
            while let byte = peek(), Self.isDigit(byte) { position += 1 }
        }
        guard bytes[start..<position].contains(UInt8(ascii: ":")) else {
            position = start
            return try next()
        }
        if peek() == UInt8(ascii: "%") {
            position += 1
            while let byte = peek(), Self.isWordByte(byte) { position += 1 }
        }
        return token(.ipv6, from: start)
    }

    /// Skips to behind the brace that closes the one already read; false at the end of the file.
    mutating func skipBlock() -> Bool {
        var depth = 1
        while let byte = peek() {
            position += 1
            switch byte {
            case UInt8(ascii: "\n"): line += 1
            case UInt8(ascii: "#"): skipLine()
            case UInt8(ascii: "\""): skipString()
            case UInt8(ascii: "{"): depth += 1
            case UInt8(ascii: "}"):
                depth -= 1
                if depth == 0 { return true }
            default: break
            }
        }
        return false
    }

    private func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    private func token(_ kind: Token.Kind, from start: Int) -> Token {
        Token(kind: kind, text: text(start..<position), line: line)
    }

    private func text(_ range: Range<Int>) -> String {
        String(decoding: bytes[range], as: UTF8.self)
    }

    private mutating func skipLine() {
        while let byte = peek(), byte != UInt8(ascii: "\n") { position += 1 }
    }

    private mutating func skipString() {
        while let byte = peek(), byte != UInt8(ascii: "\n") {
            position += byte == UInt8(ascii: "\\") && position + 1 < bytes.count ? 2 : 1
            if byte == UInt8(ascii: "\"") { return }
        }
    }

    private mutating func skipBlanks() {
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"):
                position += 1
            case UInt8(ascii: "\n"):
                position += 1
                line += 1
            case UInt8(ascii: "#"):
                skipLine()
            // A no-break space, as configurations pasted from a document have it.
            case 0xc2 where position + 1 < bytes.count && bytes[position + 1] == 0xa0:
                position += 2
            default:
                return
            }
        }
    }

    private mutating func word() throws(ConfigurationError) -> Token {
        let start = position
        while let byte = peek(), Self.isWordByte(byte) { position += 1 }
        let range = start..<position
        guard range.count <= Self.maximumWord else { throw refusal("Token too long", range) }
        return token(Self.kind(of: bytes[range]), from: start)
    }

    private mutating func quoted() throws(ConfigurationError) -> Token {
        let start = position
        var content: [UInt8] = []
        position += 1
        while let byte = peek(), byte != UInt8(ascii: "\n") {
            position += 1
            if byte == UInt8(ascii: "\"") {
                guard content.count <= Self.maximumString else {
                    throw refusal("Double quoted string too long", start..<position)
                }
                // Other bytes would become other characters: a path or a secret that nobody wrote. And
                // a path ends at its first zero byte.
                guard let text = String(validating: content, as: UTF8.self), !content.contains(0)
                else { throw refusal("Double quoted string is not UTF-8", start..<position) }
                return Token(kind: .quoted, text: text, line: line)
            }
            guard byte == UInt8(ascii: "\\"), let escaped = peek(), escaped != UInt8(ascii: "\n")
            else {
                content.append(byte)
                continue
            }
            content.append(escaped)
            position += 1
        }
        throw refusal(
            "Unterminated double quoted string\n  we don't allow embedded newlines\n ",
            start..<position)
    }

    private func refusal(_ what: String, _ range: Range<Int>) -> ConfigurationError {
        ConfigurationError(["\(file):\(line): \(what) >>>\(Complaint.cut(text(range)))<<<"])
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        let lower = byte | 0x20
        return isDigit(byte) || (lower >= UInt8(ascii: "a") && lower <= UInt8(ascii: "f"))
    }

    static func isWordByte(_ byte: UInt8) -> Bool {
        let lower = byte | 0x20
        return isDigit(byte) || (lower >= UInt8(ascii: "a") && lower <= UInt8(ascii: "z"))
            || byte == UInt8(ascii: "/") || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
            || byte == UInt8(ascii: "-")
    }

    /// `[0-9]{1,8}[MKGs]?`, four groups of one to three digits, or a word.
    private static func kind(of bytes: ArraySlice<UInt8>) -> Token.Kind {
        var digits = bytes
        if let last = digits.last, "MKGs".utf8.contains(last) { digits.removeLast() }
        if (1...8).contains(digits.count), digits.allSatisfy(isDigit) { return .integer }
        let groups = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let isAddress =
            groups.count == 4
            && groups.allSatisfy { (1...3).contains($0.count) && $0.allSatisfy(isDigit) }
        return isAddress ? .ipv4 : .word
    }
}
