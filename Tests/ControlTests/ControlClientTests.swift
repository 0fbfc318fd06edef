import Control
import Glibc
import Testing

@Suite struct ControlClientTests {
    /// What one connection to a daemon sees; `serve` runs on a thread of its own.
    private func withServer(
        _ serve: @escaping @Sendable (Int32) -> Void, _ body: (String) throws -> Void
    ) throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/control.sock"
            let listener = try listen(at: path)
            let thread = Thread {
                let connection = accept(listener, nil, nil)
                serve(connection)
                close(connection)
            }
            defer {
                // Wakes a thread that still waits for the client.
                shutdown(listener, Int32(SHUT_RDWR))
                thread.join()
                close(listener)
            }
            try body(path)
        }
    }

    private func listen(at path: String, backlog: Int32 = 8) throws -> Int32 {
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) {
            unsafe $0.copyBytes(from: Array(path.utf8))
        }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = unsafe withUnsafePointer(to: &address) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(listener, $0, size)
            }
        }
        try #require(result == 0)
        try #require(Glibc.listen(listener, backlog) == 0)
        return listener
    }

    @Test func `replies come one by one until the last`() throws {
        try withServer { connection in
            let request = Server.readLine(connection)
            let command = (try? ControlCoding.decodeRequest(request))?.command
            let first = ControlReply(
                progress: "\(command == .waitSync(timeout: 9))", isFinal: false)
            // Two in one piece, and the last cut in the middle.
            let bytes = Server.encoded(first) + Server.encoded(first)
            let last = Server.encoded(ControlReply(exitCode: 5, message: "late"))
            Server.write(connection, bytes + last[..<7])
            Server.write(connection, Array(last[7...]))
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            var progress: [String?] = []
            let reply = try client.perform(.waitSync(timeout: 9)) { progress.append($0.progress) }
            #expect(reply == ControlReply(exitCode: 5, message: "late"))
            #expect(progress == ["true", "true"])
        }
    }

    @Test func `a long request arrives whole`() throws {
        var settings = ControlCodingTests.settings
        settings.nbdListen = Array(repeating: "127.0.0.1:10809", count: 50_000)
        let wanted = ControlRequest(.up(settings))
        try withServer { connection in
            let request = try? ControlCoding.decodeRequest(Server.readLine(connection))
            Server.write(
                connection, Server.encoded(ControlReply(exitCode: request == wanted ? 0 : 1)))
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            #expect(try client.perform(.up(settings)).exitCode == 0)
        }
    }

    @Test func `without a daemon the message says how to start one`() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/control.sock"
            let missing = #expect(throws: ControlError.self) {
                _ = try ControlClient(resource: "r0", socket: path)
            }
            #expect(
                missing.map { "\($0)" } == "r0: no repd is running for this resource (\(path)): "
                    + "start it with 'repctl up r0'")
            // A socket that nobody listens at any more, as a killed daemon leaves it.
            close(try listen(at: path))
            #expect(throws: ControlError.noDaemon(resource: "r0", socket: path)) {
                _ = try ControlClient(resource: "r0", socket: path)
            }
        }
    }

    @Test func `a daemon that goes away is an error, not an end`() throws {
        try withServer { connection in
            _ = Server.readLine(connection)
            Server.write(connection, Array("{\"version\":1".utf8))
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            #expect(throws: ControlError.closed(resource: "r0")) { try client.perform(.ping) }
        }
    }

    @Test func `a daemon that says nothing costs the deadline`() throws {
        try withServer { connection in
            // Until the client has gone.
            _ = Server.readLine(connection)
            _ = Server.readLine(connection)
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            let start = ContinuousClock.now
            #expect(throws: ControlError.timeout(resource: "r0", seconds: 0)) {
                try client.perform(.ping, deadline: .milliseconds(50))
            }
            #expect(ContinuousClock.now - start >= .milliseconds(50))
        }
    }

    @Test func `whoever waits is told once that nothing has come`() throws {
        try withServer { connection in
            _ = Server.readLine(connection)
            let progress = Server.encoded(ControlReply(progress: "slow", isFinal: false))
            for bytes in [progress, progress, Server.encoded(ControlReply(exitCode: 5))] {
                usleep(60_000)
                // In two pieces: the first one is no answer yet.
                Server.write(connection, Array(bytes[..<7]))
                usleep(60_000)
                Server.write(connection, Array(bytes[7...]))
            }
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            var told: [Int] = []
            var replies = 0
            let reply = try client.perform(
                .waitSync(timeout: 9), patience: .milliseconds(10),
                each: { _ in replies += 1 }, whenSilent: { told.append(replies) })
            #expect(reply == ControlReply(exitCode: 5))
            #expect(replies == 2)
            #expect(told == [0])
        }
    }

    @Test func `nobody is told of a daemon that answers, nor again of the deadline`() throws {
        try withServer { connection in
            _ = Server.readLine(connection)
            Server.write(connection, Server.encoded(ControlReply()))
            _ = Server.readLine(connection)
            _ = Server.readLine(connection)
        } _: { path in
            var client = try ControlClient(resource: "r0", socket: path)
            var told = 0
            _ = try client.perform(.ping, whenSilent: { told += 1 })
            #expect(told == 0)
            #expect(throws: ControlError.timeout(resource: "r0", seconds: 1)) {
                try client.perform(
                    .ping, deadline: .seconds(1), patience: .milliseconds(10),
                    whenSilent: { told += 1 })
            }
            #expect(told == 1)
        }
    }

    @Test func `a daemon that does not accept costs the deadline as well`() throws {
        try withTemporaryDirectory { directory in
            let path = directory + "/control.sock"
            let listener = try listen(at: path, backlog: 0)
            defer { close(listener) }
            // It takes one connection or two to fill the backlog.
            let error = try #require(throws: ControlError.self) {
                try connect(times: 3, path)
            }
            #expect(error == .timeout(resource: "r0", seconds: 0))
        }
    }

    /// Holds every connection while it makes the next.
    private func connect(times: Int, _ path: String) throws(ControlError) {
        guard times > 0 else { return }
        let client = try ControlClient(
            resource: "r0", socket: path, deadline: .milliseconds(50))
        try connect(times: times - 1, path)
        _ = consume client
    }

    @Test func `a path that does not fit is refused`() {
        let path = "/" + String(repeating: "x", count: 107)
        #expect(throws: ControlError.pathTooLong(path)) {
            _ = try ControlClient(resource: "r0", socket: path)
        }
        #expect(throws: ControlError.noDaemon(resource: "r0", socket: String(path.dropLast()))) {
            _ = try ControlClient(resource: "r0", socket: String(path.dropLast()))
        }
    }
}

/// The daemon's side, with as little as possible.
private enum Server {
    static func encoded(_ reply: ControlReply) -> [UInt8] {
        (try? ControlCoding.encode(reply)) ?? []  // The client will miss it.
    }

    /// Until a newline, which is left out, or the end.
    static func readLine(_ connection: Int32) -> [UInt8] {
        var line: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while line.last != UInt8(ascii: "\n") {
            let count = unsafe read(connection, &chunk, chunk.count)
            guard count > 0 else { return line }
            line += chunk[..<count]
        }
        return Array(line.dropLast())
    }

    static func write(_ connection: Int32, _ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes {
                unsafe send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }
}

/// A thread that can be waited for.
private struct Thread {
    private var handle = pthread_t()

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    init(_ run: @escaping @Sendable () -> Void) {
        let body = unsafe Unmanaged.passRetained(Body(run)).toOpaque()
        unsafe pthread_create(
            &handle, nil,
            { argument in
                if let argument = unsafe argument {
                    unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }, body)
    }

    func join() { pthread_join(handle, nil) }
}
