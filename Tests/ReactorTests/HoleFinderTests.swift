import CShims
import Glibc
import Reactor
import Support
import Testing

/// A file with data at some places; removed in the end.
private final class SparseFile {
    let descriptor: Int32
    private let path: String

    init(size: Int, data: [(offset: Int, length: Int)]) throws {
        path = "/var/tmp/repd-holes.\(getpid()).\(UInt64.random(in: 0...UInt64.max))"
        descriptor = unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0)
        try #require(ftruncate(descriptor, off_t(size)) == 0)
        for part in data {
            let bytes = [UInt8](repeating: 0x61, count: part.length)
            let count = unsafe pwrite(descriptor, bytes, bytes.count, off_t(part.offset))
            try #require(count == part.length)
        }
        try #require(fsync(descriptor) == 0)
    }

    deinit {
        close(descriptor)
        _ = unsafe unlink(path)
    }
}

private typealias Extent = HoleFinder.Extent

@Suite struct HoleFinderTests {
    /// Asks one question and waits for its answer.
    private func extents(
        _ file: SparseFile, _ offset: UInt64, _ length: UInt64, limit: Int = 100
    ) throws -> [Extent] {
        var reactor = try makeReactor()
        let answers = try Mailbox<HoleFinder.Answer>(limit: HoleFinder.limit)
        let mailbox = try reactor.watch(answers)
        let question = HoleFinder.Question(
            id: 7, offset: offset, length: length, alignment: 512, extentLimit: limit)
        let asked = HoleFinder(answers: answers).ask(question, of: file.descriptor)
        #expect(asked)
        _ = try reactor.turns(until: .posted(mailbox: mailbox))
        let found = answers.take()
        #expect(found.map(\.id) == [7])
        return try #require(found.first).extents
    }

    @Test func `holes lie between data`() throws {
        let file = try SparseFile(
            size: 1 << 20, data: [(0, 4096), (65536, 8192), ((1 << 20) - 4096, 4096)])
        #expect(
            try extents(file, 0, 1 << 20) == [
                Extent(length: 4096, isHole: false), Extent(length: 61440, isHole: true),
                Extent(length: 8192, isHole: false), Extent(length: 970_752, isHole: true),
                Extent(length: 4096, isHole: false),
            ])
    }

    @Test func `the answer begins and ends where the question does`() throws {
        let file = try SparseFile(size: 1 << 20, data: [(0, 131_072)])
        #expect(try extents(file, 512, 1024) == [Extent(length: 1024, isHole: false)])
        #expect(
            try extents(file, 131_072 - 512, 1024) == [
                Extent(length: 512, isHole: false), Extent(length: 512, isHole: true),
            ])
        #expect(try extents(file, 262_144, 512) == [Extent(length: 512, isHole: true)])
    }

    @Test func `a file of holes is one hole`() throws {
        let file = try SparseFile(size: 1 << 30, data: [])
        #expect(try extents(file, 0, 1 << 30) == [Extent(length: 1 << 30, isHole: true)])
    }

    @Test func `an answer has not more extents than asked for`() throws {
        let parts = (0..<20).map { (offset: $0 * 65536, length: 4096) }
        let file = try SparseFile(size: 20 * 65536, data: parts)
        #expect(try extents(file, 0, 20 * 65536).count == 40)
        let first = try extents(file, 0, 20 * 65536, limit: 3)
        #expect(first.map(\.isHole) == [false, true, false])
        #expect(try extents(file, 0, 20 * 65536, limit: 1).map(\.length) == [4096])
    }

    @Test func `behind the end of a file nothing is known`() throws {
        let file = try SparseFile(size: 65536, data: [])
        #expect(try extents(file, 0, 65536 + 512) == [])
        #expect(try extents(file, 65536, 512) == [])
    }

    @Test func `the descriptor may be closed before the answer`() throws {
        let answers = try Mailbox<HoleFinder.Answer>(limit: HoleFinder.limit)
        var reactor = try makeReactor()
        let mailbox = try reactor.watch(answers)
        let finder = HoleFinder(answers: answers)
        var accepted = 0
        for id in 0..<10 {
            let file = try SparseFile(size: 4096, data: [(0, 4096)])
            let question = HoleFinder.Question(
                id: id, offset: 0, length: 4096, alignment: 512, extentLimit: 1)
            if finder.ask(question, of: file.descriptor) { accepted += 1 }
        }
        #expect(accepted == 10)
        var found: [Int] = []
        while found.count < 10 {
            _ = try reactor.turns(until: .posted(mailbox: mailbox))
            for answer in answers.take() {
                #expect(answer.extents == [Extent(length: 4096, isHole: false)])
                found.append(answer.id)
            }
        }
        #expect(found == Array(0..<10))
    }

    @Test func `a file that can be punched zeroes fast`() throws {
        let file = try SparseFile(size: 65536, data: [(0, 65536)])
        let punches = shim_can_punch(file.descriptor, 65536)
        // To ask has changed nothing.
        var status = stat()
        #expect(unsafe fstat(file.descriptor, &status) == 0 && status.st_size == 65536)
        #expect(try extents(file, 0, 65536) == [Extent(length: 65536, isHole: false)])
        // And at a place where there is something, it does what it promises.
        try #require(punches == 1)
        #expect(shim_can_punch(file.descriptor, 4096) == 1)
        #expect(
            try extents(file, 0, 65536) == [
                Extent(length: 4096, isHole: false), Extent(length: 4096, isHole: true),
                Extent(length: 57344, isHole: false),
            ])
    }
}
