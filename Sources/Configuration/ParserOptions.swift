/// Sections of options.
extension Parser {
    /// Reads up to the closing brace.
    mutating func parseOptions(_ kind: SectionKind) throws(ConfigurationError) -> OptionList {
        let table = OptionTable[kind]
        var list = OptionList()
        while true {
            try advance()
            if token.isPunctuation("}") { return list }
            guard token.kind != .end else { throw wanted("an option") }
            guard token.kind == .word else { throw wanted("an option keyword") }
            let word = token.text
            if word.hasPrefix("no-"),
                OptionTable.negated[kind]?.contains(String(word.dropFirst(3))) == true
            {
                let name = String(word.dropFirst(3))
                list.entries.append(
                    OptionEntry(name: name, text: "no", number: nil, location: location))
                try expect(";")
                continue
            }
            let name = OptionTable.renamed[kind]?[word] ?? word
            guard let definition = table[name] else { throw wanted("an option keyword") }
            list.entries += try parseOption(name, definition)
            try expectCurrent(";")
        }
    }

    /// The old section, spread over those of today (reference, section 1.4).
    mutating func parseSyncer(into sections: inout Sections) throws(ConfigurationError) {
        while true {
            try advance()
            if token.isPunctuation("}") { return }
            guard token.kind != .end else { throw wanted("an option") }
            guard token.kind == .word, let target = OptionTable.syncer[token.text],
                let definition = OptionTable[target.section][target.name]
            else { throw wanted("a syncer option keyword") }
            sections[target.section].entries += try parseOption(target.name, definition)
            try expectCurrent(";")
        }
    }

    /// Reads the value of an option whose name is looked at; then the token behind the value is.
    ///
    /// - Returns: nothing for options that are read and forgotten.
    mutating func parseOption(
        _ name: String, _ kind: OptionTable.Kind
    ) throws(ConfigurationError) -> [OptionEntry] {
        let start = location
        func entry(_ text: String, _ number: Int? = nil) -> [OptionEntry] {
            [OptionEntry(name: name, text: text, number: number, location: start)]
        }
        switch kind {
        case .boolean:
            let value = try parseBoolean()
            return entry(value)
        case .flag:
            try advance()
            return entry("yes")
        case .words:
            try advance()
            guard token.isValue else { throw wantedClass("TK_STRING") }
            var entries: [OptionEntry] = []
            while token.isValue {
                entries += entry(token.text)
                try advance()
            }
            return entries
        case .address:
            try advance()
            let address = try parseAddress()
            try advance()
            return entry(address.hostAndPort)
        case .number, .choice, .word, .protocolLetter, .forgotten:
            let text = try expectValue("TK_STRING | TK_INTEGER")
            let number = try check(name, kind)
            try advance()
            if case .forgotten = kind { return [] }
            return entry(text, number)
        }
    }

    /// Judges the value that is looked at.
    ///
    /// - Returns: its number, if the option is one.
    private mutating func check(
        _ name: String, _ kind: OptionTable.Kind
    ) throws(ConfigurationError) -> Int? {
        let text = token.text
        switch kind {
        case .number(let range, let unit):
            return try number(name, in: range, unit)
        case .choice(let words):
            let isKnown = words.contains { $0 == text || ($0.hasSuffix("-") && text.hasPrefix($0)) }
            if !isKnown || words.contains(where: { $0 == text && $0.hasSuffix("-") }) {
                let list = words.map { $0.hasSuffix("-") ? $0 + "HOST" : $0 }
                complaints.append(
                    "\(location): \(name): invalid argument '\(text)', "
                        + "should be one of \(list.joined(separator: ","))")
            }
        case .protocolLetter:
            if !["A", "B", "C"].contains(text) {
                complaints.append(
                    "\(location): unknown protocol '\(text)', should be one of A,B,C")
            }
        case .word where name == "shared-secret":
            if text.utf8.count > 64 {
                complaints.append("\(location): shared-secret is longer than 64 characters")
            }
        case .boolean, .flag, .word, .words, .address, .forgotten:
            break
        }
        return nil
    }

    private mutating func parseBoolean() throws(ConfigurationError) -> String {
        try advance()
        if token.isPunctuation(";") { return "yes" }
        guard token.kind == .word, token.text == "yes" || token.text == "no" else {
            throw wanted("yes | no | ;")
        }
        let value = token.text
        try advance()
        return value
    }

    mutating func parseProxy() throws(ConfigurationError) -> ProxySection {
        var section = ProxySection()
        while true {
            try advance()
            if token.isPunctuation("}") { return section }
            guard token.kind != .end else { throw wanted("an option") }
            if token.kind == .word, token.text == "plugin" {
                try expect("{")
                section.plugins += try parsePlugins()
                continue
            }
            guard token.kind == .word, let kind = OptionTable.proxy[token.text] else {
                throw wanted("an option keyword")
            }
            section.options.entries += try parseOption(token.text, kind)
            try expectCurrent(";")
        }
    }

    private mutating func parsePlugins() throws(ConfigurationError) -> [[String]] {
        var statements: [[String]] = []
        while true {
            try advance()
            if token.isPunctuation("}") { return statements }
            var words: [String] = []
            while token.isValue {
                words.append(token.text)
                try advance()
            }
            guard !words.isEmpty else { throw wantedClass("TK_STRING") }
            try expectCurrent(";")
            statements.append(words)
        }
    }

    // MARK: global

    mutating func parseGlobal() throws(ConfigurationError) {
        try use("global section", "global", at: location)
        if !result.resources.isEmpty {
            result.warnings.append(
                "\(location): You should put the global {} section\n"
                    + "\tin front of any resource {} section")
        }
        try expect("{")
        while true {
            try advance()
            if token.isPunctuation("}") { return }
            guard token.kind == .word, let kind = OptionTable.global[token.text] else {
                throw wanted("dialog-refresh | minor-count | disable-ip-verification")
            }
            try parseGlobalOption(token.text, kind)
        }
    }

    private mutating func parseGlobalOption(
        _ name: String, _ kind: OptionTable.Kind
    ) throws(ConfigurationError) {
        if name == "usage-count" {
            try advance()
            guard token.isWord, let value = GlobalConfiguration.UsageCount(rawValue: token.text)
            else { throw wanted("yes | no | ask") }
            result.global.usageCount = value
            try expect(";")
            return
        }
        let number = try parseOption(name, kind).first?.number
        try expectCurrent(";")
        switch name {
        case "minor-count": result.global.minorCount = number
        case "dialog-refresh": result.global.dialogRefresh = number
        case "disable-ip-verification": result.global.disableIPVerification = true
        case "udev-always-use-vnr": result.global.udevAlwaysUseVolumeNumber = true
        case "cmd-timeout-short": result.global.commandTimeoutShort = number
        case "cmd-timeout-medium": result.global.commandTimeoutMedium = number
        default: result.global.commandTimeoutLong = number
        }
    }
}
