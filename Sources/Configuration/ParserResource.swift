/// Statements of `resource` and `common`.
extension Parser {
    private static let resourceWords =
        "protocol | on | disk | net | syncer | startup | handlers | ignore-on | stacked-on-top-of"

    /// What a resource says for all its hosts.
    struct Defaults {
        var volumes: [VolumeConfiguration] = []
        /// Where each section stands, to find the second of a kind.
        var sections: [String: SourceLocation] = [:]
    }

    /// Reads up to the closing brace, or to the end of the file, which closes a resource too.
    mutating func parseResourceItems(
        _ start: ResourceConfiguration, isCommon: Bool
    ) throws(ConfigurationError) -> ResourceConfiguration {
        var resource = start
        var defaults = Defaults()
        while true {
            try advance()
            if token.isPunctuation("}") { break }
            if token.kind == .end {
                guard !isCommon else { throw wantedClass(Self.resourceWords) }
                result.warnings.append(
                    "\(location): WARN: end of file closes resource \(resource.name)")
                break
            }
            try parseResourceItem(&resource, &defaults)
        }
        if isCommon {
            if let host = resource.hosts.last {
                complaints.append(
                    "\(host.location): in the common section, there are no host sections allowed.")
            }
            if let volume = defaults.volumes.first {
                complaints.append(
                    "\(volume.location): in the common section, there are no volumes allowed.")
            }
        }
        let isToldAlready = resource.hosts.contains(where: \.mixesVolumes)
        for index in resource.hosts.indices {
            resource.hosts[index].inherit(defaults.volumes)
        }
        if !isToldAlready, resource.hosts.contains(where: \.mixesVolumes) {
            complainOfMixedVolumes(resource.name)
        }
        for index in resource.hosts.indices {
            try finishHost(resource.hosts[index], of: resource.name, isCommon: isCommon)
        }
        compareVolumes(resource)
        return resource
    }

    private mutating func parseResourceItem(
        _ resource: inout ResourceConfiguration, _ defaults: inout Defaults
    ) throws(ConfigurationError) {
        let start = location
        switch token.kind == .word ? token.text : "" {
        case "protocol":
            resource.own.net.entries += try parseOption("protocol", .protocolLetter)
            try expectCurrent(";")
        case "on", "floating", "stacked-on-top-of":
            resource.hosts.append(try parseHost(resource.name))
        case "ignore-on":
            _ = try expectValue()
            try expect(";")
            result.warnings.append(
                "\(start): in resource \(resource.name), WARN: "
                    + "The 'ignore-on' keyword is deprecated.")
        case "disk":
            try advance()
            if token.isPunctuation("{") {
                try useSection("disk", resource.name, start, &defaults)
                resource.own.disk.entries += try parseOptions(.disk).entries
            } else {
                try parseVolumeItem("disk", at: start, &defaults.volumes)
            }
        case "net", "startup", "handlers", "options", "repd":
            guard let kind = SectionKind(rawValue: token.text) else { return }
            try useSection(kind.rawValue, resource.name, start, &defaults)
            try expect("{")
            resource.own[kind].entries += try parseOptions(kind).entries
        case "syncer":
            try useSection("syncer", resource.name, start, &defaults)
            try expect("{")
            try parseSyncer(into: &resource.own)
        case "proxy":
            try useSection("proxy", resource.name, start, &defaults)
            try expect("{")
            resource.own.proxy = try parseProxy()
        case "volume":
            try parseVolume(&defaults.volumes)
        case "device", "meta-disk", "flexible-meta-disk":
            let word = token.text
            try advance()
            try parseVolumeItem(word, at: start, &defaults.volumes)
        default:
            throw wantedClass(Self.resourceWords)
        }
    }

    private mutating func useSection(
        _ word: String, _ name: String, _ start: SourceLocation, _ defaults: inout Defaults
    ) throws(ConfigurationError) {
        if let first = defaults.sections.updateValue(start, forKey: word) {
            throw failure(
                Complaint.conflict("\(word) section", "\(name):\(word)", at: start, first: first))
        }
    }

    /// All hosts of a resource have the same volumes.
    private mutating func compareVolumes(_ resource: ResourceConfiguration) {
        guard let first = resource.hosts.first else { return }
        let numbers = Set(first.volumes.map(\.number))
        for other in resource.hosts.dropFirst() {
            let others = Set(other.volumes.map(\.number))
            for number in numbers.subtracting(others).sorted() {
                complain(resource, first, lacks: number, other)
            }
            for number in others.subtracting(numbers).sorted() {
                complain(resource, other, lacks: number, first)
            }
        }
    }

    private mutating func complain(
        _ resource: ResourceConfiguration, _ host: HostConfiguration, lacks number: Int,
        _ other: HostConfiguration
    ) {
        let names = other.names.isEmpty ? other.label : other.names.joined(separator: " ")
        complaints.append(
            "\(location): in resource \(resource.name), \(host.label) { ... }: "
                + "volume \(number) not defined on \(names)")
    }

    /// What has to be there, and what may be there once.
    private mutating func finishHost(
        _ host: HostConfiguration, of resource: String, isCommon: Bool
    ) throws(ConfigurationError) {
        var isStacked = false
        if case .stacked = host.kind { isStacked = true }
        func missing(_ keyword: String) {
            complaints.append(
                "\(host.location): in resource \(resource), \(host.label) { ... }: "
                    + "'\(keyword)' keyword missing.")
        }
        if host.volumes.isEmpty { missing("device") }
        for volume in host.volumes {
            // A device whose name was refused has been complained about already.
            if volume.deviceLocation == nil { missing("device") }
            guard !isStacked else { continue }
            if volume.disk == nil { missing("disk") }
            if volume.metaDisk == nil {
                missing("meta-disk")
                missing("meta-index")
            }
        }
        guard let address = host.address, let place = host.addressLocation else {
            missing("address")
            return
        }
        if !isStacked { try useDevices(of: host) }
        // Loopback addresses are another host's affair on another host.
        let key = address.hostAndPort
        if !address.isLoopback {
            try use("IP", key, at: place)
        } else {
            for name in host.names { try use("IP", "\(name):\(key)", at: place) }
        }
    }

    /// Minors, device names and places for meta data are used once on a host.
    mutating func useDevices(of host: HostConfiguration) throws(ConfigurationError) {
        let names = host.names.isEmpty ? [host.address?.hostAndPort ?? ""] : host.names
        for name in names {
            for volume in host.volumes {
                if let minor = volume.minor, let place = volume.deviceLocation {
                    try use("device-minor", "device-minor:\(name):\(minor)", at: place)
                    try use("device", "device:\(name):\(volume.device)", at: place)
                }
                guard let place = volume.metaDiskLocation else { continue }
                switch volume.metaDisk {
                case .indexed(let path, let index):
                    try use("meta-disk", "meta-disk:\(name):\(path)[\(index)]", at: place)
                case .flexible(let path):
                    try use("meta-disk", "meta-disk:\(name):\(path)", at: place)
                case .internal, nil: break
                }
            }
        }
    }
}
