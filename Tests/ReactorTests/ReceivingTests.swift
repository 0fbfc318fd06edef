import Glibc
import Reactor
import Testing

@Suite struct ReceivingTests {
    @Test func `requests that arrive together are taken one by one`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        send(far, pattern(28 * 100))
        let first = try reactor.receiveBytes(index, 28)
        #expect(first == Array(pattern(28 * 100)[..<28]))
        // The rest is here without another receive.
        let available = reactor.available(index)
        #expect(available == 28 * 99)
        for request in 1..<100 {
            let next = reactor.next(index, count: 28)
            #expect(next == .bytes)
            let bytes = reactor.taken(index, 28)
            #expect(bytes == Array(pattern(28 * 100)[request * 28..<request * 28 + 28]))
        }
        let end = reactor.next(index, count: 28)
        #expect(end == .more)
    }

    @Test func `looking at bytes leaves them there`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        send(far, [1, 2, 3, 4])
        reactor.receive(index)
        _ = try reactor.turns(until: .received(connection: index))
        let seen = copy(reactor.peek(index, count: 3))
        let taken = reactor.taken(index, 4)
        #expect(seen == [1, 2, 3])
        #expect(taken == [1, 2, 3, 4])
    }

    @Test(arguments: [false, true])
    func `a message may be cut at every byte`(large: Bool) throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        // A header, a payload, and the header of the next message, received before the cut.
        let message = pattern(8 + 40 + 8)
        for cut in 0...message.count {
            reactor.fill(4096, [UInt8](repeating: 0, count: 40))
            if cut > 0 { send(far, message[..<cut]) }
            var rest = Array(message[cut...])
            var pieces: [[UInt8]] = []
            var expecting = false
            while pieces.count < 3 {
                switch reactor.next(index, count: 8) {
                case .bytes:
                    pieces.append(reactor.taken(index, 8))
                    if pieces.count == 1 {
                        reactor.expect(index, bufferOffset: 4096, length: 40, large: large)
                        expecting = true
                    }
                case .payload:
                    #expect(expecting)
                    pieces.append(reactor.contents(4096, 40))
                case .more:
                    reactor.receive(index)
                    // What is missing arrives while the receive is under way.
                    _ = try reactor.turn(timeout: .zero)
                    if !rest.isEmpty { send(far, rest) }
                    rest = []
                    _ = try reactor.turn(timeout: .milliseconds(1))
                }
            }
            #expect(
                pieces == [Array(message[..<8]), Array(message[8..<48]), Array(message[48...])])
        }
    }

    @Test func `a large payload lands in its buffer with little behind it`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        let header = pattern(28)
        let payload = pattern(64 << 10, seed: 2)
        send(far, header)
        try reactor.expect(index, receives: header)
        reactor.expect(index, bufferOffset: 0, length: payload.count, large: true)
        let more = reactor.next(index, count: 28)
        #expect(more == .more)
        reactor.receive(index)
        send(far, payload + pattern(28, seed: 3) + pattern(60_000, seed: 4))
        try reactor.receivePayload(index)
        let contents = reactor.contents(0, payload.count)
        #expect(contents == payload)
        // The second vector was a small one: most of what follows is still in the socket.
        let available = reactor.available(index)
        #expect(available <= 4096)
        try reactor.expect(index, receives: pattern(28, seed: 3))
        try reactor.expect(index, receives: pattern(60_000, seed: 4))
    }

    @Test func `a receive started before a payload was expected belongs to the stream`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.receive(index)
        _ = try reactor.turn(timeout: .zero)
        reactor.expect(index, bufferOffset: 0, length: 10, large: false)
        send(far, pattern(14))
        _ = try reactor.turns(until: .received(connection: index))
        try reactor.receivePayload(index)
        let contents = reactor.contents(0, 10)
        #expect(contents == Array(pattern(14)[..<10]))
        try reactor.expect(index, receives: Array(pattern(14)[10...]))
    }

    @Test(arguments: [1, 100, 4096, 300_000])
    func `skipped bytes are gone and nothing else is`(length: Int) throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        let index = try reactor.added(near)
        let thread = Sender(far, [9, 9] + [UInt8](repeating: 7, count: length) + [1, 2, 3])
        try reactor.expect(index, receives: [9, 9])
        reactor.skip(index, length: length)
        try reactor.expect(index, receives: [1, 2, 3])
        thread.join()
        close(far)
    }

    @Test func `the end of the stream comes after its bytes, once`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        let index = try reactor.added(near)
        send(far, [1, 2])
        close(far)
        try reactor.expect(index, receives: [1, 2])
        reactor.receive(index)
        let ended = try reactor.turns(until: .ended(connection: index, errno: 0))
        #expect(ended == [.ended(connection: index, errno: 0)])
        reactor.receive(index)
        let nothing = try reactor.turn(timeout: .milliseconds(1))
        #expect(nothing == 0)
    }

    @Test func `a paused connection tells what waits and when its peer has gone`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        let index = try reactor.added(near)
        reactor.watchHangup(index)
        send(far, pattern(5000))
        let quiet = try reactor.turn(timeout: .milliseconds(1))
        let pending = reactor.pendingInSocket(index)
        #expect(quiet == 0)
        #expect(pending == 5000)
        shutdown(far, Int32(SHUT_WR))
        let hangup = try reactor.turns(until: .hangup(connection: index))
        #expect(hangup == [.hangup(connection: index)])
        // What was sent before can still be had.
        try reactor.expect(index, receives: pattern(5000))
        close(far)
    }

    @Test func `a non-blocking socket is waited for like any other`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        _ = fcntl(near, F_SETFL, O_NONBLOCK)
        let index = try reactor.added(near)
        reactor.receive(index)
        let nothing = try reactor.turn(timeout: .milliseconds(1))
        #expect(nothing == 0)
        send(far, [1])
        _ = try reactor.turns(until: .received(connection: index))
    }

    @Test func `waiting for more than the stream holds is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var reactor = try makeReactor()
            let (near, _) = try socketPair()
            let index = try reactor.added(near)
            _ = reactor.next(index, count: Reactor.streamSize + 1)
        }
    }
}
