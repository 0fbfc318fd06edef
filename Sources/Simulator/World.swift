import DRBDWire
import MetaDisk
import Replication
package import Support

/// A promise that was not kept.
package struct Violation: Equatable {
    /// As in section 2.5 of the reliability design, or `stuck`, `leak`, `livelock`.
    package var invariant: String
    package var text: String
}

/// Two nodes with the production code of the replication, their disks, network, clients and operator,
/// in one thread; all that happens follows from the profile and its seed.
package final class World {
    static let eventLimit = 5_000_000

    package internal(set) var profile = Profile(quiet: 0)
    var random = RandomSource(seed: 0)
    package internal(set) var now = Instant(nanoseconds: 0)
    var queue = EventQueue()
    let nodes = [SimulatedNode(index: 0), SimulatedNode(index: 1)]
    var pipes: [Pipe] = []
    var pipeCount = 0
    var clients: [SimulatedClient] = []
    var operations: [ClientOperation] = []
    let checker = Checker()
    var director = Director()
    var faults = FaultState()
    package internal(set) var violation: Violation?
    package internal(set) var report = Report()
    /// The lines of the trace, when the profile asks for one.
    package internal(set) var trace: [String] = []
    /// Gets every line of the trace at once, so that those before a crash are seen, too.
    package var show: ((String) -> Void)?
    /// Of everything that happened: equal for equal seeds.
    package internal(set) var hash: UInt64 = 0
    package internal(set) var eventCount = 0
    /// Orders the clients' actions; every one has its own number.
    var clock: UInt32 = 0
    /// Reads whose bytes have not all left.
    var openReads: [UInt32] = []
    /// Faults may happen, clients come up with new requests.
    var isActive = true
    /// Off while a disk is as only a tool or another kernel leaves it.
    var imaginesPowerCuts = true
    /// What wrote the first sectors of each disk before the run, or 0.
    var initialOperations: [UInt64] = [0, 0]
    let scratch = Bytes(count: 8192)
    let overlays = [Overlay(), Overlay()]

    package init() {}

    // MARK: a run

    /// Begins anew.
    package func reset(_ profile: Profile) {
        self.profile = profile
        random = RandomSource(seed: profile.seed)
        now = Instant(nanoseconds: 1_000_000_000)
        queue.removeAll()
        pipeCount = 0
        clients.removeAll()
        operations.removeAll(keepingCapacity: true)
        operations.append(ClientOperation())
        director = Director()
        faults = FaultState()
        violation = nil
        trace.removeAll()
        hash = 0xcbf2_9ce4_8422_2325
        eventCount = 0
        clock = 0
        openReads.removeAll()
        isActive = true
        imaginesPowerCuts = true
        for node in nodes {
            node.reset()
            if let drawer = node.drawer { (node.drawer, node.shelf) = (nil, drawer) }
            node.disk.reset(
                size: profile.deviceSizes[Int(node.index)],
                hasCache: profile.hasCache[Int(node.index)])
        }
        checker.reset(sectors: SimulatedDisk.capacity >> 9)
        prepareDisks()
        for node in nodes { start(node) }
    }

    /// A whole run of a random seed: the busy phase, then the quiet one in which all must end well.
    package func run() {
        for index in 0..<profile.clientCount { addClient(index) }
        schedule(.operatorActs, in: .milliseconds(5))
        if profile.faultInterval > .zero { schedule(.fault, in: spread(profile.faultInterval)) }
        schedule(.sample, in: spread(.milliseconds(300)))
        advance(by: profile.duration)
        guard violation == nil else { return }
        settleDown()
    }

    /// Lets simulated time pass, or everything until a violation.
    package func advance(by duration: Duration) {
        _ = advance(by: duration) { false }
    }

    /// - Returns: whether `condition` became true in time.
    @discardableResult
    func advance(by duration: Duration, until condition: () -> Bool) -> Bool {
        let end = now + duration
        while violation == nil {
            if condition() { return true }
            guard let next = queue.nextTime, next <= end.nanoseconds else {
                settleAll()
                if let next = queue.nextTime, next <= end.nanoseconds { continue }
                now = end
                return condition()
            }
            guard let (time, happening) = queue.take() else { continue }
            if time > now {
                settleAll()
                // What settling scheduled may come first.
                if let sooner = queue.nextTime, sooner < time.nanoseconds {
                    queue.add(happening, at: time, tie: 0)
                    continue
                }
                now = time
            }
            eventCount += 1
            mix(time.nanoseconds)
            happen(happening)
            if eventCount > Self.eventLimit { violate("livelock", "\(eventCount) events") }
        }
        return false
    }

    private func happen(_ happening: Happening) {
        switch happening {
        case .disk(let node, let life, let operation):
            diskEnds(nodes[Int(node)], life, operation)
        case .metaRead(let node, let life, let operation):
            metaReadEnds(nodes[Int(node)], life, operation)
        case .tick(let node, let serial): tick(nodes[Int(node)], serial)
        case .pump(let pipe): pump(Int(pipe))
        case .arrival(let pipe, let count): arrive(Int(pipe), Int(count))
        case .ending(let pipe, let reset): endArrives(Int(pipe), reset: reset)
        case .connecting(let node, let life, let link): connects(nodes[Int(node)], life, link)
        case .opened(let node, let life, let link): opened(nodes[Int(node)], life, link)
        case .linkClosed(let node, let life, let link):
            linkIsClosed(nodes[Int(node)], life, link)
        case .sent(let node, let life, let slot): payloadLeft(nodes[Int(node)], life, slot)
        case .replied(let node, let life, let request):
            replyLeft(nodes[Int(node)], life, request)
        case .clientWakes(let client): clientWakes(Int(client))
        case .payload(let client, let serial): payloadComes(Int(client), serial)
        case .decode(let client): decode(Int(client))
        case .clientEnds(let client): clientDies(Int(client))
        case .operatorActs: operatorActs()
        case .fault: somethingBreaks()
        case .heal(let serial): heal(serial)
        case .start(let node): if !nodes[Int(node)].isAlive { start(nodes[Int(node)]) }
        case .restart(let node): if !nodes[Int(node)].isAlive { restart(nodes[Int(node)]) }
        case .confirm(let node, let life): confirmResumption(nodes[Int(node)], life)
        case .sample: takeSample()
        }
    }

    // MARK: tools

    func schedule(_ happening: Happening, in delay: Duration) {
        queue.add(happening, at: now + delay, tie: random.next())
    }

    /// Around the mean; now and then much longer.
    func spread(_ mean: Duration) -> Duration {
        let nanoseconds = UInt64(max(mean.inNanoseconds, 1))
        let factor: UInt64 = random.chance(1, in: 32) ? 8 : 2
        return .nanoseconds(Int64(random.next() % (nanoseconds * factor) + 1))
    }

    func pick(_ count: Int) -> Int { Int(random.next() % UInt64(max(count, 1))) }

    func mix(_ value: UInt64) { hash = (hash ^ value) &* 0x100_0000_01b3 }

    func violate(_ invariant: String, _ text: @autoclosure () -> String) {
        guard violation == nil else { return }
        violation = Violation(invariant: invariant, text: text())
        note(nil, "VIOLATION \(invariant): \(violation?.text ?? "")")
    }

    func note(_ node: SimulatedNode?, _ text: @autoclosure () -> String) {
        guard profile.recordsTrace else { return }
        let micros = now.nanoseconds / 1000
        let time = "\(micros / 1_000_000).\(String(micros % 1_000_000 + 1_000_000).dropFirst())"
        let who = node.map { $0.index == 0 ? "A " : "       B " } ?? "world "
        let line = "\(time) \(who)\(text())"
        show?(line)
        trace.append(line)
        if trace.count > 200_000 { trace.removeFirst(100_000) }
    }

    func other(_ node: SimulatedNode) -> SimulatedNode { nodes[1 - Int(node.index)] }

    // MARK: processes

    /// The daemon starts: attach, then connect.
    func start(_ node: SimulatedNode, attaches: Bool = true, resumes: Bool = false) {
        node.forgetProcess()
        node.life += 1
        node.isAlive = true
        node.engine = ReplicationEngine(
            options: engineOptions(node), seed: random.next())
        note(node, "started (life \(node.life))")
        director.nodeStarted(Int(node.index))
        if resumes { node.engine.expectResumption() } else { node.roleRecord = [] }
        if attaches || resumes { attach(node) }
        perform(node, .connect(discardMyData: false))
        if resumes { perform(node, .resume(connects: true)) }
    }

    /// As its supervisor does after a death: perhaps Primary again (S18).
    func restart(_ node: SimulatedNode) {
        let resumes = !node.roleRecord.isEmpty
        start(node, resumes: resumes)
    }

    private func engineOptions(_ node: SimulatedNode) -> Options {
        var options = profile.options
        options.keepsOwnConnection = node.index == 0
        if node.index == 1, let extents = profile.logExtentsOfB { options.logExtents = extents }
        if node.index == 1, let policy = profile.onIOErrorOfB { options.onIOError = policy }
        return options
    }

    func attach(_ node: SimulatedNode) {
        node.diskIsOpen = true
        perform(node, .attach(deviceSize: UInt64(node.disk.size)))
    }

    /// The process is gone; with it everything that was in memory.
    func stop(_ node: SimulatedNode, losesPower: Bool) {
        guard node.isAlive else { return }
        note(node, losesPower ? "loses power" : "is killed")
        let state = node.engine.state
        if state.role == .primary {
            director.survivorIsGood =
                state.connection >= .connected && state.peerDisk == .upToDate
        }
        report.count(rules: node.engine.rules)
        node.isAlive = false
        landUnfinishedWrites(node)
        if losesPower {
            let losses: [SimulatedDisk.Loss] = [.some, .torn, .torn, .everything, .nothing]
            node.disk.losePower(losses[pick(losses.count)], &random)
            node.roleRecord = []
        }
        dropConnections(node, silently: losesPower && random.chance(1, in: 2))
        clientsLoseNode(node)
        checker.nodeStopped(Int(node.index), losesPower: losesPower, world: self)
        director.nodeStopped(Int(node.index))
        node.forgetProcess()
    }

    // MARK: the engine

    func perform(_ node: SimulatedNode, _ command: AdministratorCommand) {
        let id = director.nextID(Int(node.index))
        note(node, "order \(id): \(command)")
        node.engine.perform(command, id: id, now: now)
        drain(node)
    }

    func handle(_ node: SimulatedNode, _ event: Event) {
        node.engine.handle(event, now: now)
        drain(node)
    }

    /// Performs what the engine asks for, in order.
    func drain(_ node: SimulatedNode) {
        var index = 0
        while index < node.engine.output.commands.count {
            let command = node.engine.output.commands[index]
            index += 1
            perform(node, command)
        }
        node.engine.output.removeAll()
        node.needsSettle = true
        observe(node)
        if random.chance(3, in: 4) { settle(node) }
    }

    func settleAll() {
        // What one node says may not reach the other at once, so the order does not matter.
        for node in nodes where node.isAlive && node.needsSettle { settle(node) }
    }

    func settle(_ node: SimulatedNode) {
        guard node.isAlive, node.needsSettle else { return }
        node.needsSettle = false
        node.engine.settle(now: now)
        var index = 0
        while index < node.engine.output.commands.count {
            let command = node.engine.output.commands[index]
            index += 1
            perform(node, command)
        }
        node.engine.output.removeAll()
        observe(node)
        let deadline = node.engine.nextDeadline.nanoseconds
        guard deadline != node.tickAt, deadline != .max else { return }
        node.tickAt = deadline
        node.tickSerial &+= 1
        let late: UInt64 = random.chance(1, in: 8) ? random.next() % 5_000_000 : 0
        let time = max(deadline, now.nanoseconds + 100_000) &+ late
        queue.add(
            .tick(node: node.index, serial: node.tickSerial),
            at: Instant(nanoseconds: time), tie: random.next())
    }

    private func tick(_ node: SimulatedNode, _ serial: UInt32) {
        guard node.isAlive, serial == node.tickSerial else { return }
        node.tickAt = .max
        node.engine.tick(now: now)
        drain(node)
    }

    /// Reads what the engine recorded: states, results.
    private func observe(_ node: SimulatedNode) {
        let transitions = node.engine.takeTransitions()
        for transition in transitions {
            note(node, text(transition))
            noteRefusal(Int(node.index), transition.cause)
            mix(UInt64(transition.new.word))
            checker.stateChanged(Int(node.index), transition.old, transition.new, world: self)
            if transition.old.connection != transition.new.connection {
                report.count(state: transition.new)
            }
            roleMayHaveChanged(node, transition.old, transition.new)
            checkDirection()
            checkTarget(node, transition.old, transition.new)
            if transition.old.connection == .syncTarget, transition.new.connection == .connected,
                transition.new.disk == .upToDate
            {
                director.hasOldDisk[Int(node.index)] = false
            }
        }
        for result in node.engine.takeResults() {
            note(node, "order \(result.id) ended: \(result.code) \(result.text)")
            director.ended(Int(node.index), result)
        }
    }

    private func roleMayHaveChanged(
        _ node: SimulatedNode, _ old: StateWord, _ new: StateWord
    ) {
        if new.disk == .upToDate { director.wasEverGood = true }
        guard old.role != new.role, new.role == .primary else { return }
        if nodes.allSatisfy({
            $0.isAlive && $0.engine.state.role == .primary
                && $0.engine.state.connection >= .connected
        }) {
            violate("I-15", "both nodes are Primary and connected")
        }
        director.lastPrimary = Int(node.index)
        // What it serves from now on has to be right.
        checkImage(Int(node.index), "the image at promotion")
    }

    private func text(_ transition: Transition) -> String {
        guard transition.old != transition.new else { return transition.cause }
        let (old, new) = (transition.old, transition.new)
        var parts: [String] = []
        if old.role != new.role { parts.append("role \(old.role.name)->\(new.role.name)") }
        if old.peer != new.peer { parts.append("peer \(old.peer.name)->\(new.peer.name)") }
        if old.connection != new.connection {
            parts.append("conn \(old.connection.name)->\(new.connection.name)")
        }
        if old.disk != new.disk { parts.append("disk \(old.disk.name)->\(new.disk.name)") }
        if old.peerDisk != new.peerDisk {
            parts.append("pdsk \(old.peerDisk.name)->\(new.peerDisk.name)")
        }
        return "** " + parts.joined(separator: ", ") + " (\(transition.cause))"
    }
}
