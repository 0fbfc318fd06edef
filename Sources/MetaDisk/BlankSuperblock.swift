extension Superblock {
    /// In memory before a disk is attached; never written.
    package static let blank = Superblock(
        lastAgreedSize: 0,
        uuids: GenerationUUIDs(current: 0, bitmap: 0, history0: 0, history1: 0), deviceUUID: 0,
        flags: [], isUnclean: false, mdSizeSectors: 0, alOffset: 0, logExtents: 0, bmOffset: 0,
        bytesPerBit: UInt32(BitmapLayout.bytesPerBit), peerMaximumRequest: 0, stripes: 1,
        stripeBlocks: 8)
}
