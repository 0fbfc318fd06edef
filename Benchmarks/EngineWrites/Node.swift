import MetaDisk
import NBD
import Replication
import Support

/// What was sent and how much of it was received, without payloads.
struct Stream: ~Copyable {
    var bytes = ByteArena(capacity: 4 << 20)
    private var taken = 0

    var left: Int { bytes.count - taken }

    var rest: RawSpan {
        @_lifetime(borrow self) get { bytes.bytes(at: taken, count: left) }
    }

    mutating func skip(_ count: Int) {
        taken += count
        guard left == 0 else { return }
        bytes.removeAll()
        taken = 0
    }
}

/// What `Node` and `Reactor` do with an engine's commands, without the kernel and without payloads:
/// disk, sockets and clients are queues.
struct Node: ~Copyable {
    static let noLink = UInt8.max

    struct MetaRead: BitwiseCopyable {
        var id: UInt16
        var length: UInt32
        var offset: UInt64
    }

    struct Flush: BitwiseCopyable {
        var purpose: FlushPurpose
        var index: UInt16
    }

    var engine: ReplicationEngine
    var now = Instant(nanoseconds: 1_000_000_000)
    var meta: MetaArea

    // What is under way; ended by the caller, turn by turn.
    var disk = Queue<SlotID>(capacity: 4096)
    var sent = Queue<SlotID>(capacity: 4096)
    var replied = Queue<UInt16>(capacity: 4096)
    var flushes = Queue<Flush>(capacity: 64)
    var metaWrites = Queue<UInt16>(capacity: 64)
    var metaReads = Queue<MetaRead>(capacity: 64)
    var connects = Queue<UInt8>(capacity: 64)
    var closes = Queue<UInt8>(capacity: 64)

    // Numbers of the two links, and what was sent on them without the payloads.
    var dataLink = noLink
    var metaLink = noLink
    var dataOut = Stream()
    var metaOut = Stream()
    var dataPaused = false

    // The client, and what it was answered.
    var receiving: SlotID = 0
    var arriving: SlotID?
    var answered = 0
    var replies = ByteArena(capacity: 1 << 20)

    init(options: Options, seed: UInt64, meta: MetaArea) {
        self.meta = meta
        engine = ReplicationEngine(options: options, seed: seed)
    }

    mutating func order(_ command: AdministratorCommand) {
        engine.perform(command, id: 1, now: now)
        perform()
    }

    mutating func tell(_ event: Event) {
        engine.handle(event, now: now)
        perform()
    }

    /// A client's write comes in, with its payload.
    mutating func request(_ request: NBDRequest) {
        tell(
            .request(
                client: 0,
                ClientRequest(
                    .write, offset: request.offset, length: request.length,
                    cookie: request.cookie,
                    options: request.flags.contains(.fua) ? .durable : [])))
        tell(.payload(slot: receiving))
    }

    /// The end of a turn.
    mutating func settle() {
        if now >= engine.nextDeadline {
            engine.tick(now: now)
            perform()
        }
        engine.settle(now: now)
        perform()
    }

    mutating func perform() {
        var index = 0
        while index < engine.output.commands.count {
            perform(engine.output.commands[index])
            index += 1
        }
        engine.output.removeAll()
    }

    @inline(__always)
    private mutating func perform(_ command: Command) {
        switch command {
        case .write(let slot, _, _, _, _), .read(let slot, _, _, _), .zero(let slot, _, _, _):
            disk.append(slot)
        case .send(let link, let at, let length): send(link, Int(at), Int(length))
        case .sendPayload(_, let slot, _, _), .clientPayload(_, let slot, _, _): sent.append(slot)
        case .reply(_, let error, let request, _, let cookie, let offset, _):
            reply(request, NBDReply.Subject(cookie: cookie, offset: offset), error)
        case .receive(_, let slot, _, _, _): receiving = slot
        case .receiveFromPeer(_, let slot, _, _, _): arriving = slot
        case .pauseLink: dataPaused = true
        case .resumeLink: dataPaused = false
        case .flush(let purpose, let index):
            flushes.append(Flush(purpose: purpose, index: index))
        case .metaWrite(let id, let at, let length, let offset, _):
            Self.store(engine.output, Int(at), Int(length), &meta, offset)
            metaWrites.append(id)
        case .metaRead(let id, let length, let offset):
            metaReads.append(MetaRead(id: id, length: length, offset: offset))
        case .connect(let link): connects.append(link)
        case .closeLink(let link): closes.append(link)
        case .recordRole, .eraseRole, .callHandler: break
        case .skip, .skipFromPeer, .pauseClient, .resumeClient, .closeClient, .freeClient,
            .reportDrained, .closeDisk, .confirmResumption:
            // At a depth far below every limit, and with an end only to the process.
            invariantFailed("\(command) in a benchmark")
        }
    }

    private mutating func send(_ link: UInt8, _ at: Int, _ length: Int) {
        if link == dataLink {
            Self.copy(engine.output, at, length, &dataOut.bytes)
        } else {
            Self.copy(engine.output, at, length, &metaOut.bytes)
        }
    }

    private mutating func reply(
        _ request: UInt16, _ subject: NBDReply.Subject, _ error: UInt8
    ) {
        invariant(error == 0, "a request was answered with error \(error)")
        let size = NBDReply.doneSize(.simple)
        if replies.count + size > replies.capacity { replies.removeAll() }
        var bytes = replies.append(size)
        NBDReply.encodeDone(.simple, subject, into: &bytes)
        replied.append(request)
        answered += 1
    }

    private static func copy(
        _ output: borrowing Output, _ at: Int, _ length: Int, _ target: inout ByteArena
    ) {
        var bytes = target.append(length)
        let source = output.bytes.bytes(at: at, count: length)
        // Both are bounds-checked and as long as each other.
        unsafe source.withUnsafeBytes { source in
            unsafe bytes.withUnsafeMutableBytes { unsafe $0.copyMemory(from: source) }
        }
    }

    private static func store(
        _ output: borrowing Output, _ at: Int, _ length: Int, _ meta: inout MetaArea,
        _ offset: UInt64
    ) {
        meta.write(output.bytes.bytes(at: at, count: length), at: offset)
    }

    // MARK: the ends of operations

    /// Ends up to `count` operations of each kind.
    mutating func complete(_ count: Int) {
        let written = min(count, disk.count)
        for index in 0..<written { tell(.disk(slot: disk[index], errno: 0)) }
        disk.removeFirst(written)
        let left = min(count, sent.count)
        for index in 0..<left { tell(.sent(slot: sent[index])) }
        sent.removeFirst(left)
        let answers = min(count, replied.count)
        for index in 0..<answers { tell(.replied(request: replied[index])) }
        replied.removeFirst(answers)
        completeRare()
    }

    private mutating func completeRare() {
        while flushes.count > 0 {
            let flush = flushes[0]
            flushes.removeFirst(1)
            tell(.flushed(flush.purpose, index: flush.index, errno: 0))
        }
        while metaWrites.count > 0 {
            let id = metaWrites[0]
            metaWrites.removeFirst(1)
            tell(.metaWritten(id: id, errno: 0))
        }
        while metaReads.count > 0 {
            let read = metaReads[0]
            metaReads.removeFirst(1)
            Self.feed(&engine, meta, read, now)
            perform()
        }
    }

    private static func feed(
        _ engine: inout ReplicationEngine, _ meta: MetaArea, _ read: MetaRead, _ now: Instant
    ) {
        engine.metaRead(
            id: read.id, bytes: meta.bytes(at: read.offset, count: Int(read.length)), now: now)
    }
}
