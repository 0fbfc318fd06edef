import Testing

@testable import Simulator

@Suite struct CandidateTableTests {
    private var table = CandidateTable()
    private var operations = [ClientOperation()]

    init() { table.reset(sectors: 8) }

    private mutating func write(_ submitted: UInt32, ended: UInt32 = ClientOperation.never)
        -> UInt32
    {
        var operation = ClientOperation()
        operation.submitted = submitted
        operation.ended = ended
        operations.append(operation)
        let number = UInt32(operations.count - 1)
        for node in 0..<2 { table.add(node, 0, CandidateTable.Candidate(operation: number)) }
        return number
    }

    private func verdict(_ number: UInt32, at moment: UInt32, node: Int = 0)
        -> CandidateTable.Verdict
    {
        table.verdict(node, 0, UInt64(number), at: moment, operations)
    }

    @Test
    mutating func `before the first acknowledgement the initial value and every write are legal`() {
        let first = write(1)
        #expect(verdict(first, at: 5) == .legal)
        #expect(verdict(99, at: 5) == .initial)
    }

    @Test mutating func `an acknowledged write makes older values illegal, for whoever asks later`()
    {
        let first = write(1, ended: 2)
        let second = write(3, ended: 6)
        table.mark(first, 0, 0, durable: false)
        table.mark(second, 0, 0, durable: false)
        #expect(verdict(first, at: 5) == .legal)
        #expect(verdict(first, at: 7) == .illegal)
        #expect(verdict(second, at: 7) == .legal)
        #expect(verdict(99, at: 7) == .illegal)
    }

    @Test mutating func `writes that overlap in time may both be the last`() {
        let first = write(1, ended: 4)
        let second = write(3, ended: 6)
        table.mark(first, 0, 0, durable: false)
        table.mark(second, 0, 0, durable: false)
        #expect(verdict(first, at: 9) == .legal)
        #expect(verdict(second, at: 9) == .legal)
    }

    @Test mutating func `a power cut takes what no flush covered`() {
        let first = write(1, ended: 2)
        let second = write(3, ended: 4)
        table.mark(first, 0, 0, durable: false)
        table.flush(0, since: 3, oldestRead: .max, operations)
        table.mark(second, 0, 0, durable: false)
        table.stop(0, losesPower: true, excuses: false, operations)
        #expect(verdict(first, at: 9) == .legal)
        #expect(verdict(second, at: 9) == .legal)
        #expect(verdict(99, at: 9) == .illegal)
    }

    @Test mutating func `the other node's view knows nothing for certain`() {
        let first = write(1, ended: 2)
        table.mark(first, 0, 0, durable: true)
        #expect(verdict(99, at: 9, node: 0) == .illegal)
        #expect(verdict(99, at: 9, node: 1) == .initial)
        table.copy(0, from: 0, to: 1)
        #expect(verdict(99, at: 9, node: 1) == .illegal)
    }
}
