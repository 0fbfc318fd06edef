/// The canonical form of a configuration, as `drbdadm dump` prints it (reference, section 3.2).
package struct ConfigurationDump {
    /// Options are padded to this column, counted from the left margin.
    private static let column = 24

    private let file: ConfigurationFile
    private let node: NodeIdentity
    private var text = ""

    /// Everything, behind a line with the path of the file.
    ///
    /// - Parameter absolutePath: of the main file.
    package static func all(
        of file: ConfigurationFile, on node: NodeIdentity, absolutePath: String
    ) -> String {
        var dump = ConfigurationDump(file: file, node: node)
        dump.line(0, "# \(absolutePath)")
        dump.add(file.global)
        if let common = file.common {
            dump.line(0, "common {")
            dump.add(common)
            dump.line(0, "}\n")
        }
        for resource in file.resources { dump.add(resource) }
        return dump.text
    }

    /// One resource.
    package static func text(
        of resource: ResourceConfiguration, in file: ConfigurationFile, on node: NodeIdentity
    ) -> String {
        var dump = ConfigurationDump(file: file, node: node)
        dump.add(resource)
        return dump.text
    }

    private init(file: ConfigurationFile, node: NodeIdentity) {
        self.file = file
        self.node = node
    }

    // MARK: Lines

    private mutating func line(_ indent: Int, _ content: String) {
        text += String(repeating: " ", count: indent) + content + "\n"
    }

    private mutating func option(_ indent: Int, _ name: String, _ value: String) {
        padded(indent, name, to: Self.column - indent, value)
    }

    private mutating func padded(_ indent: Int, _ name: String, to width: Int, _ value: String) {
        let gap = String(repeating: " ", count: max(0, width - name.count) + 1)
        let pad = String(repeating: " ", count: max(0, 3 - value.count))
        line(indent, name + gap + pad + value + ";")
    }

    /// In quotes only where the language needs them.
    static func quoted(_ text: String) -> String {
        let isWord =
            (1...Lexer.maximumWord).contains(text.utf8.count)
            && text.utf8.allSatisfy(Lexer.isWordByte)
        guard !isWord else { return text }
        // Scalar by scalar, as the reader does: a combining mark makes a quote another character.
        let escaped = text.unicodeScalars.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : "\($0)" }
            .joined()
        return "\"\(escaped)\""
    }

    // MARK: Sections

    private mutating func add(_ global: GlobalConfiguration) {
        var lines: [String] = []
        if global.disableIPVerification { lines.append("disable-ip-verification") }
        if let count = global.minorCount { lines.append("minor-count \(count)") }
        if let seconds = global.dialogRefresh, seconds != 1 {
            lines.append("dialog-refresh \(seconds)")
        }
        if global.usageCount != .ask { lines.append("usage-count \(global.usageCount)") }
        for (name, value, standard) in [
            ("short", global.commandTimeoutShort, 5), ("medium", global.commandTimeoutMedium, 121),
            ("long", global.commandTimeoutLong, 600),
        ] {
            if let value, value != standard { lines.append("cmd-timeout-\(name) \(value)") }
        }
        guard !lines.isEmpty else { return }
        line(0, "global {")
        for content in lines { line(4, content + ";") }
        line(0, "}\n")
    }

    private mutating func add(_ sections: Sections) {
        add(4, "options", sections.options)
        add(4, "net", sections.net)
        add(4, "disk", sections.disk)
        add(4, "startup", sections.startup)
        add(4, sections.proxy)
        add(4, "handlers", sections.handlers)
        add(4, "repd", sections.repd)
    }

    private mutating func add(_ indent: Int, _ name: String, _ list: OptionList) {
        guard !list.entries.isEmpty else { return }
        line(indent, "\(name) {")
        addOptions(indent + 4, list)
        line(indent, "}")
    }

    private mutating func addOptions(_ indent: Int, _ list: OptionList) {
        var hosts: [String] = []
        for (index, entry) in list.entries.enumerated() {
            switch entry.name {
            case "stacked-timeouts":
                line(indent, "stacked-timeouts;")
            case "nbd-listen":
                option(indent, entry.name, (entry.text.hasPrefix("[") ? "ipv6 " : "") + entry.text)
            case "become-primary-on":
                // Its names were one statement.
                hosts.append(Self.quoted(entry.text))
                let next = list.entries.dropFirst(index + 1).first
                guard next?.name != entry.name || next?.location != entry.location else { continue }
                option(indent, entry.name, hosts.joined(separator: " "))
                hosts = []
            default:
                option(indent, entry.name, Self.quoted(entry.text))
            }
        }
    }

    private mutating func add(_ indent: Int, _ proxy: ProxySection) {
        guard !proxy.options.entries.isEmpty || !proxy.plugins.isEmpty else { return }
        line(indent, "proxy {")
        addContents(indent + 4, of: proxy)
        line(indent, "}")
    }

    private mutating func addContents(_ indent: Int, of proxy: ProxySection) {
        addOptions(indent, proxy.options)
        guard !proxy.plugins.isEmpty else { return }
        line(indent, "plugin {")
        for words in proxy.plugins {
            line(indent + 4, words.map(Self.quoted).joined(separator: " ") + ";")
        }
        line(indent, "}")
    }

    // MARK: Resources

    private mutating func add(_ resource: ResourceConfiguration) {
        let name = Self.quoted(resource.name)
        let isOurs = resource.hosts.contains(where: node.owns)
        line(
            0,
            "# resource \(name) on \(node.name): \(isOurs ? "not " : "")ignored, "
                + "\(resource.isStacked ? "" : "not ")stacked")
        line(0, "# defined at \(resource.location)")
        line(0, "resource \(name) {")
        for host in resource.hosts { add(host) }
        add(resource.own)
        line(0, "}\n")
    }

    private mutating func add(_ host: HostConfiguration) {
        switch host.kind {
        case .named:
            line(4, "on \(host.names.map(Self.quoted).joined(separator: " ")) {")
        case .floating:
            line(4, "floating \(host.address?.description ?? "") {")
        case .stacked(let lower):
            line(4, "stacked-on-top-of \(Self.quoted(lower)) {")
            line(8, "# on \(host.names.map { $0 + " " }.joined())")
        }
        add(8, "options", host.options)
        for volume in host.volumes {
            guard !volume.isImplicit else {
                add(8, volume)
                continue
            }
            line(8, "volume \(volume.number) {")
            add(12, volume)
            line(8, "}")
        }
        if let address = host.address, host.kind != .floating {
            option(8, "address", address.description)
        }
        if let address = host.alternateAddress {
            option(8, "alternate-link-address", address.description)
        }
        if let proxy = host.proxy { add(proxy) }
        line(4, "}")
    }

    private mutating func add(_ indent: Int, _ volume: VolumeConfiguration) {
        add(indent, "disk", volume.diskOptions)
        if let minor = volume.minor {
            let path = volume.devicePath.map { Self.quoted($0) + " " } ?? ""
            option(indent, "device", "\(path)minor \(minor)")
        }
        if let disk = volume.disk { option(indent, "disk", Self.quoted(disk)) }
        switch volume.metaDisk {
        case .internal: option(indent, "meta-disk", "internal")
        case .flexible(let path): option(indent, "meta-disk", Self.quoted(path))
        case .indexed(let path, let index):
            padded(indent, "meta-disk", to: 16, "\(Self.quoted(path)) [\(index)]")
        case nil: break
        }
    }

    private mutating func add(_ proxy: HostProxy) {
        line(8, "proxy on \(proxy.names.map(Self.quoted).joined(separator: " ")) {")
        if let inside = proxy.inside { padded(12, "inside", to: 16, inside.description) }
        if let outside = proxy.outside { padded(12, "outside", to: 16, outside.description) }
        addContents(12, of: proxy.section)
        line(8, "}")
    }
}
