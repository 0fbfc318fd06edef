import DRBDWire
import MetaDisk
import Support

/// Features, parameters, sizes, UUIDs (reference, wire section 5); the states are in `StateExchange`.
extension ReplicationEngine {
    static let offeredFeatures: FeatureFlags = [.trim, .writeSame, .writeZeroes, .repd]

    mutating func sendFeatures() {
        let at = output.bytes.count
        var header = output.bytes.append(ShortHeader.encodedSize)
        ShortHeader(packet: .connectionFeatures, length: UInt16(Features.encodedSize))
            .encode(into: &header)
        var body = output.bytes.append(Features.encodedSize)
        Features(minimum: 101, flags: Self.offeredFeatures, maximum: 101).encode(into: &body)
        let size = ShortHeader.encodedSize + Features.encodedSize
        output.commands.append(.send(link: link.data, at: UInt32(at), length: UInt32(size)))
    }

    mutating func receiveFeatures(_ bytes: RawSpan) -> Int {
        // The peer may be quicker than our own view of the second connection.
        guard link.stage == .features, bytes.byteCount >= ShortHeader.encodedSize else { return 0 }
        guard let header = ShortHeader(decoding: bytes),
            header.packet == Packet.connectionFeatures.rawValue,
            Int(header.length) == Features.encodedSize
        else {
            connectionLost(.protocolError, "the peer's first packet is not P_CONNECTION_FEATURES")
            return bytes.byteCount
        }
        let size = ShortHeader.encodedSize + Features.encodedSize
        guard bytes.byteCount >= size else { return 0 }
        let theirs = Features(decoding: bytes.extracting(ShortHeader.encodedSize..<size))
        let maximum = theirs.maximum == 0 ? theirs.minimum : theirs.maximum
        guard theirs.minimum <= 101, maximum >= 101 else {
            standAlone(
                "incompatible: the peer speaks DRBD protocol \(theirs.minimum) to \(maximum), "
                    + "this repd 101")
            return size
        }
        peer.features = theirs.flags.intersection(Self.offeredFeatures)
        peer.isRepd = theirs.flags.contains(.repd)
        link.handshakeDeadline = .never
        link.stage = .parameters
        link.lastMeta = now
        link.lastData = now
        change("features agreed: protocol 101, \(peer.isRepd ? "repd" : "DRBD") peer") {
            $0.connection = .wfReportParams
        }
        sendParameters()
        return size
    }

    private mutating func sendParameters() {
        let parameters = ProtocolParameters(
            protocolNumber: options.replicationProtocol.rawValue, afterSplitBrain0: 0,
            afterSplitBrain1: 0, afterSplitBrain2: 0,
            connectionFlags: peer.discardMyData ? ProtocolParameters.discardMyData : 0,
            twoPrimaries: 0, integrityAlgorithm: "")
        output.packet(.protocolParameters, link: link.data, length: parameters.encodedSize)
        var bytes = output.bytes.append(parameters.encodedSize)
        parameters.encode(into: &bytes)
        sendSyncParameters()
        sendSizes()
        sendUUIDs()
        sendState()
    }

    private mutating func sendSyncParameters() {
        output.packet(.syncParameters89, link: link.data, length: SyncParameters.encodedSize)
        let parameters = SyncParameters(
            resyncRate: options.announcedResyncRate, planAhead: options.announcedPlanAhead,
            delayTarget: options.announcedDelayTarget, fillTarget: options.announcedFillTarget,
            maxRate: options.announcedMaximumRate, verifyAlgorithm: "", checksumAlgorithm: "")
        var bytes = output.bytes.append(SyncParameters.encodedSize)
        parameters.encode(into: &bytes)
    }

    mutating func sendSizes() {
        let own = diskInUse && state.disk >= .negotiating ? capacity : 0
        var sizes = Sizes(
            diskSize: own, userSize: 0, currentSize: size, maximumRequest: 1 << 20, flags: 0)
        if peer.features.contains(.writeSame) {
            sizes.hasQueueLimits = true
            sizes.physicalBlockSize = 4096
            sizes.logicalBlockSize = 512
            sizes.minimumIO = 4096
            sizes.discards = true
        }
        output.packet(.sizes, link: link.data, length: sizes.encodedSize)
        var bytes = output.bytes.append(sizes.encodedSize)
        sizes.encode(into: &bytes)
    }

    /// Only from a disk that is attached: without it the peer would compare nothing with something.
    mutating func sendUUIDs() {
        guard diskInUse, state.disk >= .negotiating else { return }
        var flags: UUIDFlags = []
        if peer.discardMyData { flags.insert(.discardMyData) }
        if crashedPrimary { flags.insert(.crashedPrimary) }
        if state.disk == .negotiating, attachment.found <= .inconsistent {
            flags.insert(.inconsistent)
        }
        peer.reportedBits = UInt64(bitmap.setCount)
        let uuids = superblock.uuids
        output.packet(.uuids, link: link.data, length: UUIDs.encodedSize)
        let packet = UUIDs(
            current: uuids.current, bitmap: uuids.bitmap, history0: uuids.history0,
            history1: uuids.history1, bitCount: peer.reportedBits, flags: flags)
        var bytes = output.bytes.append(UUIDs.encodedSize)
        packet.encode(into: &bytes)
    }

    mutating func sendState() {
        guard link.stage == .parameters || link.stage == .running else { return }
        var word = state
        // What the kernel sends first is what it was before the exchange began.
        if link.stage == .parameters, state.connection == .wfReportParams {
            word.connection = .wfConnection
        }
        output.packet(.state, link: link.data, length: StatePacket.encodedSize)
        var bytes = output.bytes.append(StatePacket.encodedSize)
        StatePacket(word: word.word).encode(into: &bytes)
    }

    // MARK: what the peer says

    mutating func receiveProtocol(_ parameters: ProtocolParameters?, update: Bool) {
        guard let parameters, let theirs = parameters.replicationProtocol else {
            malformed(false, "P_PROTOCOL with a protocol that does not exist")
            return
        }
        guard parameters.integrityAlgorithm.isEmpty else {
            standAlone(
                "incompatible data-integrity-alg settings: the peer uses "
                    + "\(parameters.integrityAlgorithm), which repd does not do yet")
            return
        }
        guard parameters.twoPrimaries == 0 else {
            standAlone("incompatible allow-two-primaries settings: repd allows one Primary")
            return
        }
        if update {
            // What was sent under the old one has to be told apart from what follows.
            if transfer.open.count > 0 { closeEpoch() }
            options.replicationProtocol = theirs
            record("the peer changed the protocol to \(theirs)")
            return
        }
        guard theirs == options.replicationProtocol else {
            standAlone(
                "incompatible protocol settings: \(options.replicationProtocol) here, "
                    + "\(theirs) at the peer")
            return
        }
        let policies = [
            parameters.afterSplitBrain0, parameters.afterSplitBrain1, parameters.afterSplitBrain2,
        ]
        guard policies.allSatisfy({ $0 == 0 }) else {
            standAlone(
                "incompatible after-sb settings: repd knows only disconnect, the default")
            return
        }
        peer.parametersReceived = true
    }

    /// Rates are the other node's own affair; algorithms have to be the same.
    mutating func receiveSyncParameters(_ parameters: SyncParameters) {
        guard parameters.verifyAlgorithm.isEmpty, parameters.checksumAlgorithm.isEmpty else {
            standAlone(
                "Different verify-alg or csums-alg settings: the peer has "
                    + "\"\(parameters.verifyAlgorithm)\" and \"\(parameters.checksumAlgorithm)\", "
                    + "which repd does not do yet")
            return
        }
    }

    /// Wire 5.8: the size in use is what both disks offer.
    mutating func receiveSizes(_ sizes: Sizes) {
        peer.diskSize = sizes.diskSize
        peer.userSize = sizes.userSize
        // As the kernel records it; written with the next change.
        superblock.peerMaximumRequest = min(sizes.maximumRequest, 1 << 20)
        // A disk that is being attached is compared when it is there.
        guard attachment.stage == .none else { return }
        guard diskInUse, state.disk >= .negotiating else {
            if size == 0 || state.role != .primary { size = sizes.currentSize }
            return
        }
        guard link.stage == .parameters || state.peerDisk < .inconsistent || sizes.diskSize == 0
        else {
            // An established pair: growing and shrinking online is not done here yet.
            if sizes.currentSize != size, sizes.currentSize != 0 {
                standAlone(
                    "the peer changed its size to \(sizes.currentSize) sectors, here \(size)")
            }
            return
        }
        agreeOnSize()
    }

    /// The smaller of what both disks offer, once both are known.
    mutating func agreeOnSize() {
        guard location != nil, peer.diskSize != 0 else { return }
        var new = min(capacity, peer.diskSize)
        if peer.userSize != 0 { new = min(new, peer.userSize) }
        guard new != size else { return }
        if new < size, state.disk >= .outdated {
            standAlone(
                "the peer's disk is too small: it offers \(new) sectors, \(size) are in use here")
            return
        }
        record("size changes from \(size) to \(new) sectors, as both disks offer")
        size = new
        bitmap.resize(bitCount: Int((new + 7) / 8))
        superblock.lastAgreedSize = new
        touchSuperblock()
    }

    mutating func receiveUUIDs(_ uuids: UUIDs) {
        peer.uuids = uuids
        peer.uuidsReceived = true
        if uuids.flags.contains(.skipInitialSync), state.connection == .connected, diskInUse,
            superblock.uuids.current & ~1 == GenerationUUIDs.justCreated
        {
            skipInitialSync(uuids)
        }
    }

    /// The peer's operator vouches that both new disks are equal (wire 5.6).
    private mutating func skipInitialSync(_ uuids: UUIDs) {
        bitmap.clear(0, through: bitmap.bitCount - 1)
        superblock.uuids.current = GenerationUUIDs.withRole(
            uuids.current, primary: state.role == .primary)
        superblock.uuids.bitmap = 0
        touchSuperblock()
        _ = writeOutBitmap()
        change("accepted new current UUID, skipping the initial sync") {
            $0.disk = .upToDate
            $0.peerDisk = .upToDate
        }
    }
}
