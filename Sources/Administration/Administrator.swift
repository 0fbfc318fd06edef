package import Configuration
import Control
import Status

/// Carries out commands: finds the resources, asks their daemons, prints what they answer.
package struct Administrator {
    let console: any Console
    let daemons: any Daemons
    let node: NodeIdentity
    /// `nil`: the first of the usual places.
    let configurationPath: String?
    let files: any ConfigurationFiles
    /// Columns of the terminal that progress is shown on; `nil`: standard error is none.
    let progressColumns: Int?

    /// Read when it is needed first.
    private var file: ConfigurationFile?
    /// Warnings are given once, however many resources and commands they concern.
    private var warned: Set<String> = []
    /// When waiting began: several resources are waited for in one time.
    var waitingSince: ContinuousClock.Instant?

    package init(
        console: any Console, daemons: any Daemons, node: NodeIdentity,
        configurationPath: String? = nil, files: any ConfigurationFiles = HostFiles(),
        progressColumns: Int? = nil
    ) {
        self.console = console
        self.daemons = daemons
        self.node = node
        self.configurationPath = configurationPath
        self.files = files
        self.progressColumns = progressColumns
    }

    /// - Parameter names: resources, or `all`.
    /// - Returns: the exit status, of several the highest.
    package mutating func run(
        _ command: Command, _ names: [String], _ options: CommandOptions = CommandOptions()
    ) -> Int32 {
        let resources: [String]
        do throws(AdministrationError) {
            resources = try self.resources(names, command.scope)
        } catch {
            return complain(error)
        }
        if case .together(let body) = command.action { return body(&self, resources, options) }
        var highest = Exit.done
        for resource in resources {
            highest = max(highest, run(command, on: resource, options))
            if highest >= Exit.stopsOthers { break }
        }
        return highest
    }

    private mutating func run(
        _ command: Command, on resource: String, _ options: CommandOptions
    ) -> Int32 {
        do throws(AdministrationError) {
            switch command.action {
            case .tell(let order):
                return try tell(order(options), resource, command.noDaemon)
            case .configure(let purpose, let order):
                let settings = try settings(of: resource, for: purpose)
                return try tell(order(settings, options), resource, command.noDaemon)
            case .show(let line):
                return try show(resource, command, line)
            case .each(let body):
                return body(&self, resource, options)
            case .together:
                return Exit.done
            }
        } catch {
            return complain(error)
        }
    }

    // MARK: Configuration

    /// - Throws: what the reader of the file complains about.
    private mutating func configuration() throws(AdministrationError) -> ConfigurationFile {
        if let file { return file }
        do throws(ConfigurationError) {
            let file = try ConfigurationFile.read(configurationPath, from: files)
            warn(file.warnings)
            self.file = file
            return file
        } catch {
            throw AdministrationError(error)
        }
    }

    mutating func warn(_ warnings: [String]) {
        for warning in warnings where warned.insert(warning).inserted {
            console.complain(warning + "\n")
        }
    }

    mutating func effective(_ name: String) throws(AdministrationError) -> EffectiveResource {
        let file = try configuration()
        do throws(ConfigurationError) { return try file.effective(name, on: node) } catch {
            guard error.exitCode == Exit.usage, file.resource(named: name) != nil else {
                throw AdministrationError(error)
            }
            throw AdministrationError(
                error.text + "\nThis node is '\(node.name)', which no 'on' section of \(name) is "
                    + "for: see --node-name.", exitCode: error.exitCode)
        }
    }

    /// The settings for a daemon. The operator is told what of the file is without effect.
    mutating func settings(
        of name: String, for purpose: SettingsPurpose
    ) throws(AdministrationError) -> ResourceSettings {
        let resource = try effective(name)
        var settings = try resource.settings(for: purpose)
        if purpose == .connect {
            let file = try configuration()
            do throws(ConfigurationError) {
                try file.checkAddresses(of: [name], on: node)
            } catch {
                throw AdministrationError(error)
            }
        }
        warn(resource.warnings)
        // The daemon's working directory is not ours.
        settings.disk = Host.absolutePath(settings.disk)
        settings.options.configurationPath = settings.options.configurationPath.map(
            Host.absolutePath)
        switch settings.metaDisk {
        case .internal: break
        case .flexible(let path):
            settings.metaDisk = .flexible(path: Host.absolutePath(path))
        case .indexed(let path, let slot):
            settings.metaDisk = .indexed(path: Host.absolutePath(path), slot: slot)
        }
        return settings
    }

    /// How messages name a volume: by its minor, if the configuration tells.
    mutating func label(_ name: String) -> String {
        // A message about something else must not end in one about the configuration.
        guard let minor = try? effective(name).volumes.first?.minor else { return name }
        return "\(minor)"
    }

    // MARK: Names

    private mutating func resources(
        _ names: [String], _ scope: Command.Scope
    ) throws(AdministrationError) -> [String] {
        if names.isEmpty {
            guard scope == .runningOrAll else {
                throw AdministrationError("No resource names specified", exitCode: Exit.usage)
            }
            return try daemons.names()
        }
        var resources: [String] = []
        for name in names {
            if name == "all" {
                resources += try all(scope)
            } else {
                resources.append(try known(name, scope))
            }
        }
        return resources
    }

    /// In the order of the file, then those that only have a daemon.
    private mutating func all(_ scope: Command.Scope) throws(AdministrationError) -> [String] {
        if scope == .runningOrAll { return try daemons.names() }
        let file = try configuration()
        let others = scope == .configured ? [] : try daemons.names()
        do throws(ConfigurationError) {
            let names = try file.allNames(on: node)
            return names + others.filter { !names.contains($0) }
        } catch {
            guard others.isEmpty else { return others }
            throw AdministrationError(error)
        }
    }

    private mutating func known(
        _ name: String, _ scope: Command.Scope
    ) throws(AdministrationError) -> String {
        // `r0/0` is a volume of r0, and the only one that can be.
        let parts = name.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 1 || parts[1] == "0" else {
            throw AdministrationError(
                "'\(name)' not defined in your config (for this host): "
                    + "volume 0 is the only one of a resource.", exitCode: Exit.usage)
        }
        let resource = String(parts[0])
        if scope != .configured, daemons.hasSocket(resource) { return resource }
        let file = try configuration()
        guard
            scope == .configured
                || !file.resources(on: node).contains(where: { $0.name == resource })
        else { return resource }
        _ = try effective(resource)
        return resource
    }

    // MARK: Answers

    mutating func complain(_ error: AdministrationError) -> Int32 {
        console.complain(error.text + "\n")
        return error.exitCode
    }

    /// One order, one answer.
    mutating func tell(
        _ order: ControlCommand, _ resource: String, _ noDaemon: Command.NoDaemon,
        deadline: Duration = Deadline.change
    ) throws(AdministrationError) -> Int32 {
        do throws(ControlError) {
            return finish(try daemons.perform(order, on: resource, deadline: deadline))
        } catch {
            guard case .noDaemon = error else { throw AdministrationError(error) }
            return reportNoDaemon(resource, noDaemon)
        }
    }

    mutating func finish(_ reply: ControlReply) -> Int32 {
        if let message = reply.message, !message.isEmpty { console.complain(message + "\n") }
        return reply.exitCode
    }

    mutating func reportNoDaemon(_ resource: String, _ noDaemon: Command.NoDaemon) -> Int32 {
        let text: String
        switch noDaemon {
        case .success: return Exit.done
        case .unknownMinor: text = "\(label(resource)): Failure: (127) Device minor not allocated"
        case .unknownResource: text = "\(resource): Failure: (158) Unknown resource"
        case .unknownConnection: text = "??: Failure: (162) Invalid configuration request"
        }
        console.complain(
            "\(text)\n\(resource): no repd is running: start it with 'repctl up \(resource)'\n")
        return Exit.refused
    }
}
