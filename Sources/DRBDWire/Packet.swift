// The packets of DRBD 8.4: drbd-wire section 3, for protocol version 101 with the features 0xf.

/// A packet's type; the raw value is its number on the wire.
package enum Packet: UInt16, Equatable, Sendable, CaseIterable {
    case data = 0x00
    case dataReply = 0x01
    case resyncDataReply = 0x02
    case barrier = 0x03
    case bitmap = 0x04
    case becomeSyncTarget = 0x05
    case becomeSyncSource = 0x06
    case unplugRemote = 0x07
    case dataRequest = 0x08
    case resyncDataRequest = 0x09
    case syncParameters = 0x0a
    case protocolParameters = 0x0b
    case uuids = 0x0c
    case sizes = 0x0d
    case state = 0x0e
    case syncUUID = 0x0f
    case authenticationChallenge = 0x10
    case authenticationResponse = 0x11
    case stateChangeRequest = 0x12
    case ping = 0x13
    case pingAck = 0x14
    case receiveAck = 0x15
    case writeAck = 0x16
    case resyncWriteAck = 0x17
    case superseded = 0x18
    case negativeAck = 0x19
    case negativeDataReply = 0x1a
    case negativeResyncReply = 0x1b
    case barrierAck = 0x1c
    case stateChangeReply = 0x1d
    case verifyRequest = 0x1e
    case verifyReply = 0x1f
    case verifyResult = 0x20
    case checksumResyncRequest = 0x21
    case resyncIsInSync = 0x22
    case syncParameters89 = 0x23
    case compressedBitmap = 0x24
    case delayProbe = 0x27
    case outOfSync = 0x28
    case resyncCancel = 0x29
    case connectionStateChangeRequest = 0x2a
    case connectionStateChangeReply = 0x2b
    case retryWrite = 0x2c
    case protocolUpdate = 0x2d
    case trim = 0x31
    case thinResyncRequest = 0x32
    case resyncDeallocated = 0x33
    case writeSame = 0x34
    case zeroes = 0x36
    case initialMeta = 0xfff1
    case initialData = 0xfff2
    case connectionFeatures = 0xfffe
}

extension Packet {
    /// The packet comes on the meta socket, otherwise on data.
    ///
    /// `delayProbe` may come on either (false here); it is ignored on both.
    package var isOnMeta: Bool {
        switch self {
        case .ping, .pingAck, .receiveAck, .writeAck, .resyncWriteAck, .superseded, .negativeAck,
            .negativeDataReply, .negativeResyncReply, .barrierAck, .stateChangeReply,
            .verifyResult, .resyncIsInSync, .resyncCancel, .connectionStateChangeReply,
            .retryWrite, .initialMeta:
            true
        case .data, .dataReply, .resyncDataReply, .barrier, .bitmap, .becomeSyncTarget,
            .becomeSyncSource, .unplugRemote, .dataRequest, .resyncDataRequest, .syncParameters,
            .protocolParameters, .uuids, .sizes, .state, .syncUUID, .authenticationChallenge,
            .authenticationResponse, .stateChangeRequest, .verifyRequest, .verifyReply,
            .checksumResyncRequest, .syncParameters89, .compressedBitmap, .delayProbe, .outOfSync,
            .connectionStateChangeRequest, .protocolUpdate, .trim, .thinResyncRequest,
            .resyncDeallocated, .writeSame, .zeroes, .initialData, .connectionFeatures:
            false
        }
    }

    /// The most data bytes that one packet carries.
    package static let maximumPayload = 1 << 20
    /// The most bytes after a long header in a bitmap packet.
    package static let maximumBitmap = 4080
    /// The longest digest of any algorithm.
    package static let maximumDigest = 64

    /// How many bytes after the header must be there before the packet can be decoded; the rest is
    /// data.
    ///
    /// - Parameters:
    ///   - length: the header's `length`.
    ///   - digest: the length of the digest between the fixed part and the data of `data`,
    ///     `dataReply` and `resyncDataReply`: 0 unless the *sender* has an integrity algorithm.
    /// - Returns: `nil` if no such packet has this length.
    package func inlineLength(of length: Int, digest: Int = 0) -> Int? {
        switch self {
        case .data: inlineLength(of: length, digest: digest, atLeast: 0)
        case .dataReply, .resyncDataReply: inlineLength(of: length, digest: digest, atLeast: 512)
        case .bitmap: length.isMultiple(of: 8) ? length.within(0...Self.maximumBitmap) : nil
        case .compressedBitmap: length.within(2...Self.maximumBitmap)
        case .sizes: length == 32 || length == 56 ? length : nil
        case .protocolParameters: length.within(24...88)
        case .protocolUpdate: length.within(25...88)
        case .authenticationChallenge: length.within(64...128)
        case .authenticationResponse: length.within(1...Self.maximumDigest)
        case .verifyReply, .checksumResyncRequest:
            length.within(25...24 + Self.maximumDigest)
        case .unplugRemote, .ping, .pingAck, .initialMeta, .initialData: length.within(0...0)
        case .state, .stateChangeReply, .connectionStateChangeReply: length.within(4...4)
        case .barrier, .barrierAck, .syncUUID, .stateChangeRequest, .connectionStateChangeRequest,
            .delayProbe:
            length.within(8...8)
        case .outOfSync, .resyncDeallocated: length.within(16...16)
        case .dataRequest, .resyncDataRequest, .thinResyncRequest, .verifyRequest, .receiveAck,
            .writeAck, .resyncWriteAck, .superseded, .negativeAck, .negativeDataReply,
            .negativeResyncReply, .verifyResult, .resyncIsInSync, .resyncCancel, .retryWrite:
            length.within(24...24)
        case .trim, .zeroes: length.within(28...28)
        case .uuids: length.within(48...48)
        case .connectionFeatures: length.within(72...72)
        case .syncParameters89: length.within(148...148)
        // Refused by every peer of this protocol version, or not part of it.
        case .becomeSyncTarget, .becomeSyncSource, .syncParameters, .writeSame: nil
        }
    }

    private func inlineLength(of length: Int, digest: Int, atLeast least: Int) -> Int? {
        let inline = 24 + digest
        guard length >= inline else { return nil }
        let payload = length - inline
        guard payload.isMultiple(of: 512), payload >= least, payload <= Self.maximumPayload
        else { return nil }
        return inline
    }
}

extension Int {
    /// Itself if it is in `range`.
    fileprivate func within(_ range: ClosedRange<Int>) -> Int? { range.contains(self) ? self : nil }
}
