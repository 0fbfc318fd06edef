import Replication

/// What may be in a sector: operations that wrote there, newest first, for each node's view.
struct CandidateTable {
    struct Candidate: BitwiseCopyable {
        var operation: UInt32
        var next: Int32 = CandidateTable.none
        /// Acknowledged by this view's node, or by the other with this one in step.
        var isCertain = false
        /// Survives a power cut of this node.
        var isDurable = false
        /// Lost with its Primary: protocols A and B promise no more.
        var isExcused = false
    }

    static let none: Int32 = -1

    private(set) var heads: [[Int32]] = [[], []]
    var pool: [Candidate] = []
    private var freeHead = none
    /// Sectors that have candidates in either view.
    private(set) var touched: [Int32] = []
    private var isTouched: [Bool] = []
    /// Sectors with candidates that a power cut can take away.
    private var unstable: [Int32] = []
    private var isUnstable: [Bool] = []

    mutating func reset(sectors: Int) {
        if isTouched.count != sectors {
            heads = [[], []].map { _ in Array(repeating: Self.none, count: sectors) }
            isTouched = Array(repeating: false, count: sectors)
            isUnstable = isTouched
        }
        for sector in touched {
            heads[0][Int(sector)] = Self.none
            heads[1][Int(sector)] = Self.none
            isTouched[Int(sector)] = false
            isUnstable[Int(sector)] = false
        }
        unstable.removeAll(keepingCapacity: true)
        touched.removeAll(keepingCapacity: true)
        pool.removeAll(keepingCapacity: true)
        freeHead = Self.none
    }

    // MARK: lists

    mutating func add(_ node: Int, _ sector: Int, _ candidate: Candidate) {
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
        if !candidate.isDurable, !isUnstable[sector] {
            isUnstable[sector] = true
            unstable.append(Int32(sector))
        }
        if !isTouched[sector] {
            isTouched[sector] = true
            touched.append(Int32(sector))
        }
    }

    mutating func removeAll(_ node: Int, _ sector: Int) {
        var place = heads[node][sector]
        while place != Self.none {
            let next = pool[Int(place)].next
            pool[Int(place)].next = freeHead
            freeHead = place
            place = next
        }
        heads[node][sector] = Self.none
    }

    func candidates(_ node: Int, _ sector: Int) -> [Candidate] {
        var found: [Candidate] = []
        var place = heads[node][sector]
        while place != Self.none {
            found.append(pool[Int(place)])
            place = pool[Int(place)].next
        }
        return found
    }

    /// Changes every candidate of the sector with `body`.
    mutating func update(_ node: Int, _ sector: Int, _ body: (inout Candidate) -> Void) {
        var place = heads[node][sector]
        while place != Self.none {
            body(&pool[Int(place)])
            place = pool[Int(place)].next
        }
    }

    func contains(_ node: Int, _ sector: Int, _ number: UInt32) -> Bool {
        var place = heads[node][sector]
        while place != Self.none {
            if pool[Int(place)].operation == number { return true }
            place = pool[Int(place)].next
        }
        return false
    }

    mutating func mark(_ number: UInt32, _ node: Int, _ sector: Int, durable: Bool) {
        update(node, sector) { candidate in
            guard candidate.operation == number else { return }
            candidate.isCertain = true
            if durable { candidate.isDurable = true }
        }
    }

    mutating func copy(_ sector: Int, from source: Int, to target: Int) {
        removeAll(target, sector)
        for candidate in candidates(source, sector).reversed() { add(target, sector, candidate) }
    }

    // MARK: durability

    /// Everything certain that had ended before the flush was asked for is durable there.
    mutating func flush(
        _ node: Int, since submitted: UInt32, oldestRead: UInt32, _ operations: [ClientOperation]
    ) {
        for sector in unstable {
            var changed = false
            var place = heads[node][Int(sector)]
            while place != Self.none {
                let candidate = pool[Int(place)]
                if candidate.isCertain, !candidate.isDurable,
                    operations[Int(candidate.operation)].ended < submitted
                {
                    pool[Int(place)].isDurable = true
                    changed = true
                }
                place = candidate.next
            }
            if changed { prune(node, Int(sector), oldestRead: oldestRead, operations) }
        }
        forgetStable()
    }

    /// Everything that `source` sent is on the other node's stable storage.
    mutating func settle(from source: Int, _ operations: [ClientOperation]) {
        for sector in unstable {
            copy(Int(sector), from: source, to: 1 - source)
            update(1 - source, Int(sector)) { if $0.isCertain { $0.isDurable = true } }
        }
        forgetStable()
    }

    private mutating func forgetStable() {
        var kept = 0
        for index in unstable.indices {
            let sector = Int(unstable[index])
            if isStable(0, sector), isStable(1, sector) {
                isUnstable[sector] = false
            } else {
                unstable[kept] = unstable[index]
                kept += 1
            }
        }
        unstable.removeLast(unstable.count - kept)
    }

    private func isStable(_ node: Int, _ sector: Int) -> Bool {
        var place = heads[node][sector]
        while place != Self.none {
            if !pool[Int(place)].isDurable { return false }
            place = pool[Int(place)].next
        }
        return true
    }

    /// Forgets candidates that can never be legal again: older than a certain and durable one that
    /// every open read has to know.
    mutating func prune(
        _ node: Int, _ sector: Int, oldestRead: UInt32, _ operations: [ClientOperation]
    ) {
        var limit: UInt32 = 0
        var place = heads[node][sector]
        while place != Self.none {
            let candidate = pool[Int(place)]
            let operation = operations[Int(candidate.operation)]
            if candidate.isCertain, candidate.isDurable, operation.ended < oldestRead {
                limit = max(limit, operation.submitted)
            }
            place = candidate.next
        }
        guard limit > 0 else { return }
        var previous = Self.none
        place = heads[node][sector]
        while place != Self.none {
            let next = pool[Int(place)].next
            if operations[Int(pool[Int(place)].operation)].ended <= limit {
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

    enum Verdict { case legal, illegal, initial }

    /// Whether the sector may hold `found`, for someone who asked at `moment`; `initial`: only what
    /// was there before the first operation.
    func verdict(
        _ node: Int, _ sector: Int, _ found: UInt64, at moment: UInt32,
        _ operations: [ClientOperation]
    ) -> Verdict {
        // When the newest certain write was asked for that had ended by then.
        var newest: UInt32 = 0
        var place = heads[node][sector]
        while place != Self.none {
            let candidate = pool[Int(place)]
            let operation = operations[Int(candidate.operation)]
            if candidate.isCertain, operation.ended < moment {
                newest = max(newest, operation.submitted)
            }
            place = candidate.next
        }
        place = heads[node][sector]
        while place != Self.none {
            let candidate = pool[Int(place)]
            let operation = operations[Int(candidate.operation)]
            let value = operation.kind == .write ? UInt64(candidate.operation) : 0
            if operation.ended > newest, value == found { return .legal }
            place = candidate.next
        }
        return newest == 0 ? .initial : .illegal
    }

    func newestCertain(_ node: Int, _ sector: Int, _ operations: [ClientOperation]) -> UInt32 {
        var newest: UInt32 = 0
        var place = heads[node][sector]
        while place != Self.none {
            let candidate = pool[Int(place)]
            if candidate.isCertain {
                newest = max(newest, operations[Int(candidate.operation)].submitted)
            }
            place = candidate.next
        }
        return newest
    }

    // MARK: what happens to nodes

    /// A power cut takes what no flush covered; a dead Primary of protocol A or B what it mirrored.
    mutating func stop(
        _ node: Int, losesPower: Bool, excuses: Bool, _ operations: [ClientOperation]
    ) {
        guard losesPower || excuses else { return }
        for sector in touched {
            update(node, Int(sector)) { candidate in
                let operation = operations[Int(candidate.operation)]
                if excuses, operation.wasMirrored, operation.node == UInt8(node) {
                    candidate.isExcused = true
                }
                if losesPower, !candidate.isDurable { candidate.isCertain = false }
            }
        }
    }

    /// While a resync runs the target may hold either.
    mutating func mix(target: Int) {
        for sector in touched {
            let sector = Int(sector)
            update(target, sector) { $0.isCertain = false }
            for candidate in candidates(1 - target, sector)
            where !contains(target, sector, candidate.operation) {
                add(target, sector, Candidate(operation: candidate.operation))
            }
        }
    }
}
