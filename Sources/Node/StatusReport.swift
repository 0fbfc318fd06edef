import Control
import DRBDWire
import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// How much of a resync was left at some moment (reference, admin section 7.2).
struct ProgressMark {
    var at: Instant
    var left: Int
}

/// The snapshot that all status outputs are made of, the log, and what has to be looked at now and then.
extension Daemon {
    static let markInterval: Duration = .seconds(3)

    func snapshot() -> StatusSnapshot {
        var snapshot = StatusSnapshot(
            resource: directory.name, node: nodeName, peer: settings?.peerName ?? "peer",
            volumes: [volumeStatus()], messages: messages,
            nbdURI: directory.nbdURI(volume: 0))
        for id in 0..<Self.clientLimit where clientConnections[id] != Use.none {
            snapshot.clients.append(
                ClientStatus(
                    name: clientNames[id], volume: 0,
                    connectedSeconds: UInt64((now - clientsSince[id]).components.seconds),
                    inFlight: requestsInFlight(id)))
        }
        return snapshot
    }

    private func volumeStatus() -> VolumeStatus {
        let state = engine.state
        var volume = VolumeStatus(
            number: 0, minor: settings?.minor ?? 0, device: settings?.device ?? "",
            role: state.role, peerRole: state.peer, connection: state.connection,
            disk: state.disk, peerDisk: state.peerDisk)
        volume.backingDisk = engine.isDiskOpen ? settings?.disk : nil
        if engine.hasConnection {
            volume.protocolLetter = settings?.options.replicationProtocol.rawValue
        }
        volume.flags.pausedByPeer = state.pausedByPeer
        volume.flags.pausedByUser = state.pausedByUser
        let counters = engine.counters
        let pending = engine.pending
        volume.counters.sent = counters.sent
        volume.counters.received = counters.received
        volume.counters.written = counters.diskWritten
        volume.counters.read = counters.diskRead
        volume.counters.activityLogWrites = engine.log.written
        volume.counters.bitmapWrites = counters.bitmapWrites
        volume.counters.localPending = UInt64(pending.disk)
        volume.counters.peerPending = UInt64(pending.peer)
        volume.counters.unacknowledged = UInt64(pending.unacknowledged)
        volume.counters.applicationPending = UInt64(pending.requests)
        volume.counters.epochs = UInt64(pending.epochs)
        volume.size = engine.size
        if engine.isDiskOpen {
            volume.outOfSync = UInt64(engine.bitmap.setCount) * 4
            let uuids = engine.superblock.uuids
            volume.uuids = [uuids.current, uuids.bitmap, uuids.history0, uuids.history1]
        }
        volume.progress = progress()
        return volume
    }

    private func progress() -> SyncProgress? {
        guard let running = engine.progress else { return nil }
        var marks = marks.map {
            SyncProgress.Mark(
                age: UInt64((now - $0.at).components.seconds), left: UInt64($0.left))
        }
        if marks.isEmpty {
            marks = [
                SyncProgress.Mark(
                    age: UInt64((now - running.started).components.seconds),
                    left: UInt64(running.total))
            ]
        }
        let limit = engine.options.resyncRateLimit ?? 0
        return SyncProgress(
            total: UInt64(running.total), left: UInt64(running.left),
            elapsedSeconds: UInt64((now - running.started).components.seconds), marks: marks,
            wantedRate: UInt64(limit))
    }

    // MARK: now and then

    var housekeepingDeadline: Instant {
        var deadline = min(exitAt, nextCloseAt, stalls.checkAt, nextRecording)
        deadline = min(deadline, disk.watch.at)
        if !waiters.isEmpty {
            for waiter in waiters { deadline = min(deadline, waiter.nextReport, waiter.deadline) }
        }
        if kernel.stage != .detached { deadline = min(deadline, kernel.retryAt) }
        if let job = jobs.first { deadline = min(deadline, job.retryAt) }
        if let restoration { deadline = min(deadline, restoration.deadline) }
        if wantedDisk != nil, jobs.isEmpty { deadline = min(deadline, nextDiskAttempt) }
        if engine.isResyncing {
            deadline = min(deadline, (marks.last?.at ?? now) + Self.markInterval)
        }
        return deadline
    }

    /// At the end of every turn: looks first whether there is anything to do.
    mutating func housekeep() {
        if engine.hasNews { logTransitions() }
        if engine.hasNews || !jobs.isEmpty {
            collectResults()
            saveState()
        }
        if restoration != nil { watchRestoration() }
        if wantedDisk != nil { seekDisk() }
        if kernel.stage != .detached { tendDevice() }
        if !waiters.isEmpty { advanceWaiters() }
        if peerListener >= 0 { stopListening() }
        if engine.isResyncing || !marks.isEmpty { updateMarks() }
        if !handshakes.isEmpty { grantWaiting() }
        if engine.clientsWait || stalls.checkAt != .never || !handshakes.isEmpty { watchClients() }
        if exitAt != .never { exitWhenSent() }
        if now >= nextCloseAt { closeLate() }
        if now >= nextRecording { recordAgain() }
        if now >= disk.watch.at { lookAtFile() }
    }

    private mutating func closeLate() {
        nextCloseAt = .never
        for index in 0..<Reactor.connectionCount where uses[index].closing {
            if now >= uses[index].closeAt {
                uses[index].closeAt = .never
                drop(index)
            }
            nextCloseAt = min(nextCloseAt, uses[index].closeAt)
        }
    }

    /// The answer to `down` goes out before the process ends.
    private mutating func exitWhenSent() {
        var queued = 0
        for control in controls {
            if let control, !uses[control.connection].gone {
                queued += reactor.queuedBytes(control.connection)
            }
        }
        if queued == 0, jobs.isEmpty || now >= exitAt { exits = true }
        if now >= exitAt { exits = true }
    }

    private mutating func updateMarks() {
        guard let running = engine.progress else {
            marks.removeAll(keepingCapacity: true)
            return
        }
        if marks.isEmpty {
            marks.append(ProgressMark(at: running.started, left: running.total))
        }
        guard let last = marks.last, now >= last.at + Self.markInterval, running.left != last.left
        else { return }
        marks.append(ProgressMark(at: now, left: running.left))
        if marks.count > SyncProgress.markCount { marks.removeFirst() }
    }

    // MARK: log

    private mutating func logTransitions() {
        for transition in engine.takeTransitions() {
            let text = Self.text(transition)
            switch transition.weight {
            case .information: log.info("\(text)")
            case .warning: log.warning("\(text)")
            case .error: log.error("\(text)")
            }
            let (old, new) = (transition.old.connection, transition.new.connection)
            if new >= .connected, old < .connected {
                // What led to the last disconnection explains nothing any more.
                messages.removeAll()
                connectTrouble = nil
            }
            let leaves = new == .disconnecting && old != new
            if transition.weight != .information || leaves { remember(text) }
        }
    }

    /// The last few reasons are part of the status: whoever finds StandAlone wants to know why.
    mutating func remember(_ text: String) {
        messages.append(text)
        if messages.count > 8 { messages.removeFirst() }
    }

    /// As the kernel logs a change: only what changed, then why.
    private static func text(_ transition: Transition) -> String {
        let (old, new) = (transition.old, transition.new)
        var text = ""
        func add(_ name: String, _ before: String, _ after: String) {
            if before != after { text += "\(name)( \(before) -> \(after) ) " }
        }
        add("role", old.role.name, new.role.name)
        add("peer", old.peer.name, new.peer.name)
        add("conn", old.connection.name, new.connection.name)
        add("disk", old.disk.name, new.disk.name)
        add("pdsk", old.peerDisk.name, new.peerDisk.name)
        add("peer_isp", old.pausedByPeer ? "1" : "0", new.pausedByPeer ? "1" : "0")
        add("user_isp", old.pausedByUser ? "1" : "0", new.pausedByUser ? "1" : "0")
        return text.isEmpty ? transition.cause : "\(text): \(transition.cause)"
    }

    /// A failure that comes again every few seconds is told once.
    mutating func logOnce(_ text: String) {
        guard messages.last != text else { return }
        log.warning("\(text)")
        remember(text)
    }

    /// The settings in the engine's terms.
    func options(_ settings: ResourceSettings) -> Options {
        let set = settings.options
        var options = Options()
        switch set.replicationProtocol {
        case .A: options.replicationProtocol = .a
        case .B: options.replicationProtocol = .b
        case .C: options.replicationProtocol = .c
        }
        options.timeout = .milliseconds(set.timeout * 100)
        options.pingInterval = .seconds(set.pingInterval)
        options.pingTimeout = .milliseconds(set.pingTimeout * 100)
        options.connectInterval = .seconds(set.connectInterval)
        options.koCount = set.koCount
        options.maximumBuffers = set.maximumBuffers
        options.maximumEpochSize = set.maximumEpochSize
        options.logExtents = set.activityLogExtents
        options.diskTimeout = set.diskTimeout > 0 ? .milliseconds(set.diskTimeout * 100) : nil
        options.onIOError =
            switch set.onIOError {
            case nil: .detach
            case .callHandler: .callHandler
            case .passOn: .passOn
            }
        if let limit = [set.resyncRate, set.maximumRate].compactMap({ $0 }).min() {
            options.resyncRateLimit = limit
        }
        options.announcedResyncRate = UInt32(clamping: set.resyncRate ?? 250)
        options.announcedMaximumRate = UInt32(clamping: set.maximumRate ?? 102_400)
        options.announcedPlanAhead = UInt32(clamping: set.planAhead)
        options.announcedDelayTarget = UInt32(clamping: set.delayTarget)
        options.announcedFillTarget = UInt32(clamping: set.fillTarget)
        options.compressesBitmap = set.useRLE
        options.flushWaitsForPeer = set.flushWaitsForPeer
        let mine = "\(settings.localAddress)"
        options.keepsOwnConnection = mine < "\(settings.peerAddress)"
        return options
    }
}
