import Control
import DRBDWire
import Glibc
import Logging
import MetaDisk
import NBD
import Reactor
import Replication
import Status
import Support

/// A control command as steps, carried out one after the other; the first failure ends it.
struct Job {
    enum Step: Equatable {
        case openDisk(ResourceSettings)
        /// As long as somebody else has it.
        case awaitDisk(ResourceSettings)
        case attach
        case listen
        case order(AdministratorCommand)
        /// Fails while clients use the export.
        case refuseClients(option: String)
        /// Lets their requests end, then closes them.
        case drainClients
        case disconnectIfNeeded, detachIfNeeded
        /// Waits until the disk can be had by others. Kernels up to 6.1 keep a file that was
        /// registered with io_uring for up to a second after it was given back.
        case awaitRelease
        case exit
        case endRestoration
        /// Takes no new requests and lets those under way end.
        case quiesce
        /// Ends as it is; the supervisor starts another one.
        case makeWay
        /// The kernel device (KernelDevices.swift).
        case reserveDevice(ResourceSettings)
        case attachDevice
        case holdDevice(force: Bool)
        case detachDevice
        case letDeviceGo, unreserveDevice
        /// The end of a job that first had to take back what it had begun.
        case fail(exitCode: Int32, message: String)
    }

    /// Who is told; `nil`: nobody is left.
    var session: Int?
    var steps: [Step]
    var next = 0
    /// The engine's order that is being carried out.
    var order: UInt32?
    /// When to give up waiting for the disk, and when to look again.
    var giveUp = Instant.never
    var retryAt = Instant.never

    enum Clients {
        /// They are sent away; or the job fails, and names the option that does that.
        case leave, stay(option: String)
    }

    /// The kernel device first: while somebody uses it, nothing changes (safety.md S21).
    static func demotion(force: Bool, clients: Clients) -> [Step] {
        let middle: [Step] =
            switch clients {
            case .leave: [.detachDevice, .drainClients]
            case .stay(let option): [.refuseClients(option: option), .detachDevice]
            }
        return [.holdDevice(force: force)] + middle + [.order(.secondary), .letDeviceGo]
    }
}

extension Daemon {
    mutating func enqueue(_ session: Int?, _ steps: [Job.Step]) {
        jobs.append(Job(session: session, steps: steps))
        advanceJobs()
    }

    /// SIGTERM: what `down --force` does, and then the end in any case.
    mutating func stop() {
        guard !stopping else {
            exits = true
            return
        }
        stopping = true
        enqueue(
            nil,
            Job.demotion(force: true, clients: .leave) + [
                .disconnectIfNeeded, .detachIfNeeded, .awaitRelease, .unreserveDevice, .exit,
            ])
    }

    mutating func advanceJobs() {
        while !jobs.isEmpty, jobs[0].order == nil,
            now >= jobs[0].retryAt || jobs[0].retryAt == .never
        {
            guard jobs[0].next < jobs[0].steps.count else {
                endJob(ControlReply(message: recordTrouble))
                continue
            }
            guard run(jobs[0].steps[jobs[0].next]) else { return }
        }
    }

    private mutating func endJob(_ reply: ControlReply) {
        let job = jobs.removeFirst()
        if job.steps.contains(.drainClients) { drainsClients = false }
        releaseHold()
        if reply.exitCode != 0 { deviceJobFailed(job) }
        if reply.exitCode != 0, job.steps.contains(.endRestoration) { endRestoration() }
        send(job.session, reply)
        if reply.exitCode != 0, let message = reply.message { log.notice("refused: \(message)") }
        if stopping, job.session == nil, reply.exitCode != 0 {
            log.error("could not stop cleanly: ending all the same")
            exits = true
        }
    }

    private mutating func failJob(_ exitCode: Int32, _ message: String) {
        endJob(ControlReply(exitCode: exitCode, message: message))
    }

    private mutating func stepDone() {
        jobs[0].next += 1
        jobs[0].retryAt = .never
        jobs[0].giveUp = .never
    }

    /// - Returns: false when the step has to wait.
    private mutating func run(_ step: Job.Step) -> Bool {
        switch step {
        case .openDisk(let settings): return open(settings)
        case .awaitDisk(let settings): return open(settings, patiently: true)
        case .endRestoration:
            // What was deferred begins in there, other jobs among it.
            stepDone()
            endRestoration()
            return true
        case .attach:
            if engine.isDiskOpen {
                failJob(
                    10, "\(minor): Failure: (124) Device is attached to a disk (use detach first)")
                return true
            }
            return start(
                .attach(deviceSize: diskSize, blockSize: disk.blockSize, metadata: metadata))
        case .listen:
            do throws(SystemError) { try listenForPeer() } catch {
                failJob(
                    10, "\(minor): Failure: (102) Local address(port) already in use. (\(error))")
                return true
            }
        case .order(let command):
            if command == .secondary, engine.state.role != .primary { break }
            return start(command)
        case .refuseClients(let option):
            let clients = clientList
            if !clients.isEmpty {
                failJob(
                    11,
                    "\(minor): State change failed: (-12) Device is held open by someone\n"
                        + clients.map { "  \($0)" }.joined(separator: "\n")
                        + "\n  (\(option) sends them away)")
                return true
            }
        case .drainClients:
            drainsClients = true
            // A client that does not read its answers is not waited for without end.
            if jobs[0].giveUp == .never { jobs[0].giveUp = now + .seconds(10) }
            guard drainClients(force: now >= jobs[0].giveUp) else {
                jobs[0].retryAt = now + .milliseconds(20)
                return false
            }
        case .disconnectIfNeeded:
            if engine.hasConnection { return start(.disconnect(force: stopping)) }
        case .detachIfNeeded:
            if engine.isDiskOpen { return start(.detach(force: stopping)) }
        case .awaitRelease:
            if jobs[0].giveUp == .never { jobs[0].giveUp = now + .seconds(3) }
            if !isDiskFree, now < jobs[0].giveUp {
                jobs[0].retryAt = now + .milliseconds(20)
                return false
            }
        case .exit:
            makesWay = false
            exitAt = now + .milliseconds(500)
        case .quiesce:
            quiesces = true
            // What is not done by then comes again, as after a death.
            if jobs[0].giveUp == .never { jobs[0].giveUp = now + .seconds(2) }
            if engine.pending.requests > 0, now < jobs[0].giveUp {
                jobs[0].retryAt = now + .milliseconds(1)
                return false
            }
        case .makeWay:
            makesWay = true
            exitAt = now + .milliseconds(500)
        case .reserveDevice(let settings): return carryOut(reserveDevice(settings))
        case .attachDevice:
            let result = attachDevice()
            if case .failed(let exitCode, let text) = result {
                // Whoever asked for a Primary wants to mount it.
                jobs[0].steps = [.order(.secondary), .fail(exitCode: exitCode, message: text)]
                jobs[0].next = 0
                jobs[0].giveUp = .never
                return true
            }
            return carryOut(result)
        case .holdDevice(let force): return carryOut(holdDevice(force: force))
        case .detachDevice: return carryOut(detachDevice())
        case .letDeviceGo: return carryOut(letDeviceGo())
        case .unreserveDevice: return carryOut(unreserveDevice())
        case .fail(let exitCode, let message):
            failJob(exitCode, message)
            return true
        }
        stepDone()
        return true
    }

    private mutating func carryOut(_ result: DeviceStep) -> Bool {
        switch result {
        case .done: stepDone()
        case .wait:
            jobs[0].retryAt = now + .milliseconds(20)
            return false
        case .failed(let exitCode, let text): failJob(exitCode, text)
        }
        return true
    }

    private mutating func start(_ command: AdministratorCommand) -> Bool {
        let id = nextOrder
        nextOrder &+= 1
        jobs[0].order = id
        engine.perform(command, id: id, now: now)
        perform()
        // It may be able to go on without any completion.
        urgent = true
        return false
    }

    /// Waits up to 5 s for a claim that somebody holds, then says who (safety.md S16).
    private mutating func open(_ settings: ResourceSettings, patiently: Bool = false) -> Bool {
        guard !engine.isDiskOpen else {
            failJob(
                10, "\(minor): Failure: (124) Device is attached to a disk (use detach first)")
            return true
        }
        guard let problem = openDisk(settings) else {
            stepDone()
            return true
        }
        if jobs[0].giveUp == .never { jobs[0].giveUp = now + .seconds(5) }
        if problem.isBusy, patiently {
            logOnce("waiting for the disk: \(problem.text)")
            jobs[0].giveUp = .never
        }
        if problem.isBusy, now < jobs[0].giveUp {
            jobs[0].retryAt = now + .milliseconds(patiently ? 10 : 100)
            return false
        }
        let what = problem.number == 105 ? "meta device" : "backing device"
        failJob(
            10, "\(minor): Failure: (\(problem.number)) Can not open \(what). \(problem.text)")
        return true
    }

    /// Whether somebody else could claim the disk now.
    private var isDiskFree: Bool {
        guard let settings, backing == nil else { return true }
        do throws(BackingFileError) {
            let data = try BackingFile(opening: settings.disk)
            if let path = settings.metaDisk.path {
                _ = try BackingFile(opening: path, claiming: settings.metaDisk.extent)
            }
            _ = consume data
            return true
        } catch {
            switch error {
            case .busy, .busyBelow: return false
            default: return true
            }
        }
    }

    var minor: String { "\(settings?.minor ?? 0)" }

    /// What the engine has finished.
    mutating func collectResults() {
        for result in engine.takeResults() {
            guard !jobs.isEmpty, jobs[0].order == result.id else { continue }
            jobs[0].order = nil
            if result.code >= 1 {
                stepDone()
                continue
            }
            var text = text(result)
            if jobs[0].steps[jobs[0].next] == .attach {
                if backing != nil, !engine.isDiskOpen { closeDisk() }
                if let trouble = disk.trouble { text += "\n\(trouble)" }
            }
            failJob(Self.exitCode(result.code), text)
        }
        advanceJobs()
    }

    private func text(_ result: CommandResult) -> String {
        if result.code <= -100 {
            return "\(minor): Failure: (\(-result.code)) \(result.text)"
        }
        return "\(minor): State change failed: (\(result.code)) \(result.text)"
    }

    /// Reference, admin section 4.4.
    private static func exitCode(_ code: Int32) -> Int32 {
        switch code {
        case ...(-100): 10
        case -2: 17
        case -4: 16
        case -16: 5
        default: 11
        }
    }
}
