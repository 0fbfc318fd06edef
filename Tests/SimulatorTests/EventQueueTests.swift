import Support
import Testing

@testable import Simulator

@Suite struct EventQueueTests {
    @Test func `happenings come by time, those of one moment by their ties`() {
        var queue = EventQueue()
        var random = RandomSource(seed: 7)
        var expected: [(UInt64, UInt64)] = []
        for _ in 0..<500 {
            let (time, tie) = (random.next() % 50, random.next())
            expected.append((time, tie))
            queue.add(.heal(serial: UInt32(tie & 0xffff)), at: Instant(nanoseconds: time), tie: tie)
        }
        expected.sort { $0 < $1 }
        var found: [UInt32] = []
        while let (_, happening) = queue.take() {
            if case .heal(let serial) = happening { found.append(serial) }
        }
        #expect(found == expected.map { UInt32($0.1 & 0xffff) })
    }
}
