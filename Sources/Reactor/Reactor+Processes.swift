import CShims
import Glibc
package import Support

/// A child process.
package struct Child: BitwiseCopyable {
    /// Its pidfd, -1 if the place is free.
    var descriptor: Int32 = -1
    var process: pid_t = 0
}

/// One signal as signalfd(2) tells it: its number is the first field.
package typealias SignalRecord = InlineArray<32, UInt32>

extension Reactor {
    // MARK: signals

    /// From now on these signals are completions. They are blocked in the calling thread, and in
    /// those it starts later: call it before there are others.
    package mutating func watchSignals(_ numbers: [Int32]) throws(SystemError) {
        invariant(signals < 0, "signals are watched already")
        let descriptor = unsafe shim_watch_signals(numbers, Int32(numbers.count))
        guard descriptor >= 0 else { throw SystemError("signalfd", errno: -descriptor) }
        signals = descriptor
        readSignal()
    }

    private mutating func readSignal() {
        let sqe = unsafe entry()
        unsafe io_uring_prep_read(
            sqe, signals, signalRecord.address(of: 0), UInt32(shim_signal_record_size), 0)
        unsafe sqe.pointee.user_data = InternalToken(.signal).bits
    }

    mutating func signalled(_ result: Int32) {
        if result == shim_signal_record_size {
            completions.append(.signal(Int32(bitPattern: signalRecord[0][0])))
        }
        if result > 0 || result == -EINTR || result == -EAGAIN { readSignal() }
    }

    // MARK: children

    /// Starts a program; `.exited` follows. It gets no descriptor but standard input (/dev/null),
    /// output and error and those it is given, and no signal is blocked in it.
    ///
    /// - Parameters:
    ///   - arguments: without the program's own name.
    ///   - environment: `NAME=value`, all of it.
    ///   - output: for standard output and error, `nil` for our own.
    ///   - inherited: descriptors that it gets as 3, 4, 5 and so on; they remain the caller's.
    /// - Returns: which child this is.
    package mutating func spawn(
        _ path: String, arguments: [String], environment: [String], output: Int32? = nil,
        inherited: [Int32] = []
    ) throws(SystemError) -> Int {
        var index = 0
        while index < children.count, children[index].descriptor >= 0 { index += 1 }
        guard index < children.count else {
            throw SystemError("spawn", "more than \(Self.childCount) children", errno: EAGAIN)
        }
        let process = try Spawn.start(
            path, [path] + arguments, environment, output: output, inherited: inherited)
        let descriptor = shim_pidfd_open(process)
        guard descriptor >= 0 else {
            // It runs, but nobody would learn of its end.
            _ = kill(process, SIGKILL)
            var status: Int32 = 0
            _ = unsafe waitpid(process, &status, 0)
            throw SystemError("pidfd_open", path, errno: -descriptor)
        }
        children[index] = Child(descriptor: descriptor, process: process)
        pollChild(index)
        return index
    }

    /// The process of a child that has not been reported as exited.
    package func process(ofChild child: Int) -> Int32 { children[child].process }

    /// To the child and what it has started. A child that has just ended is no error.
    package func signal(_ number: Int32, child: Int) {
        guard children[child].descriptor >= 0 else { return }
        // It leads a group of its own, and its number is not given away before it is reaped.
        _ = kill(-children[child].process, number)
    }

    private mutating func pollChild(_ index: Int) {
        let sqe = unsafe entry()
        unsafe io_uring_prep_poll_add(sqe, children[index].descriptor, UInt32(POLLIN))
        unsafe sqe.pointee.user_data = InternalToken(.child, index).bits
    }

    mutating func exited(_ index: Int, _ result: Int32) {
        let status = shim_reap(children[index].process)
        // Woken without its end: ask again.
        guard status != Int32.min else { return pollChild(index) }
        _ = Glibc.close(children[index].descriptor)
        children[index] = Child()
        completions.append(.exited(child: index, status: status))
    }

    // MARK: mailboxes

    /// Reports `.posted` when something was put into the mailbox. It must live as long as the reactor.
    package mutating func watch<Message>(_ mailbox: Mailbox<Message>) throws(SystemError) -> Int {
        for index in 0..<mailboxes.count where mailboxes[index] < 0 {
            // A descriptor of our own: the mailbox may go first.
            let copy = fcntl(mailbox.descriptor, F_DUPFD_CLOEXEC, 0)
            mailboxes[index] = try check(copy, "fcntl")
            readCounter(index)
            return index
        }
        throw SystemError("eventfd", "more than \(Self.mailboxCount) mailboxes", errno: ENFILE)
    }

    private mutating func readCounter(_ index: Int) {
        let sqe = unsafe entry()
        unsafe io_uring_prep_read(sqe, mailboxes[index], counts.address(of: index), 8, 0)
        unsafe sqe.pointee.user_data = InternalToken(.mailbox, index).bits
    }

    mutating func posted(_ index: Int, _ result: Int32) {
        if result == 8 { completions.append(.posted(mailbox: index)) }
        if result > 0 || result == -EINTR || result == -EAGAIN { readCounter(index) }
    }
}
