import Glibc
import Reactor
import Support
import Testing

/// A reactor with a small arena. Buffers lie 4 KiB-aligned in it, from 0 on.
func makeReactor(
    arenaSize: Int = 2 << 20, _ change: (inout Reactor.Configuration) -> Void = { _ in }
) throws -> Reactor {
    var configuration = Reactor.Configuration(arenaSize: arenaSize)
    // The limit on locked memory belongs to all tests together.
    configuration.registersBuffers = arenaSize <= 1 << 20
    change(&configuration)
    return try Reactor(configuration: configuration)
}

struct TimedOut: Error {}

extension Reactor {
    /// Turns until `enough`, at most 10 s, and returns all completions.
    mutating func turns(until enough: ([Completion]) -> Bool) throws -> [Completion] {
        let deadline = now() + .seconds(10)
        var all: [Completion] = []
        while !enough(all) {
            guard now() < deadline else { throw TimedOut() }
            let count = try turn(timeout: .milliseconds(50))
            for index in 0..<count { all.append(self[completion: index]) }
        }
        return all
    }

    mutating func turns(until last: Completion) throws -> [Completion] {
        try turns { $0.contains(last) }
    }

    mutating func queue(_ bytes: [UInt8], _ connection: Int) {
        var header = header(connection, size: bytes.count)
        for (offset, byte) in bytes.enumerated() {
            header.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    mutating func taken(_ connection: Int, _ count: Int) -> [UInt8] {
        let span = take(connection, count: count)
        return copy(span)
    }

    mutating func fill(_ offset: Int, _ bytes: [UInt8]) {
        var span = mutableBuffer(offset, length: bytes.count)
        for (offset, byte) in bytes.enumerated() {
            span.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    func contents(_ offset: Int, _ length: Int) -> [UInt8] { copy(buffer(offset, length: length)) }

    /// Receives until `count` bytes can be taken, and takes them.
    mutating func receiveBytes(_ connection: Int, _ count: Int) throws -> [UInt8] {
        while true {
            switch next(connection, count: count) {
            case .bytes: return taken(connection, count)
            case .payload: Issue.record("a payload nobody expects")
            case .more:
                receive(connection)
                _ = try turns { $0.contains(.received(connection: connection)) }
            }
        }
    }

    mutating func added(_ descriptor: Int32) throws -> Int {
        let index = add(descriptor)
        return try #require(index)
    }

    mutating func expect(
        _ connection: Int, receives bytes: some Collection<UInt8>,
        at location: SourceLocation = #_sourceLocation
    ) throws {
        let received = try receiveBytes(connection, bytes.count)
        #expect(received == Array(bytes), sourceLocation: location)
    }

    /// Receives until the expected payload is there.
    mutating func receivePayload(_ connection: Int) throws {
        while next(connection, count: 1) != .payload {
            receive(connection)
            _ = try turns { $0.contains(.received(connection: connection)) }
        }
    }
}

func copy(_ span: RawSpan) -> [UInt8] {
    unsafe span.withUnsafeBytes { unsafe Array($0) }
}

/// Bytes that differ from their neighbours, and from those of another seed.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var source = RandomSource(seed: seed)
    return (0..<count).map { _ in UInt8(truncatingIfNeeded: source.next()) }
}

/// Two connected sockets.
func socketPair() throws -> (Int32, Int32) {
    var pair: [Int32] = [-1, -1]
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let code = unsafe socketpair(AF_UNIX, type, 0, &pair)
    try #require(code == 0)
    return (pair[0], pair[1])
}

func send(_ descriptor: Int32, _ bytes: some Collection<UInt8>) {
    let bytes = Array(bytes)
    let count = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    #expect(count == bytes.count)
}

/// Up to `count` bytes, blocking until they are there or the stream ends.
func receive(_ descriptor: Int32, _ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var got = 0
    while got < count {
        let piece = unsafe bytes.withUnsafeMutableBytes {
            unsafe recv(descriptor, $0.baseAddress.map { unsafe $0 + got }, count - got, 0)
        }
        guard piece > 0 else { break }
        got += piece
    }
    return Array(bytes[..<got])
}

/// A directory of its own for one test, removed with all it holds.
struct TemporaryDirectory: ~Copyable {
    let path: String

    init() throws {
        var template = Array("/tmp/reactor-XXXXXX".utf8CString)
        let made = unsafe mkdtemp(&template) != nil
        try #require(made)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        var reactor = try? Reactor(configuration: Reactor.Configuration(arenaSize: 4096))
        _ = try? reactor?.run("/bin/rm", ["-rf", path])
    }

    func file(_ name: String, size: Int) throws -> String {
        let path = "\(path)/\(name)"
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        let made = descriptor >= 0 && ftruncate(descriptor, size) == 0
        try #require(made)
        close(descriptor)
        return path
    }
}

extension Reactor {
    /// Runs a program to its end. - Returns: its exit status.
    @discardableResult
    mutating func run(_ path: String, _ arguments: [String]) throws -> Int32 {
        let child = try spawn(path, arguments: arguments, environment: ["PATH=/usr/sbin:/usr/bin"])
        var status: Int32?
        _ = try turns { completions in
            for case .exited(child, let code) in completions { status = code }
            return status != nil
        }
        return try #require(status)
    }
}
