import Glibc
import Reactor
import Support
import Testing

@Suite struct SendingTests {
    @Test func `what is queued in one turn arrives in order as one stream`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.fill(4096, pattern(100, seed: 2))
        reactor.queue([1, 2, 3], index)
        reactor.queue([4], index)
        reactor.payload(index, bufferOffset: 4096, length: 100)
        reactor.queue([5], index)
        reactor.notify(index, owner: 77)
        let queued = reactor.queuedBytes(index)
        #expect(queued == 105)
        let sent = try reactor.turns { !$0.isEmpty }
        #expect(sent == [.sent(connection: index, owner: 77, delivered: true)])
        #expect(receive(far, 105) == [1, 2, 3, 4] + pattern(100, seed: 2) + [5])
        let left = reactor.queuedBytes(index)
        #expect(left == 0)
    }

    @Test func `a send larger than the socket buffer waits for its reader`() throws {
        var reactor = try makeReactor(arenaSize: 4 << 20)
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        let bytes = pattern(3 << 20)
        reactor.fill(0, bytes)
        reactor.payload(index, bufferOffset: 0, length: bytes.count)
        reactor.notify(index, owner: 1)
        let early = try reactor.turn(timeout: .milliseconds(20))
        #expect(early == 0)
        // Queued while the other half is on its way; leaves behind it.
        reactor.queue([42], index)
        reactor.notify(index, owner: 2)
        let queued = reactor.queuedBytes(index)
        #expect(queued == bytes.count + 1)
        let reader = Reader(far, bytes.count + 1)
        let sent = try reactor.turns(until: .sent(connection: index, owner: 2, delivered: true))
        #expect(
            sent == [
                .sent(connection: index, owner: 1, delivered: true),
                .sent(connection: index, owner: 2, delivered: true),
            ])
        #expect(reader.bytes() == bytes + [42])
    }

    @Test func `more vectors and headers than fit at first grow`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.fill(0, pattern(16))
        var expected: [UInt8] = []
        // Three times what one sendmsg takes, and headers of 150 KiB.
        for message in 0..<1600 {
            let header = pattern(96, seed: UInt64(message))
            reactor.queue(header, index)
            reactor.payload(index, bufferOffset: message % 2, length: 15)
            reactor.notify(index, owner: UInt64(message))
            expected += header + pattern(16)[message % 2..<message % 2 + 15]
        }
        let reader = Reader(far, expected.count)
        let sent = try reactor.turns { $0.count == 1600 }
        #expect(
            sent
                == (0..<1600).map {
                    .sent(connection: index, owner: UInt64($0), delivered: true)
                })
        #expect(reader.bytes() == expected)
    }

    @Test func `a header larger than the area goes all the same`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        let bytes = pattern(300_000)
        for round in 0..<3 {
            reactor.queue([UInt8(round)], index)
            reactor.send(index, copying: bytes)
            reactor.notify(index, owner: 5)
            let reader = Reader(far, bytes.count + 1)
            _ = try reactor.turns(until: .sent(connection: index, owner: 5, delivered: true))
            #expect(reader.bytes() == [UInt8(round)] + bytes)
        }
    }

    @Test func `a connection whose peer does not read fills up and says so`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        var count = 0
        while reactor.canQueue(index, bytes: 1024), count < 5000 {
            reactor.queue([UInt8](repeating: 1, count: 1024), index)
            count += 1
        }
        #expect(count == 1024)
        let room = reactor.canQueue(index, bytes: 0)
        #expect(room)
        for owner in 0..<10_000 where reactor.canQueue(index) {
            reactor.notify(index, owner: UInt64(owner))
            count += 1
        }
        #expect(count < 10_000)
    }

    @Test func `queueing far beyond the limit is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var reactor = try makeReactor()
            let (near, _) = try socketPair()
            let index = try reactor.added(near)
            for owner in 0..<100_000 { reactor.notify(index, owner: UInt64(owner)) }
        }
    }

    @Test func `an owner with nothing before it is reported at once`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.notify(index, owner: 9)
        let count = try reactor.turn(timeout: nil)
        let first = reactor[completion: 0]
        #expect(count == 1)
        #expect(first == .sent(connection: index, owner: 9, delivered: true))
    }

    @Test func `a peer that has gone is told once and every owner is reported`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        let index = try reactor.added(near)
        close(far)
        reactor.queue([1], index)
        reactor.notify(index, owner: 1)
        let failed = Completion.sendFailed(connection: index, errno: EPIPE)
        let first = try reactor.turns(until: failed)
        #expect(first == [.sent(connection: index, owner: 1, delivered: false), failed])
        let room = reactor.canQueue(index)
        #expect(!room)
        // Queued by somebody who has not noticed yet.
        reactor.queue([2], index)
        reactor.notify(index, owner: 2)
        let second = try reactor.turns { !$0.isEmpty }
        #expect(second == [.sent(connection: index, owner: 2, delivered: false)])
    }

    @Test func `the end is told behind everything queued`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.queue([1, 2], index)
        reactor.shutdownSend(index)
        _ = try reactor.turn(timeout: .milliseconds(10))
        _ = try reactor.turn(timeout: .milliseconds(10))
        #expect(receive(far, 10) == [1, 2])
        // The other direction stays open.
        send(far, [3])
        try reactor.expect(index, receives: [3])
    }
}

/// Reads a number of bytes on a thread of its own.
final class Reader: Sendable {
    private let worker: Worker
    private let result: Result

    private final class Result: Sendable {
        let mailbox: Mailbox<[UInt8]>
        init() throws { mailbox = try Mailbox(limit: 1) }
    }

    init(_ descriptor: Int32, _ count: Int) {
        guard let result = try? Result() else { fatalError("no eventfd") }
        self.result = result
        worker = Worker { _ = result.mailbox.post(receive(descriptor, count)) }
    }

    func bytes() -> [UInt8] {
        worker.join()
        return result.mailbox.take().first ?? []
    }
}
