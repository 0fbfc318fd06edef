import Support
import Testing

@testable import Configuration

@Suite struct LexerTests {
    private func tokens(_ text: String) throws -> [Token] {
        var lexer = Lexer(Array(text.utf8), file: "f")
        var tokens: [Token] = []
        while true {
            let token = try lexer.next()
            if token.kind == .end { return tokens }
            tokens.append(token)
        }
    }

    @Test func `blanks, comments and no-break spaces separate, newlines count`() throws {
        let tokens = try tokens("on\u{a0}a\t# \"not a string {\r\n\r\n b;")
        #expect(tokens.map(\.text) == ["on", "a", "b", ";"])
        #expect(tokens.map(\.line) == [1, 1, 3, 3])
    }

    @Test(arguments: [
        ("60", Token.Kind.integer), ("4M", .integer), ("12345678s", .integer),
        ("123456789", .word), ("512k", .word), ("10.1.1.31", .ipv4), ("10.1.1", .word),
        ("10.1.1.31x", .word), ("1000.1.1.1", .word), ("/dev/sda7", .word), ("{", .punctuation),
        ("=", .other), ("M", .word),
    ])
    func `a token has the class of its characters`(_ text: String, _ kind: Token.Kind) throws {
        let tokens = try tokens(text)
        #expect(tokens.map(\.kind) == [kind])
        #expect(tokens.map(\.text) == [text])
    }

    @Test func `a backslash takes the next character as it is`() throws {
        let tokens = try tokens(#""a \"b\" \\ c" d"#)
        #expect(tokens.map(\.text) == [#"a "b" \ c"#, "d"])
        #expect(tokens.map(\.kind) == [.quoted, .word])
    }

    @Test func `words end at 128 characters and strings at 255`() throws {
        let word = String(repeating: "w", count: 128)
        let string = String(repeating: "s", count: 255)
        #expect(try tokens(word + " \"\(string)\"").map(\.text) == [word, string])
        #expect(throws: ConfigurationError(["f:1: Token too long >>>wwwwwwwwwwwwwwwwwwww...<<<"])) {
            try tokens(word + "w")
        }
        #expect(
            throws: ConfigurationError([
                "f:1: Double quoted string too long >>>\"sssssssssssssssssss...<<<"
            ])
        ) { try tokens("\"\(string)s\"") }
    }

    @Test func `a string that ends with the file or the line is refused`() {
        #expect(throws: ConfigurationError.self) { try tokens("\"abc") }
        #expect(throws: ConfigurationError.self) { try tokens("\"abc\\\n\"") }
    }

    @Test(arguments: [[0xfc], [0x61, 0x00], [0xed, 0xa0, 0x80]] as [[UInt8]])
    func `a string that is not UTF-8 is refused, not changed`(content: [UInt8]) throws {
        var lexer = Lexer(Array("\n\"".utf8) + content + Array("\";".utf8), file: "f")
        let error = try #require(throws: ConfigurationError.self) { try lexer.next() }
        #expect(error.text.hasPrefix("f:2: Double quoted string is not UTF-8 >>>\""))
    }

    @Test func `an IPv6 address keeps its colons and its scope`() throws {
        var lexer = Lexer(Array(" fe80::1%eth0 ]:7788".utf8), file: "f")
        let token = try lexer.nextInIPv6()
        #expect(token == Token(kind: .ipv6, text: "fe80::1%eth0", line: 1))
        #expect(try lexer.next().text == "]")
    }

    @Test func `any bytes give tokens or an error, never a trap`() {
        var random = RandomSource(seed: 7)
        let characters = Array("{}\";#\\ \n[]:abz09KMs./-_%=\u{e4}\u{a0}".utf8)
        for _ in 0..<2000 {
            let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                characters.randomElement(using: &random) ?? 0
            }
            var lexer = Lexer(bytes, file: "f")
            var count = 0
            // Every token takes a byte at least.
            while let token = try? lexer.next(), token.kind != .end { count += 1 }
            #expect(count <= bytes.count, "\(bytes)")
        }
    }
}
