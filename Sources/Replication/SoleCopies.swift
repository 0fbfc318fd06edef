import DRBDWire
import Support

/// Writes of a Primary without a disk: what this node holds of them is the only copy, and what the
/// peer's disk lacks of them stands in our activity log and, in time, in our bitmap.
struct SoleCopies: BitwiseCopyable {
    /// Such writes that are not done.
    var count = 0
    /// The super block says that the log counts, as on a Primary, until the pages with their bits
    /// are durable; also when the peer has demoted itself, has its disk again, or is gone.
    var keepsIndicator = false
    /// The bitmap that has to be durable for that.
    var pagesVersion: UInt32?
    /// The super block that says it first.
    var indicatorVersion: UInt32 = 0
}

extension ReplicationEngine {
    var peerHasNoCopy: Bool { state.peerDisk < .inconsistent && state.peer == .primary }

    /// Decided when the packet comes in: the link, and with it what is known of the peer, may be gone
    /// when its turn comes.
    mutating func noteSole(_ id: SlotID) {
        guard diskUsable, state.peerDisk < .inconsistent else { return }
        slots[Int(id)].isSole = true
        sole.count += 1
    }

    mutating func advanceSoleCopies() {
        guard !peerHasNoCopy, sole.count == 0, diskUsable else {
            sole.pagesVersion = nil
            return
        }
        guard let version = sole.pagesVersion else {
            sole.pagesVersion = writeOutBitmap()
            return
        }
        guard meta.bitmapDurable >= version else { return }
        sole.pagesVersion = nil
        sole.keepsIndicator = false
        refreshFlags()
    }
}
