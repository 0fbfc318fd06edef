import DRBDWire
import MetaDisk
import Replication
import Support

/// What holds for every resync, and for every answer of a node whose disk has failed.
extension World {
    private static let sources: [ConnectionState] = [
        .startingSyncS, .wfBitMapS, .syncSource, .pausedSyncS,
    ]
    private static let targets: [ConnectionState] = [
        .startingSyncT, .wfBitMapT, .wfSyncUUID, .syncTarget, .pausedSyncT,
    ]

    /// I-7: the verdicts of one connection are mirror images.
    func checkDirection() {
        for (role, states) in [("source", Self.sources), ("target", Self.targets)]
        where nodes.allSatisfy({ $0.isAlive && states.contains($0.engine.state.connection) }) {
            violate("I-7", "both nodes are the \(role) of a resync")
        }
    }

    /// I-11: a target says UpToDate when it has everything that was answered.
    func checkTarget(_ node: SimulatedNode, _ old: StateWord, _ new: StateWord) {
        // A source that has lost the connection goes on without it.
        let source = other(node).engine.state.connection
        guard old.connection == .syncTarget, old.disk == .inconsistent, new.disk == .upToDate,
            other(node).isAlive, source == .syncSource || source == .pausedSyncS
        else { return }
        checkImage(Int(node.index), "the image of a target that ends its resync", "I-11")
    }

    /// I-11: until then it is Inconsistent, and says so on disk before the first block is written.
    func checkResyncWrite(_ node: SimulatedNode, _ slot: UInt16, _ location: MetaLocation) {
        guard node.engine.isResyncWrite(slot),
            stableSuperblock(node, location)?.flags.contains(.consistent) == true
        else { return }
        violate("I-11", "a resync write to a disk whose meta data call it consistent")
    }

    /// I-24: nothing is answered from a disk that has failed.
    func checkFailedDisk(_ node: SimulatedNode, _ number: UInt32) {
        guard node.engine.state.disk <= .failed else { return }
        violate("I-24", "#\(number) is answered with success, the disk has failed")
    }
}
