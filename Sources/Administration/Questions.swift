import Control
import DRBDWire
package import Status

// Commands that only look.

extension Administrator {
    /// What `proc` says of itself where a kernel module names its build.
    package static let build = ProcText.Build(version: "0.1.0")

    mutating func show(
        _ resource: String, _ command: Command, _ line: (StatusSnapshot) -> String
    ) throws(AdministrationError) -> Int32 {
        do throws(ControlError) {
            let reply = try daemons.perform(.status, on: resource, deadline: Deadline.query)
            if let snapshot = reply.status { write(line(snapshot)) }
            return finish(reply)
        } catch {
            guard case .noDaemon = error else { throw AdministrationError(error) }
            // So that there is a line for each resource.
            write("Unconfigured\n")
            return reportNoDaemon(resource, command.noDaemon)
        }
    }

    mutating func status(_ resources: [String], _ options: CommandOptions) -> Int32 {
        var (snapshots, code) = collect(resources) { "\($0): No such resource" }
        guard options.json else {
            write(
                StatusText.text(
                    of: snapshots, verbose: options.verbose, statistics: options.statistics))
            // The text is that of the kernel's tools, which say nothing of a peer then.
            for snapshot in snapshots where snapshot.volumes.first?.connection == .standAlone {
                let reason = snapshot.messages.last.map { ": \($0)" } ?? ""
                console.complain("\(snapshot.resource): not connected (StandAlone)\(reason)\n")
            }
            return code
        }
        do throws(ControlError) { write(try ControlCoding.statusText(snapshots)) } catch {
            code = max(code, complain(AdministrationError(error)))
        }
        return code
    }

    mutating func proc(_ resources: [String]) -> Int32 {
        let (snapshots, code) = collect(resources) { "\($0): no repd is running" }
        write(ProcText.text(of: snapshots, build: Self.build))
        return code
    }

    /// One daemon that does not answer takes nothing from the others.
    private mutating func collect(
        _ resources: [String], whenNone: (String) -> String
    ) -> (snapshots: [StatusSnapshot], code: Int32) {
        var snapshots: [StatusSnapshot] = []
        var code = Exit.done
        for resource in resources {
            do throws(ControlError) {
                let reply = try daemons.perform(.status, on: resource, deadline: Deadline.query)
                if let snapshot = reply.status { snapshots.append(snapshot) }
                code = max(code, finish(reply))
            } catch {
                var text = "\(error)"
                if case .noDaemon = error {
                    text = whenNone(resource)
                    if daemons.hasSocket(resource) {
                        text += " (its repd died: 'repctl up \(resource)' starts it again)"
                    }
                }
                console.complain(text + "\n")
                code = max(code, Exit.refused)
            }
        }
        return (snapshots, code)
    }

    mutating func write(_ text: String) { console.write(Array(text.utf8)) }
}
