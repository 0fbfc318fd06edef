import CShims
import Glibc
package import Support

/// A child of a program that has no loop: a supervisor.
package struct WatchedChild: ~Copyable {
    package let process: Int32
    /// Readable when it has ended.
    package let descriptor: Int32

    /// - Parameters:
    ///   - arguments: without the program's own name.
    ///   - inherited: what the program gets as descriptors 3, 4, 5 and so on.
    package init(
        _ path: String, arguments: [String], environment: [String], inherited: [Int32]
    ) throws(SystemError) {
        let process = try Spawn.start(
            path, [path] + arguments, environment, output: nil, inherited: inherited)
        let descriptor = shim_pidfd_open(process)
        guard descriptor >= 0 else {
            // It runs, but nobody would learn of its end.
            _ = kill(process, SIGKILL)
            var status: Int32 = 0
            _ = unsafe waitpid(process, &status, 0)
            throw SystemError("pidfd_open", path, errno: -descriptor)
        }
        self.process = process
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// Its exit status, the number of the signal that ended it negated, `nil` while it runs.
    package func status() -> Int32? {
        let status = shim_reap(process)
        return status == Int32.min ? nil : status
    }

    package func signal(_ number: Int32) { _ = kill(process, number) }
}

/// Signals for programs that have no loop.
package enum WatchedSignals {
    /// Blocks them in this thread; the descriptor is readable when one has come.
    package static func watch(_ numbers: [Int32]) throws(SystemError) -> Int32 {
        let descriptor = unsafe shim_watch_signals(numbers, Int32(numbers.count))
        guard descriptor >= 0 else { throw SystemError("signalfd", errno: -descriptor) }
        return descriptor
    }

    /// The number of one that has come.
    package static func next(_ descriptor: Int32) -> Int32? {
        var record = SignalRecord(repeating: 0)
        // As long as the record that it reads.
        let count = unsafe read(descriptor, &record, Int(shim_signal_record_size))
        return count == Int(shim_signal_record_size) ? Int32(bitPattern: record[0]) : nil
    }
}
