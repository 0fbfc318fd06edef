import Configuration
import Control
import DRBDWire
import Status

// Commands that end when something has come about.

extension Administrator {
    enum Awaited: Equatable, Sendable { case connection, resync }

    mutating func wait(_ resource: String, for awaited: Awaited, timeout: Int?) -> Int32 {
        let since = waitingSince ?? ContinuousClock.now
        waitingSince = since
        var limit = timeout ?? 0
        if timeout == nil, awaited == .connection, let effective = try? effective(resource) {
            // Without a configuration there is no time to be read from it.
            limit = effective.startup.timeout
        }
        let left =
            limit == 0 ? nil : max(1, limit - Int((ContinuousClock.now - since).components.seconds))
        var display = WaitDisplay(resource: resource, columns: progressColumns)
        do throws(ControlError) {
            let daemons = daemons
            let order: ControlCommand =
                awaited == .connection ? .waitConnect(timeout: left) : .waitSync(timeout: left)
            // The daemon reports every second: silence means that it hangs.
            let reply = try daemons.perform(
                order, on: resource, deadline: ControlClient.answerDeadline
            ) { reply in
                let waited = Int((ContinuousClock.now - since).components.seconds)
                guard let snapshot = reply.status else { return }
                console.complain(display.show(snapshot, after: waited))
            }
            console.complain(display.end())
            if reply.exitCode == Exit.done, let volume = reply.status?.volumes.first,
                volume.connection == .standAlone
            {
                let reason = reply.status?.messages.last.map { ": \($0)" } ?? ""
                console.complain("\(resource): not connected (StandAlone)\(reason)\n")
            }
            if awaited == .resync, reply.exitCode == Exit.done,
                let volume = reply.status?.volumes.first, volume.connection == .connected,
                volume.peerDisk != .upToDate || volume.outOfSync > 0
            {
                console.complain(
                    "\(resource): nothing is being copied, but the peer's disk is "
                        + "\(volume.peerDisk.name), \(volume.outOfSync) KiB are out of sync\n")
            }
            return finish(reply)
        } catch {
            console.complain(display.end())
            guard case .noDaemon = error else { return complain(AdministrationError(error)) }
            // Success, as with the kernel's tools: a script goes on, a reader is told.
            console.complain(
                "\(resource): no repd is running, so there is nothing to wait for\n")
            return Exit.done
        }
    }
}

/// What is shown while a command waits: on a terminal one line that is drawn again and again, else
/// a line when something has changed or some time has passed.
struct WaitDisplay {
    /// Seconds between two lines about the same state where lines stay.
    static let lineInterval = 10

    private let resource: String
    private let columns: Int?
    private var lastState: ConnectionState?
    private var lastLine = 0
    private var isDrawn = false

    init(resource: String, columns: Int?) {
        self.resource = resource
        self.columns = columns
    }

    /// - Parameter seconds: how long it has been waiting.
    /// - Returns: what to print, possibly nothing.
    mutating func show(_ snapshot: StatusSnapshot, after seconds: Int) -> String {
        guard let volume = snapshot.volumes.first else { return "" }
        if let columns {
            isDrawn = true
            // The last column stays free: some terminals go on to the next line there.
            return "\r" + line(volume, after: seconds).prefix(max(1, columns - 1)) + "\u{1b}[K"
        }
        guard volume.connection != lastState || seconds >= lastLine + Self.lineInterval else {
            return ""
        }
        lastState = volume.connection
        lastLine = seconds
        return line(volume, after: seconds) + "\n"
    }

    /// What to print behind the last line.
    mutating func end() -> String {
        defer { isDrawn = false }
        return isDrawn ? "\n" : ""
    }

    private func line(_ volume: VolumeStatus, after seconds: Int) -> String {
        // The lines of /proc/drbd that begin with a tab: the bar, and the time left.
        let lines = ProcText.volumes([volume]).split(separator: "\n")
            .filter { $0.hasPrefix("\t") }.map { $0.dropFirst() }
        guard lines.count == 2 else {
            return "\(resource): \(volume.connection.name), waiting for \(seconds) s"
        }
        // Without the amounts, the wanted speed and what the bar is called, it fits into 80 columns.
        let words = lines[0].split(separator: " ")
        let percent = words.first { $0.hasSuffix("%") } ?? ""
        var speed = String(lines[1])
        if let start = speed.firstRange(of: " want: "), let end = speed.firstRange(of: " K/sec") {
            speed.removeSubrange(start.lowerBound..<end.lowerBound)
        }
        return "\(resource): \(words[0]) \(percent) \(speed)"
    }
}
