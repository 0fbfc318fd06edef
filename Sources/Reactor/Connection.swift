import CShims
import Glibc
import Support

/// One socket: what has come in and not been used, what is going out. Trivial; lives in a table.
@safe package struct Connection: BitwiseCopyable {
    /// The most that can be here undecoded, so the most that a `next` may wait for.
    static let streamSize = 256 << 10
    /// How much is received behind a large payload: a header, and little that must then be copied.
    static let window = 4096

    enum Stage { case free, open, closing, released }

    var stage = Stage.free
    var descriptor: Int32 = -1
    /// Counts the occupants of this place.
    var generation: UInt32 = 0
    /// How many of receive, send and hang-up poll the kernel has.
    var operations = 0
    var receiving = false
    var sending = false
    /// How many sends have got on.
    var sends: UInt32 = 0
    var polling = false
    /// Whether the end of the stream or a receive error has been reported.
    var ended = false
    /// Whether a send failed, so that nothing is sent any more.
    var broken = false
    /// What to do when everything queued is sent.
    var shutWhenSent = false
    var closeWhenSent = false
    var large = false
    var fill = 0

    /// The undecoded bytes are `begin..<end` of the stream buffer.
    var begin = 0
    var end = 0
    /// The payload that `expect` wants: how much of it is here, how long it is.
    var got = 0
    var need = 0
    /// How much of the receive under way goes straight to the payload's buffer.
    var direct = 0
    /// How much has still to be thrown away.
    var skipping = 0

    private let memory: Memory?
    /// Where the expected payload goes.
    var target: UnsafeMutableRawPointer?

    /// What a place needs once it has been used; allocated then and kept.
    @safe struct Memory: BitwiseCopyable {
        let stream: UnsafeMutableRawPointer
        let vectors: UnsafeMutablePointer<iovec>
        let receiveMessage: UnsafeMutablePointer<msghdr>
        let sendMessage: UnsafeMutablePointer<msghdr>
        let queues: UnsafeMutablePointer<SendQueue>

        init() {
            unsafe stream = .allocate(byteCount: Connection.streamSize, alignment: 4096)
            unsafe vectors = .allocate(capacity: 2)
            unsafe vectors.initialize(repeating: iovec(), count: 2)
            unsafe receiveMessage = .allocate(capacity: 2)
            unsafe receiveMessage.initialize(repeating: msghdr(), count: 2)
            unsafe receiveMessage.pointee.msg_iov = unsafe vectors
            unsafe receiveMessage.pointee.msg_iovlen = 2
            unsafe sendMessage = unsafe receiveMessage + 1
            unsafe queues = .allocate(capacity: 2)
            unsafe queues.initialize(to: SendQueue())
            unsafe (queues + 1).initialize(to: SendQueue())
        }

        /// What one occupant made large the next need not keep.
        func renewQueues() {
            unsafe queues[0].free()
            unsafe queues[1].free()
            unsafe queues[0] = SendQueue()
            unsafe queues[1] = SendQueue()
        }

        func free() {
            unsafe queues[0].free()
            unsafe queues[1].free()
            unsafe queues.deallocate()
            unsafe receiveMessage.deallocate()
            unsafe vectors.deallocate()
            unsafe stream.deallocate()
        }
    }

    /// An unused place of the table.
    init() {
        memory = nil
        unsafe target = nil
    }

    private init(memory: Memory, descriptor: Int32, generation: UInt32) {
        self.memory = memory
        unsafe target = nil
        self.descriptor = descriptor
        self.generation = generation
        stage = .open
    }

    mutating func open(_ descriptor: Int32) {
        memory?.renewQueues()
        self = Connection(
            memory: memory ?? Memory(), descriptor: descriptor, generation: generation &+ 1)
    }

    /// For the end of the reactor, when no operation is under way.
    func free() { memory?.free() }

    // Inlined always: as functions they would get a copy of the whole connection.

    /// Only after `open`.
    @inline(__always)
    var held: Memory {
        guard let memory else { invariantFailed("a connection never opened") }
        return memory
    }

    @inline(__always)
    private var stream: UnsafeMutableRawPointer { unsafe held.stream }
    @inline(__always)
    var filling: UnsafeMutablePointer<SendQueue> { unsafe held.queues + fill }
    @inline(__always)
    var departing: UnsafeMutablePointer<SendQueue> { unsafe held.queues + (fill ^ 1) }

    // MARK: receiving

    /// The bytes that can be decoded.
    @inline(__always)
    var available: Int { need > 0 || skipping > 0 ? 0 : end - begin }

    mutating func next(count: Int) -> Received {
        if skipping > 0 { drop() }
        if need > 0 {
            copyPayload()
            guard got == need else { return .more }
            need = 0
            got = 0
            return .payload
        }
        return skipping == 0 && end - begin >= count ? .bytes : .more
    }

    /// Moves what is here of the expected payload to its buffer.
    private mutating func copyPayload() {
        let count = min(need - got, end - begin)
        guard count > 0, let target = unsafe target else { return }
        unsafe memcpy(target + got, stream + begin, count)
        got += count
        begin += count
    }

    @inline(__always)
    func peek(count: Int) -> UnsafeMutableRawPointer {
        precondition(count >= 0 && count <= available)
        return unsafe stream + begin
    }

    mutating func take(count: Int) -> UnsafeMutableRawPointer {
        let place = unsafe peek(count: count)
        begin += count
        return unsafe place
    }

    mutating func expect(_ target: UnsafeMutableRawPointer, length: Int, large: Bool) {
        invariant(length > 0, "expecting \(length) bytes")
        invariant(need == 0, "expecting a payload while one is expected")
        unsafe self.target = unsafe target
        got = 0
        need = length
        self.large = large
    }

    mutating func skip(length: Int) {
        invariant(need == 0, "skipping while a payload is expected")
        skipping += length
        drop()
    }

    /// Throws away what is here of the bytes to skip.
    private mutating func drop() {
        let count = min(skipping, end - begin)
        skipping -= count
        begin += count
    }

    /// Prepares an operation for the rest of the payload and what follows it, or for what comes next.
    mutating func prepareReceive(_ sqe: UnsafeMutablePointer<io_uring_sqe>) {
        compact()
        let room = Self.streamSize - end
        let wanted = need > 0 && large ? min(room, Self.window) : room
        invariant(wanted > 0, "receiving with a full stream: take what is there")
        let place = unsafe stream + end
        direct = need - got
        receiving = true
        operations += 1
        if need > 0, let target = unsafe target {
            let memory = held
            unsafe memory.vectors[0] = unsafe iovec(iov_base: target + got, iov_len: direct)
            unsafe memory.vectors[1] = unsafe iovec(iov_base: place, iov_len: wanted)
            unsafe io_uring_prep_recvmsg(sqe, descriptor, memory.receiveMessage, 0)
        } else {
            unsafe io_uring_prep_recv(sqe, descriptor, place, wanted, 0)
        }
    }

    /// Takes account of what a receive brought.
    mutating func received(_ count: Int) {
        let straight = min(count, direct)
        got += straight
        end += count - straight
    }

    private mutating func compact() {
        if begin == end {
            begin = 0
            end = 0
        } else if begin > 0 {
            unsafe memmove(stream, stream + begin, end - begin)
            end -= begin
            begin = 0
        }
    }

    // MARK: sending

    /// Prepares an operation for as much of the departing half as one takes.
    mutating func prepareSend(_ sqe: UnsafeMutablePointer<io_uring_sqe>) {
        sending = true
        operations += 1
        let queue = unsafe departing
        let next = unsafe queue.pointee.next
        let count = unsafe queue.pointee.vectorsToSend
        let first = unsafe queue.pointee.vectors + next
        let flags = Int32(shim_send_flags)
        if count == 1 {
            unsafe io_uring_prep_send(
                sqe, descriptor, first.pointee.iov_base, first.pointee.iov_len, flags)
        } else {
            let message = unsafe held.sendMessage
            unsafe message.pointee.msg_iov = unsafe first
            unsafe message.pointee.msg_iovlen = count
            unsafe io_uring_prep_sendmsg(sqe, descriptor, message, UInt32(flags))
        }
    }
}
