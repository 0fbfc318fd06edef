import Control
import DRBDWire
import Status
import Support

// Another program takes over from a daemon that runs.

extension Administrator {
    /// The engine ends as if it had died, but with nothing under way, and the program that now lies in
    /// its place goes on.
    mutating func upgrade(_ resource: String) -> Int32 {
        do throws(AdministrationError) {
            guard let before = try running(resource) else {
                return reportNoDaemon(resource, .unknownResource)
            }
            guard let program = daemons.program(resource) else {
                throw AdministrationError(
                    "\(resource): its repd has no supervisor that could start another one: "
                        + "'repctl down \(resource)' and 'repctl up \(resource)'",
                    exitCode: Exit.refused)
            }
            do throws(SystemError) { try DaemonProgram.probe(program) } catch {
                throw AdministrationError(
                    "\(resource): \(program) does not run (\(systemMessage(error.errno))): "
                        + "nothing was changed", exitCode: Exit.refused)
            }
            let code = try tell(.upgrade, resource, .unknownResource)
            guard code == Exit.done else { return code }
            // Answered when its role is decided.
            guard let after = try running(resource) else {
                throw AdministrationError(
                    "\(resource): repd did not come back, see its log", exitCode: Exit.refused)
            }
            let (old, new) = (before.volumes.first?.role, after.volumes.first?.role)
            guard old != .primary || new == .primary else {
                throw AdministrationError(
                    "\(resource): is \(new?.name ?? "gone") now:\n"
                        + after.messages.suffix(3).map { "  \($0)" }.joined(separator: "\n"),
                    exitCode: Exit.stateChange)
            }
            return Exit.done
        } catch {
            return complain(error)
        }
    }
}
