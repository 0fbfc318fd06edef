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

/// What a connection of the reactor is used for; trivial, in a table by the connection's index.
struct Use: BitwiseCopyable {
    enum Kind: UInt8 {
        case none
        /// An NBD client that is still negotiating.
        case handshake
        /// An NBD client past GO; `id` is the engine's client.
        case client
        /// One of the peer's two connections; `id` is the engine's link.
        case link
        /// repctl; `id` is the place in the table of control connections.
        case control
        /// A child that has the kernel device open.
        case holder
    }

    static let none = UInt8.max

    var kind = Kind.none
    var id = none
    /// Nothing is decoded for now.
    var paused = false
    /// Decoding goes on at the end of this turn.
    var resumed = false
    /// Closed or being closed: what still comes of it is not looked at.
    var closing = false
    /// The reactor is done with it: what is queued for it is answered here.
    var gone = false
    /// The slot whose payload is coming in.
    var slot: SlotID = 0
    /// How a client's requests and replies are framed, and whether it may ask for the block status.
    var mode = NBDMode.simple
    var hasContext = false
    /// Of a client that is being sent away: not closed before, so that what it still sends is
    /// answered with ESHUTDOWN.
    var drainsUntil = Instant.never
    /// A client that sends nothing more: closed when what was in flight is answered.
    var finished = false
    /// The large read whose parts are being asked for; nothing else is decoded meanwhile.
    var part = none
    /// Requests of a client that are not, or not only, the engine's.
    var pending: UInt16 = 0
    /// Closed at the latest then, although not everything was sent.
    var closeAt = Instant.never
}

/// Why something was queued on a connection: who is told when it has been sent.
enum Owner {
    static func slot(_ id: SlotID) -> UInt64 { 1 << 16 | UInt64(id) }
    static func request(_ id: UInt16) -> UInt64 { 2 << 16 | UInt64(id) }
    static func link(_ id: UInt8) -> UInt64 { 3 << 16 | UInt64(id) }
}

/// What an operation on the disk was started for: kind and payload of its token.
enum DiskToken: UInt8 {
    /// Payload: slot, expected length behind it.
    case slot = 1
    /// Payload: purpose, index.
    case flush
    /// Payload: meta buffer, id, length.
    case metaWrite, metaRead
    /// A slot's range is being zeroed. Payload: slot.
    case zero
    /// Blocks around a request that is no multiple of them. Payload: which bounce.
    case bounceRead, bounceWrite
    /// Zeros are written because the disk cannot deallocate. Payload: slot, length.
    case zeroWrite
    /// The device of the meta data; the data's follows. Payload: as of `flush`.
    case flushMetadata
    /// A file is looked at. Payload: which, which disk.
    case look
}
