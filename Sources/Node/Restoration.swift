import Control
import DRBDWire
import Glibc
import KernelDevice
import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// Going on after the death of the process before this one, until its role is decided.
struct Restoration {
    /// When that one died.
    let death: Instant
    /// Later than this it is not Primary again.
    var deadline: Instant
    /// Commands that must not be answered out of the gap.
    var deferred: [(session: Int, command: ControlCommand)] = []
}

/// Settings, disk, connection and role of a process that died (safety.md S16 to S19).
extension Daemon {
    /// What this process was told, for the next one.
    mutating func saveState() {
        guard supervision.isSupervised, let settings, restoration == nil else { return }
        let state = SavedState(
            settings: settings, attached: engine.isDiskOpen || wantedDisk != nil,
            connected: engine.hasConnection, device: kernel.reservation?.index)
        guard state != savedState else { return }
        savedState = state
        do {
            let bytes = try ControlCoding.encode(state)
            do { try SmallFile.replace(directory.state, with: bytes) } catch {
                // Rather nothing than what was true once; and where the disk is full, its place will do.
                _ = unsafe unlink(directory.state)
                try SmallFile.replace(directory.state, with: bytes)
            }
            stateTrouble = nil
        } catch {
            stateTrouble = recordFailed(
                "after a death this resource will not come back by itself until 'repctl up'", error)
        }
    }

    /// What the next process would go on with could not be written: the operator is told, and it is
    /// tried again.
    private mutating func recordFailed(_ consequence: String, _ error: any Error) -> String {
        let trouble = "\(consequence): \(error) (make room in \(directory.path))"
        logOnce(trouble)
        nextRecording = now + .seconds(1)
        return trouble
    }

    mutating func recordAgain() {
        nextRecording = .never
        if stateTrouble != nil {
            savedState = nil
            saveState()
        }
        // A generation that is not on the disk yet does no harm: then nobody is Primary again.
        if roleTrouble != nil { recordRole(engine.superblock.uuids.current) }
        if recordTrouble == nil { log.notice("\(directory.path): the records are complete again") }
    }

    /// What a supervisor's restart begins with.
    mutating func restore() {
        guard supervision.restores, let saved = readState() else {
            if supervision.death != nil {
                log.warning("nothing to go on with was kept: 'repctl up \(directory.name)'")
            }
            eraseRole()
            return
        }
        settings = saved.settings
        savedState = saved
        engine.options = options(saved.settings)
        let limit = Duration.seconds(saved.settings.options.resumeTimeout)
        if let last = supervision.death {
            // It counts from the death of the process that was Primary, not of those that followed it.
            let death = firstDeath(since: last)
            restoration = Restoration(death: death, deadline: death + limit)
        }
        if let problem = listenForClients(saved.settings) { logOnce(problem) }
        restoreDevice(saved)
        if restoration != nil, let record = roleFile.read() {
            if let reason = refusal(toResume: record, generation: nil) {
                notPrimaryAgain(reason)
                eraseRole()
            } else {
                engine.expectResumption()
            }
        }
        if !engine.isResuming { dropWaitingClients() }
        if saved.attached, restoration != nil {
            jobs.append(Job(session: nil, steps: [.awaitDisk(saved.settings), .attach]))
        } else if saved.attached {
            (wantedDisk, nextDiskAttempt) = (saved.settings, now)
        }
        var steps: [Job.Step] = []
        if saved.connected { steps = [.listen, .order(.connect(discardMyData: false))] }
        steps += [.order(.resume(connects: saved.connected)), .endRestoration]
        enqueue(nil, steps)
    }

    /// When the process died that the role record names; noted there by the first that follows it.
    private mutating func firstDeath(since last: Instant) -> Instant {
        do throws(SystemError) {
            return try roleFile.whileLocked { (file) throws(SystemError) in
                guard var record = file.read() else { return last }
                if let died = record.died { return min(last, Instant(nanoseconds: died)) }
                record.died = last.nanoseconds
                try file.write(record)
                return last
            }
        } catch {
            // Without it nobody is Primary again.
            logOnce("the role record cannot be used: \(error)")
            return Instant(nanoseconds: 0)
        }
    }

    private func readState() -> SavedState? {
        guard let text = SmallFile.read(directory.state) else { return nil }
        do throws(ControlError) { return try ControlCoding.decodeState(Array(text.utf8)) } catch {
            log.error("\(directory.state): \(error)")
            return nil
        }
    }

    /// Whoever has connected to a listening socket meanwhile is not served by a Secondary.
    private mutating func dropWaitingClients() {
        for descriptor in nbdDescriptors { Sockets.dropBacklog(descriptor) }
    }

    // MARK: the role

    mutating func recordRole(_ generation: UInt64) {
        guard supervision.isSupervised, let settings else { return }
        // Until the super block is on the disk, that names the one before.
        var generations = [generation]
        if let last = roleRecord?.generations.first, last != generation { generations.append(last) }
        let record = RoleRecord(
            boot: RoleRecord.currentBoot, process: getpid(),
            disk: RoleRecord.identity(ofDisk: settings.disk), generations: generations,
            device: kernel.reservation?.index)
        roleRecord = record
        do throws(SystemError) {
            try roleFile.whileLocked { (file) throws(SystemError) in try file.write(record) }
            roleTrouble = nil
        } catch {
            eraseRole()
            roleTrouble = recordFailed(
                "after a death this node will not be Primary again by itself", error)
        }
    }

    mutating func eraseRole() {
        roleRecord = nil
        roleTrouble = nil
        guard supervision.isSupervised else { return }
        do throws(SystemError) {
            try roleFile.whileLocked { (file) throws(SystemError) in try file.erase() }
        } catch {
            logOnce("the role record stays, although this node is Secondary: \(error)")
        }
    }

    /// The moment of becoming Primary: everything once more, with the record read again.
    mutating func confirmResumption() {
        var reason: String?
        let generation = engine.superblock.uuids.current
        do throws(SystemError) {
            try roleFile.whileLocked { (file) throws(SystemError) in
                guard var record = file.read() else {
                    reason = "it was made Secondary meanwhile"
                    return
                }
                reason = refusal(toResume: record, generation: generation)
                guard reason == nil else { return }
                record.process = getpid()
                record.died = nil
                try file.write(record)
                roleRecord = record
            }
        } catch {
            reason = "\(error)"
        }
        if let reason { notPrimaryAgain(reason) }
        late.append(.resumptionConfirmed(reason == nil))
    }

    private func refusal(toResume record: RoleRecord, generation: UInt64?) -> String? {
        guard let settings, let restoration else { return "there is nothing to go on with" }
        if record.boot != RoleRecord.currentBoot { return "the machine was booted meanwhile" }
        let now = Reactor.clock()
        if now >= restoration.deadline {
            let late = (now - restoration.death).components.seconds
            return "it died \(late) s ago, longer than resume-timeout "
                + "(\(settings.options.resumeTimeout) s)"
        }
        if supervision.deaths > settings.options.resumeLimit {
            return "it died \(supervision.deaths) times within a minute, more than resume-limit "
                + "(\(settings.options.resumeLimit))"
        }
        if record.disk != RoleRecord.identity(ofDisk: settings.disk) {
            return "it was Primary with another disk (\(record.disk))"
        }
        if let generation, !record.names(generation) {
            return "the disk has a generation that it was not Primary with"
        }
        return nil
    }

    private mutating func notPrimaryAgain(_ reason: String) {
        let text = "not Primary again: \(reason)"
        log.error("\(text)")
        remember(text)
    }

    // MARK: commands meanwhile

    /// Whether the command waits for the role, or was answered here.
    mutating func deferred(_ command: ControlCommand, _ session: Int) -> Bool {
        guard restoration != nil else { return false }
        switch command {
        case .ping: return false
        // Whether somebody has mounted the kernel device can be asked when it answers again.
        case .secondary where kernel.stage == .left,
            .down(force: false) where kernel.stage == .left:
            restoration?.deferred.append((session, command))
            return true
        case .secondary:
            engine.giveUpResumption("made Secondary by the operator", now: now)
            perform()
            refuseDeferredPromotions()
            guard engine.state.role == .secondary else {
                // It had become Primary already.
                endRestoration()
                return false
            }
            send(session, ControlReply())
            return true
        case .down:
            engine.giveUpResumption("taken down by the operator", now: now)
            perform()
            refuseDeferredPromotions()
            // Nobody waits for the disk any more.
            if case .awaitDisk? = jobs.first.map({ $0.steps[$0.next] }) { jobs.removeFirst() }
            wantedDisk = nil
            endRestoration()
            return false
        default:
            restoration?.deferred.append((session, command))
            return true
        }
    }

    /// Whoever asked for a Primary before it was made Secondary.
    private mutating func refuseDeferredPromotions() {
        guard let deferred = restoration?.deferred else { return }
        restoration?.deferred = deferred.filter { !Self.promotes($0.command) }
        for (session, command) in deferred where Self.promotes(command) {
            send(
                session,
                ControlReply(exitCode: 11, message: "\(minor): made Secondary meanwhile"))
        }
    }

    private static func promotes(_ command: ControlCommand) -> Bool {
        if case .primary = command { true } else { false }
    }

    /// The role is decided, or it is too late for more than Secondary.
    mutating func endRestoration() {
        guard let ended = restoration else { return }
        restoration = nil
        saveState()
        if engine.state.role != .primary { dropClients() }
        for (session, command) in ended.deferred { self.command(command, session) }
    }

    /// Let in because it might have been Primary again.
    private mutating func dropClients() {
        for index in 0..<Reactor.connectionCount where uses[index].kind == .client {
            dropWhenSent(index)
        }
    }

    mutating func watchRestoration() {
        guard let restoration, now >= restoration.deadline else { return }
        engine.giveUpResumption("resume-timeout is over", now: now)
        perform()
        if case .awaitDisk(let wanted)? = jobs.first.map({ $0.steps[$0.next] }) {
            // The connection, and what operators order, need not wait for it any longer.
            jobs.removeFirst()
            wantedDisk = wanted
            nextDiskAttempt = now
            self.restoration?.deadline = .never
            advanceJobs()
        } else {
            endRestoration()
        }
    }

    /// The disk of the process before this one, which somebody else has: until he gives it back, or
    /// the operator has other plans.
    mutating func seekDisk() {
        guard let wanted = wantedDisk, now >= nextDiskAttempt, jobs.isEmpty else { return }
        if engine.isDiskOpen || wanted.disk != settings?.disk {
            wantedDisk = nil
            return
        }
        nextDiskAttempt = now + .milliseconds(100)
        if let problem = openDisk(wanted), problem.isBusy { return }
        wantedDisk = nil
        // What else is in the way is told by the attempt to attach it.
        enqueue(nil, backing == nil ? [.openDisk(wanted), .attach] : [.attach])
    }
}
