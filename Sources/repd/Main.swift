import ArgumentParser
import Control
import Glibc
import Logging
import Node

/// The daemon of one resource.
@main struct Main: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repd",
        abstract: "Serve one replicated volume: NBD in front, DRBD's protocol to the peer.",
        discussion: """
            'repctl up RESOURCE' starts it; it reads no configuration file and starts Secondary. It \
            stays in the foreground, logs to standard error and ends with 'repctl down RESOURCE' or \
            SIGTERM, which demote, disconnect and detach first.
            """,
        version: "0.1.0")

    @Argument(help: "Name of the resource, as in the configuration.")
    var resource: String

    @Option(
        help: ArgumentHelp(
            "Directory for the sockets of all resources.",
            discussion:
                "Default: REPD_RUN_DIR, else /run/repd, for an ordinary user $XDG_RUNTIME_DIR/repd.",
            valueName: "dir"))
    var runDir: String?

    @Option(
        help: ArgumentHelp(
            "Name of this node. Default: REPD_NODE_NAME, else uname -n.", valueName: "name"))
    var nodeName: String?

    @Flag(
        help: ArgumentHelp(
            "Stay the parent of the daemon and start it again when it dies.",
            discussion: """
                A Primary that dies is Primary again where that is safe: see resume-timeout in \
                docs/configuration.md. 'repctl up' starts it like this.
                """))
    var supervise = false

    @Flag(
        help: ArgumentHelp(
            "With --supervise: begin with the settings of a supervisor that died, as Secondary.",
            discussion: "For a service manager that starts the supervisor again."))
    var keepSettings = false

    @Flag(help: "Log decisions as well as changes.")
    var debug = false

    @Option(help: .hidden)
    var holdDevice: Int?

    @Option(help: .hidden)
    var releaseDevice: Int?

    @Option(help: .hidden)
    var deviceLink: String?

    @Flag(help: .hidden)
    var claimed = false

    func run() throws {
        if let holdDevice { throw ExitCode(DeviceProgram.hold(holdDevice)) }
        let directory: ResourceDirectory
        do {
            let run = try runDir.map { RunDirectory(path: $0) } ?? RunDirectory()
            directory = try run.resource(resource)
            if let releaseDevice { throw end(releaseDevice, directory) }
            try DaemonStart.prepare(directory, run: run)
        } catch let code as ExitCode {
            throw code
        } catch {
            throw Refusal(text: "repd: \(error)")
        }
        try serve(directory)
    }

    /// Of a process that only disconnects a device.
    private func end(_ device: Int, _ directory: ResourceDirectory) -> ExitCode {
        let end = DeviceProgram.release(
            device, of: directory, claims: claimed, link: deviceLink)
        if let reason = end.reason {
            let bytes = Array("repd: \(resource): \(reason)\n".utf8)
            // As many bytes as the array has.
            _ = unsafe write(2, bytes, bytes.count)
        }
        return ExitCode(end.status)
    }

    private func serve(_ directory: ResourceDirectory) throws {
        let name = nodeName ?? RunDirectory.environment("REPD_NODE_NAME") ?? DaemonStart.hostName()
        LoggingSystem.bootstrap { _ in StreamLogHandler.standardError(label: "repd") }
        var log = Logger(label: "repd")
        log[metadataKey: "resource"] = "\(resource)"
        log.logLevel = debug ? .debug : .info
        do {
            if supervise {
                let arguments = CommandLine.arguments.dropFirst().filter {
                    $0 != "--supervise" && $0 != "--keep-settings"
                }
                var supervisor = try Supervisor(
                    directory, program: DaemonStart.program, arguments: Array(arguments),
                    keepsSettings: keepSettings, log: log)
                throw ExitCode(supervisor.run())
            }
            let supervision = Supervision()
            let isSupervised = supervision.isSupervised
            let lock = try DaemonLock(directory)
            var daemon = try Daemon(
                resource: directory, nodeName: name, supervision: supervision, log: log)
            log.notice("serving on \(name), control socket \(directory.controlSocket)")
            try daemon.run()
            if daemon.makesWay {
                log.notice("making way for another process")
                throw ExitCode(Supervision.replaced)
            }
            lock.release(directory, isSupervised: isSupervised)
            log.notice("ended")
        } catch let code as ExitCode {
            throw code
        } catch {
            throw Refusal(text: "repd: \(resource): \(error)")
        }
    }
}

/// Printed to standard error as it is; exit status 20, as of a usage error of drbdsetup.
struct Refusal: Error, CustomStringConvertible {
    var text: String
    var description: String { text }
}
