import DRBDWire
import MetaDisk
import Replication
import Support

/// Disks are replaced while the other node has everything, and old ones are put back.
extension World {
    /// Of one node only: somebody has to keep the data.
    func replaceSomeDisk() {
        let node = nodes[Int(profile.seed & 1)]
        let peer = other(node)
        guard director.disksReplaced < 3, node.isAlive, peer.isAlive, director.successor == nil,
            director.isFree(0), director.isFree(1), random.chance(1, in: 6)
        else { return }
        let (mine, theirs) = (node.engine.state, peer.engine.state)
        guard mine.role == .secondary, mine.connection == .connected,
            mine.disk == .upToDate || mine.disk == .diskless,
            theirs.connection == .connected, theirs.disk == .upToDate
        else { return }
        if let drawer = node.drawer {
            guard mayReturn(drawer, of: node, to: peer) else { return }
            renew(node) { putBack($0, drawer) }
        } else if random.chance(1, in: 3) {
            renew(node) { createMetadata($0) }
        } else {
            renew(node) { exchange($0) }
        }
    }

    /// The node stops, something happens to its disk, it starts again.
    func renew(_ node: SimulatedNode, _ body: (SimulatedNode) -> Void) {
        director.disksReplaced += 1
        director.hasOldDisk[Int(node.index)] = false
        checker.mayLose[Int(node.index)] = true
        stop(node, losesPower: random.chance(1, in: 2))
        body(node)
        schedule(.start(node: node.index), in: spread(.milliseconds(400)))
    }

    private func exchange(_ node: SimulatedNode) {
        note(node, "gets a new disk")
        let new = node.shelf ?? SimulatedDisk()
        node.shelf = nil
        new.reset(size: node.disk.size, hasCache: node.disk.hasCache)
        new.activityLog = node.disk.activityLog
        node.drawer = node.disk
        node.disk = new
        createMetadata(node)
    }

    private func putBack(_ node: SimulatedNode, _ old: SimulatedDisk) {
        note(node, "gets its old disk back")
        (node.drawer, node.shelf) = (nil, node.disk)
        node.disk = old
        director.hasOldDisk[Int(node.index)] = true
    }

    /// The kernel, too, cannot tell an old copy under the same generation from a good one; and the
    /// bitmap of the other node records nothing of what was mirrored to the disk that replaced it.
    private func mayReturn(
        _ old: SimulatedDisk, of node: SimulatedNode, to peer: SimulatedNode
    ) -> Bool {
        guard let location = checker.locations[Int(node.index)],
            let place = checker.locations[Int(peer.index)],
            let theirs = stableSuperblock(peer, place)?.uuids
        else { return false }
        // A disk that was taken out by a power cut may be unreadable; then it stays in the drawer.
        let found = old.stable.bytes.with(
            Int(location.superblockOffset), count: Superblock.encodedSize
        ) { try? Superblock(decoding: $0) }
        guard let mine = found?.uuids, mine.bitmap == 0 else { return false }
        let current = mine.current & ~1
        // Not in the middle of a resync: the old disk would look as if it had missed its P_SYNC_UUID
        // (rule 51), and get no more than what this resync still has to do.
        return current != theirs.current & ~1 && theirs.bitmap == 0
    }
}
