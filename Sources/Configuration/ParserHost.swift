/// Host sections, volumes and addresses.
extension Parser {
    mutating func parseHost(_ resource: String) throws(ConfigurationError) -> HostConfiguration {
        let start = location
        var host: HostConfiguration
        switch token.text {
        case "floating":
            host = HostConfiguration(kind: .floating, names: [], location: start)
            try advance()
            try parseAddress(of: &host)
            try advance()
            if token.isPunctuation(";") { return host }
        case "stacked-on-top-of":
            let lower = try expectValue()
            host = HostConfiguration(kind: .stacked(on: lower), names: [], location: start)
            try use("host section", "\(resource): \(host.label)", at: start)
            try advance()
        default:
            let names = try parseNames()
            host = HostConfiguration(kind: .named, names: names, location: start)
            for name in names { try use("host section", "\(resource): on \(name)", at: start) }
        }
        try expectCurrent("{")
        while true {
            try advance()
            if token.isPunctuation("}") { break }
            try parseHostItem(&host)
        }
        if host.mixesVolumes { complainOfMixedVolumes(resource) }
        return host
    }

    mutating func complainOfMixedVolumes(_ resource: String) {
        complaints.append(
            "\(location): in resource \(resource): you must not mix implicit and explicit volumes")
    }

    /// One name or more; afterwards the token behind them is looked at.
    private mutating func parseNames() throws(ConfigurationError) -> [String] {
        var names = [try expectValue()]
        try advance()
        while token.isValue {
            names.append(token.text)
            try advance()
        }
        return names
    }

    private mutating func parseHostItem(
        _ host: inout HostConfiguration
    ) throws(ConfigurationError) {
        let start = location
        let word = token.kind == .word ? token.text : ""
        switch word {
        case "address" where host.kind != .floating:
            try advance()
            try parseAddress(of: &host)
            try expect(";")
        case "alternate-link-address":
            try advance()
            host.alternateAddress = try parseAddress()
            try expect(";")
        case "options":
            try expect("{")
            host.options.entries += try parseOptions(.options).entries
        case "proxy":
            host.proxy = try parseHostProxy()
        case "volume":
            try parseVolume(&host.volumes)
        case "device", "disk", "meta-disk", "flexible-meta-disk":
            try advance()
            try parseVolumeItem(word, at: start, &host.volumes)
        default:
            throw wanted("disk | device | address | meta-disk | flexible-meta-disk")
        }
    }

    private mutating func parseHostProxy() throws(ConfigurationError) -> HostProxy {
        try advance()
        guard token.kind == .word, token.text == "on" else { throw wantedClass("on") }
        var proxy = HostProxy(names: try parseNames())
        try expectCurrent("{")
        while true {
            try advance()
            if token.isPunctuation("}") { return proxy }
            switch token.kind == .word ? token.text : "" {
            case "inside":
                try advance()
                proxy.inside = try parseAddress()
                try expect(";")
            case "outside":
                try advance()
                proxy.outside = try parseAddress()
                try expect(";")
            case "options":
                try expect("{")
                proxy.section = try parseProxy()
            default:
                throw wanted("inside | outside")
            }
        }
    }

    // MARK: Volumes

    mutating func parseVolume(
        _ volumes: inout [VolumeConfiguration]
    ) throws(ConfigurationError) {
        let start = location
        let number = try expectInteger("volume", in: 0...65535)
        try expect("{")
        let present = volumes.firstIndex { $0.number == number && !$0.isImplicit }
        var volume =
            present.map { volumes[$0] }
            ?? VolumeConfiguration(number: number, isImplicit: false, location: start)
        while true {
            try advance()
            if token.isPunctuation("}") { break }
            let place = location
            let word = token.kind == .word ? token.text : ""
            guard ["device", "disk", "meta-disk", "flexible-meta-disk"].contains(word) else {
                throw wanted("device | disk | meta-disk | flexible-meta-disk")
            }
            try advance()
            try parseVolumeItem(word, at: place, &volume)
        }
        if let present { volumes[present] = volume } else { volumes.append(volume) }
    }

    /// A statement outside any `volume` section: it is about the implicit volume 0.
    mutating func parseVolumeItem(
        _ word: String, at start: SourceLocation, _ volumes: inout [VolumeConfiguration]
    ) throws(ConfigurationError) {
        if volumes.contains(where: { !$0.isImplicit }) {
            complaints.append("\(start): mixing explicit and implicit volumes is not allowed")
        }
        let present = volumes.firstIndex(where: \.isImplicit)
        var volume =
            present.map { volumes[$0] }
            ?? VolumeConfiguration(number: 0, isImplicit: true, location: start)
        try parseVolumeItem(word, at: start, &volume)
        if let present { volumes[present] = volume } else { volumes.append(volume) }
    }

    /// `word` has been read, and the token behind it is looked at.
    private mutating func parseVolumeItem(
        _ word: String, at start: SourceLocation, _ volume: inout VolumeConfiguration
    ) throws(ConfigurationError) {
        switch word {
        case "device":
            try parseDevice(at: start, &volume)
            return
        case "disk" where token.isPunctuation("{"):
            volume.diskOptions.entries += try parseOptions(.disk).entries
            return
        case "disk":
            volume.disk = try currentValue()
            volume.diskLocation = start
        case "meta-disk":
            volume.metaDiskLocation = start
            try parseMetaDisk(&volume)
            return
        default:
            volume.metaDiskLocation = start
            let path = try currentValue()
            volume.metaDisk = path == "internal" ? .internal : .flexible(path: path)
        }
        try expect(";")
    }

    private func currentValue() throws(ConfigurationError) -> String {
        guard token.isValue else { throw wantedClass("TK_STRING") }
        return token.text
    }

    private mutating func parseMetaDisk(
        _ volume: inout VolumeConfiguration
    ) throws(ConfigurationError) {
        let path = try currentValue()
        try advance()
        if token.isPunctuation("["), path != "internal" {
            let index = try expectInteger("meta-disk index", in: 0...65535)
            volume.metaDisk = .indexed(path: path, index: index)
            try expect("]")
            try advance()
        } else {
            volume.metaDisk = path == "internal" ? .internal : .flexible(path: path)
        }
        try expectCurrent(";")
    }

    // MARK: Devices

    private mutating func parseDevice(
        at start: SourceLocation, _ volume: inout VolumeConfiguration
    ) throws(ConfigurationError) {
        volume.deviceLocation = start
        volume.minor = nil
        volume.devicePath = nil
        if !(token.kind == .word && token.text == "minor") {
            let name = try currentValue()
            volume.devicePath = name.hasPrefix("/") ? name : "/dev/" + name
            try advance()
        }
        var minor: Int?
        if token.kind == .word, token.text == "minor" {
            minor = try expectInteger("minor", in: Self.minors)
            try advance()
        }
        try expectCurrent(";")
        volume.minor = checkDevice(volume.devicePath, minor, at: start)
        if minor == nil, let found = volume.minor, !Self.minors.contains(found) {
            complaints.append(
                "\(start): minor \(found) out of range "
                    + "[\(Self.minors.lowerBound)..\(Self.minors.upperBound)].")
        }
    }

    /// What a kernel has of them.
    private static let minors = 0...((1 << 20) - 1)

    /// - Returns: the minor, or `nil` after a complaint.
    private mutating func checkDevice(
        _ path: String?, _ minor: Int?, at start: SourceLocation
    ) -> Int? {
        guard let path else { return minor }
        // A node of the kernel's own NBD driver, named directly: repd's addition.
        if let number = Self.number(of: path, behind: "/dev/nbd") { return minor ?? number }
        let isOurs = path.hasPrefix("/dev/drbd")
        if !isOurs {
            complaints.append(
                "\(start): device name must start with /dev/drbd\n"
                    + "\t(/dev/ is optional, but drbd is required)")
        }
        let number = Self.number(of: path, behind: "/dev/drbd")
        guard let minor else {
            if number == nil {
                complaints.append(
                    "\(start): no minor given nor device name contains a minor number")
            }
            return number
        }
        guard isOurs else { return nil }
        if path.hasPrefix("/dev/drbd_") || number == minor { return minor }
        guard number != nil else {
            complaints.append(
                "\(start): arbitrary device name must start with /dev/drbd_\n"
                    + "\tmind the '_'! (/dev/ is optional, but drbd_ is required)")
            return nil
        }
        complaints.append(
            "\(start): explicit minor number must match with device name\n"
                + "\tTry \"device /dev/drbd\(minor) minor \(minor);\",\n"
                + "\tor leave off either device name or explicit minor.\n"
                + "\tArbitrary device names must start with /dev/drbd_\n"
                + "\tmind the '_'! (/dev/ is optional, but drbd_ is required)")
        return nil
    }

    private static func number(of path: String, behind prefix: String) -> Int? {
        guard path.hasPrefix(prefix) else { return nil }
        let digits = path.dropFirst(prefix.count)
        guard digits.allSatisfy(\.isNumber) else { return nil }
        return Int(digits)
    }

    // MARK: Addresses

    private mutating func parseAddress(
        of host: inout HostConfiguration
    ) throws(ConfigurationError) {
        host.addressLocation = location
        host.address = try parseAddress()
    }

    /// Reads an address and its port; its first token is looked at.
    mutating func parseAddress() throws(ConfigurationError) -> Address {
        var family = Address.Family.ipv4
        if token.kind == .word, let given = Address.Family(rawValue: token.text) {
            family = given
            if family == .ipv6 { return try parseIPv6Address() }
            try advance()
        }
        guard token.kind == .ipv4 else {
            throw wanted("ssocks | sdp | ipv4 | ipv6 | <ipv4 address> ")
        }
        let host = token.text
        if !host.split(separator: ".").allSatisfy({ UInt8($0) != nil }) {
            complaints.append("\(location): \(host) is not an IPv4 address")
        }
        return Address(family: family, host: host, port: try parsePort())
    }

    private mutating func parseIPv6Address() throws(ConfigurationError) -> Address {
        try advanceInIPv6()
        try expectCurrent("[")
        try advanceInIPv6()
        guard token.kind == .ipv6 else { throw wantedClass("<ipv6 address>") }
        let host = token.text
        if !HostFiles.isIPv6Address(host) {
            complaints.append("\(location): \(host) is not an IPv6 address")
        }
        try expect("]")
        return Address(family: .ipv6, host: host, port: try parsePort())
    }

    private mutating func parsePort() throws(ConfigurationError) -> UInt16 {
        try expect(":")
        // A port out of range has been complained about and is never used.
        return UInt16(truncatingIfNeeded: try expectInteger("port", in: 1...65535))
    }
}

extension HostConfiguration {
    var mixesVolumes: Bool {
        volumes.contains(where: \.isImplicit) && !volumes.allSatisfy(\.isImplicit)
    }

    /// Fills in what the resource says for all its hosts.
    mutating func inherit(_ defaults: [VolumeConfiguration]) {
        for common in defaults {
            guard let index = volumes.firstIndex(where: { $0.number == common.number }) else {
                volumes.append(common)
                continue
            }
            if volumes[index].deviceLocation == nil {
                volumes[index].devicePath = common.devicePath
                volumes[index].minor = common.minor
                volumes[index].deviceLocation = common.deviceLocation
            }
            if volumes[index].disk == nil {
                volumes[index].disk = common.disk
                volumes[index].diskLocation = common.diskLocation
            }
            if volumes[index].metaDisk == nil {
                volumes[index].metaDisk = common.metaDisk
                volumes[index].metaDiskLocation = common.metaDiskLocation
            }
            volumes[index].diskOptions = volumes[index].diskOptions.inheriting(common.diskOptions)
        }
        volumes.sort { $0.number < $1.number }
    }
}
