import DRBDWire
import Replication
import Support

/// What the operator, or a cluster manager, has in mind and has ordered.
struct Director {
    /// Why a connection was refused, as the engine's text tells a person.
    enum Refusal { case none, splitBrain, equalWithBits, targetIsPrimary, unrelated, other }

    private var lastID: UInt32 = 0
    /// The order that each node is carrying out; 0: none.
    private(set) var pending: [Orders] = [Orders(), Orders()]
    var refusals: [Refusal] = [.none, .none]
    /// Who is Primary, or was last.
    var lastPrimary: Int?
    /// The last Primary died while the other node had everything.
    var survivorIsGood = false
    /// A switch of roles is under way: this node is to become Primary.
    var successor: Int?
    /// No client gets in any more.
    var isClosed = [false, false]
    var wasEverGood = false
    /// The disk was in the drawer: it is good by its own meta data, but old.
    var hasOldDisk = [false, false]
    var disksReplaced = 0
    var results: [CommandResult] = []
    /// Directed scenarios look at the results themselves.
    var keepsResults = false

    /// Orders without an answer, oldest first.
    struct Orders { var ids: [UInt32] = [] }

    mutating func nextID(_ node: Int) -> UInt32 {
        lastID += 1
        pending[node].ids.append(lastID)
        return lastID
    }

    mutating func ended(_ node: Int, _ result: CommandResult) {
        pending[node].ids.removeAll { $0 == result.id }
        if keepsResults { results.append(result) }
    }

    mutating func nodeStarted(_ node: Int) {
        isClosed[node] = false
        refusals[node] = .none
    }

    mutating func nodeStopped(_ node: Int) {
        pending[node].ids.removeAll()
        refusals[node] = .none
        if successor == node { successor = nil }
    }

    func isFree(_ node: Int) -> Bool { pending[node].ids.isEmpty }

    func admits(_ node: UInt8) -> Bool { !isClosed[Int(node)] && successor == nil }
}

extension World {
    func noteRefusal(_ node: Int, _ text: String) {
        if text.hasPrefix("the peer sent") { report.count(complaint: text) }
        if text.contains("split brain") || text.contains("both nodes are Primary") {
            director.refusals[node] = .splitBrain
        } else if text.contains("equal generations") {
            director.refusals[node] = .equalWithBits
        } else if text.contains("would become the target") {
            director.refusals[node] = .targetIsPrimary
        } else if text.contains("unrelated data") {
            director.refusals[node] = .unrelated
        } else {
            return
        }
        report.refusals[director.refusals[node].index] += 1
    }

    func operatorActs() {
        schedule(.operatorActs, in: spread(.milliseconds(100)))
        guard isActive else { return }
        keepGoing(patiently: false)
        if profile.replacesDisks { replaceSomeDisk() }
        guard
            random.chance(
                100, in: UInt64(max(100, profile.orderInterval.inNanoseconds / 1_000_000)))
        else { return }
        orderSomething()
    }

    /// What any operator does: attach, connect, have one Primary.
    func keepGoing(patiently: Bool) {
        for node in nodes where node.isAlive && director.isFree(Int(node.index)) {
            let state = node.engine.state
            if state.disk == .diskless, !node.diskIsOpen, state.role == .secondary,
                !node.failsAnything, patiently || random.chance(1, in: 4)
            {
                attach(node)
            } else if state.role == .primary, state.disk < .inconsistent {
                // Before anything else: nobody is served by it.
                demote(node)
            } else if state.connection == .standAlone, patiently || random.chance(1, in: 8) {
                reconnect(node)
            } else if state.disk == .inconsistent, patiently || random.chance(1, in: 8) {
                repair(node)
            }
        }
        advanceSwitch()
        promoteSomebody(patiently: patiently)
    }

    /// Blocks failed, and on-io-error passed that on: the next handshake has them copied.
    private func repair(_ node: SimulatedNode) {
        let state = node.engine.state
        if state.role == .primary {
            demote(node)
        } else if state.connection == .connected, state.peerDisk == .upToDate {
            perform(node, .disconnect(force: true))
        }
    }

    // MARK: connections

    private func reconnect(_ node: SimulatedNode) {
        let index = Int(node.index)
        switch director.refusals[index] {
        case .none, .other: break
        case .splitBrain, .equalWithBits, .targetIsPrimary, .unrelated:
            guard isVictim(node) else { break }
            if node.engine.state.role == .primary {
                demote(node)
                return
            }
            let refusal = director.refusals[index]
            director.refusals[index] = .none
            if refusal == .targetIsPrimary { break }
            checker.mayLose[index] = true
            note(node, "the operator gives up this node's changes")
            report.resolutions += 1
            if refusal == .unrelated {
                // Nothing else helps: the text says so.
                renew(node) { createMetadata($0) }
                return
            }
            if refusal == .equalWithBits {
                perform(node, .invalidate)
                return
            }
            perform(node, .connect(discardMyData: true))
            return
        }
        director.refusals[index] = .none
        perform(node, .connect(discardMyData: false))
    }

    /// Of two nodes that do not fit together: who gives way.
    private func isVictim(_ node: SimulatedNode) -> Bool {
        let peer = other(node)
        guard peer.isAlive else { return false }
        let (mine, theirs) = (node.engine.state, peer.engine.state)
        if mine.disk < .inconsistent || theirs.disk < .inconsistent { return false }
        if director.refusals[Int(node.index)] == .targetIsPrimary { return true }
        if (mine.role == .primary) != (theirs.role == .primary) { return mine.role != .primary }
        return node.index == UInt8(profile.seed & 1)
    }

    // MARK: roles

    func demote(_ node: SimulatedNode) {
        let index = Int(node.index)
        director.isClosed[index] = true
        for client in clients.indices
        where clients[client].number >= 0 && clients[client].node == index {
            clientDies(client)
        }
        perform(node, .secondary)
    }

    private func advanceSwitch() {
        for node in nodes where node.isAlive {
            let index = Int(node.index)
            guard director.isClosed[index], director.isFree(index) else { continue }
            if node.engine.state.role == .secondary { director.isClosed[index] = false }
        }
        guard let successor = director.successor else { return }
        let node = nodes[successor]
        guard node.isAlive, other(node).isAlive, director.isFree(1 - successor) else {
            director.successor = nil
            return
        }
        guard director.isFree(successor), other(node).engine.state.role == .secondary else {
            director.successor = nil
            return
        }
        director.successor = nil
        promote(node, force: false)
    }

    private func promoteSomebody(patiently: Bool) {
        guard director.successor == nil else { return }
        for node in nodes where node.isAlive && node.engine.state.role == .primary { return }
        for node in nodes where !director.isFree(Int(node.index)) { return }
        let first = pick(2)
        for offset in 0..<2 {
            let node = nodes[(first + offset) % 2]
            guard node.isAlive, node.engine.state.disk == .upToDate, mayPromote(node) else {
                continue
            }
            if patiently || random.chance(1, in: 2) { promote(node, force: false) }
            return
        }
        guard patiently || !director.wasEverGood,
            let node = nodes.first(where: { !$0.isAlive || $0.engine.state.disk == .inconsistent }),
            node.isAlive, nodes.allSatisfy({ !$0.isAlive || $0.engine.state.disk <= .inconsistent })
        else { return }
        let chosen = other(node).isAlive && random.chance(1, in: 2) ? other(node) : node
        guard chosen.engine.state.disk == .inconsistent else { return }
        if director.wasEverGood {
            // A person takes what is left; it may be any mixture.
            note(chosen, "the operator takes this node's Inconsistent data")
            checker.isLoose = true
        }
        promote(chosen, force: true)
    }

    /// A sane operator takes the survivor only if it has everything.
    private func mayPromote(_ node: SimulatedNode) -> Bool {
        if director.hasOldDisk[Int(node.index)] { return false }
        // In the quiet phase first the nodes find together, then somebody is promoted.
        if !isActive, !profile.isDirected { return node.engine.state.connection >= .connected }
        if profile.isInsane || director.lastPrimary == nil { return true }
        if node.engine.state.connection >= .connected { return true }
        if director.lastPrimary == Int(node.index) { return true }
        return !other(node).isAlive && director.survivorIsGood
    }

    func promote(_ node: SimulatedNode, force: Bool) {
        perform(node, .primary(force: force))
    }

    // MARK: orders of all kinds

    private func orderSomething() {
        let node = nodes[pick(2)]
        guard node.isAlive, director.isFree(Int(node.index)) else { return }
        let state = node.engine.state
        switch pick(profile.isInsane ? 10 : 7) {
        case 0, 1: switchRoles()
        case 2:
            if state.connection != .standAlone {
                perform(node, .disconnect(force: random.chance(1, in: 3)))
            }
        case 3:
            if state.role == .secondary, node.diskIsOpen, state.disk > .negotiating {
                perform(node, .detach(force: random.chance(1, in: 2)))
            }
        case 4: orderInvalidate(node)
        case 5: if state.role == .primary, random.chance(1, in: 4) { demote(node) }
        case 6: if random.chance(1, in: 4) { stopOrderly(node) }
        case 7: if !director.hasOldDisk[Int(node.index)] { promote(node, force: false) }
        case 8:
            perform(node, .connect(discardMyData: false))
        default: break
        }
    }

    private func orderInvalidate(_ node: SimulatedNode) {
        let state = node.engine.state
        guard state.role == .secondary, state.disk == .upToDate, random.chance(1, in: 2) else {
            return
        }
        let peer = other(node)
        guard peer.isAlive, peer.engine.state.disk == .upToDate,
            !director.hasOldDisk[Int(peer.index)],
            state.connection == .connected || profile.isInsane && state.connection == .standAlone
        else { return }
        checker.mayLose[Int(node.index)] = true
        perform(node, .invalidate)
    }

    private func switchRoles() {
        guard let primary = nodes.first(where: { $0.isAlive && $0.engine.state.role == .primary }),
            director.isFree(Int(primary.index)), other(primary).isAlive,
            primary.engine.state.connection == .connected,
            other(primary).engine.state.disk == .upToDate
        else { return }
        demote(primary)
        director.successor = 1 - Int(primary.index)
    }

    /// down: the process ends by itself after a clean detach, as far as that goes.
    private func stopOrderly(_ node: SimulatedNode) {
        guard node.engine.state.role == .secondary else { return }
        stop(node, losesPower: false)
        schedule(.start(node: node.index), in: spread(.milliseconds(300)))
    }
}

extension Director.Refusal {
    static let names = [
        "none", "split brain", "equal with bits", "target is Primary", "unrelated", "other",
    ]

    var index: Int {
        switch self {
        case .none: 0
        case .splitBrain: 1
        case .equalWithBits: 2
        case .targetIsPrimary: 3
        case .unrelated: 4
        case .other: 5
        }
    }
}
