import CShims
import Glibc
package import Support

/// A listening socket under the reactor's care.
package struct Listener: BitwiseCopyable {
    var descriptor: Int32 = -1
    var generation: UInt32 = 0
    var accepting = false
    /// Whether the place is still in use after `removeListener`, until the accept has ended.
    var leaving = false
}

/// A connection being made.
package struct Attempt: BitwiseCopyable {
    var descriptor: Int32 = -1
    var cancelled = false
}

extension Reactor {
    // MARK: listening

    /// Takes over a listening socket and accepts from it until `removeListener`.
    ///
    /// - Throws: ENFILE if all `listenerCount` places are taken.
    package mutating func addListener(_ descriptor: Int32) throws(SystemError) -> Int {
        for index in 0..<listeners.count where listeners[index].descriptor < 0 {
            listeners[index] = Listener(
                descriptor: descriptor, generation: listeners[index].generation &+ 1)
            accept(index)
            return index
        }
        throw SystemError("accept", "more than \(Self.listenerCount) listeners", errno: ENFILE)
    }

    /// After `.acceptFailed`, when descriptors or memory may be there again.
    package mutating func resumeAccepting(_ listener: Int) {
        guard !listeners[listener].accepting, !listeners[listener].leaving else { return }
        accept(listener)
    }

    /// Closes the socket. What was accepted at this very moment is closed too.
    package mutating func removeListener(_ listener: Int) {
        invariant(listeners[listener].descriptor >= 0, "listener \(listener) removed twice")
        guard !listeners[listener].leaving else { return }
        guard listeners[listener].accepting else { return leave(listener) }
        listeners[listener].leaving = true
        let generation = listeners[listener].generation
        cancel(InternalToken(.accept, listener, generation: generation))
    }

    private mutating func leave(_ listener: Int) {
        _ = Glibc.close(listeners[listener].descriptor)
        listeners[listener].descriptor = -1
    }

    private mutating func accept(_ index: Int) {
        listeners[index].accepting = true
        let sqe = unsafe entry()
        unsafe io_uring_prep_accept(
            sqe, listeners[index].descriptor, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
        unsafe sqe.pointee.user_data =
            InternalToken(.accept, index, generation: listeners[index].generation).bits
    }

    mutating func accepted(_ index: Int, _ result: Int32) {
        listeners[index].accepting = false
        if listeners[index].leaving {
            if result >= 0 { _ = Glibc.close(result) }
            leave(index)
            return
        }
        switch -result {
        case ...0:
            completions.append(.accepted(listener: index, descriptor: result))
            accept(index)
        case EINTR, EAGAIN, ECONNABORTED, EPROTO, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH,
            ENONET, ENOPROTOOPT, EPERM:
            // About that one connection (accept(2)): the next may be good.
            accept(index)
        default:
            completions.append(.acceptFailed(listener: index, errno: -result))
        }
    }

    // MARK: connecting

    /// Starts a TCP connection; `.connected` or `.connectFailed` follows, with ETIMEDOUT after
    /// `timeout` and ECANCELED after `cancelConnect`.
    ///
    /// - Parameter local: where to connect from, with port 0 for any port; `nil` for any address.
    /// - Returns: which attempt this is.
    package mutating func connect(
        from local: SocketAddress?, to remote: SocketAddress, timeout: Duration,
        options: SocketOptions = SocketOptions()
    ) throws(SystemError) -> Int {
        var index = 0
        while index < attempts.count, attempts[index].descriptor >= 0 { index += 1 }
        guard index < attempts.count else {
            throw SystemError("connect", "more than \(Self.attemptCount) attempts", errno: ENFILE)
        }
        let descriptor = try Sockets.open(from: local, to: remote, options)
        let nanoseconds = max(timeout.inNanoseconds, 0)
        attempts[index] = Attempt(descriptor: descriptor)
        // The kernel reads both when it gets the operation, so they lie where they stay.
        remotes[index] = remote
        limits[index] = __kernel_timespec(
            tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
        reserve(2)
        let sqe = unsafe entry()
        let place = unsafe UnsafeMutableRawPointer(remotes.address(of: index))
        unsafe io_uring_prep_connect(
            sqe, descriptor, place.assumingMemoryBound(to: sockaddr.self), remote.size)
        unsafe shim_link(sqe)
        unsafe sqe.pointee.user_data = InternalToken(.connect, index).bits
        let limit = unsafe entry()
        unsafe io_uring_prep_link_timeout(limit, limits.address(of: index), 0)
        unsafe limit.pointee.user_data = InternalToken(.ignored).bits
        return index
    }

    package mutating func cancelConnect(_ attempt: Int) {
        guard attempts[attempt].descriptor >= 0, !attempts[attempt].cancelled else { return }
        attempts[attempt].cancelled = true
        cancel(InternalToken(.connect, attempt))
    }

    mutating func connected(_ index: Int, _ result: Int32) {
        let attempt = attempts[index]
        attempts[index].descriptor = -1
        if result == 0, !attempt.cancelled {
            completions.append(.connected(attempt: index, descriptor: attempt.descriptor))
            return
        }
        _ = Glibc.close(attempt.descriptor)
        let errno =
            switch -result {
            case _ where attempt.cancelled: ECANCELED
            // Only the time limit cancels otherwise.
            case ECANCELED, EINTR: ETIMEDOUT
            default: -result
            }
        completions.append(.connectFailed(attempt: index, errno: errno))
    }
}
