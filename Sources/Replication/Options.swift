package import DRBDWire
package import MetaDisk
import Support

/// What becomes of a disk that reports an error (reference, admin 2.3; reliability, section 1.1).
package enum OnIOError: BitwiseCopyable, Sendable {
    /// It is given up.
    case detach
    /// It is given up, and the handler local-io-error is told.
    case callHandler
    /// An error of data is the application's; the disk stays. Meta data, flushes and disk-timeout are
    /// nothing that can be passed on.
    case passOn
}

/// What the administrator set, as the engine needs it. Units as in reference, wire section 17.
package struct Options: Equatable, Sendable {
    package var replicationProtocol = ReplicationProtocol.c
    package var timeout: Duration = .seconds(6)
    package var pingInterval: Duration = .seconds(10)
    package var pingTimeout: Duration = .milliseconds(500)
    package var connectInterval: Duration = .seconds(10)
    /// 0: never give up on a slow peer.
    package var koCount = 7
    /// 4 KiB pages; bounds what is received and not yet written, and resync requests in flight.
    package var maximumBuffers = 2048
    /// Writes between two barriers.
    package var maximumEpochSize = 2048
    /// Activity log slots in use; `nil`: as many as the format holds and the device has extents.
    package var logExtents: Int?
    /// KiB/s; `nil`: no limit of ours.
    package var resyncRateLimit: Int?
    /// KiB/s, what the peer is told (kernel default 250).
    package var announcedResyncRate: UInt32 = 250
    package var announcedPlanAhead: UInt32 = 20
    package var announcedDelayTarget: UInt32 = 10
    package var announcedFillTarget: UInt32 = 100
    package var announcedMaximumRate: UInt32 = 102_400
    /// Whether bitmaps are sent run-length coded.
    package var compressesBitmap = true
    /// A client's FLUSH waits until the peer has everything on stable storage; `nil`: for C only.
    package var flushWaitsForPeer: Bool?
    /// Which of two connections opened at the same moment is kept: ours, if our address is lower.
    package var keepsOwnConnection = false
    /// An operation that the disk has not answered for this long, or at most twice as long, fails it;
    /// `nil`: it may take any time.
    package var diskTimeout: Duration?
    package var onIOError = OnIOError.detach
    /// How long a demotion may take.
    package var demotionDeadline: Duration = .seconds(60)
    /// How long another node's answer to a state request is waited for.
    package var requestDeadline: Duration = .seconds(20)

    package init() {}

    /// What a connection was agreed upon with stays until the next one is made.
    package mutating func keepConnection(of old: Options) {
        let (logExtents, diskTimeout, onIOError) = (logExtents, diskTimeout, onIOError)
        self = old
        (self.logExtents, self.diskTimeout) = (logExtents, diskTimeout)
        self.onIOError = onIOError
    }

    package var waitsForPeer: Bool { flushWaitsForPeer ?? (replicationProtocol == .c) }
}

/// What every turn adds to an `Instant`, derived from the options when they are set.
struct Pace: BitwiseCopyable {
    let epochAge = Interval(PeerLink.epochAge)
    let idleTime = Interval(PeerLink.idleTime)
    let pingInterval: Interval
    /// How old the oldest write or barrier without its answer may be; `nil`: any age.
    let slowPeer: Interval?

    init(_ options: Options) {
        pingInterval = Interval(options.pingInterval)
        slowPeer =
            options.koCount > 0
            ? Interval(options.timeout * options.koCount + PeerLink.epochAge) : nil
    }
}

/// What an operator orders. The answer comes as a `CommandResult` with the same id.
package enum AdministratorCommand: Equatable, Sendable {
    /// The backing disk is open and claimed, and so is what holds the meta data, if that is not the
    /// disk itself; `deviceSize` in bytes, `blockSize` what the disk's operations are multiples of.
    case attach(deviceSize: UInt64, blockSize: Int = 512, metadata: ExternalMetadata? = nil)
    case detach(force: Bool)
    case connect(discardMyData: Bool)
    case disconnect(force: Bool)
    case primary(force: Bool)
    case secondary
    case invalidate
    /// The data here are old: only force, or the peer, makes them good again.
    case outdate
    /// Primary again, if the peer agrees or is gone and the node confirms it; `connects`: a connection
    /// was ordered before.
    case resume(connects: Bool)
}

/// A device of its own that holds the meta data.
package struct ExternalMetadata: Equatable, Sendable {
    /// All of it, or one of the slots that volumes share.
    package let placement: MetaLocation.Placement
    /// Bytes.
    package let deviceSize: UInt64

    package init(placement: MetaLocation.Placement, deviceSize: UInt64) {
        invariant(placement != .internalData, "external meta data placed inside the data")
        self.placement = placement
        self.deviceSize = deviceSize
    }
}

/// How a command ended.
package struct CommandResult: Equatable, Sendable {
    package var id: UInt32
    /// Positive: done. Otherwise a state code of reference, wire section 6.5, or a failure number
    /// of reference, admin section 4.4 (100 and above, negated).
    package var code: Int32
    /// One line, empty when done.
    package var text: String
}

/// One change of state or one notable event, with its evidence: log, events and replay come from it.
package struct Transition: Equatable, Sendable {
    package var cause: String
    package var old: StateWord
    package var new: StateWord
    /// `warning` when redundancy is lost, `error` when data or service is.
    package enum Weight: Sendable { case information, warning, error }
    package var weight: Weight = .information
}
