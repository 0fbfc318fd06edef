import Administration
import ArgumentParser
import Control
import Glibc

/// A command that is an entry of the table; what is declared here are its words.
protocol TableCommand: ParsableCommand {
    static var entry: Command { get }
    var root: Repctl { get }
    var resources: Resources { get }
    var options: CommandOptions { get }
}

extension TableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: entry.name, abstract: entry.abstract, discussion: entry.discussion)
    }

    /// Most commands have none.
    var options: CommandOptions { CommandOptions() }

    static func find(_ name: String) -> Command {
        guard let entry = Command.named(name) else { fatalError("no command \(name)") }
        return entry
    }

    func validate() throws {
        guard Self.entry.scope == .runningOrAll || !resources.names.isEmpty else {
            throw ValidationError("No resource names specified")
        }
    }

    func run() throws {
        let code: Int32
        do throws(ControlError) {
            var administrator = try resources.site.inheriting(root.site).administrator()
            code = administrator.run(Self.entry, resources.names, options)
        } catch {
            let console = StandardConsole()
            console.complain("repctl: \(error)\n")
            code = Exit.refused
        }
        throw ExitCode(code)
    }
}

/// What every command takes.
struct Resources: ParsableArguments {
    @Argument(help: ArgumentHelp("Names of resources, or 'all'.", valueName: "resource"))
    var names: [String] = []

    @OptionGroup var site: SiteOptions
}

// MARK: Commands without options of their own

struct Up: TableCommand {
    static let entry = find("up")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Upgrade: TableCommand {
    static let entry = find("upgrade")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Attach: TableCommand {
    static let entry = find("attach")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Invalidate: TableCommand {
    static let entry = find("invalidate")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Role: TableCommand {
    static let entry = find("role")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Cstate: TableCommand {
    static let entry = find("cstate")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Dstate: TableCommand {
    static let entry = find("dstate")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Proc: TableCommand {
    static let entry = find("proc")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

// MARK: Commands with options

struct Down: TableCommand {
    static let entry = find("down")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "Send clients away when their requests are done.")
    var force = false

    var options: CommandOptions { CommandOptions(force: force) }
}

struct Detach: TableCommand {
    static let entry = find("detach")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "Do not wait for requests that the disk does not finish.")
    var force = false

    var options: CommandOptions { CommandOptions(force: force) }
}

struct Connect: TableCommand {
    static let entry = find("connect")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "After a split brain: give up what was written on this node alone.")
    var discardMyData = false

    var options: CommandOptions { CommandOptions(discardMyData: discardMyData) }
}

struct Disconnect: TableCommand {
    static let entry = find("disconnect")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "Even if the peer needs our disk.")
    var force = false

    var options: CommandOptions { CommandOptions(force: force) }
}

struct Primary: TableCommand {
    static let entry = find("primary")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(
        name: [.long, .customLong("overwrite-data-of-peer")],
        help: "Declare the data of this node good, whatever its state.")
    var force = false

    var options: CommandOptions { CommandOptions(force: force) }
}

struct Secondary: TableCommand {
    static let entry = find("secondary")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "Send clients away when their requests are done.")
    var disconnectClients = false

    var options: CommandOptions { CommandOptions(disconnectClients: disconnectClients) }
}

struct ShowStatus: TableCommand {
    static let entry = find("status")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(name: .shortAndLong, help: "Also what is usual.") var verbose = false
    @Flag(name: .shortAndLong, help: "Also the counters.") var statistics = false
    @Flag(help: "Everything there is to know, as JSON.") var json = false

    var options: CommandOptions {
        CommandOptions(verbose: verbose, statistics: statistics, json: json)
    }
}

struct WaitConnect: TableCommand {
    static let entry = find("wait-connect")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @OptionGroup var limit: TimeLimit

    var options: CommandOptions { CommandOptions(timeout: limit.timeout) }
}

struct WaitSync: TableCommand {
    static let entry = find("wait-sync")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @OptionGroup var limit: TimeLimit

    var options: CommandOptions { CommandOptions(timeout: limit.timeout) }
}

struct TimeLimit: ParsableArguments {
    @Option(
        name: [.customShort("t"), .long, .customLong("wfc-timeout")],
        help: ArgumentHelp(
            "How long to wait for all the resources together, 0: for ever.", valueName: "seconds"))
    var timeout: Int?

    func validate() throws {
        guard (0...300_000).contains(timeout ?? 0) else {
            throw ValidationError("--timeout is out of range (0...300000)")
        }
    }
}
