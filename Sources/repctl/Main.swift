import Administration
import ArgumentParser
import Configuration
import Control
import FoundationEssentials
import Glibc
import Status

@main enum Main {
    static func main() {
        exit(run(Array(CommandLine.arguments.dropFirst())))
    }

    /// - Returns: the exit status.
    static func run(_ arguments: [String]) -> Int32 {
        do {
            var command = try Repctl.parseAsRoot(arguments)
            try command.run()
            return Exit.done
        } catch let code as ExitCode {
            return code.rawValue
        } catch {
            let text = Repctl.fullMessage(for: error)
            // Help that was asked for is an answer, a complaint about the arguments is none.
            guard Repctl.exitCode(for: error).isSuccess else {
                let console = StandardConsole()
                console.complain(unknownCommand(arguments).map { $0 + "\n" } ?? text + "\n")
                return Exit.usage
            }
            print(text)
            return Exit.done
        }
    }

    /// The complaint about a first word that is no command.
    static func unknownCommand(_ arguments: [String]) -> String? {
        var rest = arguments[...]
        while let word = rest.popFirst() {
            if SiteOptions.namesWithValue.contains(word) {
                rest = rest.dropFirst()
            } else if !word.hasPrefix("-") {
                guard word != "help", Command.named(word) == nil else { return nil }
                return "repctl: Unknown command '\(word)' (see 'repctl --help')"
            }
        }
        return nil
    }
}

/// `repctl`: the commands of drbdadm for resources whose daemon is repd.
struct Repctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repctl",
        abstract: "Administer replicated block devices (DRBD 8.4 semantics, daemon repd).",
        usage: "repctl [OPTION...] COMMAND [OPTION...] {all | RESOURCE...}",
        discussion: """
            Resources are those of the configuration that have a section for this node; 'all' means \
            every one. Exit status: 0 done; 1 usage, unknown resource, or 'up' failed; 5 time-out; 10 \
            refused by the configuration or the daemon; 11, 16, 17 state change refused. Of several \
            resources the highest counts, and 20 or more ends the work.
            """,
        version: Administrator.build.version,
        subcommands: [
            CreateMetadata.self, DumpMetadata.self, ShowGenerations.self, GetGenerations.self,
            SetGenerations.self, RestoreMetadata.self, VerifyDump.self, WipeMetadata.self,
            ApplyLog.self, CheckResize.self, Outdate.self, Up.self, Down.self, Upgrade.self,
            Attach.self,
            Detach.self, Connect.self, Disconnect.self,
            Primary.self, Secondary.self, Invalidate.self, Role.self, Cstate.self, Dstate.self,
            ShowStatus.self, Proc.self, WaitConnect.self, WaitSync.self,
        ])

    @OptionGroup var site: SiteOptions

    func run() throws {
        throw ValidationError("No command specified")
    }
}

/// Where the configuration, the daemons and this node are found.
struct SiteOptions: ParsableArguments {
    /// Words behind which a value follows.
    static let namesWithValue: Set<String> = ["-c", "--config-file", "--run-dir", "--node-name"]

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Configuration file, - for standard input.",
            discussion: "Default: REPD_CONFIG, else /etc/repd.conf, else /etc/drbd.conf.",
            valueName: "file"))
    var configFile: String?

    @Option(
        help: ArgumentHelp(
            "Directory with the sockets of all resources.",
            discussion:
                "Default: REPD_RUN_DIR, else /run/repd, for an ordinary user $XDG_RUNTIME_DIR/repd.",
            valueName: "dir"))
    var runDir: String?

    @Option(
        help: ArgumentHelp(
            "Name of this node, as in its 'on' section. Default: REPD_NODE_NAME, else uname -n.",
            valueName: "name"))
    var nodeName: String?

    /// These options and, for what they do not say, those in front of the command.
    func inheriting(_ outer: SiteOptions) -> SiteOptions {
        var options = self
        options.configFile = configFile ?? outer.configFile
        options.runDir = runDir ?? outer.runDir
        options.nodeName = nodeName ?? outer.nodeName
        return options
    }

    func administrator() throws(ControlError) -> Administrator {
        var run = if let runDir { RunDirectory(path: runDir) } else { try RunDirectory() }
        run = RunDirectory(path: Host.absolutePath(run.path))
        let node = Host.node(named: nodeName)
        let environment = RunDirectory.environment("REPD_CONFIG").flatMap { $0.isEmpty ? nil : $0 }
        return Administrator(
            console: StandardConsole(),
            daemons: LocalDaemons(
                run: run, nodeName: node.name, notify: { StandardConsole().complain($0) }),
            node: node,
            configurationPath: configFile ?? environment,
            progressColumns: Host.columns(of: STDERR_FILENO))
    }
}
