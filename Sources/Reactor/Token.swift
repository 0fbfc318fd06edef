import Support

/// What the caller started an operation on a file for; comes back with its completion.
@frozen @usableFromInline package struct Token: Equatable, BitwiseCopyable, Sendable {
    /// Kinds from here on are the reactor's own.
    static let firstReservedKind: UInt8 = 0xf0
    @usableFromInline static let payloadBits: UInt64 = 56

    @usableFromInline let bits: UInt64

    /// - Parameters:
    ///   - kind: the caller's choice, below 240.
    ///   - payload: the caller's choice, 56 bits.
    package init(kind: UInt8, payload: UInt64) {
        invariant(kind < Self.firstReservedKind, "token of kind \(kind)")
        invariant(payload >> Self.payloadBits == 0, "token with payload \(payload)")
        bits = UInt64(kind) << Self.payloadBits | payload
    }

    init(bits: UInt64) { self.bits = bits }

    @inlinable package var kind: UInt8 { UInt8(truncatingIfNeeded: bits >> Self.payloadBits) }
    @inlinable package var payload: UInt64 { bits & (1 << Self.payloadBits - 1) }
}

/// What has happened; read after `Reactor.turn` with `Reactor.subscript(completion:)`.
package enum Completion: Equatable, BitwiseCopyable, Sendable {
    /// An operation on a file ended: with a number of bytes (or 0), or with a negative errno.
    case operation(Token, result: Int32)

    /// More bytes are here: ask `next`.
    case received(connection: Int)
    /// Nothing more will be received: the peer has finished (0), or an errno. Once per connection.
    case ended(connection: Int, errno: Int32)
    /// Everything queued before `notify` with this owner has been given to the kernel, or if not
    /// `delivered`, never will be. Either way the kernel does not read those buffers any more.
    case sent(connection: Int, owner: UInt64, delivered: Bool)
    /// Nothing more can be sent. Once per connection.
    case sendFailed(connection: Int, errno: Int32)
    /// The peer has finished or vanished, seen by `watchHangup`; there may be bytes to receive.
    case hangup(connection: Int)
    /// After `close`: no operation is under way any more, every owner has been reported, and the
    /// buffer that `expect` named is free. The index may be used again from the next turn on.
    case closed(connection: Int)

    /// A new descriptor, which the caller has to `add` or close.
    case accepted(listener: Int, descriptor: Int32)
    /// Nothing is accepted any more until `resumeAccepting`: there are no descriptors or no memory.
    case acceptFailed(listener: Int, errno: Int32)
    /// The outcome of `connect`: a new descriptor, which the caller has to `add` or close.
    case connected(attempt: Int, descriptor: Int32)
    case connectFailed(attempt: Int, errno: Int32)

    case signal(Int32)
    /// A child ended: its exit status, or if a signal ended it, the negated number of that.
    case exited(child: Int, status: Int32)
    /// There is something in the mailbox.
    case posted(mailbox: Int)
}

/// The tokens of what the reactor does for itself: what, at which index, for which occupant of it.
struct InternalToken: BitwiseCopyable {
    enum Kind: UInt8 {
        case receive = 0xf0
        case send, hangup, accept, connect, signal, child, mailbox, alarm
        /// Cancellations and time limits: what they act on tells the outcome.
        case ignored
    }

    let bits: UInt64

    init(_ kind: Kind, _ index: Int = 0, generation: UInt32 = 0) {
        bits =
            UInt64(kind.rawValue) << 56 | UInt64(generation & 0xff_ffff) << 32
            | UInt64(UInt32(truncatingIfNeeded: index))
    }

    /// `nil` if the token is a caller's.
    static func kind(_ bits: UInt64) -> Kind? {
        Kind(rawValue: UInt8(truncatingIfNeeded: bits >> 56))
    }
    static func index(_ bits: UInt64) -> Int { Int(UInt32(truncatingIfNeeded: bits)) }
    static func generation(_ bits: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: bits >> 32) & 0xff_ffff
    }
}
