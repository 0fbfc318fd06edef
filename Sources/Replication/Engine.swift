package import DRBDWire
package import MetaDisk
package import Support

/// Every decision about one replicated volume: events in, commands out, no I/O, no clock.
///
/// The caller feeds `handle`, `receive`, `metaRead`, `perform` and `tick`, and after each of them
/// performs `output` in order. The parts lie in the extensions of this type, one subject per file:
///
///     client ─▶ Clients ─▶ Writes ─▶ disk, Mirror ─▶ peer        TransferLog: what is not yet stable
///     peer ──▶ Packets ─▶ PeerWrites, Resync*, Handshake, States
///     operator ─▶ Commands, Promotion, Attachment ─▶ MetaWriter ─▶ meta data
package struct ReplicationEngine: ~Copyable {
    package static let clientLimit = 64
    package static let requestLimit = 512
    /// What one client may have in flight; a single larger request goes alone.
    static let clientRequestLimit: UInt16 = 192
    static let clientByteLimit: UInt64 = 16 << 20
    static let clientSlots = 512
    static let peerSlots = 1024
    package static let linkLimit = 6
    /// Requests above this are cut: each segment has its own place, buffer and packet.
    package static let segmentSize: UInt32 = 256 << 10
    static let zeroSegment: UInt32 = 16 << 20
    /// Segments of discards and zeroes under way: a disk that cannot deallocate writes them out, and
    /// the peer's has to be done in time.
    static let zeroingLimit = 16
    static let settleLimit = 8
    static let largePayload: UInt32 = 16384

    /// Always `nil`. With it the compiler lends the engine by its address; without, a call of a
    /// function that does not mutate copies all of it (2 KiB) to the stack first.
    private let lentByAddress: (any Sendable)? = nil

    // MARK: what was set and what time it is
    package var options: Options {
        didSet { pace = Pace(options) }
    }
    private(set) var pace: Pace
    var random: RandomSource
    package var output = Output()
    var now = Instant(nanoseconds: 0)

    // MARK: state and its record
    package internal(set) var state = StateWord(
        role: .secondary, peer: .unknown, connection: .standAlone, disk: .diskless,
        peerDisk: .unknown)
    package internal(set) var transitions: [Transition] = []
    package internal(set) var results: [CommandResult] = []
    package internal(set) var counters = Counters()
    /// Current size of the volume in sectors; 0 while nothing is known.
    package internal(set) var size: UInt64 = 0

    // MARK: requests
    var slots = Table<Slot>(repeating: Slot(), count: clientSlots + peerSlots)
    var freeClientSlots = FreeList(count: clientSlots)
    var freePeerSlots = FreeList(count: peerSlots)
    var pool = BufferPool()
    var book = OrderBook(capacity: clientSlots + peerSlots)
    var ready = Queue<SlotID>(capacity: clientSlots + peerSlots)
    var requests = Table<Request>(repeating: Request(), count: requestLimit)
    var freeRequests = FreeList(count: requestLimit)
    var clients = Table<Client>(repeating: Client(), count: clientLimit)
    var pausedClients = 0
    var firstResumed = 0
    /// The client whose read waits for room that others leave to it.
    var waitingReader: UInt8?
    /// Large buffers of clients' reads, until their answers have left.
    var readBuffers = 0
    var transfer = TransferLog()
    /// Writes that wait until writing is allowed again, then for their extents in the log.
    var held = Ring(capacity: clientSlots + peerSlots)
    var logQueue = Ring(capacity: clientSlots + peerSlots)
    /// Writes whose extents are in the transaction that is being made or written.
    var logWaiting = Ring(capacity: clientSlots + peerSlots)
    /// Requests that are done but for the new generation, which is not durable yet.
    var gated = Ring(capacity: requestLimit)
    var flushing = Ring(capacity: requestLimit)
    /// Operations that are at the disk now.
    var diskOperations = 0
    /// Writes of clients that are at the disk now.
    var writesAtDisk = 0
    /// Slots of clients' discards and zeroes.
    var zeroing = 0
    var flushOperations = 0

    // MARK: the disk and its meta data
    var attachment = Attachment()
    package internal(set) var superblock = Superblock.blank
    package internal(set) var location: MetaLocation?
    /// Sectors that the disk can offer, by its own size and by that of its meta data.
    var capacity: UInt64 = 0
    package internal(set) var log = ActivityLog(slotCount: 1, extentCount: 1)
    package internal(set) var bitmap = DirtyBitmap(capacity: 0, bitCount: 0)
    var meta = MetaWriter()
    /// The crash mark: this disk was Primary when it last went down.
    var crashedPrimary = false
    /// It was connected when it last went down, and has not been since.
    var crashedConnected = false
    var sole = SoleCopies()
    var resumption = Resumption()
    var watch = DiskWatch()
    /// Errors of this disk that on-io-error pass_on passed on.
    var passedOn: UInt32 = 0
    /// Where the disk is: a number that changes with every attach, so that old answers do not count.
    var diskInUse = false

    // MARK: the peer
    var link = PeerLink()
    var peer = PeerView()
    var receiver = EpochReceiver()
    var resync = Resync()
    var order = PendingOrders()
    package internal(set) var rules = RuleRecord()

    package init(options: Options, seed: UInt64) {
        self.options = options
        pace = Pace(options)
        random = RandomSource(seed: seed)
    }

    // MARK: entry

    /// Applies `event`; `output` then says what is to be done.
    package mutating func handle(_ event: Event, now: Instant) {
        self.now = now
        switch event {
        case .request(let client, let request): start(request, client)
        case .payload(let slot): payloadArrived(slot)
        case .clientClosed(let client): clientClosed(client)
        case .disk(let slot, let errno): diskDone(slot, errno)
        case .sent(let slot): sent(slot)
        case .replied(let request): replied(request)
        case .flushed(let purpose, let index, let errno): flushed(purpose, index, errno)
        case .metaWritten(_, let errno): metaWritten(errno)
        case .metaReadFailed(_, let errno): attachmentReadFailed(errno)
        case .linkOpened(let link): linkOpened(link)
        case .linkAccepted(let link): linkAccepted(link)
        case .linkClosed(let link): linkClosed(link)
        case .linkDrained(let link): linkDrained(link)
        case .resumptionConfirmed(let confirmed): resumptionConfirmed(confirmed)
        }
    }

    /// To be called after a batch of events: what waited for a free place, for the log or for a
    /// procedure's next step goes on.
    package mutating func settle(now: Instant) {
        self.now = now
        if ready.count > 0 { drainReady() }
        // What one procedure did may be what another waits for, and no event need follow.
        for _ in 0..<Self.settleLimit {
            let (rested, records) = (isResting, transitions.count)
            let (stage, current) = (resync.stage, order.current)
            advance()
            if pausedClients > 0, !isResuming { resumeClients() }
            resumeData()
            let again = ready.count > 0
            if again { drainReady() }
            // Every change of state leaves a record.
            guard !again, transitions.count == records else { continue }
            if rested && isResting || stage == resync.stage && current == order.current { break }
        }
    }

    /// No procedure is under way; requests may be.
    private var isResting: Bool {
        !attachment.isUnderWay && resync.stage == .idle && resync.fullStage == 0
            && order.current == nil
    }

    /// Starts what `book.leave` released.
    mutating func drainReady() {
        var index = 0
        while index < ready.count {
            begin(ready[index])
            index += 1
        }
        ready.removeAll()
    }

    /// Moves every procedure that can go on; each looks at durable versions and counts alone. A step
    /// can be what another one, or the same, waits for: so until nothing moves.
    private mutating func advance() {
        // Nearly always nothing is under way, and nothing begins.
        if isResting {
            advanceOnce()
            if isResting { return }
        }
        var moved = true
        var rounds = 0
        while moved {
            let before = (attachment.stage, resync.stage, resync.fullStage, order.current?.stage)
            advanceOnce()
            moved =
                before.0 != attachment.stage || before.1 != resync.stage
                || before.2 != resync.fullStage || before.3 != order.current?.stage
            rounds += 1
            invariant(rounds < 64, "procedures that never rest, resync \(resync.stage)")
        }
    }

    /// What has nothing to do is not called: this runs at every turn.
    private mutating func advanceOnce() {
        if attachment.isUnderWay { advanceAttachment() }
        if order.current != nil { advanceOrders() }
        if link.leavingVersion != nil { advanceLeaving() }
        if resync.stage != .idle || resync.fullStage != 0 { advanceResync() }
        if held.count > 0 { releaseHeld() }
        // Extents become idle in more places than one; none of them may forget who waits.
        if logQueue.count > 0 { retryLogQueue() }
        if gated.count > 0 { releaseGated() }
        if flushing.count > 0 { advanceFlushes() }
        if sole.keepsIndicator { advanceSoleCopies() }
        wantStability()
        pumpMeta()
        if state.disk == .failed { advanceClosing() }
    }

    /// Takes what happened since the last call.
    package mutating func takeTransitions() -> [Transition] {
        defer { transitions.removeAll(keepingCapacity: true) }
        return transitions
    }

    package mutating func takeResults() -> [CommandResult] {
        defer { results.removeAll(keepingCapacity: true) }
        return results
    }
}

/// What /proc/drbd counts; sectors where not said otherwise.
package struct Counters: Equatable, Sendable {
    package var sent: UInt64 = 0
    package var received: UInt64 = 0
    package var diskWritten: UInt64 = 0
    package var diskRead: UInt64 = 0
    package var bitmapWrites: UInt64 = 0
    /// Resync blocks of 4 KiB that were transferred since the start, by direction.
    package var resyncSent: UInt64 = 0
    package var resyncReceived: UInt64 = 0
}

/// A request of a client, until its reply has left.
struct Request: BitwiseCopyable {
    var cookie: UInt64 = 0
    var offset: UInt64 = 0
    /// Of the payload; 0 for what has none.
    var length: UInt32 = 0
    var operation = ClientRequest.Operation.flush
    var client: UInt8 = 0
    var isPart = false
    var error: UInt8 = 0
    /// Segments that are not done, one more while the payload is still arriving.
    var segments: UInt16 = 0
    var head: UInt16 = none
    var tail: UInt16 = none
    /// The peer lacks a part of it: the new generation must be durable before the reply.
    var missed = false
    /// For a flush: the epoch that has to be stable, and whether the local disk is done.
    var epoch: UInt32 = 0
    var waitsForPeer = false
    var flushed = false
    /// A flush that the disk has not answered; answered without it, and that answer gone.
    var isAtDisk = false
    var isDisowned = false
    var isReplied = false
}

/// An NBD connection: its request that is still arriving, or that waits for a free place.
struct Client: BitwiseCopyable {
    var offset: UInt64 = 0
    var left: UInt64 = 0
    var request: UInt16 = none
    var slot: SlotID = none
    /// Requests whose reply has not left, and the bytes they are about.
    var users: UInt16 = 0
    var bytes: UInt64 = 0
    var durable = false
    var keepsAllocation = false
    var zeroing = false
    var large = false
    var paused = false
    var dead = false
    var waiting: ClientRequest?
}
