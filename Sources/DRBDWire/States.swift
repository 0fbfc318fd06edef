// The values in a state word: drbd-wire section 6.1. Their order is significant in every rule.

/// Who may write.
@frozen @usableFromInline
package enum Role: UInt8, Comparable, CaseIterable, Sendable, BitwiseCopyable {
    case unknown, primary, secondary

    /// As `/proc/drbd` and the logs print it.
    package var name: String {
        switch self {
        case .unknown: "Unknown"
        case .primary: "Primary"
        case .secondary: "Secondary"
        }
    }

    @inlinable package static func == (one: Role, other: Role) -> Bool {
        one.rawValue == other.rawValue
    }

    @inlinable package static func < (one: Role, other: Role) -> Bool {
        one.rawValue < other.rawValue
    }
}

/// What is known of a disk's data.
@frozen @usableFromInline
package enum DiskState: UInt8, Comparable, CaseIterable, Sendable, BitwiseCopyable {
    case diskless, attaching, failed, negotiating, inconsistent, outdated
    /// Only ever a peer's: nobody can tell.
    case unknown
    case consistent, upToDate

    /// As `/proc/drbd` and the logs print it.
    package var name: String {
        switch self {
        case .diskless: "Diskless"
        case .attaching: "Attaching"
        case .failed: "Failed"
        case .negotiating: "Negotiating"
        case .inconsistent: "Inconsistent"
        case .outdated: "Outdated"
        case .unknown: "DUnknown"
        case .consistent: "Consistent"
        case .upToDate: "UpToDate"
        }
    }

    @inlinable package static func == (one: DiskState, other: DiskState) -> Bool {
        one.rawValue == other.rawValue
    }

    @inlinable package static func < (one: DiskState, other: DiskState) -> Bool {
        one.rawValue < other.rawValue
    }
}

/// A connection below `connected`; from there on one volume's replication.
@frozen @usableFromInline
package enum ConnectionState: UInt8, Comparable, CaseIterable, Sendable, BitwiseCopyable {
    case standAlone, disconnecting, unconnected, timeout, brokenPipe, networkFailure, protocolError,
        tearDown, wfConnection, wfReportParams
    case connected, startingSyncS, startingSyncT, wfBitMapS, wfBitMapT, wfSyncUUID, syncSource,
        syncTarget, verifyS, verifyT, pausedSyncS, pausedSyncT, ahead, behind

    /// As `/proc/drbd` and the logs print it.
    package var name: String {
        switch self {
        case .standAlone: "StandAlone"
        case .disconnecting: "Disconnecting"
        case .unconnected: "Unconnected"
        case .timeout: "Timeout"
        case .brokenPipe: "BrokenPipe"
        case .networkFailure: "NetworkFailure"
        case .protocolError: "ProtocolError"
        case .tearDown: "TearDown"
        case .wfConnection: "WFConnection"
        case .wfReportParams: "WFReportParams"
        case .connected: "Connected"
        case .startingSyncS: "StartingSyncS"
        case .startingSyncT: "StartingSyncT"
        case .wfBitMapS: "WFBitMapS"
        case .wfBitMapT: "WFBitMapT"
        case .wfSyncUUID: "WFSyncUUID"
        case .syncSource: "SyncSource"
        case .syncTarget: "SyncTarget"
        case .verifyS: "VerifyS"
        case .verifyT: "VerifyT"
        case .pausedSyncS: "PausedSyncS"
        case .pausedSyncT: "PausedSyncT"
        case .ahead: "Ahead"
        case .behind: "Behind"
        }
    }

    @inlinable package static func == (one: ConnectionState, other: ConnectionState) -> Bool {
        one.rawValue == other.rawValue
    }

    @inlinable package static func < (one: ConnectionState, other: ConnectionState) -> Bool {
        one.rawValue < other.rawValue
    }
}
