package import Control
import DRBDWire
import Glibc
package import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// One resource: its engine, the loop that feeds it, its disk, peer, clients and control socket.
///
/// Completions become events for the engine or bytes for a decoder; the engine's commands are
/// performed at once. Nothing about replication is decided here.
package struct Daemon: ~Copyable {
    static let clientLimit = ReplicationEngine.clientLimit

    /// Commands that may wait to be performed together.
    private static let performAtOnce = 256

    /// Always `nil`. With it the compiler lends a daemon by its address; without, a call of a
    /// function that does not mutate copies all of it to the stack first.
    private let lentByAddress: (any Sendable)? = nil

    var reactor: Reactor
    var engine: ReplicationEngine
    var now: Instant
    var log: Logger
    let directory: ResourceDirectory
    let nodeName: String

    var uses = Table<Use>(repeating: Use(), count: Reactor.connectionCount)
    /// Events that performing a command leads to; fed when no command is being performed.
    var late = Queue<Event>(capacity: 8192)
    var anyResumed = false
    /// As of the end of the last turn.
    private var engineDeadline = Instant.never
    /// No `closeAt` of `uses` is earlier.
    var nextCloseAt = Instant.never

    // NBD.
    var handshakes: [Int: NBDSession] = [:]
    var clientConnections = Table<UInt8>(repeating: Use.none, count: clientLimit)
    var clientNames = [String](repeating: "", count: clientLimit)
    var clientsSince = Table<Instant>(repeating: .never, count: clientLimit)
    var limits = NBDLimits(size: 0)
    var stalls = StallWatch()
    var nbdListeners: [Int] = []
    /// Their sockets, the unix one first.
    var nbdDescriptors: [Int32] = []
    var unixListener = -1
    var drainsClients = false
    var largeReads = Table<LargeRead>(repeating: LargeRead(), count: LargeRead.limit)
    var blockStatus = BlockStatus()
    /// How many clients send nothing more and are still answered.
    var finishedClients = 0

    // The peer.
    var linkConnections = Table<UInt8>(
        repeating: Use.none, count: ReplicationEngine.linkLimit)
    var linkAttempts = Table<Int16>(repeating: -1, count: ReplicationEngine.linkLimit)
    var peerListener = -1

    // The disk.
    var disk = DiskBuffers()
    var backing: BackingFile?
    /// What holds the meta data, if that is another device.
    var metaBacking: BackingFile?
    var metadata: ExternalMetadata?
    /// Bytes of the backing disk when it was opened.
    var diskSize: UInt64 = 0

    var kernel = KernelAttachment()

    // Death and return.
    var supervision: Supervision
    let roleFile: RoleFile
    /// As it was last written.
    var roleRecord: RoleRecord?
    var savedState: SavedState?
    /// What could not be written for the process after this one, in words; it is tried again.
    var stateTrouble: String?
    var roleTrouble: String?
    var recordTrouble: String? { roleTrouble ?? stateTrouble }
    var nextRecording = Instant.never
    var restoration: Restoration?
    /// Attached as soon as nobody else has it.
    var wantedDisk: ResourceSettings?
    var nextDiskAttempt = Instant.never

    // Control.
    var settings: ResourceSettings?
    /// The child that runs local-io-error.
    var errorHandler: Int?
    var controls: [ControlSession?] = []
    var controlListener = -1
    var jobs: [Job] = []
    var nextOrder: UInt32 = 1
    var waiters: [Waiter] = []
    var marks: [ProgressMark] = []
    var messages: [String] = []
    /// Why the last attempt to reach the peer failed.
    var connectTrouble: String?
    /// Something was begun after the engine was last settled: the next turn does not wait.
    var urgent = false
    var exits = false
    /// The last answer is being sent; then it ends.
    var exitAt = Instant.never
    var stopping = false
    /// No request is read any more.
    var quiesces = false
    /// It ends, and another process takes its place.
    package internal(set) var makesWay = false

    /// - Throws: `DaemonError` with what an operator can do.
    package init(
        resource: ResourceDirectory, nodeName: String, supervision: consuming Supervision,
        log: Logger
    ) throws(DaemonError) {
        do throws(ReactorError) {
            reactor = try Reactor(
                configuration: Reactor.Configuration(arenaSize: DiskBuffers.arenaSize))
        } catch {
            throw .cannotStart("\(error)")
        }
        now = reactor.now()
        var system = SystemRandomNumberGenerator()
        engine = ReplicationEngine(options: Options(), seed: system.next())
        directory = resource
        roleFile = RoleFile(resource)
        self.supervision = supervision
        self.nodeName = nodeName
        self.log = log
    }

    /// Serves until told to stop.
    package mutating func run() throws(DaemonError) {
        do throws(SystemError) {
            try listen()
            log.info("\(reactor.report)")
            try supervision.isReady()
            restore()
            while !exits {
                let count = try reactor.turn(until: deadline(), now: now)
                now = reactor.now()
                collect(count)
                settle()
            }
        } catch {
            throw .cannotStart("\(error)")
        }
    }

    private mutating func listen() throws(SystemError) {
        try reactor.watchSignals([SIGTERM, SIGINT])
        try blockStatus.start(&reactor)
        let control =
            if let kept = supervision.take(Supervision.control) { kept } else {
                try Sockets.listenUnix(directory.controlSocket)
            }
        let nbd =
            if let kept = supervision.take(Supervision.nbd) { kept } else {
                try Sockets.listenUnix(directory.nbdSocket)
            }
        controlListener = try reactor.addListener(control)
        nbdDescriptors.append(nbd)
        unixListener = try reactor.addListener(nbd)
    }

    private mutating func deadline() -> Instant {
        if urgent {
            urgent = false
            return now
        }
        return min(engineDeadline, housekeepingDeadline)
    }

    private mutating func collect(_ count: Int) {
        // Whoever is gone must not be queued for any more, whatever else this batch leads to.
        if reactor.reportsClosed {
            for index in 0..<count {
                if case .closed(let connection) = reactor[completion: index] {
                    uses[connection].gone = true
                }
            }
        }
        for index in 0..<count {
            switch reactor[completion: index] {
            case .operation(let token, let result): operationDone(token, result)
            case .sent(_, let owner, _): sent(owner)
            case let other:
                // What follows may give a connection or a number to somebody else.
                perform()
                complete(other)
            }
        }
        perform()
    }

    private mutating func settle() {
        if now >= engineDeadline {
            engine.tick(now: now)
            perform()
        }
        engine.settle(now: now)
        perform()
        while anyResumed {
            pumpResumed()
            engine.settle(now: now)
            perform()
        }
        if finishedClients > 0 { closeFinished() }
        housekeep()
        engineDeadline = engine.nextDeadline
    }

    // MARK: completions

    private mutating func complete(_ completion: Completion) {
        switch completion {
        case .operation, .sent: invariantFailed("\(completion) is handled before all others")
        case .received(let index): pump(index)
        case .ended(let index, let errno): ended(index, errno)
        case .sendFailed(let index, _): drop(index)
        case .hangup(let index):
            // What a client left behind undecoded when it went is not executed later (S3). One that
            // has only finished sending is answered.
            if uses[index].kind == .client, uses[index].paused, reactor.isAbandoned(index) {
                drop(index)
            }
        case .closed(let index): closed(index)
        case .accepted(let listener, let descriptor): accepted(listener, descriptor)
        case .acceptFailed(let listener, let errno):
            log.warning("accept failed: \(SystemError("accept", errno: errno))")
            reactor.resumeAccepting(listener)
        case .connected(let attempt, let descriptor): linkConnected(attempt, descriptor)
        case .connectFailed(let attempt, let errno): linkFailed(attempt, errno)
        case .signal(let number):
            log.notice("signal \(number): stopping")
            stop()
        case .posted: statusFound()
        case .exited(let child, let status): childExited(child, status)
        }
    }

    /// Feeds one event and performs what it leads to.
    mutating func tell(_ event: Event) {
        engine.handle(event, now: now)
        perform()
    }

    /// Feeds the end of an operation; what it leads to is performed with what others lead to.
    mutating func tellLater(_ event: Event) {
        engine.handle(event, now: now)
        if engine.output.commands.count > Self.performAtOnce { perform() }
    }

    private mutating func sent(_ owner: UInt64) {
        let id = UInt16(truncatingIfNeeded: owner)
        switch owner >> 16 {
        case 1: tellLater(.sent(slot: id))
        case 2: tellLater(.replied(request: id))
        case 3: tell(.linkDrained(link: UInt8(truncatingIfNeeded: id)))
        default: break
        }
    }

    /// Cuts what has come in into packets or requests until more is needed.
    mutating func pump(_ index: Int) {
        guard !uses[index].closing else { return }
        switch uses[index].kind {
        case .handshake: pumpHandshake(index)
        case .client: pumpClient(index)
        case .link: pumpLink(index)
        case .control: pumpControl(index)
        case .holder: pumpHolder(index)
        case .none: break
        }
    }

    private mutating func pumpResumed() {
        anyResumed = false
        for index in 0..<Reactor.connectionCount where uses[index].resumed {
            uses[index].resumed = false
            pump(index)
        }
    }

    /// Closes a connection at once; `closed` follows.
    mutating func drop(_ index: Int) {
        guard uses[index].kind != .none, !uses[index].gone else { return }
        uses[index].closing = true
        reactor.close(index)
    }

    /// Closes behind what is queued, but not later than a second from now.
    mutating func dropWhenSent(_ index: Int) {
        guard uses[index].kind != .none, !uses[index].closing else { return }
        uses[index].closing = true
        uses[index].closeAt = now + .seconds(1)
        nextCloseAt = min(nextCloseAt, uses[index].closeAt)
        reactor.closeWhenSent(index)
    }

    /// The other end sends nothing more, or the connection is broken.
    private mutating func ended(_ index: Int, _ errno: Int32) {
        if uses[index].kind == .client, errno == 0 {
            clientFinished(index)
        } else {
            drop(index)
        }
    }

    private mutating func closed(_ index: Int) {
        let use = uses[index]
        uses[index] = Use()
        stalls.forget(index)
        switch use.kind {
        case .none: break
        case .handshake: handshakes[index] = nil
        case .client:
            if kernelConnectionClosed(index) { log.debug("the kernel device has no connection") }
            clientConnections[Int(use.id)] = Use.none
            forgetLargeReads(index)
            forgetStatusQueries(index)
            if use.finished { finishedClients -= 1 }
            tell(.clientClosed(client: use.id))
            grantWaiting()
        case .link:
            linkConnections[Int(use.id)] = Use.none
            tell(.linkClosed(link: use.id))
        case .control: controlClosed(Int(use.id))
        case .holder: holderClosed(index)
        }
    }

    private mutating func accepted(_ listener: Int, _ descriptor: Int32) {
        guard let index = reactor.add(descriptor) else {
            log.warning("no place for one more connection: refused")
            close(descriptor)
            return
        }
        uses[index] = Use()
        if listener == controlListener {
            controlAccepted(index)
        } else if listener == peerListener {
            peerAccepted(index)
        } else {
            clientAccepted(index, unix: listener == unixListener)
        }
    }
}

/// What keeps a daemon from starting or going on.
package enum DaemonError: Error, CustomStringConvertible {
    case cannotStart(String)

    package var description: String {
        switch self {
        case .cannotStart(let text): text
        }
    }
}
