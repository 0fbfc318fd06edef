import Testing

@testable import Support

@Suite struct InstantTests {
    @Test func `adding saturates and going back stops at the start`() {
        #expect(Instant.never + .seconds(1) == .never)
        #expect(Instant(nanoseconds: 5) + .seconds(-1) == Instant(nanoseconds: 0))
        #expect(Instant(nanoseconds: 5) + .nanoseconds(7) == Instant(nanoseconds: 12))
    }

    @Test func `the time back to a later moment is zero`() {
        let early = Instant(nanoseconds: 10)
        let late = Instant(nanoseconds: 1_500_000_010)
        #expect(late - early == .milliseconds(1500))
        #expect(early - late == .zero)
    }
}

@Suite struct QueueTests {
    @Test func `dropping the oldest moves the others up`() {
        var queue = Queue<Int>(capacity: 4)
        for value in 1...4 { queue.append(value) }
        queue.removeFirst(3)
        let left = (queue.count, queue[0])
        #expect(left == (1, 4))
        queue.append(9)
        let last = queue[1]
        #expect(last == 9)
    }

    @Test func `more than the capacity is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var queue = Queue<Int>(capacity: 1)
            queue.append(1)
            queue.append(2)
        }
    }
}

@Suite struct FreeListTests {
    @Test func `every place is given once, and the last one back comes first`() {
        var list = FreeList(count: 3)
        var seen: [UInt16] = []
        while let place = list.take() { seen.append(place) }
        #expect(seen.sorted() == [0, 1, 2])
        list.give(1)
        list.give(2)
        let next = list.take()
        #expect(next == 2)
    }
}

@Suite struct FieldTests {
    @Test func `fields are big-endian, little ones little, wherever they lie`() {
        var arena = ByteArena(capacity: 16)
        var span = arena.append(13)
        for offset in 0..<13 { span.storeBytes(of: 0, toByteOffset: offset, as: UInt8.self) }
        span[Field<UInt32>(at: 1)] = 0x0102_0304
        span[LittleField<UInt64>(at: 5)] = 0x0102_0304_0506_0708
        let bytes = arena.bytes(at: 0, count: 13)
        var text: [UInt8] = []
        for offset in 0..<13 {
            text.append(bytes[Field<UInt8>(at: offset)])
        }
        #expect(text == [0, 1, 2, 3, 4, 8, 7, 6, 5, 4, 3, 2, 1])
    }

    @Test func `a field behind the end of the bytes is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var arena = ByteArena(capacity: 8)
            _ = arena.append(6)
            let bytes = arena.bytes(at: 0, count: 6)
            _ = bytes[Field<UInt32>(at: 4)]
        }
    }
}

@Suite struct RandomSourceTests {
    @Test func `the same seed gives the same numbers, another seed others`() {
        func numbers(_ seed: UInt64) -> [UInt64] {
            var source = RandomSource(seed: seed)
            return (0..<8).map { _ in source.next() }
        }
        #expect(numbers(1) == numbers(1))
        #expect(numbers(1) != numbers(2))
        // SplitMix64 with seed 0, as published with the algorithm.
        #expect(numbers(0).first == 0xe220_a839_7b1d_cdaf)
    }
}
