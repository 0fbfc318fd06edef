import CShims
import Glibc
import Support

/// What the bytes at hand make complete.
package enum Received: Equatable, BitwiseCopyable, Sendable {
    /// All of what `expect` wanted is in its buffer; said once.
    case payload
    /// As many bytes as asked for can be taken.
    case bytes
    /// Neither: `receive`, and ask again after `.received`.
    case more
}

// How to receive: `next` until it says `.more`, then `receive`. To pause, do not call `receive`.
extension Reactor {
    /// - Parameter count: how many bytes the caller wants to take, at most `streamSize`.
    package mutating func next(_ index: Int, count: Int) -> Received {
        if connections[index].skipping > 0 { connections[index].drop() }
        if connections[index].need > 0 {
            connections[index].copyPayload()
            guard connections[index].got == connections[index].need else { return .more }
            connections[index].need = 0
            connections[index].got = 0
            return .payload
        }
        invariant(count <= Self.streamSize, "waiting for \(count) bytes at once")
        return connections[index].available >= count ? .bytes : .more
    }

    /// How many bytes can be taken now, contiguous; 0 while a payload is expected.
    package func available(_ index: Int) -> Int { connections[index].available }

    /// The next `count` bytes, which stay.
    @_lifetime(borrow self)
    package func peek(_ index: Int, count: Int) -> RawSpan {
        let connection = connections[index]
        precondition(count >= 0 && count <= connection.available)
        let bytes = unsafe RawSpan(
            _unsafeStart: connection.stream + connection.begin, byteCount: count)
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    /// The next `count` bytes, which are then behind us. Valid until the next call.
    @_lifetime(&self)
    package mutating func take(_ index: Int, count: Int) -> RawSpan {
        let begin = connections[index].begin
        precondition(count >= 0 && count <= connections[index].available)
        connections[index].begin = begin + count
        let bytes = unsafe RawSpan(
            _unsafeStart: connections[index].stream + begin, byteCount: count)
        return unsafe _overrideLifetime(bytes, mutating: &self)
    }

    /// The next `length` bytes belong into the buffer at `bufferOffset`; `next` says when they are
    /// there.
    ///
    /// - Parameter large: receive into the buffer, and little behind it: for `largePayload` and up.
    package mutating func expect(_ index: Int, bufferOffset: Int, length: Int, large: Bool) {
        invariant(length > 0, "expecting \(length) bytes")
        invariant(connections[index].need == 0, "expecting a payload while one is expected")
        unsafe connections[index].target = place(bufferOffset, length)
        connections[index].got = 0
        connections[index].need = length
        connections[index].large = large
    }

    /// The next `length` bytes are thrown away.
    package mutating func skip(_ index: Int, length: Int) {
        invariant(connections[index].need == 0, "skipping while a payload is expected")
        connections[index].skipping += length
        connections[index].drop()
    }

    /// Whether the kernel has been asked for more bytes.
    package func isReceiving(_ index: Int) -> Bool { connections[index].receiving }

    /// Asks the kernel for more: the rest of a payload straight into its buffer, and behind it what
    /// follows into the stream buffer, in one operation.
    package mutating func receive(_ index: Int) {
        guard connections[index].stage == .open, !connections[index].receiving,
            !connections[index].ended
        else { return }
        connections[index].compact()
        let connection = connections[index]
        let room = Connection.streamSize - connection.end
        let wanted = connection.need > 0 && connection.large ? min(room, Connection.window) : room
        invariant(wanted > 0, "receiving with a full stream: take what is there")
        let stream = unsafe connection.stream + connection.end
        connections[index].direct = connection.need - connection.got
        let sqe = unsafe entry()
        if connection.need > 0, let target = unsafe connection.target {
            let vectors = unsafe connection.held.vectors
            unsafe vectors[0] = unsafe iovec(
                iov_base: target + connection.got, iov_len: connection.need - connection.got)
            unsafe vectors[1] = unsafe iovec(iov_base: stream, iov_len: wanted)
            unsafe io_uring_prep_recvmsg(
                sqe, connection.descriptor, connection.held.receiveMessage, 0)
        } else {
            unsafe io_uring_prep_recv(sqe, connection.descriptor, stream, wanted, 0)
        }
        unsafe sqe.pointee.user_data =
            InternalToken(.receive, index, generation: connection.generation).bits
        connections[index].receiving = true
        connections[index].operations += 1
    }

    mutating func received(_ index: Int, _ result: Int32) {
        connections[index].receiving = false
        guard connections[index].stage == .open else { return }
        switch -result {
        case ..<0:
            let direct = min(Int(result), connections[index].direct)
            connections[index].got += direct
            connections[index].end += Int(result) - direct
            completions.append(.received(connection: index))
        case EINTR, EAGAIN:
            receive(index)
        default:
            connections[index].ended = true
            completions.append(.ended(connection: index, errno: -result))
        }
    }
}
