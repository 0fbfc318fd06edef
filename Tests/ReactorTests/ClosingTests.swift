import Glibc
import Reactor
import Support
import Testing

@Suite struct ClosingTests {
    @Test func `closing with operations under way reports every owner before the end`() throws {
        var reactor = try makeReactor(arenaSize: 4 << 20)
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.watchHangup(index)
        reactor.expect(index, bufferOffset: 0, length: 64 << 10, large: true)
        reactor.receive(index)
        // More than the socket takes: a send is under way, and the other half has something too.
        reactor.payload(index, bufferOffset: 0, length: 3 << 20)
        reactor.notify(index, owner: 1)
        let quiet = try reactor.turn(timeout: .milliseconds(10))
        reactor.queue([1], index)
        reactor.notify(index, owner: 2)
        #expect(quiet == 0)
        reactor.close(index)
        reactor.close(index)
        let all = try reactor.turns(until: .closed(connection: index))
        #expect(
            all == [
                .sent(connection: index, owner: 1, delivered: false),
                .sent(connection: index, owner: 2, delivered: false),
                .closed(connection: index),
            ])
    }

    @Test func `closing in the same turn as queueing sends nothing and reports`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.queue([1], index)
        reactor.notify(index, owner: 1)
        reactor.receive(index)
        reactor.close(index)
        // Accepted, dropped, reported: who queues need not know.
        reactor.queue([2], index)
        reactor.payload(index, bufferOffset: 0, length: 10)
        reactor.notify(index, owner: 2)
        let all = try reactor.turns(until: .closed(connection: index))
        #expect(
            all == [
                .sent(connection: index, owner: 1, delivered: false),
                .sent(connection: index, owner: 2, delivered: false),
                .closed(connection: index),
            ])
        #expect(receive(far, 1) == [])
    }

    @Test func `a closed connection with nothing under way does not make the turn wait`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.close(index)
        let count = try reactor.turn(timeout: nil)
        let completion = reactor[completion: 0]
        #expect(count == 1)
        #expect(completion == .closed(connection: index))
    }

    @Test func `a place is not used again before the turn that reported its end is over`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        let (second, secondFar) = try socketPair()
        let (third, thirdFar) = try socketPair()
        let index = try reactor.added(near)
        reactor.close(index)
        _ = try reactor.turns(until: .closed(connection: index))
        let other = try reactor.added(second)
        #expect(other != index)
        _ = try reactor.turn(timeout: .zero)
        let same = try reactor.added(third)
        #expect(same == index)
        for descriptor in [far, secondFar, thirdFar] { close(descriptor) }
    }

    @Test func `a successor gets nothing of its predecessor`() throws {
        var reactor = try makeReactor()
        for round in 0..<200 {
            let (near, far) = try socketPair()
            let index = try reactor.added(near)
            send(far, pattern(100, seed: UInt64(round)))
            reactor.watchHangup(index)
            reactor.receive(index)
            reactor.queue([1, 2, 3], index)
            reactor.notify(index, owner: UInt64(round))
            // Closed before, while or after all this completes.
            if round % 3 > 0 { _ = try reactor.turn(timeout: .zero) }
            let fresh = reactor.available(index)
            #expect(fresh == 0 || fresh == 100)
            reactor.close(index)
            let all = try reactor.turns(until: .closed(connection: index))
            for case .sent(_, let owner, _) in all { #expect(owner == UInt64(round)) }
            #expect(all.filter { $0 == .closed(connection: index) }.count == 1)
            close(far)
        }
    }

    @Test func `closing when sent delivers first`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        reactor.receive(index)
        reactor.queue([1, 2, 3], index)
        reactor.notify(index, owner: 1)
        reactor.closeWhenSent(index)
        let all = try reactor.turns(until: .closed(connection: index))
        #expect(
            all == [
                .sent(connection: index, owner: 1, delivered: true), .closed(connection: index),
            ])
        #expect(receive(far, 4) == [1, 2, 3])
    }

    @Test func `the peer of a closed connection sees the end although a copy is open`() throws {
        var reactor = try makeReactor()
        let (near, far) = try socketPair()
        defer { close(far) }
        let copy = dup(near)
        defer { close(copy) }
        let index = try reactor.added(near)
        reactor.close(index)
        #expect(receive(far, 1) == [])
    }

    @Test func `as many connections as there are places work at once`() throws {
        var reactor = try makeReactor()
        var fars: [Int32] = []
        for _ in 0..<Reactor.connectionCount {
            let (near, far) = try socketPair()
            let index = try reactor.added(near)
            fars.append(far)
            reactor.receive(index)
        }
        let (extra, extraFar) = try socketPair()
        let refused = reactor.add(extra)
        #expect(refused == nil)
        close(extra)
        close(extraFar)
        for (index, far) in fars.enumerated() { send(far, [UInt8(index), 1]) }
        _ = try reactor.turns { $0.count == fars.count }
        for index in fars.indices {
            let bytes = reactor.taken(index, 2)
            #expect(bytes == [UInt8(index), 1])
            reactor.queue(bytes, index)
            reactor.notify(index, owner: UInt64(index))
        }
        _ = try reactor.turns { $0.count == fars.count }
        for (index, far) in fars.enumerated() {
            #expect(receive(far, 2) == [UInt8(index), 1])
            reactor.close(index)
        }
        let closed = try reactor.turns { $0.count == fars.count }
        #expect(closed == fars.indices.map { .closed(connection: $0) })
        for far in fars { close(far) }
    }

    @Test func `a reactor that goes away takes its sockets with it`() throws {
        let (near, far) = try socketPair()
        defer { close(far) }
        do {
            var reactor = try makeReactor()
            let index = try reactor.added(near)
            reactor.receive(index)
            reactor.watchHangup(index)
            _ = try reactor.turn(timeout: .zero)
        }
        #expect(receive(far, 1) == [])
    }
}
