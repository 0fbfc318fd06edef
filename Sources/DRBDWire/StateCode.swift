// Answers to wanted states: drbd-wire section 6.5.

/// Whether a state may be entered, and if not, why. From 1 on it may.
package enum StateCode: Int32, Equatable, Sendable, CaseIterable {
    case cwSuccess = 3
    case nothingToDo = 2
    case success = 1
    case unknownError = 0
    case twoPrimaries = -1
    case noUpToDateDisk = -2
    case noLocalDisk = -4
    case noRemoteDisk = -5
    case connectedOutdates = -6
    case primaryNotOutdated = -7
    case resyncRunning = -8
    case alreadyStandAlone = -9
    case failedByPeer = -10
    case isDiskless = -11
    case deviceInUse = -12
    case noNetConfiguration = -13
    case noVerifyAlgorithm = -14
    case needConnection = -15
    case lowerThanOutdated = -16
    case notSupported = -17
    /// Not for the user: the requester waits for the next state change and tries again.
    case inTransientState = -18
    case concurrentChange = -19
    case otherVolumePrimary = -20
    case outdateWithoutConnection = -21

    /// What `drbdsetup` prints after `State change failed: (code) `; it prints nothing on success.
    package var text: String {
        switch self {
        case .cwSuccess, .success: "Success"
        case .nothingToDo: "Success: already so"
        case .unknownError: "Unknown error"
        case .twoPrimaries: "Multiple primaries not allowed by config"
        case .noUpToDateDisk: "Need access to UpToDate data"
        case .noLocalDisk: "Can not resync without local disk"
        case .noRemoteDisk: "Can not resync without remote disk"
        case .connectedOutdates: "Refusing to be Outdated while Connected"
        case .primaryNotOutdated: "Refusing to be Primary while peer is not outdated"
        case .resyncRunning: "Can not start OV/resync since it is already active"
        case .alreadyStandAlone: "Can not disconnect a StandAlone device"
        case .failedByPeer: "State change was refused by peer node"
        case .isDiskless: "Device is diskless, the requested operation requires a disk"
        case .deviceInUse: "Device is held open by someone"
        case .noNetConfiguration: "Have no net/connection configuration"
        case .noVerifyAlgorithm: "Need a verify algorithm to start online verify"
        case .needConnection: "Need a connection to start verify or resync"
        case .lowerThanOutdated: "Disk state is lower than outdated"
        case .notSupported: "Peer does not support protocol"
        case .inTransientState: "In transient state, retry after next state change"
        case .concurrentChange: "Concurrent state changes detected and aborted"
        case .otherVolumePrimary: "Other vol primary on peer not allowed by config"
        case .outdateWithoutConnection:
            "Need a connection for a graceful disconnect/outdate peer"
        }
    }
}
