import Glibc

/// A blocking connection to a daemon, for programs and tests.
package struct ControlClient: ~Copyable {
    /// How long the connection may take to come about.
    package static let connectDeadline = Duration.seconds(5)
    /// How long after a request the first answer may take.
    package static let answerDeadline = Duration.seconds(30)
    /// How long the daemon may say nothing before whoever waits is told so.
    package static let patience = Duration.seconds(2)

    private let descriptor: Int32
    private let resource: String
    private var buffer = LineBuffer()

    deinit { _ = close(descriptor) }

    /// Connects.
    ///
    /// - Throws: `noDaemon` when nobody listens.
    package init(
        to directory: ResourceDirectory, deadline: Duration = ControlClient.connectDeadline
    ) throws(ControlError) {
        try self.init(
            resource: directory.name, socket: directory.controlSocket, deadline: deadline)
    }

    package init(
        resource: String, socket path: String, deadline: Duration = ControlClient.connectDeadline
    ) throws(ControlError) {
        let address = try Self.address(of: path)
        let type =
            Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw Self.failure("socket", path) }
        let end = ContinuousClock.now + deadline
        while true {
            let code = Self.connect(descriptor, address)
            if code == 0 { break }
            if code == EINTR { continue }
            // A full backlog: the daemon is there, but busy.
            if code == EAGAIN, ContinuousClock.now < end {
                usleep(10_000)
                continue
            }
            _ = close(descriptor)
            switch code {
            case ENOENT, ECONNREFUSED: throw .noDaemon(resource: resource, socket: path)
            case EAGAIN:
                let seconds = Int(deadline.components.seconds)
                throw .timeout(resource: resource, seconds: seconds)
            default: throw Self.failure("connect", path, code)
            }
        }
        // Last: from here on `deinit` closes it.
        self.descriptor = descriptor
        self.resource = resource
    }

    /// Sends a command and hands every reply to `each` until the last one, which is returned.
    ///
    /// - Parameters:
    ///   - deadline: between two replies; `nil` waits for ever.
    ///   - patience: when `whenSilent` is called, once, if nothing has come.
    package mutating func perform(
        _ command: ControlCommand, deadline: Duration? = ControlClient.answerDeadline,
        patience: Duration = ControlClient.patience,
        each: (ControlReply) -> Void = { _ in }, whenSilent: () -> Void = {}
    ) throws(ControlError) -> ControlReply {
        try send(command)
        var patience: Duration? = patience
        while true {
            let reply = try receive(deadline, &patience, whenSilent)
            guard !reply.isFinal else { return reply }
            each(reply)
        }
    }

    /// - Parameter patience: `nil` when `whenSilent` was called.
    private mutating func receive(
        _ deadline: Duration?, _ patience: inout Duration?, _ whenSilent: () -> Void
    ) throws(ControlError) -> ControlReply {
        let start = ContinuousClock.now
        let end = deadline.map { start + $0 }
        if let first = patience, deadline.map({ $0 > first }) ?? true {
            do throws(ControlError) { return try receive(until: start + first, first) } catch {
                guard case .timeout = error else { throw error }
            }
            patience = nil
            whenSilent()
        }
        return try receive(until: end, deadline)
    }

    package mutating func send(_ command: ControlCommand) throws(ControlError) {
        var bytes = try ControlCoding.encode(ControlRequest(command))[...]
        while !bytes.isEmpty {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                // The pointer is used during the call only.
                unsafe Glibc.send(
                    descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                bytes.removeFirst(count)
                continue
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                try wait(for: Int16(POLLOUT), until: ContinuousClock.now + Self.answerDeadline)
            case EPIPE, ECONNRESET: throw .closed(resource: resource)
            default: throw Self.failure("send", resource)
            }
        }
    }

    /// The next reply.
    ///
    /// - Parameter deadline: `nil` waits for ever.
    package mutating func receive(deadline: Duration?) throws(ControlError) -> ControlReply {
        try receive(until: deadline.map { ContinuousClock.now + $0 }, deadline)
    }

    private mutating func receive(
        until end: ContinuousClock.Instant?, _ deadline: Duration?
    ) throws(ControlError) -> ControlReply {
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            if let line = try buffer.next() { return try ControlCoding.decodeReply(line) }
            try wait(for: Int16(POLLIN), until: end, deadline)
            // The pointer is used during the call only.
            let count = unsafe recv(descriptor, &chunk, chunk.count, 0)
            if count > 0 {
                try buffer.append(chunk[..<count])
                continue
            }
            if count == 0 || errno == ECONNRESET { throw .closed(resource: resource) }
            guard errno == EINTR || errno == EAGAIN else { throw Self.failure("recv", resource) }
        }
    }

    // MARK: System calls

    private func wait(
        for events: Int16, until end: ContinuousClock.Instant?, _ deadline: Duration? = nil
    ) throws(ControlError) {
        while true {
            var milliseconds: Int32 = -1
            if let end {
                let left = ContinuousClock.now.duration(to: end)
                let seconds = Int((deadline ?? Self.answerDeadline).components.seconds)
                guard left > .zero else { throw .timeout(resource: resource, seconds: seconds) }
                // Rounded up, so that it does not spin in the last millisecond.
                let (whole, attoseconds) = left.components
                milliseconds = Int32(
                    clamping: whole * 1000 + attoseconds / 1_000_000_000_000_000 + 1)
            }
            var entry = pollfd(fd: descriptor, events: events, revents: 0)
            // One entry, as the call is told.
            let result = unsafe poll(&entry, 1, milliseconds)
            if result > 0 { return }
            guard result == 0 || errno == EINTR else { throw Self.failure("poll", resource) }
        }
    }

    private static func address(of path: String) throws(ControlError) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let fits = unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
            // One byte stays zero behind the path.
            guard bytes.count < place.count else { return false }
            unsafe place.copyBytes(from: bytes)
            return true
        }
        guard fits else { throw .pathTooLong(path) }
        return address
    }

    /// - Returns: 0 or an errno.
    private static func connect(_ descriptor: Int32, _ address: sockaddr_un) -> Int32 {
        var address = address
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafePointer(to: &address) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe Glibc.connect(descriptor, $0, size)
            }
        }
        return result == 0 ? 0 : errno
    }

    private static func failure(
        _ call: String, _ object: String, _ code: Int32 = errno
    ) -> ControlError {
        // strerror's text is copied at once.
        let reason = unsafe strerror(code).map { unsafe String(cString: $0) } ?? "errno \(code)"
        return .system(call: call, object: object, reason: reason)
    }
}
