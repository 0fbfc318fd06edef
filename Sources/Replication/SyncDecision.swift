package import DRBDWire
package import MetaDisk

/// The comparison of two nodes' generations: reference, wire section 8.4, bit 0 masked.
package struct GenerationComparison: Equatable {
    package enum Result: Equatable {
        case equal
        /// Positive: we are source; full: every block.
        case source(full: Bool), target(full: Bool)
        /// Both changed since a common generation; `related` by bitmap UUID (100), else by history.
        case splitBrain(related: Bool)
        case unrelated
        /// Not decidable with this peer.
        case failed
    }

    package var result: Result
    /// The number that the reference and the kernel's log give to the rule.
    package var rule: Int
    /// Corrected copies (rules 34, 35, 51, 71).
    package var own: GenerationUUIDs
    package var peer: GenerationUUIDs
}

/// What the comparison needs besides the UUIDs.
package struct ComparisonContext: Equatable {
    package var ownCrashed = false
    package var peerCrashed = false
    package var ownRole = Role.secondary
    package var peerRole = Role.secondary
    /// Whether this node accepted the meta connection (wire 1.3).
    package var resolvesConflicts = false
    /// FF_WSAME agreed: rule 41 is decidable.
    package var knowsRule41 = true

    package init() {}
}

package func compareGenerations(
    own: GenerationUUIDs, peer: GenerationUUIDs, _ context: ComparisonContext
) -> GenerationComparison {
    let ownCurrent = own.current & ~1
    let peerCurrent = peer.current & ~1
    func answer(_ result: GenerationComparison.Result, _ rule: Int) -> GenerationComparison {
        GenerationComparison(result: result, rule: rule, own: own, peer: peer)
    }
    let created = GenerationUUIDs.justCreated
    if ownCurrent == created, peerCurrent == created { return answer(.equal, 10) }
    if ownCurrent == created || ownCurrent == 0, peerCurrent != created {
        return answer(.target(full: true), 20)
    }
    if ownCurrent != created, peerCurrent == created || peerCurrent == 0 {
        return answer(.source(full: true), 30)
    }
    if ownCurrent == peerCurrent { return compareEqual(own, peer, context) }
    return compareDifferent(own, peer)
}

/// Rules 34 to 41: the current UUIDs are the same.
private func compareEqual(
    _ own: GenerationUUIDs, _ peer: GenerationUUIDs, _ context: ComparisonContext
) -> GenerationComparison {
    var answer = GenerationComparison(result: .equal, rule: 40, own: own, peer: peer)
    if peer.bitmap == 0, own.bitmap != 0 {
        answer.result = .source(full: false)
        answer.rule = 36
        if same(own.bitmap, peer.history0), same(own.history0, peer.history1) {
            // We were source and missed the end of the resync.
            answer.rule = 34
            answer.own.history1 = own.history0
            answer.own.history0 = own.bitmap
            answer.own.bitmap = 0
        }
        return answer
    }
    if own.bitmap == 0, peer.bitmap != 0 {
        answer.result = .target(full: false)
        answer.rule = 37
        if same(own.history0, peer.bitmap), same(own.history1, peer.history0) {
            answer.rule = 35
            answer.peer.history1 = peer.history0
            answer.peer.history0 = peer.bitmap
            answer.peer.bitmap = 0
        }
        return answer
    }
    guard context.ownCrashed || context.peerCrashed else { return answer }
    let primaries = (context.ownRole == .primary, context.peerRole == .primary)
    if primaries.0 || primaries.1 {
        answer.rule = 41
        if !context.knowsRule41 {
            answer.result = .failed
        } else if primaries.0, primaries.1 {
            answer.result = .splitBrain(related: false)
        } else {
            answer.result = primaries.0 ? .source(full: false) : .target(full: false)
        }
        return answer
    }
    switch (context.ownCrashed, context.peerCrashed) {
    case (true, false): answer.result = .source(full: false)
    case (false, true): answer.result = .target(full: false)
    case (true, true), (false, false):
        answer.result = context.resolvesConflicts ? .target(full: false) : .source(full: false)
    }
    return answer
}

/// Rules 50 to 100: the current UUIDs differ.
private func compareDifferent(
    _ own: GenerationUUIDs, _ peer: GenerationUUIDs
) -> GenerationComparison {
    let offset = GenerationUUIDs.syncOffset
    var answer = GenerationComparison(result: .unrelated, rule: 100, own: own, peer: peer)
    func decided(_ result: GenerationComparison.Result, _ rule: Int) -> GenerationComparison {
        answer.result = result
        answer.rule = rule
        return answer
    }
    if same(own.current, peer.bitmap) { return decided(.target(full: false), 50) }
    if same(own.current, peer.history0), same(peer.history0 &+ offset, peer.bitmap) {
        // The P_SYNC_UUID did not reach us.
        answer.peer.bitmap = peer.history0
        answer.peer.history0 = peer.history1
        return decided(.target(full: false), 51)
    }
    if same(own.current, peer.history0) || same(own.current, peer.history1) {
        return decided(.target(full: true), 60)
    }
    if same(own.bitmap, peer.current) { return decided(.source(full: false), 70) }
    if same(own.history0, peer.current), same(own.history0 &+ offset, own.bitmap) {
        // Our P_SYNC_UUID did not arrive.
        answer.own.bitmap = own.history0
        answer.own.history0 = own.history1
        return decided(.source(full: false), 71)
    }
    if same(own.history0, peer.current) || same(own.history1, peer.current) {
        return decided(.source(full: true), 80)
    }
    if own.bitmap & ~1 != 0, same(own.bitmap, peer.bitmap) {
        return decided(.splitBrain(related: true), 90)
    }
    for mine in [own.history0, own.history1] {
        for theirs in [peer.history0, peer.history1] where same(mine, theirs) {
            return decided(.splitBrain(related: false), 100)
        }
    }
    return answer
}

private func same(_ one: UInt64, _ other: UInt64) -> Bool { one & ~1 == other & ~1 }
