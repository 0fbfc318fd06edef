import Support

/// One direction of one connection: what is queued, what is under way, what has arrived.
final class Pipe {
    struct Item: BitwiseCopyable {
        /// Bytes that lie in `staging`, or are still in `buffer`.
        var left: Int
        /// A payload: its slot, and where in the sender's buffers the rest lies.
        var slot: UInt16
        var place: Int
        /// No bytes: the engine wants to hear when it gets here.
        var reportsDrained: Bool
    }

    static let noSlot = UInt16.max

    var items: [Item] = []
    var head = 0
    var staging = ByteQueue()
    /// Sent and not yet consumed; the first `available` bytes have arrived.
    var wire = ByteQueue()
    var available = 0
    var isPumping = false
    var lastArrival: UInt64 = 0

    var from: UInt8 = 0
    /// The other direction's place among the pipes.
    var reverse = 0
    var senderLink: UInt8 = 0
    var receiverLink: UInt8 = 0
    var senderIsOpen = false
    var receiverIsOpen = false
    /// The sender closes when everything queued has left.
    var endsWhenEmpty = false
    /// Nothing comes through: it waits here until the fault is over.
    var isBlocked = false
    var held = 0
    enum Ending: UInt8 { case none, orderly, reset }
    var heldEnding = Ending.none
    /// Reached the receiver.
    var ending = Ending.none

    var isEmpty: Bool { head == items.count }

    func reset(from: UInt8, senderLink: UInt8, receiverLink: UInt8, reverse: Int) {
        items.removeAll(keepingCapacity: true)
        head = 0
        staging.removeAll()
        wire.removeAll()
        available = 0
        isPumping = false
        lastArrival = 0
        self.from = from
        self.reverse = reverse
        self.senderLink = senderLink
        self.receiverLink = receiverLink
        senderIsOpen = true
        receiverIsOpen = true
        endsWhenEmpty = false
        isBlocked = false
        held = 0
        heldEnding = .none
        ending = .none
    }

    func add(_ item: Item) {
        if head == items.count {
            items.removeAll(keepingCapacity: true)
            head = 0
        }
        items.append(item)
    }
}
