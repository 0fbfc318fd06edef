import DRBDWire
import Support

/// What we know of the other node, as of this connection.
struct PeerView: BitwiseCopyable {
    var features: FeatureFlags = []
    /// The private feature bit: overlapping writes keep their order there, and a barrier is
    /// acknowledged after its flush.
    var isRepd = false
    var uuids = UUIDs(current: 0, bitmap: 0, history0: 0, history1: 0, bitCount: 0, flags: [])
    var uuidsReceived = false
    /// Sectors its disk offers; 0: none, or not told.
    var diskSize: UInt64 = 0
    /// Sectors its configuration asks for; 0: all.
    var userSize: UInt64 = 0
    /// It attached and was told our UUIDs; what follows is our state.
    var knowsUUIDs = false
    /// The bits that we reported to it in our last P_UUIDS.
    var reportedBits: UInt64 = 0
    /// Our changes are to go (connect --discard-my-data), until the next handshake.
    var discardMyData = false
    /// The peer was forced to Primary while both disks were Inconsistent: compare once more.
    var considerResync = false
    var parametersReceived = false
}

/// The two TCP connections to the peer and how far they are (reference, wire sections 1 and 5).
///
///     off ──connect──▶ connecting ──both sockets──▶ features ──▶ parameters ──P_STATE──▶ running
///      ▲                   ▲  └────────────────────── lost ───────────────────────────────┘
///      └─ disconnected ────┴── closing: sockets and writes of the old connection end
struct PeerLink: ~Copyable {
    enum Stage: UInt8 { case off, connecting, features, parameters, running, closing }
    enum Use: UInt8 {
        case free, connectingData, connectingMeta, accepted, data, meta, closing
    }

    static let none = UInt8.max
    /// Writes of one connection wait at most this long for an epoch to be closed.
    static let epochAge = Duration.seconds(1)
    static let idleTime = Duration.milliseconds(100)
    /// How long the end of one socket waits for what the other may still bring.
    static let lingerTime = Duration.milliseconds(300)

    var stage = Stage.off
    var uses = Table<Use>(repeating: .free, count: ReplicationEngine.linkLimit)
    var deadlines = Table<Instant>(repeating: .never, count: ReplicationEngine.linkLimit)
    /// None of `deadlines` is earlier.
    private(set) var nextDeadline = Instant.never
    var data = none
    var meta = none
    /// Whether we opened `data`: only then can the attempts have crossed.
    var openedData = false
    /// We accepted the meta connection (wire 1.3).
    var resolvesConflicts = false
    /// Changes with every connection: answers and operations of an old one do not count.
    var serial: UInt32 = 1
    var retryAt = Instant.never
    var handshakeDeadline = Instant.never
    /// After `closing`: try again, or stay off.
    var reconnects = false
    var sequence: UInt32 = 0

    var lastMeta = Instant(nanoseconds: 0)
    var lastData = Instant(nanoseconds: 0)
    var lastDataSent = Instant(nanoseconds: 0)
    var pingSent: Instant?
    var pingDeadline = Instant.never
    /// How many P_PING were sent and answered: a round trip is over when they are equal.
    var pings: UInt32 = 0
    var pingAnswers: UInt32 = 0
    /// The peer's disconnect is answered when this version of the super block is durable.
    var leavingVersion: UInt32?
    var leavingByConnection = false
    /// A P_DATA_REQUEST is under way that proves this epoch stable.
    var probe: UInt32?
    var filter = BlockFilter()

    mutating func nextSequence() -> UInt32 {
        sequence &+= 1
        return sequence
    }

    mutating func limit(_ id: UInt8, to moment: Instant) {
        deadlines[Int(id)] = moment
        nextDeadline = min(nextDeadline, moment)
    }

    mutating func findNextDeadline() {
        nextDeadline = .never
        for index in 0..<deadlines.count { nextDeadline = min(nextDeadline, deadlines[index]) }
    }

    mutating func dataSent(_ now: Instant) { lastDataSent = now }

    mutating func begin(_ now: Instant) {
        serial &+= 1
        sequence = 0
        (lastMeta, lastData, lastDataSent) = (now, now, now)
        pingSent = nil
        pingDeadline = .never
        (pings, pingAnswers) = (0, 0)
        probe = nil
        leavingVersion = nil
        filter.clear()
    }
}

/// Which blocks the open epoch may have written: no false negatives.
struct BlockFilter: ~Copyable {
    private var words = Table<UInt64>(repeating: 0, count: 256)
    private var isEmpty = true

    private func place(_ block: Int) -> (Int, UInt64) {
        let mixed = UInt64(block) &* 0x9e37_79b9_7f4a_7c15
        return (Int(mixed >> 56), 1 << (mixed >> 50 & 63))
    }

    mutating func add(_ first: Int, through last: Int) {
        isEmpty = false
        guard last - first < 1024 else {
            for index in 0..<words.count { words[index] = .max }
            return
        }
        for block in first...last {
            let (word, bit) = place(block)
            words[word] |= bit
        }
    }

    func mayContain(_ first: Int, through last: Int) -> Bool {
        guard !isEmpty else { return false }
        guard last - first < 1024 else { return true }
        for block in first...last {
            let (word, bit) = place(block)
            if words[word] & bit != 0 { return true }
        }
        return false
    }

    mutating func clear() {
        guard !isEmpty else { return }
        isEmpty = true
        for index in 0..<words.count { words[index] = 0 }
    }
}
