package import DRBDWire

/// Everything that there is to know about a resource at one moment; all outputs are made of it.
package struct StatusSnapshot: Codable, Equatable, Sendable {
    package var resource: String
    package var node: String
    package var peer: String
    /// By number.
    package var volumes: [VolumeStatus]
    package var clients: [ClientStatus]
    /// Reasons for the present state that no state word tells, such as a split brain; latest last.
    package var messages: [String]
    /// Where the export is.
    package var nbdURI: String?

    package init(
        resource: String, node: String, peer: String, volumes: [VolumeStatus] = [],
        clients: [ClientStatus] = [], messages: [String] = [], nbdURI: String? = nil
    ) {
        self.resource = resource
        self.node = node
        self.peer = peer
        self.volumes = volumes
        self.clients = clients
        self.messages = messages
        self.nbdURI = nbdURI
    }
}

/// A program that uses an export.
package struct ClientStatus: Codable, Equatable, Sendable {
    /// Of a client over TCP `host:port`, of one on this machine `pid N`.
    package var name: String
    package var volume: Int
    /// How long it has been past its handshake.
    package var connectedSeconds: UInt64
    /// Requests that it waits for.
    package var inFlight: Int

    package init(name: String, volume: Int, connectedSeconds: UInt64, inFlight: Int) {
        self.name = name
        self.volume = volume
        self.connectedSeconds = connectedSeconds
        self.inFlight = inFlight
    }
}

package struct VolumeStatus: Codable, Equatable, Sendable {
    package var number: Int
    package var minor: Int
    /// The device node of the configuration, such as `/dev/drbd0`.
    package var device: String
    /// The backing disk; `nil` while diskless.
    package var backingDisk: String?
    package var role: Role
    package var peerRole: Role
    package var connection: ConnectionState
    package var disk: DiskState
    package var peerDisk: DiskState
    /// `A`, `B` or `C`; `nil` without network configuration.
    package var protocolLetter: String?
    package var flags = StatusFlags()
    package var counters = StatusCounters()
    /// KiB.
    package var outOfSync: UInt64 = 0
    package var writeOrdering = WriteOrdering.flush
    /// Sectors of 512 bytes.
    package var size: UInt64 = 0
    /// Current, bitmap and the two of the history; empty while diskless.
    package var uuids: [UInt64] = []
    /// `nil` when nothing is copied or verified.
    package var progress: SyncProgress?

    package init(
        number: Int, minor: Int, device: String, role: Role = .secondary,
        peerRole: Role = .unknown, connection: ConnectionState = .standAlone,
        disk: DiskState = .diskless, peerDisk: DiskState = .unknown
    ) {
        self.number = number
        self.minor = minor
        self.device = device
        self.role = role
        self.peerRole = peerRole
        self.connection = connection
        self.disk = disk
        self.peerDisk = peerDisk
    }

    /// Nothing but the number: no disk, no network, not in use.
    package var isUnconfigured: Bool {
        connection == .standAlone && disk == .diskless && role == .secondary
    }
}

/// The six flags of `/proc/drbd` (reference, section 7.1).
package struct StatusFlags: Codable, Equatable, Sendable {
    /// Why a volume looked congested: shown as `d`, `b`, `n`, `a`.
    package enum Congestion: String, Codable, CaseIterable, Sendable {
        /// Blocked within: by the peer or a resync.
        case driver = "d"
        case backingDisk = "b"
        case network = "n"
        /// The backing disk and the network.
        case both = "a"
    }

    package var suspendedByUser = false
    /// For lack of any disk with the data.
    package var suspendedNoData = false
    package var suspendedFencing = false
    /// A resync waits for that of another volume.
    package var pausedByDependency = false
    package var pausedByPeer = false
    package var pausedByUser = false
    package var congestion: Congestion?
    /// The activity log is not written: everything is out of sync as it is.
    package var activityLogSuspended = false

    package init() {}

    /// Requests wait.
    package var suspended: Bool { suspendedByUser || suspendedNoData || suspendedFencing }

    /// As in `/proc/drbd`.
    package var text: String {
        (suspended ? "s" : "r") + (pausedByDependency ? "a" : "-") + (pausedByPeer ? "p" : "-")
            + (pausedByUser ? "u" : "-") + (congestion?.rawValue ?? "-")
            + (activityLogSuspended ? "s" : "-")
    }
}

/// What `/proc/drbd` counts, by the names it gives them.
package struct StatusCounters: Codable, Equatable, Sendable {
    /// `ns`: sectors sent to the peer, by applications and resync.
    package var sent: UInt64 = 0
    /// `nr`: sectors received from the peer.
    package var received: UInt64 = 0
    /// `dw`: sectors written to the backing disk.
    package var written: UInt64 = 0
    /// `dr`: sectors read from the backing disk.
    package var read: UInt64 = 0
    /// `al`: writes to the activity log.
    package var activityLogWrites: UInt64 = 0
    /// `bm`: writes to the bitmap on disk.
    package var bitmapWrites: UInt64 = 0
    /// `lo`: requests open at the backing disk.
    package var localPending: UInt64 = 0
    /// `pe`: requests sent to the peer whose answer is awaited.
    package var peerPending: UInt64 = 0
    /// `ua`: requests of the peer that have not been answered.
    package var unacknowledged: UInt64 = 0
    /// `ap`: requests of applications that are not done.
    package var applicationPending: UInt64 = 0
    /// `ep`: epochs in flight.
    package var epochs: UInt64 = 1

    package init() {}
}

/// How the order of writes is kept on the backing disk.
package enum WriteOrdering: String, Codable, CaseIterable, Sendable {
    case none, drain, flush, barrier

    /// As in `/proc/drbd`.
    package var letter: String { String(rawValue.prefix(1)) }
}

/// How far a resync or verify is (reference, section 7.2). Blocks are of 4 KiB.
package struct SyncProgress: Codable, Equatable, Sendable {
    /// How much was left some time ago.
    package struct Mark: Codable, Equatable, Sendable {
        /// Whole seconds, pauses not counted.
        package var age: UInt64
        package var left: UInt64

        package init(age: UInt64, left: UInt64) {
            self.age = age
            self.left = left
        }
    }

    /// How many marks are kept, one every three seconds or more.
    package static let markCount = 8

    /// Blocks out of sync when it began; of a verify all that are to be compared.
    package var total: UInt64
    /// Blocks still to be copied, failed ones left out; of a verify those not compared yet.
    package var left: UInt64
    /// Blocks that could not be copied.
    package var failed: UInt64 = 0
    /// Whole seconds since the start.
    package var elapsedSeconds: UInt64
    /// How many of them it was paused.
    package var pausedSeconds: UInt64 = 0
    /// Oldest first, at most `markCount`; fewer begin with the mark of the start.
    package var marks: [Mark]
    /// The rate that the controller asks for, in KiB/s; shown where it decides.
    package var wantedRate: UInt64

    package init(
        total: UInt64, left: UInt64, elapsedSeconds: UInt64, marks: [Mark], wantedRate: UInt64 = 0
    ) {
        self.total = total
        self.left = left
        self.elapsedSeconds = elapsedSeconds
        self.marks = marks
        self.wantedRate = wantedRate
    }
}
