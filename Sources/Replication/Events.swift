import Support

/// Which buffer of the node's arena; its size and place are in `BufferPool`.
package typealias BufferID = UInt16
/// Which running operation on the disk; an index into the engine's table of slots.
package typealias SlotID = UInt16

/// What an NBD client asks of the volume, already decoded.
package struct ClientRequest: BitwiseCopyable {
    package enum Operation: UInt8, BitwiseCopyable { case read, write, flush, trim, writeZeroes }

    package struct Options: OptionSet, BitwiseCopyable, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// FUA: on stable storage when answered.
        package static let durable = Options(rawValue: 1)
        /// NBD_CMD_FLAG_NO_HOLE on a write of zeroes: the range must stay allocated.
        package static let keepsAllocation = Options(rawValue: 2)
        /// Opaque; comes back with the reply as the cookie does.
        package static let isPart = Options(rawValue: 4)
    }

    package var operation: Operation
    package var options: Options
    private var lengthHigh: UInt16
    private var lengthLow: UInt32
    /// Bytes from the start of the volume.
    package var offset: UInt64
    /// Echoed in the reply; opaque.
    package var cookie: UInt64

    /// Bytes. In 48 bits, so that an event stays small.
    package var length: UInt64 { UInt64(lengthHigh) << 32 | UInt64(lengthLow) }

    /// - Parameter length: less than 2^48; less than 2^32 for a read or a write.
    package init(
        _ operation: Operation, offset: UInt64 = 0, length: UInt64 = 0, cookie: UInt64,
        options: Options = []
    ) {
        invariant(length < 1 << 48, "a request of \(length) bytes")
        self.operation = operation
        self.options = options
        lengthHigh = UInt16(length >> 32)
        lengthLow = UInt32(truncatingIfNeeded: length)
        self.offset = offset
        self.cookie = cookie
    }
}

/// Why a data or meta data flush runs; comes back with its completion.
package enum FlushPurpose: UInt8, BitwiseCopyable {
    /// For the request whose index comes along.
    case client
    /// In front of a meta data write, or behind bitmap pages.
    case meta
    /// Before the peer's P_BARRIER is acknowledged.
    case barrier
    /// Before a role or a resync end is announced.
    case procedure
    /// Behind the zeroes of the slot that comes along, which are to be durable.
    case zeroes
}

/// What happened. Trivial and small: it is passed in registers and copied with moves.
package enum Event: BitwiseCopyable {
    case request(client: UInt8, ClientRequest)
    /// The payload asked for with `receive` or `receiveFromPeer` is in the slot's buffer.
    case payload(slot: SlotID)
    /// The client's connection ended; nothing more is sent to it. It stays taken until `freeClient`.
    case clientClosed(client: UInt8)
    /// A read, write or deallocation of a slot ended; `errno` is 0 for success.
    case disk(slot: SlotID, errno: UInt8)
    /// Every byte of the slot's payload was given to the kernel, or never will be.
    case sent(slot: SlotID)
    /// The reply was given to the client's socket, or never will be.
    case replied(request: UInt16)
    case flushed(FlushPurpose, index: UInt16, errno: UInt8)
    case metaWritten(id: UInt16, errno: UInt8)
    /// A meta data read failed (its success is `metaRead`).
    case metaReadFailed(id: UInt16, errno: UInt8)
    /// A connection asked for with `connect` stands.
    case linkOpened(link: UInt8)
    /// The peer connected to us.
    case linkAccepted(link: UInt8)
    /// The connection is gone and its number free, whoever closed it, or `connect` failed.
    case linkClosed(link: UInt8)
    /// All that was queued for the link has left.
    case linkDrained(link: UInt8)
    /// The answer to `confirmResumption`.
    case resumptionConfirmed(Bool)
}

/// What to do about it, in order.
package enum Command: BitwiseCopyable {
    // Clients.
    /// The next `length` bytes of the client go to `buffer`.
    case receive(client: UInt8, slot: SlotID, buffer: BufferID, length: UInt32, large: Bool)
    /// The next `length` bytes of the client are of no use.
    case skip(client: UInt8, length: UInt32)
    /// Nothing more is decoded from the client until `resumeClient`.
    case pauseClient(client: UInt8)
    case resumeClient(client: UInt8)
    /// `error` is an NBD errno. `length` bytes of a read follow in `clientPayload`s; the offset is the
    /// request's.
    case reply(
        client: UInt8, error: UInt8, request: UInt16, length: UInt32, cookie: UInt64,
        offset: UInt64, isPart: Bool)
    case clientPayload(client: UInt8, slot: SlotID, buffer: BufferID, length: UInt32)
    case closeClient(client: UInt8)
    /// Nothing of the client is left here: its number is free.
    case freeClient(client: UInt8)

    // The peer.
    /// Opens a connection to the peer's address; gives up after connect-int.
    case connect(link: UInt8)
    /// `linkClosed` follows; or `linkOpened`, if that is on its way already, and the order comes again.
    case closeLink(link: UInt8)
    /// Bytes of the output's arena.
    case send(link: UInt8, at: UInt32, length: UInt32)
    case sendPayload(link: UInt8, slot: SlotID, buffer: BufferID, length: UInt32)
    case receiveFromPeer(link: UInt8, slot: SlotID, buffer: BufferID, length: UInt32, large: Bool)
    case skipFromPeer(link: UInt8, length: UInt32)
    /// No packet of the link is decoded until `resumeLink`.
    case pauseLink(link: UInt8)
    case resumeLink(link: UInt8)
    /// Report `linkDrained` when all that was queued so far has left.
    case reportDrained(link: UInt8)

    // The backing disk. Offsets and lengths in bytes.
    case write(slot: SlotID, buffer: BufferID, length: UInt32, offset: UInt64, durable: Bool)
    case read(slot: SlotID, buffer: BufferID, length: UInt32, offset: UInt64)
    /// The range reads as zeros afterwards; its space may be given back unless `keep`.
    case zero(slot: SlotID, length: UInt32, offset: UInt64, keep: Bool)
    case flush(FlushPurpose, index: UInt16)
    /// Bytes of the output's arena go to the meta data; `durable` as RWF_DSYNC.
    case metaWrite(id: UInt16, at: UInt32, length: UInt32, offset: UInt64, durable: Bool)
    case metaRead(id: UInt16, length: UInt32, offset: UInt64)
    /// No operation of ours is left on the disk: it is to be closed and its claim given up.
    case closeDisk

    // The role record (safety.md S18).
    /// This node is Primary with the generation; the one before may still be what the disk says.
    case recordRole(generation: UInt64)
    /// No later process is to resume as Primary.
    case eraseRole
    /// The administrator's local-io-error handler is to be told that the disk has failed.
    case callHandler
    /// To be answered with `resumptionConfirmed`: what only the node knows is tested.
    case confirmResumption
}
