/// The options of a resource with their defaults (reference, section 2). Numbers are in the units of
/// the configuration: `timeout` in tenths of a second, `resync-rate` in KiB/s, and so on.

/// Reads typed values from options that have been checked.
struct OptionReader {
    let list: OptionList

    func number(_ name: String, _ value: Int) -> Int { list[name]?.number ?? value }
    func boolean(_ name: String, _ value: Bool) -> Bool {
        list[name].map { $0.text == "yes" } ?? value
    }
    func word(_ name: String) -> String { list[name]?.text ?? "" }
    func choice<Value: RawRepresentable<String>>(_ name: String, _ value: Value) -> Value {
        list[name].flatMap { Value(rawValue: $0.text) } ?? value
    }
    var names: Set<String> { Set(list.entries.map(\.name)) }
}

/// When a write counts as done.
package enum ReplicationProtocol: String, Sendable, CaseIterable { case A, B, C }

package enum AfterSplitBrain0: Equatable, Sendable {
    case disconnect, discardYoungerPrimary, discardOlderPrimary, discardZeroChanges
    case discardLeastChanges, discardLocal, discardRemote
    /// The host whose changes are thrown away.
    case discardNode(String)

    init(text: String) {
        switch text {
        case "discard-younger-primary": self = .discardYoungerPrimary
        case "discard-older-primary": self = .discardOlderPrimary
        case "discard-zero-changes": self = .discardZeroChanges
        case "discard-least-changes": self = .discardLeastChanges
        case "discard-local": self = .discardLocal
        case "discard-remote": self = .discardRemote
        case _ where text.hasPrefix("discard-node-"):
            self = .discardNode(String(text.dropFirst("discard-node-".count)))
        default: self = .disconnect
        }
    }
}

package enum AfterSplitBrain1: String, Sendable {
    case disconnect, consensus
    case discardSecondary = "discard-secondary"
    case callPrimaryLost = "call-pri-lost-after-sb"
    case violently = "violently-as0p"
}

package enum AfterSplitBrain2: String, Sendable {
    case disconnect
    case callPrimaryLost = "call-pri-lost-after-sb"
    case violently = "violently-as0p"
}

package enum RoleConflict: String, Sendable {
    case disconnect, violently
    case callPrimaryLost = "call-pri-lost"
}

package enum OnCongestion: String, Sendable {
    case block, disconnect
    case pullAhead = "pull-ahead"
}

package enum OnIOError: String, Sendable {
    case passOn = "pass_on"
    case callLocalIOError = "call-local-io-error"
    case detach
}

package enum Fencing: String, Sendable {
    case dontCare = "dont-care"
    case resourceOnly = "resource-only"
    case resourceAndStonith = "resource-and-stonith"
}

package enum OnNoDataAccessible: String, Sendable {
    case ioError = "io-error"
    case suspendIO = "suspend-io"
}

/// `net` (reference, section 2.4).
package struct NetOptions: Equatable, Sendable {
    /// The options that the file sets, by name.
    package let set: Set<String>
    package let `protocol`: ReplicationProtocol
    /// Tenths of a second.
    package let timeout: Int
    /// Seconds.
    package let pingInterval: Int
    /// Tenths of a second.
    package let pingTimeout: Int
    /// Seconds.
    package let connectInterval: Int
    package let koCount: Int
    /// Pages.
    package let maximumBuffers: Int
    package let maximumEpochSize: Int
    package let unplugWatermark: Int
    /// Bytes; 0 leaves it to the system.
    package let sendBufferSize: Int
    package let receiveBufferSize: Int
    package let allowTwoPrimaries: Bool
    /// Algorithms are empty when not configured.
    package let peerAuthenticationAlgorithm: String
    package let sharedSecret: String
    package let integrityAlgorithm: String
    package let verifyAlgorithm: String
    package let checksumAlgorithm: String
    package let checksumsAfterCrashOnly: Bool
    package let afterSplitBrain0: AfterSplitBrain0
    package let afterSplitBrain1: AfterSplitBrain1
    package let afterSplitBrain2: AfterSplitBrain2
    package let alwaysAfterSplitBrain: Bool
    package let roleConflict: RoleConflict
    package let tcpCork: Bool
    package let onCongestion: OnCongestion
    /// Sectors.
    package let congestionFill: Int
    package let congestionExtents: Int
    package let useRLE: Bool
    /// Tenths of a second; 0 is `pingTimeout`.
    package let socketCheckTimeout: Int

    init(_ list: OptionList) {
        let options = OptionReader(list: list)
        set = options.names
        `protocol` = options.choice("protocol", .C)
        timeout = options.number("timeout", 60)
        pingInterval = options.number("ping-int", 10)
        pingTimeout = options.number("ping-timeout", 5)
        connectInterval = options.number("connect-int", 10)
        koCount = options.number("ko-count", 7)
        maximumBuffers = options.number("max-buffers", 2048)
        maximumEpochSize = options.number("max-epoch-size", 2048)
        unplugWatermark = options.number("unplug-watermark", 128)
        sendBufferSize = options.number("sndbuf-size", 0)
        receiveBufferSize = options.number("rcvbuf-size", 0)
        allowTwoPrimaries = options.boolean("allow-two-primaries", false)
        peerAuthenticationAlgorithm = options.word("cram-hmac-alg")
        sharedSecret = options.word("shared-secret")
        integrityAlgorithm = options.word("data-integrity-alg")
        verifyAlgorithm = options.word("verify-alg")
        checksumAlgorithm = options.word("csums-alg")
        checksumsAfterCrashOnly = options.boolean("csums-after-crash-only", false)
        afterSplitBrain0 = AfterSplitBrain0(text: options.word("after-sb-0pri"))
        afterSplitBrain1 = options.choice("after-sb-1pri", .disconnect)
        afterSplitBrain2 = options.choice("after-sb-2pri", .disconnect)
        alwaysAfterSplitBrain = options.boolean("always-asbp", false)
        roleConflict = options.choice("rr-conflict", .disconnect)
        tcpCork = options.boolean("tcp-cork", true)
        onCongestion = options.choice("on-congestion", .block)
        congestionFill = options.number("congestion-fill", 0)
        congestionExtents = options.number("congestion-extents", 1237)
        useRLE = options.boolean("use-rle", true)
        socketCheckTimeout = options.number("socket-check-timeout", 0)
    }
}

/// `disk` of one volume (reference, section 2.3).
package struct DiskOptions: Equatable, Sendable {
    /// The options that the file sets, by name.
    package let set: Set<String>
    package let onIOError: OnIOError
    package let fencing: Fencing
    /// Sectors; 0 is all there is.
    package let size: Int
    package let maximumVectors: Int
    package let barrier: Bool
    package let flushes: Bool
    package let drain: Bool
    package let metaDataFlushes: Bool
    /// KiB/s; `nil` when the file does not say (250 then).
    package let resyncRate: Int?
    package let resyncAfter: String?
    /// `nil` when the file does not say: as many as the format holds.
    package let activityLogExtents: Int?
    package let activityLogUpdates: Bool
    package let discardZeroesIfAligned: Bool
    package let disableWriteSame: Bool
    /// Tenths of a second; 0 switches the controller off.
    package let planAhead: Int
    /// Tenths of a second.
    package let delayTarget: Int
    /// Sectors.
    package let fillTarget: Int
    /// KiB/s; `nil` when the file does not say (102,400 then).
    package let maximumRate: Int?
    /// KiB/s; 0 never throttles.
    package let minimumRate: Int
    /// Tenths of a second; 0 is for ever.
    package let diskTimeout: Int
    package let readBalancing: String
    /// Bytes; 0 is off.
    package let resyncDiscardGranularity: Int

    init(_ list: OptionList) {
        let options = OptionReader(list: list)
        set = options.names
        onIOError = options.choice("on-io-error", .detach)
        fencing = options.choice("fencing", .dontCare)
        size = options.number("size", 0)
        maximumVectors = options.number("max-bio-bvecs", 0)
        barrier = options.boolean("disk-barrier", false)
        flushes = options.boolean("disk-flushes", true)
        drain = options.boolean("disk-drain", true)
        metaDataFlushes = options.boolean("md-flushes", true)
        resyncRate = list["resync-rate"]?.number
        resyncAfter = list["resync-after"]?.text
        activityLogExtents = list["al-extents"]?.number
        activityLogUpdates = options.boolean("al-updates", true)
        discardZeroesIfAligned = options.boolean("discard-zeroes-if-aligned", true)
        disableWriteSame = options.boolean("disable-write-same", false)
        planAhead = options.number("c-plan-ahead", 20)
        delayTarget = options.number("c-delay-target", 10)
        fillTarget = options.number("c-fill-target", 100)
        maximumRate = list["c-max-rate"]?.number
        minimumRate = options.number("c-min-rate", 250)
        diskTimeout = options.number("disk-timeout", 0)
        readBalancing = list["read-balancing"]?.text ?? "prefer-local"
        resyncDiscardGranularity = options.number("rs-discard-granularity", 0)
    }
}

/// `startup` (reference, section 2.2); all in seconds, 0 waits for ever.
package struct StartupOptions: Equatable, Sendable {
    package let set: Set<String>
    package let timeout: Int
    package let degradedTimeout: Int
    package let outdatedTimeout: Int
    package let waitAfterSplitBrain: Bool
    /// Host names, or `both`.
    package let becomePrimaryOn: [String]

    init(_ list: OptionList) {
        let options = OptionReader(list: list)
        set = options.names
        timeout = options.number("wfc-timeout", 0)
        degradedTimeout = options.number("degr-wfc-timeout", 0)
        outdatedTimeout = options.number("outdated-wfc-timeout", 0)
        waitAfterSplitBrain = options.boolean("wait-after-sb", false)
        becomePrimaryOn = list.all("become-primary-on").map(\.text)
    }
}

/// `options` (reference, section 2.5).
package struct ResourceOptions: Equatable, Sendable {
    package let set: Set<String>
    /// A hexadecimal word; empty is every processor.
    package let cpuMask: String
    package let onNoDataAccessible: OnNoDataAccessible

    init(_ list: OptionList) {
        let options = OptionReader(list: list)
        set = options.names
        cpuMask = options.word("cpu-mask")
        onNoDataAccessible = options.choice("on-no-data-accessible", .ioError)
    }
}

/// The `repd` section.
package struct RepdOptions: Equatable, Sendable {
    package let set: Set<String>
    /// Each `HOST:PORT`, IPv6 hosts in brackets.
    package let nbdListen: [String]
    /// `nil` when the file does not say: the daemon decides.
    package let flushWaitsForPeer: Bool?
    /// Seconds after the death of an engine in which its restart may be Primary again.
    package let resumeTimeout: Int
    /// How many deaths in a minute such a restart may follow.
    package let resumeLimit: Int
    package let kernelDevice: Bool?

    init(_ list: OptionList) {
        let options = OptionReader(list: list)
        set = options.names
        nbdListen = list.all("nbd-listen").map(\.text)
        flushWaitsForPeer = list["flush-waits-for-peer"].map { $0.text == "yes" }
        resumeTimeout = options.number("resume-timeout", 10)
        resumeLimit = options.number("resume-limit", 5)
        kernelDevice = list["kernel-device"].map { $0.text == "yes" }
    }
}
