import CShims
import Glibc
package import Support

/// How a TCP socket behaves; what is `nil` stays as the system has it.
package struct SocketOptions: Equatable, Sendable {
    /// When a silent peer is asked, and after how long without an answer it counts as dead.
    package struct KeepAlive: Equatable, Sendable {
        package var idle: Duration
        package var interval: Duration
        package var count: Int

        package init(idle: Duration, interval: Duration, count: Int) {
            self.idle = idle
            self.interval = interval
            self.count = count
        }
    }

    /// Sends at once instead of waiting for more.
    package var noDelay = true
    /// Bytes; the system doubles them and has its own limit.
    package var sendBuffer: Int?
    package var receiveBuffer: Int?
    package var keepAlive: KeepAlive?
    /// How long sent bytes may stay unacknowledged before the connection ends.
    package var userTimeout: Duration?
    /// 0 to 6 without privileges.
    package var priority: Int?

    package init() {}

    /// - Throws: what the socket refuses, named by the option.
    package func apply(to descriptor: Int32) throws(SystemError) {
        if noDelay { try Self.set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1, "TCP_NODELAY") }
        if let sendBuffer {
            try Self.set(descriptor, SOL_SOCKET, SO_SNDBUF, sendBuffer, "SO_SNDBUF")
        }
        if let receiveBuffer {
            try Self.set(descriptor, SOL_SOCKET, SO_RCVBUF, receiveBuffer, "SO_RCVBUF")
        }
        if let keepAlive {
            let idle = max(1, Int(keepAlive.idle.components.seconds))
            let interval = max(1, Int(keepAlive.interval.components.seconds))
            let tcp = Int32(IPPROTO_TCP)
            try Self.set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE")
            try Self.set(descriptor, tcp, TCP_KEEPIDLE, idle, "TCP_KEEPIDLE")
            try Self.set(descriptor, tcp, TCP_KEEPINTVL, interval, "TCP_KEEPINTVL")
            try Self.set(descriptor, tcp, TCP_KEEPCNT, keepAlive.count, "TCP_KEEPCNT")
        }
        if let userTimeout {
            let milliseconds = Int(userTimeout.inNanoseconds / 1_000_000)
            try Self.set(
                descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, milliseconds, "TCP_USER_TIMEOUT")
        }
        if let priority {
            try Self.set(descriptor, SOL_SOCKET, SO_PRIORITY, priority, "SO_PRIORITY")
        }
    }

    static func set(
        _ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int, _ name: String
    ) throws(SystemError) {
        var value = Int32(clamping: value)
        let code = unsafe setsockopt(
            descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        try check(code, "setsockopt", name)
    }
}

/// Sockets made before the loop, or apart from it. Every descriptor is closed on exec.
package enum Sockets {
    private static let stream = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)

    /// Two connected ends.
    package static func pair() throws(SystemError) -> (one: Int32, other: Int32) {
        var one: Int32 = -1
        var other: Int32 = -1
        let code = unsafe shim_stream_pair(&one, &other)
        guard code == 0 else { throw SystemError("socketpair", errno: -code) }
        return (one, other)
    }

    /// A socket that waits for TCP connections to `address`.
    package static func listenTCP(
        _ address: SocketAddress, backlog: Int32 = 128
    ) throws(SystemError) -> Int32 {
        let descriptor = try check(socket(address.family, stream, 0), "socket")
        do throws(SystemError) {
            try SocketOptions.set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR")
            if address.family == AF_INET6 {
                // Or the same port could not be had for IPv4 too.
                try SocketOptions.set(
                    descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1, "IPV6_V6ONLY")
            }
            let code = unsafe address.withPointer { unsafe bind(descriptor, $0, $1) }
            try check(code, "bind", address.description)
            try check(listen(descriptor, backlog), "listen", address.description)
        } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A socket ready to be connected by the ring.
    static func open(
        from local: SocketAddress?, to remote: SocketAddress, _ options: SocketOptions
    ) throws(SystemError) -> Int32 {
        let descriptor = try check(socket(remote.family, stream, 0), "socket")
        do throws(SystemError) {
            // Buffer sizes count from the first packet on: the window is agreed on then.
            try options.apply(to: descriptor)
            if let local {
                let code = unsafe local.withPointer { unsafe bind(descriptor, $0, $1) }
                try check(code, "bind", local.description)
            }
        } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A socket that waits for connections at `path`.
    ///
    /// The socket of a process that has gone is removed first; one that answers is in use
    /// (EADDRINUSE), and what is no socket stays. Only one process at a time may do this for a path.
    package static func listenUnix(
        _ path: String, mode: UInt32 = 0o600, backlog: Int32 = 128
    ) throws(SystemError) -> Int32 {
        let descriptor = try check(socket(AF_UNIX, stream, 0), "socket")
        do throws(SystemError) {
            // Before bind: so it never exists with other permissions.
            try check(fchmod(descriptor, mode), "fchmod", path)
            try bindUnix(descriptor, path)
            try check(listen(descriptor, backlog), "listen", path)
        } catch {
            close(descriptor)
            throw error
        }
        return descriptor
    }

    private static func bindUnix(_ descriptor: Int32, _ path: String) throws(SystemError) {
        let address = try unixAddress(path)
        if unsafe withPointer(address, { unsafe bind(descriptor, $0, $1) }) == 0 { return }
        guard errno == EADDRINUSE, isStaleSocket(path, address) else {
            throw SystemError("bind", path, errno: errno)
        }
        guard (unsafe unlink(path)) == 0 || errno == ENOENT else {
            throw SystemError("unlink", path, errno: errno)
        }
        try check(unsafe withPointer(address) { unsafe bind(descriptor, $0, $1) }, "bind", path)
    }

    /// Leaves EADDRINUSE in `errno` if not.
    private static func isStaleSocket(_ path: String, _ address: sockaddr_un) -> Bool {
        defer { errno = EADDRINUSE }
        var status = stat()
        guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
            return false
        }
        // Without blocking: a full backlog is somebody's too.
        let probe = socket(AF_UNIX, stream | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard probe >= 0 else { return false }
        defer { close(probe) }
        let code = unsafe withPointer(address) { unsafe Glibc.connect(probe, $0, $1) }
        return code != 0 && errno == ECONNREFUSED
    }

    private static func unixAddress(_ path: String) throws(SystemError) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let fits = unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
            guard bytes.count < place.count, !bytes.isEmpty else { return false }
            unsafe place.copyBytes(from: bytes)
            return true
        }
        guard fits else { throw SystemError("bind", path, errno: ENAMETOOLONG) }
        return address
    }

    private static func withPointer(
        _ address: sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        unsafe withUnsafePointer(to: address) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Closes what waits to be accepted, without blocking; for a listener not yet in a reactor.
    package static func dropBacklog(_ descriptor: Int32) {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while unsafe poll(&request, 1, 0) == 1, request.revents & Int16(POLLIN) != 0 {
            let waiting = shim_accept(descriptor)
            guard waiting >= 0 else { return }
            close(waiting)
        }
    }

    /// Who is at the other end, for messages: an address, or of a unix socket `pid 1234`.
    package static func peerName(_ descriptor: Int32) -> String {
        if let address = SocketAddress(peerOf: descriptor) { return address.description }
        let process = shim_peer_process(descriptor)
        return process > 0 ? "pid \(process)" : "unknown"
    }
}
