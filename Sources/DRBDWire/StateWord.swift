// A volume's state as one number: drbd-wire sections 6.1 and 6.4.

/// Where the fields of a state word are.
package enum StateMask {
    package static let role: UInt32 = 0x3
    package static let peer: UInt32 = 0xc
    package static let connection: UInt32 = 0x1f0
    package static let disk: UInt32 = 0x1e00
    package static let peerDisk: UInt32 = 0x1_e000
    package static let suspended: UInt32 = 1 << 17
    package static let pausedByDependency: UInt32 = 1 << 18
    package static let pausedByPeer: UInt32 = 1 << 19
    package static let pausedByUser: UInt32 = 1 << 20
    package static let suspendedNoData: UInt32 = 1 << 21
    package static let suspendedFencing: UInt32 = 1 << 22

    static let peerShift: UInt32 = 2
    static let connectionShift: UInt32 = 4
    static let diskShift: UInt32 = 9
    static let peerDiskShift: UInt32 = 13
}

/// The state of one volume as its sender sees it.
package struct StateWord: Equatable, Sendable, BitwiseCopyable {
    package var role: Role
    /// The other node's role.
    package var peer: Role
    package var connection: ConnectionState
    package var disk: DiskState
    /// The other node's disk.
    package var peerDisk: DiskState
    /// I/O is suspended by the administrator. A kernel may leave out this and the two other
    /// suspensions in what it sends.
    package var suspended = false
    /// The resync is paused by resync-after.
    package var pausedByDependency = false
    /// The resync is paused by the peer.
    package var pausedByPeer = false
    /// The resync is paused by the administrator.
    package var pausedByUser = false
    /// I/O is suspended because no data is accessible.
    package var suspendedNoData = false
    /// I/O is suspended until the peer is fenced.
    package var suspendedFencing = false

    /// Nothing is suspended, nothing is paused.
    package init(
        role: Role, peer: Role, connection: ConnectionState, disk: DiskState, peerDisk: DiskState
    ) {
        self.role = role
        self.peer = peer
        self.connection = connection
        self.disk = disk
        self.peerDisk = peerDisk
    }

    /// `nil` if a field has a value that does not exist; bits above the fields are ignored.
    package init?(_ word: UInt32) {
        let connection = (word & StateMask.connection) >> StateMask.connectionShift
        let disk = (word & StateMask.disk) >> StateMask.diskShift
        let peerDisk = (word & StateMask.peerDisk) >> StateMask.peerDiskShift
        guard let role = Role(rawValue: UInt8(word & StateMask.role)),
            let peer = Role(rawValue: UInt8((word & StateMask.peer) >> StateMask.peerShift)),
            let connection = ConnectionState(rawValue: UInt8(connection)),
            let disk = DiskState(rawValue: UInt8(disk)),
            let peerDisk = DiskState(rawValue: UInt8(peerDisk))
        else { return nil }
        self.init(role: role, peer: peer, connection: connection, disk: disk, peerDisk: peerDisk)
        suspended = word & StateMask.suspended != 0
        pausedByDependency = word & StateMask.pausedByDependency != 0
        pausedByPeer = word & StateMask.pausedByPeer != 0
        pausedByUser = word & StateMask.pausedByUser != 0
        suspendedNoData = word & StateMask.suspendedNoData != 0
        suspendedFencing = word & StateMask.suspendedFencing != 0
    }

    package var word: UInt32 {
        var word = UInt32(role.rawValue)
        word |= UInt32(peer.rawValue) << StateMask.peerShift
        word |= UInt32(connection.rawValue) << StateMask.connectionShift
        word |= UInt32(disk.rawValue) << StateMask.diskShift
        word |= UInt32(peerDisk.rawValue) << StateMask.peerDiskShift
        word |= suspended ? StateMask.suspended : 0
        word |= pausedByDependency ? StateMask.pausedByDependency : 0
        word |= pausedByPeer ? StateMask.pausedByPeer : 0
        word |= pausedByUser ? StateMask.pausedByUser : 0
        word |= suspendedNoData ? StateMask.suspendedNoData : 0
        word |= suspendedFencing ? StateMask.suspendedFencing : 0
        return word
    }
}

/// A peer's state request as we see it: its role is our `peer`, its disk our `peerDisk`, and so on.
///
/// Fields that a peer cannot ask of us (its suspensions) are dropped.
/// - Returns: `nil` if the request is about a connection state that nobody may ask for.
package func mirrored(mask: UInt32, value: UInt32) -> (mask: UInt32, value: UInt32)? {
    let connection: UInt32
    switch mask & StateMask.connection {
    case 0: connection = 0
    case StateMask.connection:
        let theirs = (value & StateMask.connection) >> StateMask.connectionShift
        guard let wanted = ConnectionState(rawValue: UInt8(theirs)),
            let ours = mirrored(wanted)
        else { return nil }
        connection = UInt32(ours.rawValue) << StateMask.connectionShift
    // Half a field: no value of it would mean anything.
    default: return nil
    }
    return (
        mask & StateMask.connection | swapped(mask),
        connection | swapped(value)
    )
}

/// What we become when the peer becomes `state`; `nil` if that is not for it to ask.
private func mirrored(_ state: ConnectionState) -> ConnectionState? {
    switch state {
    case .standAlone, .wfReportParams, .connected: state
    case .disconnecting: .tearDown
    case .startingSyncS: .startingSyncT
    case .startingSyncT: .startingSyncS
    case .verifyS: .verifyT
    case .unconnected, .timeout, .brokenPipe, .networkFailure, .protocolError, .tearDown,
        .wfConnection, .wfBitMapS, .wfBitMapT, .wfSyncUUID, .syncSource, .syncTarget, .verifyT,
        .pausedSyncS, .pausedSyncT, .ahead, .behind:
        nil
    }
}

/// Everything but the connection, with the two nodes exchanged.
private func swapped(_ word: UInt32) -> UInt32 {
    var result = (word & StateMask.role) << StateMask.peerShift
    result |= (word & StateMask.peer) >> StateMask.peerShift
    let diskDistance = StateMask.peerDiskShift - StateMask.diskShift
    result |= (word & StateMask.disk) << diskDistance
    result |= (word & StateMask.peerDisk) >> diskDistance
    if word & (StateMask.pausedByDependency | StateMask.pausedByUser) != 0 {
        result |= StateMask.pausedByPeer
    }
    return result
}
