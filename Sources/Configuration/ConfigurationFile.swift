/// A configuration as read: one main file with all it includes.
package struct ConfigurationFile: Equatable, Sendable {
    /// The main file as the operator named it.
    package var path: String
    package var global = GlobalConfiguration()
    /// `nil`: there is no `common` section.
    package var common: Sections?
    /// In file order.
    package var resources: [ResourceConfiguration] = []
    /// What the reader wants the operator to know, complete lines for standard error.
    package var warnings: [String] = []

    package func resource(named name: String) -> ResourceConfiguration? {
        resources.first { $0.name == name }
    }
}

/// The `global` section; `nil` is what the file does not say.
package struct GlobalConfiguration: Equatable, Sendable {
    package enum UsageCount: String, Sendable { case yes, no, ask }

    package var minorCount: Int?
    /// Seconds.
    package var dialogRefresh: Int?
    package var disableIPVerification = false
    /// Accepted; never causes network traffic or a question.
    package var usageCount = UsageCount.ask
    package var udevAlwaysUseVolumeNumber = false
    /// Seconds.
    package var commandTimeoutShort: Int?
    package var commandTimeoutMedium: Int?
    package var commandTimeoutLong: Int?
}

/// The sections that hold options; `syncer` is spread over the others when it is read.
package enum SectionKind: String, CaseIterable, Sendable {
    case options, net, disk, startup, handlers, repd
}

/// One option as written.
package struct OptionEntry: Equatable, Sendable {
    /// Today's name.
    package let name: String
    /// The value as the operator spelled it; `yes` and `no` for what is written without one.
    package let text: String
    /// The value of an option that is a number, in the option's own unit.
    package let number: Int?
    package let location: SourceLocation
}

/// Options in file order. One that occurs twice counts as its last.
package struct OptionList: Equatable, Sendable {
    package var entries: [OptionEntry] = []

    package subscript(name: String) -> OptionEntry? { entries.last { $0.name == name } }

    package func all(_ name: String) -> [OptionEntry] { entries.filter { $0.name == name } }

    /// These options and, in front of them, those of `defaults` that they do not have.
    package func inheriting(_ defaults: OptionList) -> OptionList {
        let names = Set(entries.map(\.name))
        return OptionList(entries: defaults.entries.filter { !names.contains($0.name) } + entries)
    }
}

/// The option sections of a resource, or of `common`.
package struct Sections: Equatable, Sendable {
    package var options = OptionList()
    package var net = OptionList()
    package var disk = OptionList()
    package var startup = OptionList()
    package var handlers = OptionList()
    /// repd's own.
    package var repd = OptionList()
    /// Read and shown, without effect.
    package var proxy = ProxySection()

    package subscript(kind: SectionKind) -> OptionList {
        get {
            switch kind {
            case .options: options
            case .net: net
            case .disk: disk
            case .startup: startup
            case .handlers: handlers
            case .repd: repd
            }
        }
        set {
            switch kind {
            case .options: options = newValue
            case .net: net = newValue
            case .disk: disk = newValue
            case .startup: startup = newValue
            case .handlers: handlers = newValue
            case .repd: repd = newValue
            }
        }
    }
}

/// The `proxy` section: the external program that reads it has no part in repd.
package struct ProxySection: Equatable, Sendable {
    package var options = OptionList()
    /// The statements of `plugin { }`, word by word.
    package var plugins: [[String]] = []
}

/// An address and port as in `address ipv4 10.1.1.31:7788;`.
package struct Address: Hashable, Sendable, CustomStringConvertible {
    package enum Family: String, Sendable { case ipv4, ipv6, ssocks, sci, sdp }

    package let family: Family
    /// Without brackets.
    package let host: String
    package let port: UInt16

    package init(family: Family, host: String, port: UInt16) {
        self.family = family
        self.host = host
        self.port = port
    }

    /// `10.1.1.31:7788` or `[fd01::1]:7788`.
    package var hostAndPort: String { family == .ipv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }
    package var description: String { "\(family) \(hostAndPort)" }
    package var isLoopback: Bool { host.hasPrefix("127.") || host == "::1" }
}

package enum MetaDisk: Equatable, Sendable {
    /// At the end of the backing disk.
    case `internal`
    /// All of another device.
    case flexible(path: String)
    /// Place `index` of a device that several volumes share.
    case indexed(path: String, index: Int)
}

package struct VolumeConfiguration: Equatable, Sendable {
    package let number: Int
    /// From statements outside any `volume` section: then the only volume.
    package var isImplicit: Bool
    /// `nil` after `device minor N;`.
    package var devicePath: String?
    package var minor: Int?
    /// The backing disk.
    package var disk: String?
    package var metaDisk: MetaDisk?
    /// Only what the `volume` section itself says.
    package var diskOptions = OptionList()
    package var location: SourceLocation
    /// Where its statements stand.
    var deviceLocation: SourceLocation?
    var diskLocation: SourceLocation?
    var metaDiskLocation: SourceLocation?

    /// The name of the device node, spelled out.
    package var device: String { devicePath ?? "/dev/drbd\(minor ?? 0)" }
}

/// A `proxy on HOST { }` section.
package struct HostProxy: Equatable, Sendable {
    package var names: [String]
    package var inside: Address?
    package var outside: Address?
    package var section = ProxySection()
}

/// An `on`, `floating` or `stacked-on-top-of` section.
package struct HostConfiguration: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        case named
        /// This host if the address is one of ours.
        case floating
        /// This host if the resource below is on it.
        case stacked(on: String)
    }

    package let kind: Kind
    /// Host names; of a stacked section those of the resource below; of `floating` none.
    package var names: [String]
    /// Never `nil` once the file has been accepted.
    package var address: Address?
    package var alternateAddress: Address?
    /// By volume number, with what the resource says for all hosts filled in.
    package var volumes: [VolumeConfiguration] = []
    package var options = OptionList()
    package var proxy: HostProxy?
    package var location: SourceLocation
    var addressLocation: SourceLocation?

    /// As messages name the section.
    package var label: String {
        switch kind {
        case .named: "on " + names.joined(separator: " ")
        case .floating: "floating " + (address?.description ?? "")
        case .stacked(let lower): "stacked-on-top-of " + lower
        }
    }
}

package struct ResourceConfiguration: Equatable, Sendable {
    package let name: String
    package let location: SourceLocation
    /// In file order.
    package var hosts: [HostConfiguration] = []
    /// What the resource itself says.
    package var own = Sections()
    /// With what it inherits from `common`.
    package var sections = Sections()

    package var isStacked: Bool {
        hosts.contains { if case .stacked = $0.kind { true } else { false } }
    }
}

/// Who we are: which sections of a file mean this machine.
package struct NodeIdentity: Equatable, Sendable {
    package var name: String
    /// The addresses of the interfaces of this machine, as text.
    package var addresses: Set<String>

    package init(name: String, addresses: Set<String> = []) {
        self.name = name
        self.addresses = addresses
    }

    package func owns(_ host: HostConfiguration) -> Bool {
        switch host.kind {
        case .named, .stacked: host.names.contains(name)
        case .floating: host.address.map(owns) ?? false
        }
    }

    /// Whether the address is one of this machine's.
    package func owns(_ address: Address) -> Bool {
        let host = address.host.split(separator: "%").first.map(String.init) ?? ""
        return address.isLoopback || addresses.contains(host)
    }
}
