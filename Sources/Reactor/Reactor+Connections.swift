import CShims
import Glibc
import Support

extension Reactor {
    // MARK: opening and closing

    /// Takes over `descriptor`; it stays an ordinary descriptor, so that it is closed at once when
    /// this process dies, whatever its other operations still do. `nil` when the table is full.
    package mutating func add(_ descriptor: Int32) -> Int? {
        for index in 0..<connections.count where connections[index].stage == .free {
            // The kernel does not wait for a non-blocking socket: operations would end with EAGAIN.
            let flags = fcntl(descriptor, F_GETFL)
            if flags & O_NONBLOCK != 0 { _ = fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK) }
            connections[index].open(descriptor)
            return index
        }
        return nil
    }

    /// The descriptor, to ask the kernel about the socket; it remains the reactor's.
    package func descriptor(_ index: Int) -> Int32 { connections[index].descriptor }

    /// Ends the connection at once: what is queued and not sent is dropped.
    ///
    /// `.closed` follows, and before it `.sent` for every owner. Until then the kernel may still
    /// write to the buffer of `expect` and read those of `payload`. Asking twice is no mistake.
    package mutating func close(_ index: Int) {
        guard connections[index].stage == .open else { return }
        connections[index].stage = .closing
        connections[index].broken = true
        let descriptor = connections[index].descriptor
        // Ends what is under way, and tells the peer even if a child holds the socket too.
        _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR))
        guard connections[index].operations > 0 else {
            finishingCount += 1
            return
        }
        let generation = connections[index].generation
        if connections[index].receiving {
            cancel(InternalToken(.receive, index, generation: generation))
        }
        if connections[index].sending {
            cancel(InternalToken(.send, index, generation: generation))
        }
        if connections[index].polling {
            cancel(InternalToken(.hangup, index, generation: generation))
        }
    }

    /// Closes when everything queued so far is sent; a peer that does not read can delay that.
    package mutating func closeWhenSent(_ index: Int) {
        guard connections[index].stage == .open else { return }
        connections[index].closeWhenSent = true
        list(index)
    }

    /// Tells the peer, behind everything queued so far, that nothing more will come.
    package mutating func shutdownSend(_ index: Int) {
        guard connections[index].stage == .open else { return }
        connections[index].shutWhenSent = true
        list(index)
    }

    /// Reports and forgets connections that are closed and have no operation under way.
    mutating func finishClosed() {
        for index in 0..<connections.count
        where connections[index].stage == .closing && connections[index].operations == 0 {
            guard completions.count + Self.reportsAtOnce <= completions.capacity else { return }
            unsafe reportOwners(departing(index), index, delivered: false)
            unsafe reportOwners(filling(index), index, delivered: false)
            _ = Glibc.close(connections[index].descriptor)
            connections[index].descriptor = -1
            connections[index].stage = .released
            finishingCount -= 1
            releasedCount += 1
            completions.append(.closed(connection: index))
            reportsClosed = true
        }
    }

    /// One turn after the report: nobody can mistake a successor for what was just closed.
    mutating func releaseClosed() {
        for index in 0..<connections.count where connections[index].stage == .released {
            connections[index].stage = .free
        }
        releasedCount = 0
    }

    /// Remembers to look at the connection before the next wait.
    @inline(__always)
    private mutating func list(_ index: Int) { listed[index >> 6] |= 1 << UInt64(index & 63) }

    // MARK: watching

    /// Reports `.hangup` once when the peer has finished or vanished, also while nothing is received.
    package mutating func watchHangup(_ index: Int) {
        guard connections[index].stage == .open, !connections[index].polling else { return }
        connections[index].polling = true
        connections[index].operations += 1
        let sqe = unsafe entry()
        unsafe io_uring_prep_poll_add(
            sqe, connections[index].descriptor, UInt32(shim_poll_hangup))
        unsafe sqe.pointee.user_data =
            InternalToken(.hangup, index, generation: connections[index].generation).bits
    }

    mutating func hungUp(_ index: Int, _ result: Int32) {
        connections[index].polling = false
        guard connections[index].stage == .open, result >= 0 else { return }
        completions.append(.hangup(connection: index))
    }

    /// How many bytes have arrived at the socket and not been received.
    package func pendingInSocket(_ index: Int) -> Int {
        guard connections[index].stage == .open else { return 0 }
        var count: Int32 = 0
        guard unsafe ioctl(connections[index].descriptor, UInt(FIONREAD), &count) == 0 else {
            return 0
        }
        return Int(count)
    }

    /// Whether the other end has closed the connection as a whole, whatever still lies in it.
    package func isAbandoned(_ index: Int) -> Bool {
        guard connections[index].stage == .open else { return true }
        var request = pollfd(fd: connections[index].descriptor, events: 0, revents: 0)
        return unsafe poll(&request, 1, 0) == 1 && request.revents & Int16(POLLHUP) != 0
    }

    // MARK: sending

    /// How many sends have got on so far; `nil`: nothing is on its way.
    package func sendProgress(_ index: Int) -> UInt32? {
        let connection = connections[index]
        return connection.stage == .open && connection.sending ? connection.sends : nil
    }

    // By address: a copy of the connection to ask it for one pointer would be the dearer part.
    @inline(__always)
    private func filling(_ index: Int) -> UnsafeMutablePointer<SendQueue> {
        unsafe connections.address(of: index).pointee.filling
    }

    @inline(__always)
    private func departing(_ index: Int) -> UnsafeMutablePointer<SendQueue> {
        unsafe connections.address(of: index).pointee.departing
    }

    /// Whether `bytes` of headers and up to `messages` headers, payloads and owners can be queued
    /// now. Not so long as much is waiting, and not after `close` or `.sendFailed`.
    package mutating func canQueue(_ index: Int, bytes: Int = 0, messages: Int = 1) -> Bool {
        guard connections[index].stage == .open, !connections[index].broken else { return false }
        let queue = unsafe filling(index)
        return unsafe queue.pointee.headerBytes + bytes <= SendQueue.headerLimit
            && queue.pointee.vectorCount + messages <= SendQueue.vectorLimit
            && queue.pointee.ownerCount + messages <= SendQueue.ownerLimit
    }

    /// Bytes queued and not yet given to the kernel as a whole.
    package mutating func queuedBytes(_ index: Int) -> Int {
        guard connections[index].stage == .open else { return 0 }
        return unsafe filling(index).pointee.bytes
            + departing(index).pointee.bytes
    }

    /// `size` bytes to be filled in now, all of them; they leave at the next turn.
    ///
    /// After `close` they are accepted and dropped.
    @_lifetime(&self)
    package mutating func header(_ index: Int, size: Int) -> MutableRawSpan {
        invariant(connections[index].stage != .free, "a header for no connection")
        list(index)
        let queue = unsafe filling(index)
        let bytes = unsafe MutableRawSpan(
            _unsafeStart: queue.pointee.append(header: size), byteCount: size)
        return unsafe _overrideLifetime(bytes, mutating: &self)
    }

    /// Queues a copy of `bytes`.
    package mutating func send(_ index: Int, copying bytes: RawSpan) {
        var copy = header(index, size: bytes.byteCount)
        unsafe bytes.withUnsafeBytes { source in
            unsafe copy.withUnsafeMutableBytes { unsafe $0.copyMemory(from: source) }
        }
    }

    /// Queues a copy of `bytes`.
    package mutating func send(_ index: Int, copying bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { send(index, copying: unsafe RawSpan(_unsafeBytes: $0)) }
    }

    /// Queues a buffer, which belongs to the kernel until the owner told by `notify` is reported.
    package mutating func payload(_ index: Int, bufferOffset: Int, length: Int) {
        invariant(connections[index].stage != .free, "a payload for no connection")
        guard length > 0 else { return }
        list(index)
        unsafe filling(index).pointee.append(
            payload: place(bufferOffset, length), length)
    }

    /// `owner` is reported when everything queued so far has been given to the kernel.
    package mutating func notify(_ index: Int, owner: UInt64) {
        invariant(connections[index].stage != .free, "an owner for no connection")
        list(index)
        unsafe filling(index).pointee.append(owner: owner)
    }

    /// Starts one send per connection that has something to send and none under way.
    mutating func depart() {
        for word in 0..<listed.count {
            while listed[word] != 0 {
                guard completions.count + Self.reportsAtOnce <= completions.capacity else { return }
                let bit = listed[word].trailingZeroBitCount
                listed[word] &= listed[word] - 1
                depart(word << 6 + bit)
            }
        }
    }

    private mutating func depart(_ index: Int) {
        guard connections[index].stage == .open, !connections[index].sending else { return }
        let queue = unsafe filling(index)
        if connections[index].broken || (unsafe queue.pointee.vectorCount) == 0 {
            unsafe reportOwners(queue, index, delivered: !connections[index].broken)
            if connections[index].shutWhenSent {
                connections[index].shutWhenSent = false
                _ = Glibc.shutdown(connections[index].descriptor, Int32(SHUT_WR))
            }
            if connections[index].closeWhenSent { close(index) }
            return
        }
        connections[index].fill ^= 1
        submitSend(index)
    }

    private mutating func submitSend(_ index: Int) {
        let sqe = unsafe entry()
        unsafe connections[index].prepareSend(sqe)
        unsafe sqe.pointee.user_data =
            InternalToken(.send, index, generation: connections[index].generation).bits
    }

    mutating func sent(_ index: Int, _ result: Int32) {
        let queue = unsafe departing(index)
        let open = connections[index].stage == .open
        let again = result == -EINTR || result == -EAGAIN
        if result > 0 { connections[index].sends &+= 1 }
        if result > 0 || again {
            // Short in spite of MSG_WAITALL: a signal, an error, or more vectors than one send takes.
            let left = unsafe queue.pointee.advance(Int(max(result, 0)))
            if left, open {
                submitSend(index)
                return
            }
            connections[index].sending = false
            unsafe reportOwners(queue, index, delivered: !left)
        } else {
            connections[index].sending = false
            connections[index].broken = true
            unsafe reportOwners(queue, index, delivered: false)
            if open { completions.append(.sendFailed(connection: index, errno: -result)) }
        }
        guard open else { return }
        // What was queued meanwhile, and what waits for the last byte.
        list(index)
    }

    private mutating func reportOwners(
        _ queue: UnsafeMutablePointer<SendQueue>, _ index: Int, delivered: Bool
    ) {
        let count = unsafe queue.pointee.ownerCount
        for position in 0..<count {
            let owner = unsafe queue.pointee.owner(position)
            completions.append(.sent(connection: index, owner: owner, delivered: delivered))
        }
        unsafe queue.pointee.clear()
    }
}
