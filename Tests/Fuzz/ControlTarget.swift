import Control
import Status
import Support

/// Messages of the control socket and of the run directory.
///
/// An input is what it is read as (1 byte), which is the seed of the pieces, too, and the text.
enum ControlTarget {
    static func run(_ bytes: [UInt8]) {
        guard let kind = bytes.first else { return }
        let text = Array(bytes.dropFirst())
        switch kind % 4 {
        case 0:
            checkStable(text, ControlCoding.decodeRequest, ControlCoding.encode)
            switch (try? ControlCoding.decodeRequest(text))?.command {
            case .up(let settings), .attach(let settings), .connect(let settings, _):
                check(settings)
            default: break
            }
        case 1:
            checkStable(text, ControlCoding.decodeReply, ControlCoding.encode)
            if let reply = try? ControlCoding.decodeReply(text), let status = reply.status {
                show(status)
            }
        case 2:
            checkStable(text, ControlCoding.decodeState, ControlCoding.encode)
            if let state = try? ControlCoding.decodeState(text) { check(state.settings) }
        default:
            checkLines(text, seed: UInt64(kind))
        }
    }

    /// What is written of a message that was read is read as the same message and written the same.
    private static func checkStable<Message: Equatable>(
        _ text: [UInt8], _ decode: ([UInt8]) throws(ControlError) -> Message,
        _ encode: (Message) throws(ControlError) -> [UInt8]
    ) {
        guard let message = accepted({ () throws(ControlError) in try decode(text) }) else {
            return
        }
        do throws(ControlError) {
            let line = try encode(message)
            let count = line.count { $0 == UInt8(ascii: "\n") }
            invariant(count == 1 && line.last == UInt8(ascii: "\n"), "\(count) line ends")
            let again = try decode(Array(line.dropLast()))
            invariant(again == message, "read as \(again), was \(message)")
            let lineAgain = try encode(again)
            invariant(lineAgain == line, "written in another way")
        } catch {
            invariantFailed("\(message) is read, but: \(error)")
        }
    }

    /// A refusal is one line that says something.
    private static func accepted<Value>(_ body: () throws(ControlError) -> Value) -> Value? {
        do throws(ControlError) { return try body() } catch {
            invariant(!error.description.isEmpty, "refused without a word")
            return nil
        }
    }

    /// A daemon can calculate with every number.
    private static func check(_ settings: ResourceSettings) {
        let options = settings.options
        var numbers = [
            settings.volume, settings.minor, options.timeout, options.pingInterval,
            options.pingTimeout, options.connectInterval, options.koCount, options.maximumBuffers,
            options.maximumEpochSize, options.sendBufferSize, options.receiveBufferSize,
            options.planAhead, options.delayTarget, options.fillTarget, options.resumeTimeout,
            options.resumeLimit,
        ]
        numbers += [options.activityLogExtents, options.resyncRate, options.maximumRate]
            .compactMap(\.self)
        if case .indexed(_, let slot) = settings.metaDisk { numbers.append(slot) }
        let limits = 0...10_485_760
        invariant(numbers.allSatisfy(limits.contains), "settings with \(numbers)")
    }

    /// What repctl prints of a daemon's answer.
    private static func show(_ status: StatusSnapshot) {
        let build = ProcText.Build(version: "1")
        _ = ProcText.text(of: [status], build: build)
        _ = StatusLines.roles(status)
        _ = StatusLines.connections(status)
        _ = StatusLines.disks(status)
        for statistics in [false, true] {
            _ = StatusText.text(of: [status], statistics: statistics)
        }
        _ = try? ControlCoding.statusText([status])  // What it cannot write it refuses.
    }

    /// Lines come as they were sent, however the stream is cut.
    private static func checkLines(_ text: [UInt8], seed: UInt64) {
        var expected = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            .map(Array.init)
        let rest = expected.popLast() ?? []
        var buffer = LineBuffer()
        var lines: [[UInt8]] = []
        // Inputs are far shorter than a message may be.
        do throws(ControlError) {
            for piece in pieces(of: text, seed: seed) {
                try buffer.append(piece)
                while let line = try buffer.next() { lines.append(line) }
            }
        } catch {
            invariantFailed("\(text.count) bytes: \(error)")
        }
        invariant(lines == expected, "lines \(lines), not \(expected)")
        invariant(buffer.isEmpty == rest.isEmpty, "\(rest.count) bytes are left")
        for line in lines {
            _ = accepted { () throws(ControlError) in try ControlCoding.decodeRequest(line) }
        }
    }
}
