import CShims
import Glibc
package import Support

/// The ring, the buffers, the file table and the connections of one thread. No pointer leaves it.
///
/// One turn: submit what was prepared, wait, collect. Handlers run between two turns and prepare
/// more. After start-up nothing here allocates per operation, and nothing blocks but `turn`.
@safe package struct Reactor: ~Copyable {
    package struct Configuration: Sendable {
        /// Bytes of the one area that all buffers lie in.
        package var arenaSize: Int
        /// How many operations can be prepared before they are submitted early.
        package var submissionEntries: UInt32 = 1024
        package var completionEntries: UInt32 = 4096
        /// False for tests of what happens where the limit on locked memory forbids it.
        package var registersBuffers = true
        package var taskRunning = TaskRunning.deferred

        package init(arenaSize: Int) { self.arenaSize = arenaSize }
    }

    /// Where the kernel does the second half of an operation; the first that it supports is used.
    package enum TaskRunning: Int, Sendable { case deferred, cooperative, interrupting }

    package static let connectionCount = 128
    package static let fileCount = 64
    package static let listenerCount = 16
    package static let attemptCount = 16
    package static let childCount = 32
    package static let mailboxCount = 8
    /// The most bytes that `next` can wait for.
    package static let streamSize = Connection.streamSize
    /// Payloads from here on should be expected as large.
    package static let largePayload = 16 << 10

    /// Always `nil`. With it the compiler lends a reactor by its address; without, a call of a
    /// function that does not mutate copies all of it to the stack first.
    private let lentByAddress: (any Sendable)? = nil

    let ring: UnsafeMutablePointer<io_uring>
    let arena: UnsafeMutableRawPointer
    package let arenaSize: Int
    /// Which features are in use, for the log: one line.
    package let report: String
    let buffersRegistered: Bool
    let filesRegistered: Bool

    var connections = Table<Connection>(repeating: Connection(), count: connectionCount)
    var files = Table<Int32>(repeating: -1, count: fileCount)
    var listeners = Table<Listener>(repeating: Listener(), count: listenerCount)
    var attempts = Table<Attempt>(repeating: Attempt(), count: attemptCount)
    var children = Table<Child>(repeating: Child(), count: childCount)
    /// The eventfd of each.
    var mailboxes = Table<Int32>(repeating: -1, count: mailboxCount)
    /// The signalfd.
    var signals: Int32 = -1
    // What the kernel reads or writes while an operation is under way.
    var remotes = Table<SocketAddress>(repeating: .none, count: attemptCount)
    var limits = Table<__kernel_timespec>(repeating: __kernel_timespec(), count: attemptCount)
    var counts = Table<UInt64>(repeating: 0, count: mailboxCount)
    var lookRecord = Table<LookRecord>(repeating: LookRecord(repeating: 0), count: 1)
    var signalRecord = Table<SignalRecord>(repeating: SignalRecord(repeating: 0), count: 1)

    /// Connections to look at before the next wait, a bit for each: something to send, to shut or to
    /// close.
    var listed = Table<UInt64>(repeating: 0, count: (connectionCount + 63) / 64)
    /// Connections that are closed but for a report, and such whose index is free from next turn on.
    var finishingCount = 0
    var releasedCount = 0

    var completions = Queue<Completion>(capacity: 64 << 10)
    /// Whether one of `completions` is a `closed`.
    package internal(set) var reportsClosed = false
    /// When the alarm goes off that the kernel has; `never`: it has none.
    private var alarmAt = Instant.never
    /// Kernels before 5.15 have none of this clock.
    private var hasAlarms = true
    private var alarmTime = Table<__kernel_timespec>(repeating: __kernel_timespec(), count: 1)
    /// What one completion of the kernel may lead to at most: all owners of both halves, and a few.
    static let reportsAtOnce = 8 * SendQueue.ownerLimit + 8
    /// Completions taken from the ring because it had to make room; the first `spillNext` are used.
    private var spill: [Raw] = []
    private var spillNext = 0
    /// Submitted or prepared, and not yet collected.
    private var underway = 0

    private struct Raw {
        let token: UInt64
        let result: Int32
    }

    /// - Throws: `ReactorError`, whose text tells an operator what to do.
    package init(configuration: Configuration) throws(ReactorError) {
        let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe ring.initialize(to: io_uring())
        var taskRunning = configuration.taskRunning
        do throws(ReactorError) {
            taskRunning = try unsafe Setup.open(ring, configuration)
        } catch {
            unsafe ring.deallocate()
            throw error
        }
        let arena: UnsafeMutableRawPointer
        do throws(ReactorError) {
            try unsafe Setup.probe(ring)
            unsafe arena = try Setup.map(configuration.arenaSize)
        } catch {
            unsafe io_uring_queue_exit(ring)
            unsafe ring.deallocate()
            throw error
        }
        var all = unsafe iovec(iov_base: arena, iov_len: configuration.arenaSize)
        var code = -ENOMEM
        if configuration.registersBuffers {
            code = unsafe io_uring_register_buffers(ring, &all, 1)
        }
        buffersRegistered = code == 0
        let none = [Int32](repeating: -1, count: Self.fileCount)
        filesRegistered =
            unsafe io_uring_register_files(ring, none, UInt32(Self.fileCount)) == 0
        // Saves the look-up of the ring at every turn; kernels before 5.18 do without.
        _ = unsafe io_uring_register_ring_fd(ring)
        report = Setup.report(
            taskRunning, configuration.arenaSize, buffers: buffersRegistered,
            files: filesRegistered)
        arenaSize = configuration.arenaSize
        unsafe self.ring = ring
        unsafe self.arena = arena
    }

    deinit {
        let idle = unsafe Self.settle(ring: ring, underway: underway)
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
        closeDescriptors()
        // The kernel owns a buffer until its operation completes: rather lose memory than lend it twice.
        guard idle else { return }
        for index in 0..<connections.count { connections[index].free() }
        unsafe munmap(arena, arenaSize)
    }

    package func now() -> Instant { Self.clock() }

    /// CLOCK_BOOTTIME, which goes on while the machine is suspended.
    package static func clock() -> Instant {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    // MARK: the loop

    /// Submits everything, waits for at least one completion or for `timeout`, and only collects.
    ///
    /// - Parameter timeout: `nil` waits without limit.
    /// - Returns: how many completions there are to read, 0 after the timeout or a signal.
    package mutating func turn(timeout: Duration?) throws(SystemError) -> Int {
        try turn(waiting: timeout.map { max($0.inNanoseconds, 0) })
    }

    /// The same with a moment of `now`; `never` waits without limit.
    ///
    /// It may return 0 earlier than that. The alarm is one operation for many turns, moved only when
    /// a deadline is earlier than it: a time limit for every wait would set a timer each time.
    package mutating func turn(until deadline: Instant, now: Instant) throws(SystemError) -> Int {
        guard deadline > now else { return try turn(waiting: 0) }
        guard hasAlarms || deadline == .never else {
            let left = deadline.nanoseconds - now.nanoseconds
            return try turn(waiting: Int64(clamping: left))
        }
        if deadline < alarmAt { setAlarm(deadline) }
        return try turn(waiting: nil)
    }

    private mutating func setAlarm(_ deadline: Instant) {
        alarmTime[0] = __kernel_timespec(
            tv_sec: Int64(deadline.nanoseconds / 1_000_000_000),
            tv_nsec: Int64(deadline.nanoseconds % 1_000_000_000))
        let sqe = unsafe entry()
        // The kernel copies the time when it takes the entry, which is before the next alarm is set.
        let time = unsafe alarmTime.address(of: 0)
        if alarmAt == .never {
            unsafe io_uring_prep_timeout(sqe, time, 0, shim_alarm)
            unsafe sqe.pointee.user_data = InternalToken(.alarm).bits
        } else {
            // Too late if it has just gone off; then the next turn sets another.
            unsafe io_uring_prep_timeout_update(
                sqe, time, InternalToken(.alarm).bits, shim_alarm_update)
            unsafe sqe.pointee.user_data = InternalToken(.ignored).bits
        }
        alarmAt = deadline
    }

    private mutating func turn(waiting nanoseconds: Int64?) throws(SystemError) -> Int {
        completions.removeAll()
        reportsClosed = false
        if releasedCount > 0 { releaseClosed() }
        depart()
        if finishingCount > 0 { finishClosed() }
        let busy = completions.count > 0 || spillNext < spill.count
        try submit(waiting: busy ? 0 : nanoseconds)
        while completions.count + Self.reportsAtOnce <= completions.capacity, let raw = next() {
            dispatch(raw)
        }
        if finishingCount > 0 { finishClosed() }
        return completions.count
    }

    package subscript(completion index: Int) -> Completion { completions[index] }

    private mutating func submit(waiting nanoseconds: Int64?) throws(SystemError) {
        var code: Int32
        if let nanoseconds {
            var time = __kernel_timespec(
                tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
            var first: UnsafeMutablePointer<io_uring_cqe>?
            code = unsafe io_uring_submit_and_wait_timeout(ring, &first, 1, &time, nil)
        } else {
            code = unsafe io_uring_submit_and_wait(ring, 1)
        }
        // EBUSY and EAGAIN: the kernel wants completions collected first, which comes next.
        switch -code {
        case ETIME, EINTR, EAGAIN, EBUSY: return
        default:
            guard code < 0 else { return }
            throw SystemError("io_uring_enter", errno: -code)
        }
    }

    private mutating func next() -> Raw? {
        if spillNext < spill.count {
            defer { spillNext += 1 }
            return spill[spillNext]
        }
        if spillNext > 0 {
            spill.removeAll(keepingCapacity: true)
            spillNext = 0
        }
        guard unsafe io_uring_cq_ready(ring) > 0 else { return nil }
        return take()
    }

    private mutating func take() -> Raw {
        let entry = unsafe shim_completion(ring)
        let raw = unsafe Raw(token: entry.pointee.user_data, result: entry.pointee.res)
        unsafe io_uring_cq_advance(ring, 1)
        underway -= 1
        return raw
    }

    @inline(__always)
    private mutating func dispatch(_ raw: Raw) {
        guard let kind = InternalToken.kind(raw.token) else {
            completions.append(.operation(Token(bits: raw.token), result: raw.result))
            return
        }
        let index = InternalToken.index(raw.token)
        switch kind {
        case .receive, .send, .hangup:
            // A place is not used again before its last operation has completed.
            invariant(
                connections[index].generation & 0xff_ffff == InternalToken.generation(raw.token),
                "a completion for an earlier connection \(index)")
            connections[index].operations -= 1
            switch kind {
            case .receive: received(index, raw.result)
            case .send: sent(index, raw.result)
            default: hungUp(index, raw.result)
            }
            if connections[index].stage == .closing, connections[index].operations == 0 {
                finishingCount += 1
            }
        case .accept: accepted(index, raw.result)
        case .connect: connected(index, raw.result)
        case .signal: signalled(raw.result)
        case .child: exited(index, raw.result)
        case .mailbox: posted(index, raw.result)
        case .alarm:
            alarmAt = .never
            if raw.result == -EINVAL { hasAlarms = false }
        case .ignored: break
        }
    }

    // MARK: the end

    /// Cancels everything and waits until the kernel is done with it, with a limit.
    private static func settle(ring: UnsafeMutablePointer<io_uring>, underway: Int) -> Bool {
        var left = underway
        if left > 0, let sqe = unsafe io_uring_get_sqe(ring) {
            unsafe io_uring_prep_cancel64(sqe, 0, Int32(shim_cancel_any))
            unsafe sqe.pointee.user_data = InternalToken(.ignored).bits
            left += 1
        }
        var tries = 0
        while left > 0, tries < 50 {
            var time = __kernel_timespec(tv_sec: 0, tv_nsec: 100_000_000)
            var first: UnsafeMutablePointer<io_uring_cqe>?
            let code = unsafe io_uring_submit_and_wait_timeout(ring, &first, 1, &time, nil)
            let ready = unsafe io_uring_cq_ready(ring)
            unsafe io_uring_cq_advance(ring, ready)
            left -= Int(ready)
            if code < 0, ready == 0 { tries += 1 }
        }
        return left == 0
    }

    private func closeDescriptors() {
        for index in 0..<connections.count where connections[index].descriptor >= 0 {
            _ = Glibc.close(connections[index].descriptor)
        }
        for index in 0..<listeners.count where listeners[index].descriptor >= 0 {
            _ = Glibc.close(listeners[index].descriptor)
        }
        for index in 0..<attempts.count where attempts[index].descriptor >= 0 {
            _ = Glibc.close(attempts[index].descriptor)
        }
        for index in 0..<children.count where children[index].descriptor >= 0 {
            _ = Glibc.close(children[index].descriptor)
        }
        for index in 0..<mailboxes.count where mailboxes[index] >= 0 {
            _ = Glibc.close(mailboxes[index])
        }
        if signals >= 0 { _ = Glibc.close(signals) }
    }

    // MARK: preparing operations

    /// The next free entry of the submission queue; makes room if there is none.
    @inline(__always)
    mutating func entry() -> UnsafeMutablePointer<io_uring_sqe> {
        underway += 1
        while true {
            if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
            submitEarly()
        }
    }

    /// Makes sure that the next `count` entries reach the kernel together.
    mutating func reserve(_ count: UInt32) {
        while unsafe io_uring_sq_space_left(ring) < count { submitEarly() }
    }

    /// Submits outside of `turn`. What has completed is kept aside, so that the kernel never refuses
    /// because its completion queue is full.
    mutating func submitEarly() {
        let code = unsafe io_uring_submit(ring)
        if code >= 0 || -code == EINTR { return }
        guard -code == EBUSY || -code == EAGAIN else {
            invariantFailed("io_uring_enter: \(SystemError("", errno: -code).reason)")
        }
        _ = unsafe io_uring_get_events(ring)
        while unsafe io_uring_cq_ready(ring) > 0 { spill.append(take()) }
    }

    mutating func cancel(_ token: InternalToken) {
        let entry = unsafe entry()
        unsafe io_uring_prep_cancel64(entry, token.bits, 0)
        unsafe entry.pointee.user_data = InternalToken(.ignored).bits
    }

    // MARK: buffers

    /// Where `offset` lies; `length` bytes from there are inside the arena.
    @inline(__always)
    func place(_ offset: Int, _ length: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && length >= 0 && offset <= arenaSize - length)
        return unsafe arena + offset
    }

    /// The bytes of a buffer, which the kernel must not be writing to at the moment.
    @_lifetime(borrow self)
    package func buffer(_ offset: Int, length: Int) -> RawSpan {
        let bytes = unsafe RawSpan(_unsafeStart: place(offset, length), byteCount: length)
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    /// Between two places of the arena that do not overlap, none of them the kernel's at the moment.
    package mutating func copyBuffer(from source: Int, to target: Int, length: Int) {
        invariant(
            source + length <= target || target + length <= source, "a copy onto itself")
        unsafe place(target, length).copyMemory(from: place(source, length), byteCount: length)
    }

    /// The bytes of a buffer that the kernel has no business with at the moment.
    @_lifetime(&self)
    package mutating func mutableBuffer(_ offset: Int, length: Int) -> MutableRawSpan {
        let bytes = unsafe MutableRawSpan(_unsafeStart: place(offset, length), byteCount: length)
        return unsafe _overrideLifetime(bytes, mutating: &self)
    }
}
