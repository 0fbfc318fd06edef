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
        invariant(count <= Self.streamSize, "waiting for \(count) bytes at once")
        return connections[index].next(count: count)
    }

    /// How many bytes can be taken now, contiguous; 0 while a payload is expected.
    package mutating func available(_ index: Int) -> Int { connections[index].available }

    /// The next `count` bytes, which stay.
    @_lifetime(borrow self)
    package func peek(_ index: Int, count: Int) -> RawSpan {
        let place = unsafe connections.address(of: index).pointee.peek(count: count)
        let bytes = unsafe RawSpan(_unsafeStart: place, byteCount: count)
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    /// The next `count` bytes, which are then behind us. Valid until the next call.
    @_lifetime(&self)
    package mutating func take(_ index: Int, count: Int) -> RawSpan {
        let place = unsafe connections[index].take(count: count)
        let bytes = unsafe RawSpan(_unsafeStart: place, byteCount: count)
        return unsafe _overrideLifetime(bytes, mutating: &self)
    }

    /// The next `length` bytes belong into the buffer at `bufferOffset`; `next` says when they are
    /// there.
    ///
    /// - Parameter large: receive into the buffer, and little behind it: for `largePayload` and up.
    package mutating func expect(_ index: Int, bufferOffset: Int, length: Int, large: Bool) {
        let target = unsafe place(bufferOffset, length)
        unsafe connections[index].expect(target, length: length, large: large)
    }

    /// The next `length` bytes are thrown away.
    package mutating func skip(_ index: Int, length: Int) {
        connections[index].skip(length: length)
    }

    /// Whether the kernel has been asked for more bytes.
    package func isReceiving(_ index: Int) -> Bool { connections[index].receiving }

    /// Asks the kernel for more: the rest of a payload straight into its buffer, and behind it what
    /// follows into the stream buffer, in one operation.
    package mutating func receive(_ index: Int) {
        guard connections[index].stage == .open, !connections[index].receiving,
            !connections[index].ended
        else { return }
        let sqe = unsafe entry()
        unsafe connections[index].prepareReceive(sqe)
        unsafe sqe.pointee.user_data =
            InternalToken(.receive, index, generation: connections[index].generation).bits
    }

    mutating func received(_ index: Int, _ result: Int32) {
        connections[index].receiving = false
        guard connections[index].stage == .open else { return }
        switch -result {
        case ..<0:
            connections[index].received(Int(result))
            completions.append(.received(connection: index))
        case EINTR, EAGAIN:
            receive(index)
        default:
            connections[index].ended = true
            completions.append(.ended(connection: index, errno: -result))
        }
    }
}
