/// What a resource means on one node: which host is ours, which the peer's, and every option.
package struct EffectiveResource: Equatable, Sendable {
    package let name: String
    package let location: SourceLocation
    package let nodeName: String
    package let peerName: String
    package let localAddress: Address
    package let peerAddress: Address
    /// The `on` sections as configured.
    package let local: HostConfiguration
    package let peer: HostConfiguration
    /// By number.
    package let volumes: [EffectiveVolume]
    package let net: NetOptions
    package let options: ResourceOptions
    package let startup: StartupOptions
    /// Shell commands by the name of the handler.
    package let handlers: [String: String]
    package let repd: RepdOptions
    /// Words that are read and understood, but without effect: one line for each.
    package let warnings: [String]
}

/// A volume on one node.
package struct EffectiveVolume: Equatable, Sendable {
    package let number: Int
    package let minor: Int
    /// The device node, such as `/dev/drbd0`.
    package let device: String
    /// The backing disk.
    package let disk: String
    package let metaDisk: MetaDisk
    package let options: DiskOptions
}

extension ConfigurationFile {
    /// The resources that have a section for this node, in file order.
    package func resources(on node: NodeIdentity) -> [ResourceConfiguration] {
        resources.filter { $0.hosts.contains(where: node.owns) }
    }

    /// The names that `all` stands for.
    ///
    /// - Throws: exit code 1 when there are none.
    package func allNames(on node: NodeIdentity) throws(ConfigurationError) -> [String] {
        guard !resources.isEmpty else {
            throw ConfigurationError(["no resources defined!"], exitCode: 1)
        }
        let names = resources(on: node).map(\.name)
        guard !names.isEmpty else {
            throw ConfigurationError(
                [
                    "WARN: no normal resources defined for this host (\(node.name))!?\n"
                        + "Misspelled name of the local machine with the 'on' keyword ?"
                ], exitCode: 1)
        }
        return names
    }

    /// Resolves one resource for `node`.
    ///
    /// - Parameter peer: chooses among several other hosts.
    /// - Throws: exit code 1 for a resource that is not for this node, else 10.
    package func effective(
        _ name: String, on node: NodeIdentity, peer: String? = nil
    ) throws(ConfigurationError) -> EffectiveResource {
        guard let resource = resource(named: name),
            let local = resource.hosts.first(where: node.owns)
        else {
            throw ConfigurationError(
                ["'\(name)' not defined in your config (for this host)."], exitCode: 1)
        }
        let place = "\(resource.location): in resource \(name):\n\t"
        guard resource.hosts.filter(node.owns).count == 1 else {
            throw ConfigurationError([place + "There are multiple host sections for this node."])
        }
        guard !resource.isStacked else {
            throw ConfigurationError([place + "stacked resources are not supported by repd."])
        }
        let remote = try resource.peerHost(of: local, named: peer, place)
        guard let localAddress = local.address, let peerAddress = remote.address else {
            throw ConfigurationError([place + "'address' keyword missing."])
        }
        for address in [localAddress, peerAddress] {
            guard address.family == .ipv4 || address.family == .ipv6 else {
                throw ConfigurationError([
                    place + "address family \(address.family) is not supported by repd."
                ])
            }
        }
        guard localAddress.family == peerAddress.family else {
            throw ConfigurationError([place + "the addresses are not of one family."])
        }
        guard localAddress.hostAndPort != peerAddress.hostAndPort else {
            throw ConfigurationError([
                place + "both nodes have the address \(localAddress.hostAndPort)."
            ])
        }
        let optionList = local.options.inheriting(resource.sections.options)
        return EffectiveResource(
            name: name, location: resource.location,
            nodeName: node.name,
            peerName: remote.names.first ?? peerAddress.hostAndPort,
            localAddress: localAddress, peerAddress: peerAddress, local: local, peer: remote,
            volumes: try resource.effectiveVolumes(of: local),
            net: NetOptions(resource.sections.net),
            options: ResourceOptions(optionList),
            startup: StartupOptions(resource.sections.startup),
            handlers: Dictionary(
                resource.sections.handlers.entries.map { ($0.name, $0.text) },
                uniquingKeysWith: { $1 }),
            repd: RepdOptions(resource.sections.repd),
            warnings: resource.warningsAboutEffect(on: local))
    }

    /// Whether the address of this node's section is one of its addresses.
    ///
    /// - Throws: exit code 10 with one message for each resource whose address is not here.
    package func checkAddresses(
        of names: [String], on node: NodeIdentity
    ) throws(ConfigurationError) {
        guard !global.disableIPVerification else { return }
        var complaints: [String] = []
        for resource in resources where names.contains(resource.name) {
            guard let host = resource.hosts.first(where: node.owns), let address = host.address,
                let place = host.addressLocation, !node.owns(address)
            else { continue }
            complaints.append(
                "\(place): in resource \(resource.name), \(host.label):\n"
                    + "\tIP \(address.host) not found on this host.")
        }
        guard complaints.isEmpty else { throw ConfigurationError(complaints) }
    }
}

extension ResourceConfiguration {
    fileprivate func peerHost(
        of local: HostConfiguration, named peer: String?, _ place: String
    ) throws(ConfigurationError) -> HostConfiguration {
        var others = hosts.filter { $0 != local }
        if let peer {
            others = others.filter { $0.names.contains(peer) }
            guard !others.isEmpty else {
                throw ConfigurationError([place + "There is no host section for peer '\(peer)'."])
            }
        }
        guard let other = others.first else {
            throw ConfigurationError([place + "Missing section 'on <PEER> { ... }'."])
        }
        guard others.count == 1 else {
            throw ConfigurationError([
                place + "There are multiple host sections for the peer node.\n"
                    + "\tUse the --peer option to select which peer section to use."
            ])
        }
        return other
    }

    fileprivate func effectiveVolumes(
        of host: HostConfiguration
    ) throws(ConfigurationError) -> [EffectiveVolume] {
        var volumes: [EffectiveVolume] = []
        for volume in host.volumes {
            let place = "\(volume.location): in resource \(name), \(host.label) { ... }: "
            guard let minor = volume.minor else {
                throw ConfigurationError([place + "'device' keyword missing."])
            }
            guard let disk = volume.disk, let metaDisk = volume.metaDisk else {
                throw ConfigurationError([place + "'disk' keyword missing."])
            }
            let list = volume.diskOptions.inheriting(sections.disk)
            volumes.append(
                EffectiveVolume(
                    number: volume.number, minor: minor, device: volume.device, disk: disk,
                    metaDisk: metaDisk, options: DiskOptions(list)))
        }
        return volumes
    }

    /// The options that do something, by section.
    private static let effectiveNames: [SectionKind: Set<String>] = [
        .net: [
            "protocol", "timeout", "ping-int", "ping-timeout", "ko-count", "connect-int",
            "max-buffers", "max-epoch-size", "sndbuf-size", "rcvbuf-size", "use-rle",
        ],
        .disk: [
            "al-extents", "resync-rate", "c-max-rate", "c-plan-ahead", "c-delay-target",
            "c-fill-target", "disk-timeout", "on-io-error",
        ],
        .handlers: ["local-io-error"],
        .startup: ["wfc-timeout"],
        .repd: [
            "nbd-listen", "flush-waits-for-peer", "resume-timeout", "resume-limit",
            "kernel-device",
        ],
    ]

    fileprivate func warningsAboutEffect(on host: HostConfiguration) -> [String] {
        var warnings: [String] = []
        func warn(_ entry: OptionEntry) {
            warnings.append(
                "\(entry.location): in resource \(name): WARN: "
                    + "'\(entry.name)' has no effect in this version of repd.")
        }
        var seen: Set<String> = []
        for kind in SectionKind.allCases {
            var entries = sections[kind].entries
            switch kind {
            case .options: entries += host.options.entries
            case .disk: entries += host.volumes.flatMap(\.diskOptions.entries)
            case .net, .startup, .handlers, .repd: break
            }
            let effective = Self.effectiveNames[kind] ?? []
            for entry in entries where !effective.contains(entry.name) {
                if seen.insert(entry.name).inserted { warn(entry) }
            }
        }
        if !own.proxy.options.entries.isEmpty || !own.proxy.plugins.isEmpty || host.proxy != nil {
            warnings.append(
                "\(location): in resource \(name): WARN: "
                    + "'proxy' has no effect in this version of repd.")
        }
        return warnings
    }
}
