import CShims
import Glibc
import Reactor
import Support
import Testing

extension Reactor {
    /// The next connection that a listener accepts.
    fileprivate mutating func acceptOne(_ listener: Int) throws -> Int32 {
        var found: Int32?
        _ = try turns { completions in
            for case .accepted(listener, let descriptor) in completions { found = descriptor }
            return found != nil
        }
        return try #require(found)
    }
}

private func address(_ host: String, _ port: UInt16 = 0) throws -> SocketAddress {
    let address = SocketAddress(host: host, port: port)
    return try #require(address)
}

@Suite struct SocketTests {
    @Test(arguments: ["127.0.0.1", "::1", "[::1]"])
    func `a TCP connection is accepted, made and used`(host: String) throws {
        var reactor = try makeReactor()
        let listening = try Sockets.listenTCP(address(host))
        let server = SocketAddress(of: listening)
        let target = try #require(server)
        let listener = try reactor.addListener(listening)
        var options = SocketOptions()
        options.sendBuffer = 128 << 10
        options.receiveBuffer = 128 << 10
        options.priority = 6
        options.userTimeout = .seconds(30)
        options.keepAlive = SocketOptions.KeepAlive(
            idle: .seconds(10), interval: .seconds(5), count: 3)
        for _ in 0..<3 {
            let attempt = try reactor.connect(
                from: address(host), to: target, timeout: .seconds(5), options: options)
            var client: Int32?
            var accepted: Int32?
            _ = try reactor.turns { completions in
                for case .connected(attempt, let descriptor) in completions { client = descriptor }
                for case .accepted(listener, let descriptor) in completions {
                    accepted = descriptor
                }
                return client != nil && accepted != nil
            }
            let near = try reactor.added(#require(client))
            let far = try reactor.added(#require(accepted))
            let name = Sockets.peerName(reactor.descriptor(near))
            #expect(name == target.description)
            reactor.queue([1, 2, 3], near)
            try reactor.expect(far, receives: [1, 2, 3])
            reactor.close(near)
            reactor.close(far)
            _ = try reactor.turns(until: .closed(connection: far))
        }
    }

    @Test func `a refused connection says so`() throws {
        var reactor = try makeReactor()
        let listening = try Sockets.listenTCP(address("127.0.0.1"))
        let target = try #require(SocketAddress(of: listening))
        close(listening)
        let attempt = try reactor.connect(from: nil, to: target, timeout: .seconds(5))
        let failed = Completion.connectFailed(attempt: attempt, errno: ECONNREFUSED)
        #expect(try reactor.turns(until: failed) == [failed])
    }

    @Test func `a connection that nobody answers times out or is cancelled`() throws {
        var reactor = try makeReactor()
        // A listener whose backlog is full answers nobody.
        let listening = try Sockets.listenTCP(address("127.0.0.1"), backlog: 0)
        defer { close(listening) }
        let target = try #require(SocketAddress(of: listening))
        var clients: [Int32] = []
        defer { for client in clients { close(client) } }
        var last: Completion?
        for _ in 0..<3 {
            let attempt = try reactor.connect(from: nil, to: target, timeout: .milliseconds(200))
            last = try reactor.turns { !$0.isEmpty }.last
            if case .connected(attempt, let client) = last { clients.append(client) }
        }
        #expect(last == .connectFailed(attempt: 0, errno: ETIMEDOUT))
        let attempt = try reactor.connect(from: nil, to: target, timeout: .seconds(60))
        _ = try reactor.turn(timeout: .milliseconds(5))
        reactor.cancelConnect(attempt)
        reactor.cancelConnect(attempt)
        let cancelled = Completion.connectFailed(attempt: attempt, errno: ECANCELED)
        #expect(try reactor.turns(until: cancelled) == [cancelled])
    }

    @Test func `an address that is not here cannot be connected from`() throws {
        #expect(throws: SystemError("bind", "192.0.2.1:0", errno: EADDRNOTAVAIL)) {
            var reactor = try makeReactor()
            _ = try reactor.connect(
                from: address("192.0.2.1"), to: address("127.0.0.1", 9), timeout: .seconds(1))
        }
    }

    @Test(arguments: [
        ("10.1.2.3", "10.1.2.3:7788"), ("::1", "[::1]:7788"), ("[fd00::2]", "[fd00::2]:7788"),
        ("fe80::1%lo", "[fe80::1%lo]:7788"),
    ])
    func `addresses are read and written`(host: String, text: String) throws {
        let address = try address(host, 7788)
        #expect(address.description == text)
        #expect(address.port == 7788)
    }

    @Test(arguments: [
        "", "localhost", "1.2.3", "1.2.3.4.5", "::1%", "::g", "fe80::1%nosuchif", "[::1",
    ])
    func `what is no numeric address is refused`(host: String) {
        #expect(SocketAddress(host: host, port: 1)?.description == nil)
    }

    @Test func `a removed listener accepts nobody and its address is free`() throws {
        var reactor = try makeReactor()
        let listening = try Sockets.listenTCP(address("127.0.0.1"))
        let target = try #require(SocketAddress(of: listening))
        let listener = try reactor.addListener(listening)
        _ = try reactor.turn(timeout: .zero)
        reactor.removeListener(listener)
        reactor.removeListener(listener)
        for _ in 0..<5 { _ = try reactor.turn(timeout: .milliseconds(2)) }
        let again = try Sockets.listenTCP(target)
        close(again)
    }

    @Test func `running out of descriptors is reported and survived`() async {
        await #expect(processExitsWith: .success) {
            var reactor = try makeReactor()
            let directory = try TemporaryDirectory()
            let path = directory.path + "/socket"
            let listening = try Sockets.listenUnix(path)
            let client = try unixClient(path)
            var hoard: [Int32] = []
            var limit = rlimit(rlim_cur: 100, rlim_max: 100)
            _ = unsafe setrlimit(__rlimit_resource_t(7), &limit)
            while case let descriptor = dup(0), descriptor >= 0 { hoard.append(descriptor) }
            let listener = try reactor.addListener(listening)
            let failed = Completion.acceptFailed(listener: listener, errno: EMFILE)
            let first = try reactor.turns { !$0.isEmpty }
            guard first == [failed] else { exit(1) }
            for descriptor in hoard { close(descriptor) }
            reactor.resumeAccepting(listener)
            close(try reactor.acceptOne(listener))
            close(client)
        }
    }

    @Test func `a waiting connection can be dropped unaccepted`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        let listening = try Sockets.listenUnix(path)
        let client = try unixClient(path)
        defer { close(client) }
        Sockets.dropBacklog(listening)
        #expect(receive(client, 1) == [])
        close(listening)
    }
}

@Suite struct UnixSocketTests {
    @Test func `it is for its owner alone, and its peer is named by process`() throws {
        var reactor = try makeReactor()
        let directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        let listener = try reactor.addListener(Sockets.listenUnix(path))
        var status = stat()
        #expect(unsafe stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
        let client = try unixClient(path)
        defer { close(client) }
        let accepted = try reactor.acceptOne(listener)
        #expect(Sockets.peerName(accepted) == "pid \(getpid())")
        // It is closed in children.
        #expect(fcntl(accepted, F_GETFD) & FD_CLOEXEC != 0)
        close(accepted)
    }

    @Test func `the socket of a process that has gone is replaced`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        close(try Sockets.listenUnix(path))
        let listening = try Sockets.listenUnix(path)
        let client = try unixClient(path)
        close(client)
        close(listening)
    }

    @Test func `a socket in use is left alone`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/socket"
        let listening = try Sockets.listenUnix(path, backlog: 0)
        // Also if its backlog is full.
        let client = try unixClient(path)
        for _ in 0..<2 {
            #expect(throws: SystemError("bind", path, errno: EADDRINUSE)) {
                _ = try Sockets.listenUnix(path)
            }
        }
        close(client)
        close(listening)
    }

    @Test func `what is no socket is left alone`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("file", size: 1)
        #expect(throws: SystemError("bind", path, errno: EADDRINUSE)) {
            _ = try Sockets.listenUnix(path)
        }
        let there = unsafe access(path, F_OK) == 0
        #expect(there)
    }

    @Test func `a path that is too long is refused, not cut`() {
        let path = "/tmp/" + String(repeating: "x", count: 103)
        #expect(throws: SystemError("bind", path, errno: ENAMETOOLONG)) {
            _ = try Sockets.listenUnix(path)
        }
    }
}

private func unixClient(_ path: String) throws -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { place in
        unsafe place.copyBytes(from: path.utf8)
    }
    let code = unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    try #require(code == 0)
    return descriptor
}
