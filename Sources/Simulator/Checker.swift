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
    struct Candidate: BitwiseCopyable {
        var operation: UInt32
        var next: Int32
        /// Acknowledged by this view's node, or by the other with this one in step.
        var isCertain: Bool
        /// Survives a power cut of this node.
        var isDurable: Bool
        /// Lost with its Primary: protocols A and B promise no more.
        var isExcused: Bool
    }

    static let none: Int32 = -1

    /// The newest candidates of every sector, a list per node.
    private(set) var heads: [[Int32]] = [[], []]
    private(set) var pool: [Candidate] = []
    private var freeHead = Checker.none
    /// Sectors that have candidates in either view.
    private(set) var touched: [Int32] = []
    private var isTouched: [Bool] = []
    var volumeSectors = 0
    var locations: [MetaLocation?] = [nil, nil]
    /// When the oldest read without an answer was asked for.
    private var oldestRead = UInt32.max
    /// Somebody was content with any data: only equality still counts.
    var isLoose = false
    /// Orders after which losing data is right, by node.
    var mayLose = [false, false]
    /// What the node's disk was before it became a target.
    private var wasGood = [true, true]
    var epochs = EpochBooks()

    func reset(sectors: Int) {
        for node in 0..<2 {
            if heads[node].count != sectors {
                heads[node] = Array(repeating: Self.none, count: sectors)
            }
            for sector in touched { heads[node][Int(sector)] = Self.none }
        }
        if isTouched.count != sectors { isTouched = Array(repeating: false, count: sectors) }
        for sector in touched { isTouched[Int(sector)] = false }
        touched.removeAll(keepingCapacity: true)
        pool.removeAll(keepingCapacity: true)
        freeHead = Self.none
        volumeSectors = 0
        isLoose = false
        mayLose = [false, false]
        wasGood = [true, true]
        epochs = EpochBooks()
    }

    // MARK: lists

    private func add(_ node: Int, _ sector: Int, _ candidate: Candidate) {
        var candidate = candidate
        candidate.next = heads[node][sector]
        let place: Int32
        if freeHead != Self.none {
            place = freeHead
            freeHead = pool[Int(place)].next
            pool[Int(place)] = candidate
        } else {
            place = Int32(pool.count)
            pool.append(candidate)
        }
        heads[node][sector] = place
        if !isTouched[sector] {
            isTouched[sector] = true
            touched.append(Int32(sector))
        }
    }

    private func removeAll(_ node: Int, _ sector: Int) {
        var place = heads[node][sector]
        while place != Self.none {
            let next = pool[Int(place)].next
            pool[Int(place)].next = freeHead
            freeHead = place
            place = next
        }
        heads[node][sector] = Self.none
    }

    /// Calls `body` with every candidate's place; the initial value is not among them.
    private func each(_ node: Int, _ sector: Int, _ body: (Int) -> Void) {
        var place = heads[node][sector]
        while place != Self.none {
            body(Int(place))
            place = pool[Int(place)].next
        }
    }

    private func sectors(_ operation: ClientOperation) -> Range<Int> {
        operation.offset >> 9..<min((operation.offset + operation.length) >> 9, volumeSectors)
    }

    // MARK: what happens to operations

    func submitted(_ number: UInt32, _ operation: ClientOperation) {
        let candidate = Candidate(
            operation: number, next: Self.none, isCertain: false, isDurable: false,
            isExcused: false)
        for sector in sectors(operation) {
            add(0, sector, candidate)
            add(1, sector, candidate)
        }
    }

    func acked(_ number: UInt32, node: Int, peerHasIt: Bool, world: World) {
        let operation = world.operations[Int(number)]
        oldestRead = world.oldestOpenRead
        let inStep = peerHasIt && world.profile.replicationProtocol == .c
        for sector in sectors(operation) {
            mark(number, node, sector, durable: operation.durable)
            if inStep { mark(number, 1 - node, sector, durable: operation.durable) }
            prune(node, sector, world)
            if inStep { prune(1 - node, sector, world) }
        }
    }

    private func mark(_ number: UInt32, _ node: Int, _ sector: Int, durable: Bool) {
        each(node, sector) { place in
            guard pool[place].operation == number else { return }
            pool[place].isCertain = true
            if durable { pool[place].isDurable = true }
        }
    }

    /// Everything acknowledged before the flush was asked for is durable.
    func flushed(node: Int, since submitted: UInt32, peerToo: Bool, world: World) {
        oldestRead = world.oldestOpenRead
        for index in 0..<2 where index == node || peerToo {
            for sector in touched {
                var changed = false
                each(index, Int(sector)) { place in
                    let ended = world.operations[Int(pool[place].operation)].ended
                    guard pool[place].isCertain, !pool[place].isDurable, ended < submitted
                    else { return }
                    pool[place].isDurable = true
                    changed = true
                }
                if changed { prune(index, Int(sector), world) }
            }
        }
    }

    /// Forgets candidates that can never be legal again: older than a certain and durable one.
    private func prune(_ node: Int, _ sector: Int, _ world: World) {
        var limit: UInt32 = 0
        each(node, sector) { place in
            let operation = world.operations[Int(pool[place].operation)]
            // A read that was asked for before may still return what was there then.
            guard pool[place].isCertain, pool[place].isDurable, operation.ended < oldestRead
            else { return }
            limit = max(limit, operation.submitted)
        }
        guard limit > 0 else { return }
        var previous = Self.none
        var place = heads[node][sector]
        while place != Self.none {
            let next = pool[Int(place)].next
            if world.operations[Int(pool[Int(place)].operation)].ended <= limit {
                if previous == Self.none {
                    heads[node][sector] = next
                } else {
                    pool[Int(previous)].next = next
                }
                pool[Int(place)].next = freeHead
                freeHead = place
            } else {
                previous = place
            }
            place = next
        }
    }

    // MARK: legality

    /// The value of an operation: its number, or 0 for zeros.
    private func value(_ number: UInt32, _ world: World) -> UInt64 {
        world.operations[Int(number)].kind == .write ? UInt64(number) : 0
    }

    /// Whether the sector may hold `found`, for someone who asked at `moment`.
    func isLegal(_ node: Int, _ sector: Int, _ found: UInt64, at moment: UInt32, _ world: World)
        -> Bool
    {
        // When the newest certain write was asked for that had ended by then.
        var newest: UInt32 = 0
        each(node, sector) { place in
            let operation = world.operations[Int(pool[place].operation)]
            guard pool[place].isCertain, operation.ended < moment else { return }
            newest = max(newest, operation.submitted)
        }
        var legal = false
        each(node, sector) { place in
            let operation = world.operations[Int(pool[place].operation)]
            guard operation.ended > newest else { return }
            if value(pool[place].operation, world) == found { legal = true }
        }
        // The value at the start is older than every operation.
        if !legal, newest == 0, !hasDurable(node, sector, moment, world), found == world.initialValue(node, sector)
        {
            legal = true
        }
        return legal
    }

    private func hasDurable(_ node: Int, _ sector: Int, _ moment: UInt32, _ world: World) -> Bool {
        var found = false
        each(node, sector) { place in
            let ended = world.operations[Int(pool[place].operation)].ended
            if pool[place].isCertain, pool[place].isDurable, ended < moment { found = true }
        }
        return found
    }

    func describe(_ node: Int, _ sector: Int, _ world: World) -> String {
        var parts: [String] = []
        each(node, sector) { place in
            let candidate = pool[place]
            let operation = world.operations[Int(candidate.operation)]
            let ended =
                operation.ended == ClientOperation.never ? "..." : "\(operation.ended)"
            parts.append(
                "#\(candidate.operation) \(operation.kind) [\(operation.submitted), \(ended)]"
                    + (candidate.isCertain ? " certain" : "")
                    + (candidate.isDurable ? " durable" : ""))
        }
        return parts.joined(separator: "; ")
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
        for sector in touched {
            let sector = Int(sector)
            if world.profile.replicationProtocol != .c {
                each(node, sector) { place in
                    let operation = world.operations[Int(pool[place].operation)]
                    if operation.wasMirrored, operation.node == UInt8(node) {
                        pool[place].isExcused = true
                    }
                }
            }
            guard losesPower else { continue }
            each(node, sector) { place in
                if !pool[place].isDurable { pool[place].isCertain = false }
            }
        }
    }

    /// Both nodes are in step: what the one acknowledged, the other has.
    func inStep(from source: Int, durable: Bool, world: World) {
        for sector in touched {
            copy(Int(sector), from: source, to: 1 - source)
        }
    }

    private func copy(_ sector: Int, from source: Int, to target: Int) {
        removeAll(target, sector)
        var kept: [Candidate] = []
        each(source, sector) { kept.append(pool[$0]) }
        for candidate in kept.reversed() { add(target, sector, candidate) }
    }

    func stateChanged(_ node: Int, _ old: StateWord, _ new: StateWord, world: World) {
        if new.connection == .wfBitMapT || new.connection == .startingSyncT,
            old.connection != new.connection
        {
            wasGood[node] = old.disk > .inconsistent && old.disk != .negotiating
        }
        if new.connection == .syncTarget, old.connection != .syncTarget {
            if wasGood[node], !mayLose[node], !isLoose { checkNothingIsLost(target: node, world) }
            mixViews(target: node)
        }
        if old.connection == .syncTarget, new.connection == .connected, new.disk == .upToDate {
            mayLose[node] = false
            for sector in touched { copy(Int(sector), from: 1 - node, to: node) }
            world.takeOverInitial(from: 1 - node, to: node)
        }
    }

    /// I-8: the target's certain writes are known to the source, or overwritten there.
    private func checkNothingIsLost(target: Int, _ world: World) {
        let source = 1 - target
        for sector in touched {
            let sector = Int(sector)
            var newest: UInt32 = 0
            each(source, sector) { place in
                if pool[place].isCertain {
                    newest = max(
                        newest, world.operations[Int(pool[place].operation)].submitted)
                }
            }
            each(target, sector) { place in
                let candidate = pool[place]
                let operation = world.operations[Int(candidate.operation)]
                guard candidate.isCertain, !candidate.isExcused, operation.ended > newest,
                    operation.acked
                else { return }
                if !knows(source, sector, candidate.operation) {
                    world.violate(
                        "I-8",
                        "\(target == 0 ? "A" : "B") becomes target and loses "
                            + "#\(candidate.operation) in sector \(sector); source: "
                            + describe(source, sector, world))
                }
            }
        }
    }

    private func knows(_ node: Int, _ sector: Int, _ number: UInt32) -> Bool {
        var found = false
        each(node, sector) { if pool[$0].operation == number { found = true } }
        return found
    }

    /// While a resync runs the target may hold either.
    private func mixViews(target: Int) {
        for sector in touched {
            let sector = Int(sector)
            each(target, sector) { pool[$0].isCertain = false }
            var extra: [Candidate] = []
            each(1 - target, sector) { extra.append(pool[$0]) }
            for candidate in extra where !knows(target, sector, candidate.operation) {
                var unsure = candidate
                unsure.isCertain = false
                unsure.isDurable = false
                add(target, sector, unsure)
            }
        }
    }
}
