import DRBDWire
import NBD
import Reactor
import Replication
import Support

/// What was asked about the holes of the disk, and by whom.
struct StatusQuery: BitwiseCopyable {
    /// Not in use: `isFree`. In use without a connection: nobody is left to answer to.
    var isFree = true
    var connection = Use.none
    var subject = NBDReply.Subject(cookie: 0, offset: 0)
    var length: UInt64 = 0
    /// The disk that it was about is not in use any more.
    var isStale = false
}

/// Block status: where the backing file has holes (the metadata context base:allocation).
///
/// A hole is claimed only where the local disk is what clients read, now and when the answer leaves.
/// "Allocated" is always a right answer.
struct BlockStatus: ~Copyable {
    /// In one answer; libnbd and qemu ask on from where it ends.
    static let extentLimit = 1024

    /// `nil` before `start`.
    private(set) var answers: Mailbox<HoleFinder.Answer>?
    private(set) var finder: HoleFinder?
    var queries = Table<StatusQuery>(repeating: StatusQuery(), count: HoleFinder.limit)

    mutating func start(_ reactor: inout Reactor) throws(SystemError) {
        let answers = try Mailbox<HoleFinder.Answer>(limit: HoleFinder.limit)
        _ = try reactor.watch(answers)
        self.answers = answers
        finder = HoleFinder(answers: answers)
    }

    /// What is found out of the disk that was in use does not count any more.
    mutating func forgetDisk() {
        for id in 0..<HoleFinder.limit { queries[id].isStale = true }
    }
}

extension Daemon {
    /// Whether holes of the local file are holes of the volume.
    private var holesCount: Bool {
        engine.state.disk == .upToDate && !engine.resyncing && engine.diskUsable
    }

    mutating func startBlockStatus(_ index: Int, _ request: NBDRequest) {
        let subject = NBDReply.Subject(cookie: request.cookie, offset: request.offset)
        guard askForHoles(index, request, subject) else {
            replyStatus(index, subject, [NBDExtent(length: request.length, status: [])])
            return
        }
        uses[index].pending += 1
    }

    private mutating func askForHoles(
        _ index: Int, _ request: NBDRequest, _ subject: NBDReply.Subject
    ) -> Bool {
        guard holesCount, disk.holes >= 0 else { return false }
        var id = 0
        while id < HoleFinder.limit, !blockStatus.queries[id].isFree { id += 1 }
        guard id < HoleFinder.limit else { return false }
        let question = HoleFinder.Question(
            id: id, offset: request.offset, length: request.length,
            alignment: UInt64(limits.minimumBlock),
            extentLimit: request.flags.contains(.reqOne) ? 1 : BlockStatus.extentLimit)
        guard blockStatus.finder?.ask(question, of: disk.holes) == true else { return false }
        blockStatus.queries[id] = StatusQuery(
            isFree: false, connection: UInt8(index), subject: subject, length: request.length)
        return true
    }

    /// The finder has put something into the mailbox.
    mutating func statusFound() {
        for answer in blockStatus.answers?.take() ?? [] {
            let query = blockStatus.queries[answer.id]
            blockStatus.queries[answer.id] = StatusQuery()
            guard query.connection != Use.none else { continue }
            let index = Int(query.connection)
            uses[index].pending -= 1
            guard !uses[index].gone else { continue }
            var extents = [NBDExtent(length: query.length, status: [])]
            if holesCount, !query.isStale, !answer.extents.isEmpty {
                extents = answer.extents.map { extent in
                    NBDExtent(length: extent.length, status: extent.isHole ? [.hole, .zero] : [])
                }
            }
            replyStatus(index, query.subject, extents)
        }
    }

    private mutating func replyStatus(
        _ index: Int, _ subject: NBDReply.Subject, _ extents: [NBDExtent]
    ) {
        let mode = uses[index].mode
        let size = NBDReply.statusSize(mode, extents: extents.count)
        guard hasRoom(index, size) else { return }
        var bytes = reactor.header(index, size: size)
        NBDReply.encodeStatus(
            mode, subject, context: NBDContextRequest.allocationID, extents, into: &bytes)
    }

    /// The connection is closed.
    mutating func forgetStatusQueries(_ index: Int) {
        for id in 0..<HoleFinder.limit where blockStatus.queries[id].connection == UInt8(index) {
            blockStatus.queries[id].connection = Use.none
        }
    }
}
