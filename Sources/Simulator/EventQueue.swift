import Support

/// What happens at a moment of simulated time.
enum Happening: BitwiseCopyable {
    /// An operation of a node's disk ends.
    case disk(node: UInt8, life: UInt32, operation: UInt32)
    case tick(node: UInt8, serial: UInt32)
    /// The sender's socket takes the next piece of what is queued.
    case pump(pipe: UInt32)
    case arrival(pipe: UInt32, count: UInt32)
    /// The end of a stream, or a reset, reaches the receiver.
    case ending(pipe: UInt32, reset: Bool)
    case connecting(node: UInt8, life: UInt32, link: UInt8)
    case opened(node: UInt8, life: UInt32, link: UInt8)
    case linkClosed(node: UInt8, life: UInt32, link: UInt8)
    case sent(node: UInt8, life: UInt32, slot: UInt16)
    case replied(node: UInt8, life: UInt32, request: UInt16)
    case clientWakes(client: UInt8)
    case payload(client: UInt8, serial: UInt32)
    case decode(client: UInt8)
    case clientEnds(client: UInt8)
    case operatorActs
    case fault
    case heal(serial: UInt32)
    case start(node: UInt8)
    /// Its supervisor starts the process again.
    case restart(node: UInt8)
    case confirm(node: UInt8, life: UInt32)
    case sample
    case metaRead(node: UInt8, life: UInt32, operation: UInt32)
}

/// Happenings by time; those of the same moment in an order that the seed decides.
struct EventQueue: ~Copyable {
    struct Item: BitwiseCopyable {
        var time: UInt64
        var tie: UInt64
        var happening: Happening

        func isBefore(_ other: Item) -> Bool {
            time != other.time ? time < other.time : tie < other.tie
        }
    }

    private var items: [Item] = []

    var count: Int { items.count }
    var nextTime: UInt64? { items.first?.time }

    mutating func removeAll() { items.removeAll(keepingCapacity: true) }

    mutating func add(_ happening: Happening, at time: Instant, tie: UInt64) {
        items.append(Item(time: time.nanoseconds, tie: tie, happening: happening))
        var index = items.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            guard items[index].isBefore(items[parent]) else { break }
            items.swapAt(index, parent)
            index = parent
        }
    }

    mutating func take() -> (Instant, Happening)? {
        guard let first = items.first, let last = items.popLast() else { return nil }
        if !items.isEmpty {
            items[0] = last
            sink()
        }
        return (Instant(nanoseconds: first.time), first.happening)
    }

    private mutating func sink() {
        var index = 0
        while true {
            var child = 2 * index + 1
            guard child < items.count else { return }
            if child + 1 < items.count, items[child + 1].isBefore(items[child]) { child += 1 }
            guard items[child].isBefore(items[index]) else { return }
            items.swapAt(index, child)
            index = child
        }
    }
}
