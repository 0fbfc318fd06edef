package import MetaDisk

/// Operations on the four generation UUIDs (reference, wire section 8.2 and 8.3).
extension GenerationUUIDs {
    package static var syncOffset: UInt64 { newBitmapOffset }

    static func withoutRole(_ uuid: UInt64) -> UInt64 { uuid & ~1 }

    static func withRole(_ uuid: UInt64, primary: Bool) -> UInt64 {
        primary ? uuid | 1 : uuid & ~1
    }

    /// A node that writes what its peer lacks starts a new generation.
    mutating func beginGeneration(random: UInt64, primary: Bool) {
        bitmap = current
        current = Self.withRole(random, primary: primary)
    }

    mutating func rotateBitmap(to value: UInt64) {
        if bitmap != 0 {
            history1 = history0
            history0 = bitmap
        }
        bitmap = value
    }

    mutating func clearBitmap() {
        guard bitmap != 0 else { return }
        rotateBitmap(to: 0)
    }

    /// Becoming sync source: the new bitmap UUID is what P_SYNC_UUID carries.
    mutating func beginSource(random: UInt64) -> UInt64 {
        let uuid =
            bitmap == 0 || bitmap == Self.justCreated ? random & ~1 : bitmap &+ Self.syncOffset
        rotateBitmap(to: uuid)
        return uuid
    }

    /// P_SYNC_UUID received: until the end of the resync this is the generation of our data.
    mutating func beginTarget(syncUUID: UInt64, primary: Bool) {
        current = Self.withRole(syncUUID, primary: primary)
        bitmap = 0
    }

    /// A source that crashed does not know whether its target has ended the resync. One that still has
    /// the sync UUID gets its missing blocks (rule 71), one that has our generation every block (80).
    mutating func beginGenerationAfterCrash(random: UInt64, primary: Bool) {
        if bitmap != history0 &+ Self.syncOffset { rotateBitmap(to: bitmap &+ Self.syncOffset) }
        history1 = current
        current = Self.withRole(random, primary: primary)
    }

    /// Every block received: both nodes hold the same four values, bit 0 apart.
    mutating func finishTarget(source: GenerationUUIDs, primary: Bool) {
        bitmap = source.bitmap
        history0 = source.history0
        history1 = source.history1
        rotateBitmap(to: current)
        current = Self.withRole(source.current, primary: primary)
        clearBitmap()
    }
}
