import DRBDWire
import MetaDisk
import Replication
import Support

/// Which values every sector of each node may have (reliability, section 2.4).
///
/// A view per node: what a client may read there while the node is Primary. A write is a candidate in
/// both views from the moment it is asked for. It becomes certain in its Primary's view when it is
/// acknowledged, in the peer's when it is acknowledged while the peer has everything. A value is legal
/// unless a certain write was asked for after the value's own operation had ended. What no flush
/// covered is no longer certain after a power cut. When a resync ends, the target's view becomes the
/// source's; at its beginning nothing certain may be lost, unless somebody ordered that.
final class Checker {
    var table = CandidateTable()
    var volumeSectors = 0
    var locations: [MetaLocation?] = [nil, nil]
    /// Somebody was content with any data: only equality still counts.
    var isLoose = false
    /// Orders after which losing data is right, by node.
    var mayLose = [false, false]
    /// What the node's disk was before it became a target.
    private var wasGood = [true, true]
    var epochs = EpochBooks()

    func reset(sectors: Int) {
        table.reset(sectors: sectors)
        volumeSectors = 0
        isLoose = false
        mayLose = [false, false]
        wasGood = [true, true]
        epochs = EpochBooks()
    }

    private func sectors(_ operation: ClientOperation) -> Range<Int> {
        operation.offset >> 9..<min((operation.offset + operation.length) >> 9, volumeSectors)
    }

    // MARK: what happens to operations

    func submitted(_ number: UInt32, _ operation: ClientOperation) {
        let candidate = CandidateTable.Candidate(operation: number)
        for sector in sectors(operation) {
            table.add(0, sector, candidate)
            table.add(1, sector, candidate)
        }
    }

    func acked(_ number: UInt32, node: Int, peerHasIt: Bool, world: World) {
        let operations = world.operations
        let operation = operations[Int(number)]
        let oldestRead = world.oldestOpenRead
        let inStep = peerHasIt && world.profile.replicationProtocol == .c
        for sector in sectors(operation) {
            for index in 0..<2 where index == node || inStep {
                table.mark(number, index, sector, durable: operation.durable)
                guard operation.durable else { continue }
                table.prune(index, sector, oldestRead: oldestRead, operations)
            }
        }
    }

    /// Everything acknowledged before the flush was asked for is durable.
    ///
    /// - Parameter settled: nothing is under way to the peer, which is in step: all of it is there.
    func flushed(node: Int, since submitted: UInt32, peerToo: Bool, settled: Bool, world: World) {
        let operations = world.operations
        let oldestRead = world.oldestOpenRead
        for index in 0..<2 where index == node || peerToo {
            table.flush(index, since: submitted, oldestRead: oldestRead, operations)
        }
        if settled { table.settle(from: node, operations) }
    }

    // MARK: legality

    func isLegal(_ node: Int, _ sector: Int, _ found: UInt64, at moment: UInt32, _ world: World)
        -> Bool
    {
        switch table.verdict(node, sector, found, at: moment, world.operations) {
        case .legal: true
        case .illegal: false
        case .initial: found == world.initialValue(node, sector)
        }
    }

    func describe(_ node: Int, _ sector: Int, _ world: World) -> String {
        table.candidates(node, sector).map { candidate in
            let operation = world.operations[Int(candidate.operation)]
            let ended =
                operation.ended == ClientOperation.never ? "..." : "\(operation.ended)"
            return "#\(candidate.operation) \(operation.kind) [\(operation.submitted), \(ended)]"
                + (candidate.isCertain ? " certain" : "") + (candidate.isDurable ? " durable" : "")
        }.joined(separator: "; ")
    }

    /// Every sector of the bytes is one that some operation wrote there, and a legal one.
    func checkRead(
        node: Int, bytes: borrowing Bytes, at start: Int, sector: Int, sectors: Int,
        submitted: UInt32, what: String, invariant: String = "I-12", world: World
    ) {
        guard !isLoose else { return }
        for index in 0..<sectors {
            let place = start + index << 9
            let found = bytes.word(place)
            guard bytes.isEqual(place, bytes, place + 16, count: 496),
                found == 0 || bytes.word(place + 8) == UInt64(sector + index)
            else {
                world.violate(
                    "I-30", "\(what): sector \(sector + index) is a mixture or of another place")
                return
            }
            guard isLegal(node, sector + index, found, at: submitted, world) else {
                world.violate(
                    invariant,
                    "\(what) on \(node == 0 ? "A" : "B"): sector \(sector + index) holds "
                        + "#\(found); legal: \(describe(node, sector + index, world))")
                return
            }
        }
    }

    // MARK: what happens to nodes

    func nodeStopped(_ node: Int, losesPower: Bool, world: World) {
        table.stop(
            node, losesPower: losesPower, excuses: world.profile.replicationProtocol != .c,
            world.operations)
    }

    func stateChanged(_ node: Int, _ old: StateWord, _ new: StateWord, world: World) {
        if new.connection == .wfBitMapT || new.connection == .startingSyncT,
            old.connection != new.connection
        {
            wasGood[node] = old.disk > .inconsistent && old.disk != .negotiating
        }
        if new.connection == .syncTarget, old.connection != .syncTarget {
            if wasGood[node], !mayLose[node], !isLoose { checkNothingIsLost(target: node, world) }
            table.mix(target: node)
        }
        if old.connection == .syncTarget, new.connection == .connected, new.disk == .upToDate {
            mayLose[node] = false
            for sector in table.touched { table.copy(Int(sector), from: 1 - node, to: node) }
            world.takeOverInitial(from: 1 - node, to: node)
        }
    }

    /// I-8: the target's certain writes are known to the source, or overwritten there.
    private func checkNothingIsLost(target: Int, _ world: World) {
        let operations = world.operations
        let source = 1 - target
        for sector in table.touched {
            let sector = Int(sector)
            let newest = table.newestCertain(source, sector, operations)
            for candidate in table.candidates(target, sector)
            where candidate.isCertain && !candidate.isExcused {
                let operation = operations[Int(candidate.operation)]
                guard operation.acked, operation.ended > newest,
                    !table.contains(source, sector, candidate.operation)
                else { continue }
                world.violate(
                    "I-8",
                    "\(target == 0 ? "A" : "B") becomes target and loses #\(candidate.operation) "
                        + "in sector \(sector); source: \(describe(source, sector, world))")
                return
            }
        }
    }
}
