/// Reads a file and what it includes (reference, section 1.3).
///
/// A wrong token or a name used twice ends the reading at once; what can be told together (ranges,
/// devices, missing statements) is collected.
struct Parser {
    let files: any ConfigurationFiles
    var lexer: Lexer
    /// The token that is looked at.
    var token: Token
    var result: ConfigurationFile
    var complaints: [String] = []
    /// What may be used once in all files, by key.
    private var used: [String: SourceLocation] = [:]
    /// Real paths, so that a file that several others include is read once.
    private var visited: Set<String> = []
    /// Sections `repd NAME { }`, by resource.
    private var repdSections: [String: (list: OptionList, location: SourceLocation)] = [:]

    static func parse(
        _ path: String, files: any ConfigurationFiles
    ) throws(ConfigurationError) -> ConfigurationFile {
        let bytes: [UInt8]
        do { bytes = try files.contents(of: path) } catch {
            throw ConfigurationError(cannotOpen: path, error, exitCode: 20)
        }
        var parser = Parser(path, bytes, files)
        try parser.parseFile()
        try parser.finish()
        return parser.result
    }

    private init(_ path: String, _ bytes: [UInt8], _ files: any ConfigurationFiles) {
        self.files = files
        lexer = Lexer(bytes, file: path == "-" ? "STDIN" : path)
        token = Token(kind: .end, text: "", line: 1)
        result = ConfigurationFile(path: path)
        if let real = files.canonicalPath(of: path) { visited.insert(real) }
    }

    // MARK: Tokens

    var location: SourceLocation { SourceLocation(file: lexer.file, line: token.line) }

    /// An error of the lexer comes behind what has been collected so far.
    mutating func advance() throws(ConfigurationError) {
        do { token = try lexer.next() } catch {
            throw ConfigurationError(complaints + error.messages, exitCode: error.exitCode)
        }
    }

    mutating func advanceInIPv6() throws(ConfigurationError) {
        do { token = try lexer.nextInIPv6() } catch {
            throw ConfigurationError(complaints + error.messages, exitCode: error.exitCode)
        }
    }

    func failure(_ message: String, exitCode: Int32 = 10) -> ConfigurationError {
        ConfigurationError(complaints + [message], exitCode: exitCode)
    }

    func wanted(_ what: String) -> ConfigurationError {
        failure(Complaint.wanted(what, got: token, in: lexer.file))
    }

    func wantedClass(_ what: String) -> ConfigurationError {
        failure(Complaint.wantedClass(what, got: token, in: lexer.file))
    }

    mutating func expect(_ punctuation: String) throws(ConfigurationError) {
        try advance()
        try expectCurrent(punctuation)
    }

    func expectCurrent(_ punctuation: String) throws(ConfigurationError) {
        guard token.isPunctuation(punctuation) else { throw wantedClass(punctuation) }
    }

    /// A name or another value that is kept as text.
    mutating func expectValue(_ what: String = "TK_STRING") throws(ConfigurationError) -> String {
        try advance()
        guard token.isValue else { throw wantedClass(what) }
        return token.text
    }

    /// The next token has to be an integer; a value out of range is collected.
    mutating func expectInteger(
        _ name: String, in range: ClosedRange<Int>
    ) throws(ConfigurationError) -> Int {
        try advance()
        guard token.isValue else { throw wantedClass("TK_INTEGER") }
        return try number(name, in: range, .plain)
    }

    /// The current token as a number; a value out of range is collected.
    mutating func number(
        _ name: String, in range: ClosedRange<Int>, _ unit: OptionTable.Unit
    ) throws(ConfigurationError) -> Int {
        guard let value = ConfigurationNumber.value(of: token.text, in: unit) else {
            throw failure("\(location): \(name): \(token.text) is not a valid number", exitCode: 20)
        }
        if !range.contains(value) {
            let letter = unit.letter
            complaints.append(
                "\(location): \(name) \(token.text) => \(value)\(letter) out of range "
                    + "[\(range.lowerBound)..\(range.upperBound)]\(letter).")
        }
        return value
    }

    /// Remembers a use of something that there may be only one of.
    mutating func use(
        _ what: String, _ key: String, at location: SourceLocation
    ) throws(ConfigurationError) {
        if let first = used[what + "/" + key] {
            throw failure(Complaint.conflict(what, key, at: location, first: first))
        }
        used[what + "/" + key] = location
    }

    // MARK: Files

    private mutating func parseFile() throws(ConfigurationError) {
        while true {
            try advance()
            if token.kind == .end { return }
            switch token.kind == .word ? token.text : "" {
            case "global": try parseGlobal()
            case "common": try parseCommon()
            case "resource": try parseResource()
            case "skip": try parseSkip()
            case "include": try parseInclude()
            case "repd": try parseRepd()
            default: throw wanted("global | common | resource | skip | include")
            }
        }
    }

    private mutating func parseInclude() throws(ConfigurationError) {
        let line = token.line
        let pattern = try expectValue()
        try expect(";")
        let directory = lexer.file.lastIndex(of: "/").map { lexer.file[...$0] } ?? ""
        let path = pattern.hasPrefix("/") ? pattern : directory + pattern
        let hasWildcard = pattern.contains { "*?[".contains($0) }
        let outer = lexer
        for path in hasWildcard ? files.paths(matching: path) : [path] {
            guard let real = files.canonicalPath(of: path) else {
                throw failure("\(outer.file):\(line): Failed to open include file '\(pattern)'.")
            }
            guard visited.insert(real).inserted else { continue }
            let bytes: [UInt8]
            do { bytes = try files.contents(of: path) } catch {
                throw failure("\(outer.file):\(line): Failed to open include file '\(path)'.")
            }
            lexer = Lexer(bytes, file: path)
            try parseFile()
        }
        lexer = outer
    }

    private mutating func parseSkip() throws(ConfigurationError) {
        let sections: Set<String> = ["global", "common", "resource", "skip", "include"]
        let start = location
        try advance()
        if token.isWord, token.kind == .quoted || !sections.contains(token.text) { try advance() }
        guard token.isPunctuation("{") else { throw wanted("[ some_text ] {") }
        guard lexer.skipBlock() else { throw failure("\(start): skip section is not closed") }
    }

    private mutating func parseCommon() throws(ConfigurationError) {
        try expect("{")
        // The last one wins.
        result.common = try parseResourceItems(
            ResourceConfiguration(name: "common", location: location), isCommon: true
        ).own
    }

    private mutating func parseResource() throws(ConfigurationError) {
        let name = try expectValue()
        try expect("{")
        let resource = ResourceConfiguration(name: name, location: location)
        try use("resource section", name, at: location)
        result.resources.append(try parseResourceItems(resource, isCommon: false))
    }

    private mutating func parseRepd() throws(ConfigurationError) {
        let start = location
        let name = try expectValue()
        try use("repd section", "\(name):repd", at: start)
        try expect("{")
        repdSections[name] = (try parseOptions(.repd), start)
    }

    // MARK: The end

    /// What can be judged only when everything has been read.
    private mutating func finish() throws(ConfigurationError) {
        for index in result.resources.indices {
            let name = result.resources[index].name
            guard let section = repdSections.removeValue(forKey: name) else { continue }
            if let entry = result.resources[index].own.repd.entries.first {
                complaints.append(
                    Complaint.conflict(
                        "repd section", "\(name):repd", at: entry.location,
                        first: section.location))
            }
            result.resources[index].own.repd = section.list
        }
        let unused = repdSections.sorted { $0.value.location.line < $1.value.location.line }
        for (name, section) in unused {
            complaints.append("\(section.location): repd section of unknown resource '\(name)'")
        }
        try resolveStackedHosts()
        guard complaints.isEmpty else { throw ConfigurationError(complaints) }
        for index in result.resources.indices {
            result.resources[index].inherit(from: result.common ?? Sections())
        }
        try Validation.check(&result)
    }

    /// A stacked section is for the hosts of the resource below, which may come later in the file.
    private mutating func resolveStackedHosts() throws(ConfigurationError) {
        for index in result.resources.indices {
            let resource = result.resources[index]
            for (place, host) in resource.hosts.enumerated() {
                guard case .stacked(let lower) = host.kind else { continue }
                guard let below = result.resource(named: lower) else {
                    complaints.append(
                        "\(resource.location): in resource \(resource.name), "
                            + "referenced resource '\(lower)' not defined.")
                    continue
                }
                let names = below.hosts.filter { $0.kind == .named }.flatMap(\.names)
                result.resources[index].hosts[place].names = names
                try useDevices(of: result.resources[index].hosts[place])
            }
        }
    }
}

extension ResourceConfiguration {
    mutating func inherit(from common: Sections) {
        sections = own
        for kind in SectionKind.allCases {
            sections[kind] = own[kind].inheriting(common[kind])
        }
    }
}
