import Control
import DRBDWire
import Glibc
import KernelDevice
import Logging
import NBD
import Reactor
import Replication
import Support

/// The kernel's device on the export (safety.md S20, S21).
struct KernelAttachment {
    enum Stage: Equatable {
        /// Reserved at most.
        case detached
        /// As the process before this one left it.
        case left
        /// It is to be attached, and is not: a demotion has failed half-way.
        case wanted
        /// The reactor's connection; `nil` while the kernel has no socket that lives.
        case attached(connection: Int?)
    }

    var nodes = KernelNodes()
    var stage = Stage.detached
    var reservation: KernelNodes.Reservation?
    var hold: DeviceHold?
    /// A child that disconnects a device, or loads the module.
    var helper: Int?
    /// How the last helper ended, until it is looked at.
    var helperStatus: Int32?
    /// Not tried again before.
    var retryAt = Instant.never

    /// The kernel's connection is a client like others, but not one that keeps a node Primary.
    var connection: Int? {
        if case .attached(let connection) = stage { connection } else { nil }
    }
}

/// A child that has the device open for the time of a demotion, and says what it has done.
struct DeviceHold {
    var child: Int
    /// `nil`: it says nothing more.
    var connection: Int?
    var words: [DeviceHolder.Word] = []
    var reason = ""
    /// Not yet a whole line.
    var rest: [UInt8] = []
    var isTold = false
    /// Nobody needs it any more, and it has ended: then it is forgotten.
    var isReleased = false
    var hasEnded = false
}

/// How far a step of a job has come.
enum DeviceStep {
    case done, wait
    case failed(Int32, String)
}

extension Daemon {
    /// A device's whole page cache may have to be written.
    private static let flushTime = Duration.seconds(60)
    private static let helperTime = Duration.seconds(10)
    private static let usualRequestTimeout = Duration.seconds(30)

    private var backend: String { DeviceProgram.backend(directory) }

    // MARK: reserving

    /// A node for as long as the resource is up, on a Secondary too.
    mutating func reserveDevice(_ settings: ResourceSettings) -> DeviceStep {
        guard settings.options.kernelDevice != false, kernel.reservation == nil else {
            return .done
        }
        let isAsked = settings.options.kernelDevice == true
        if kernel.helper != nil, isLate(Self.helperTime) {
            return .failed(10, "\(settings.resource): the kernel's nbd does not answer")
        }
        if isAsked, kernel.nodes.all.isEmpty {
            guard kernel.helperStatus != nil else { return runHelper("/sbin/modprobe", ["nbd"]) }
            kernel.helperStatus = nil
        }
        do throws(KernelDeviceError) {
            guard !kernel.nodes.all.isEmpty else { throw .noModule }
            try NBDControl().checkPermission()
            if let left = kernel.nodes.attached(by: backend).first {
                let step = releaseDevice(left)
                guard case .done = step else { return step }
            }
            let reservation = try kernel.nodes.reserve(device: settings.device)
            kernel.reservation = reservation
            keepReservation(reservation)
            return .done
        } catch {
            guard isAsked else {
                log.info("no kernel device: \(error)")
                return .done
            }
            return .failed(10, "\(settings.resource): no kernel device: \(error)")
        }
    }

    /// Beyond the death of this process.
    private mutating func keepReservation(_ reservation: KernelNodes.Reservation) {
        do throws(SystemError) {
            try supervision.keep(reservation.lock, as: Supervision.device)
        } catch {
            logOnce("another resource may take the kernel device after a death: \(error)")
        }
        let refused = MemoryReclaim.join()
        if !refused.isEmpty {
            logOnce("where memory is short the kernel device may hang: \(refused)")
        }
    }

    /// What the process before this one had.
    mutating func restoreDevice(_ saved: SavedState) {
        guard let index = saved.device else { return }
        let device = saved.settings.device
        do throws(KernelDeviceError) {
            let reservation =
                if let lock = supervision.take(Supervision.device) {
                    kernel.nodes.reservation(index, device: device, lock: lock)
                } else {
                    try kernel.nodes.reserveAgain(index, device: device)
                }
            kernel.reservation = reservation
            kernel.stage = .left
            keepReservation(reservation)
        } catch {
            logOnce("the kernel device is lost: \(error)")
        }
    }

    mutating func unreserveDevice() -> DeviceStep {
        guard let reservation = kernel.reservation else { return .done }
        do throws(KernelDeviceError) {
            try kernel.nodes.setRequestTimeout(reservation.index, Self.usualRequestTimeout)
        } catch {
            log.debug("\(error)")
        }
        do throws(SystemError) { try supervision.forget(Supervision.device) } catch {
            log.debug("\(error)")
        }
        kernel.nodes.release(reservation)
        kernel.reservation = nil
        kernel.stage = .detached
        return .done
    }

    // MARK: attaching

    mutating func attachDevice() -> DeviceStep {
        guard let reservation = kernel.reservation, engine.state.role == .primary else {
            return .done
        }
        let name = kernel.nodes.path(reservation.index)
        switch kernel.stage {
        case .attached: return .done
        case .left:
            return isLate(Self.helperTime)
                ? .failed(10, "\(name): what an earlier process had attached cannot be detached")
                : .wait
        case .detached, .wanted:
            guard kernel.hold == nil, kernel.helper == nil else { return .wait }
            do throws(KernelDeviceError) {
                try attach(reservation)
                return .done
            } catch {
                // Whoever has had it open (udev) closes it soon.
                if case .inUse = error, !isLate(.seconds(5)) { return .wait }
                return .failed(10, "the kernel device cannot be attached: \(error)")
            }
        }
    }

    private func kernelExport(_ settings: ResourceSettings?) -> KernelExport {
        let flags: NBDTransmissionFlags = [
            .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn,
        ]
        // As long as it may take until it is clear that this node is not Primary again, and more.
        let patience = (settings?.options.resumeTimeout ?? 0) + 20
        return KernelExport(
            size: engine.size << 9, blockSize: UInt32(disk.blockSize), flags: flags.rawValue,
            patience: patience, backend: backend)
    }

    private mutating func attach(
        _ reservation: KernelNodes.Reservation
    ) throws(KernelDeviceError) {
        let export = kernelExport(settings)
        // Before there are requests: those under way keep the limit that they began with.
        try kernel.nodes.setRequestTimeout(reservation.index, .milliseconds(100))
        try serveKernel { (control, socket) throws(KernelDeviceError) in
            try control.connect(export, index: reservation.index, socket: socket)
        }
        log.notice("\(kernel.nodes.path(reservation.index)) is attached")
    }

    private mutating func serveKernel(
        _ offer: (borrowing NBDControl, Int32) throws(KernelDeviceError) -> Void
    ) throws(KernelDeviceError) {
        let control = try NBDControl()
        let ends: (one: Int32, other: Int32)
        do throws(SystemError) { ends = try Sockets.pair() } catch { throw .system(error) }
        // The kernel holds its end by itself.
        defer { close(ends.other) }
        guard let index = reactor.add(ends.one) else {
            close(ends.one)
            throw .system(SystemError("socketpair", "no place for a connection", errno: ENFILE))
        }
        uses[index] = Use()
        guard admit(index, name: "the kernel device") else {
            reactor.close(index)
            throw .system(SystemError("socketpair", "no place for a client", errno: ENFILE))
        }
        do throws(KernelDeviceError) { try offer(control, ends.other) } catch {
            drop(index)
            throw error
        }
        kernel.stage = .attached(connection: index)
        kernel.retryAt = .never
        pump(index)
    }

    // MARK: from turn to turn

    /// Brings the device to where the role wants it, after a death or a lost connection.
    mutating func tendDevice() {
        // A child that flushes needs the connection; one that disconnects has an end to it.
        let isHeld = kernel.hold.map { kernel.connection != nil || $0.isTold } ?? false
        guard let reservation = kernel.reservation, !isHeld,
            kernel.retryAt == .never || now >= kernel.retryAt
        else { return }
        let isPrimary = engine.state.role == .primary && !engine.isResuming
        switch kernel.stage {
        case .detached, .attached(connection: .some): return
        case .attached(connection: nil): reconnect(reservation)
        case .wanted:
            guard kernel.hold == nil else { return }
            guard isPrimary else { return kernel.stage = .detached }
            attachAgain(reservation)
        case .left:
            guard !engine.isResuming else { return }
            let isOurs = kernel.nodes.isAttached(reservation.index, by: backend)
            // Only under the very record: every other start ends what the device still holds.
            if isPrimary, roleRecord?.device == reservation.index {
                if isOurs { reconnect(reservation) } else { attachAgain(reservation) }
            } else if !isOurs {
                kernel.stage = .detached
            } else if case .done = releaseDevice(reservation.index) {
                kernel.stage = .detached
            }
        }
    }

    private mutating func attachAgain(_ reservation: KernelNodes.Reservation) {
        do throws(KernelDeviceError) { try attach(reservation) } catch {
            logOnce("the kernel device cannot be attached: \(error)")
            kernel.stage = .wanted
            kernel.retryAt = now + .milliseconds(100)
        }
    }

    /// A fresh socket for a device that waits for one. If it does not yet, it takes none, and the
    /// connection ends at once: then it is tried again.
    private mutating func reconnect(_ reservation: KernelNodes.Reservation) {
        let export = kernelExport(settings)
        let wasLeft = kernel.stage == .left
        do throws(KernelDeviceError) {
            try serveKernel { (control, socket) throws(KernelDeviceError) in
                try control.reconfigure(export, index: reservation.index, socket: socket)
            }
            if wasLeft { log.notice("\(kernel.nodes.path(reservation.index)) goes on") }
        } catch .notAttached {
            log.error("\(kernel.nodes.path(reservation.index)) was detached by somebody else")
            kernel.stage = .detached
            kernel.retryAt = .never
        } catch {
            logOnce("the kernel device has no connection: \(error)")
            kernel.retryAt = now + .milliseconds(20)
        }
    }

    /// - Returns: whether it was the kernel's.
    mutating func kernelConnectionClosed(_ index: Int) -> Bool {
        guard kernel.connection == index else { return false }
        kernel.stage = .attached(connection: nil)
        kernel.retryAt = now + .milliseconds(20)
        return true
    }

    // MARK: detaching

    /// Opens the device for nobody else to open it, and flushes it.
    mutating func holdDevice(force: Bool) -> DeviceStep {
        guard let reservation = kernel.reservation else { return .done }
        switch kernel.stage {
        case .detached, .wanted: return .done
        case .left:
            // On its way to one of the others.
            guard isLate(Self.helperTime) else { return .wait }
            return force ? .done : .failed(11, "the kernel device cannot be detached")
        case .attached: break
        }
        guard let hold = kernel.hold else {
            let step = startHold(reservation.index)
            if case .failed = step, force { return .done }
            return step
        }
        let name = reservation.link ?? kernel.nodes.path(reservation.index)
        let failure: String
        if hold.isReleased {
            // That of a demotion which was given up still flushes: a new one comes after it.
            guard isLate(force ? Self.helperTime : Self.flushTime) else { return .wait }
            failure = Self.unflushed(name)
        } else if hold.words.contains(.flushed) {
            return .done
        } else if hold.words.contains(.busy) {
            failure =
                "\(minor): State change failed: (-12) Device is held open by someone\n"
                + "  \(name) is mounted or claimed"
        } else if hold.words.contains(.unflushed) {
            // A Primary without a disk can only be given up.
            if !engine.diskUsable { return .done }
            failure = "\(name): flushing has failed: what was written to it last is lost"
        } else if hold.words.contains(.failed) || hold.connection == nil {
            failure = "\(name): cannot be opened: \(hold.reason)"
        } else if isLate(force ? Self.helperTime : Self.flushTime) {
            failure = Self.unflushed(name)
        } else {
            return .wait
        }
        guard force else { return .failed(11, failure) }
        log.warning("\(failure); forced")
        return .done
    }

    private static func unflushed(_ name: String) -> String {
        "\(name): what was written to it could not be flushed in time"
    }

    private mutating func startHold(_ index: Int) -> DeviceStep {
        do throws(SystemError) {
            let ends = try Sockets.pair()
            defer { close(ends.other) }
            guard let connection = reactor.add(ends.one) else {
                close(ends.one)
                throw SystemError("socketpair", "no place for a connection", errno: ENFILE)
            }
            uses[connection] = Use()
            uses[connection].kind = .holder
            do throws(SystemError) {
                let child = try reactor.spawn(
                    DaemonStart.program, arguments: [directory.name, "--hold-device", "\(index)"],
                    environment: [], inherited: [ends.other])
                kernel.hold = DeviceHold(child: child, connection: connection)
            } catch {
                drop(connection)
                throw error
            }
            pump(connection)
            return .wait
        } catch {
            return .failed(11, "the kernel device cannot be held: \(error)")
        }
    }

    /// What the holder says.
    mutating func pumpHolder(_ index: Int) {
        while !uses[index].closing {
            _ = reactor.next(index, count: 0)
            let count = reactor.available(index)
            guard count > 0 else {
                reactor.receive(index)
                return
            }
            let bytes = Self.copy(reactor, index, count)
            _ = reactor.take(index, count: count)
            guard kernel.hold?.connection == index else { continue }
            kernel.hold?.hear(bytes)
        }
    }

    mutating func holderClosed(_ index: Int) {
        if kernel.hold?.connection == index { kernel.hold?.connection = nil }
    }

    /// Nothing of it reaches the engine any more.
    mutating func detachDevice() -> DeviceStep {
        guard let reservation = kernel.reservation, case .attached = kernel.stage else {
            return .done
        }
        guard let hold = kernel.hold, !hold.words.isEmpty, hold.connection != nil else {
            // It sleeps in the open; only by force can it come so far.
            let step = releaseDevice(reservation.index)
            if case .done = step { kernel.stage = .detached }
            return step
        }
        if hold.words.contains(.disconnected) {
            kernel.stage = .detached
            kernel.retryAt = .never
            log.notice("\(kernel.nodes.path(reservation.index)) is detached")
            return .done
        }
        if !hold.isTold, let connection = hold.connection {
            kernel.hold?.isTold = true
            queue(connection, Array("\(DeviceHolder.disconnect)\n".utf8))
        } else if hold.words.last == .failed || isLate(Self.helperTime) {
            return .failed(11, "the kernel device cannot be detached: \(hold.reason)")
        }
        return .wait
    }

    /// The holder closes the device and ends.
    mutating func letDeviceGo() -> DeviceStep {
        releaseHold()
        guard let hold = kernel.hold else { return .done }
        guard isLate(.seconds(5)) else { return .wait }
        reactor.signal(SIGKILL, child: hold.child)
        return .done
    }

    mutating func releaseHold() {
        guard let hold = kernel.hold, !hold.isReleased else { return }
        kernel.hold?.isReleased = true
        if let connection = hold.connection { drop(connection) }
        if hold.hasEnded { kernel.hold = nil }
    }

    /// A demotion that has failed leaves a Primary, with its device.
    mutating func deviceJobFailed(_ job: Job) {
        let isDemotion = job.steps.contains(.letDeviceGo)
        guard isDemotion, !stopping, kernel.reservation != nil, kernel.stage == .detached,
            engine.state.role == .primary
        else { return }
        kernel.stage = .wanted
        kernel.retryAt = now
    }

    // MARK: children

    /// Disconnects a device whose server is dead: everything that it holds fails.
    private mutating func releaseDevice(_ index: Int) -> DeviceStep {
        if let status = kernel.helperStatus {
            kernel.helperStatus = nil
            if status == 0 { return .done }
            kernel.retryAt = now + .seconds(1)
            let text = "\(kernel.nodes.path(index)) cannot be detached (status \(status))"
            logOnce(text)
            return .failed(10, text)
        }
        return runHelper(
            DaemonStart.program, DeviceProgram.releaseArguments(index, of: directory))
    }

    /// Waits until a child has ended: then `helperStatus` says how.
    private mutating func runHelper(_ program: String, _ arguments: [String]) -> DeviceStep {
        guard kernel.helper == nil else { return .wait }
        do throws(SystemError) {
            kernel.helper = try reactor.spawn(program, arguments: arguments, environment: [])
        } catch {
            log.warning("\(error)")
            kernel.helperStatus = 127
        }
        return .wait
    }

    mutating func childExited(_ child: Int, _ status: Int32) {
        if kernel.helper == child {
            kernel.helper = nil
            kernel.helperStatus = status
        } else if kernel.hold?.child == child {
            kernel.hold?.hasEnded = true
            if kernel.hold?.isReleased == true { kernel.hold = nil }
        } else if errorHandler == child {
            errorHandlerExited(status)
        }
    }

    /// Whether the present step has taken so long.
    private mutating func isLate(_ limit: Duration) -> Bool {
        guard !jobs.isEmpty else { return false }
        if jobs[0].giveUp == .never { jobs[0].giveUp = now + limit }
        return now >= jobs[0].giveUp
    }
}

extension DeviceHold {
    mutating func hear(_ bytes: [UInt8]) {
        rest += bytes
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: rest[..<end], as: UTF8.self)
            rest.removeFirst(end + 1)
            let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
            guard let word = parts.first.flatMap({ DeviceHolder.Word(rawValue: $0) }) else {
                continue
            }
            words.append(word)
            if parts.count > 1 { reason = parts[1] }
        }
    }
}
