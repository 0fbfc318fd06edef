import Support

/// What the sender put between two barriers, to compare with what is acknowledged (I-10).
struct EpochBooks {
    /// The writes that each node sent since its last barrier.
    private var counts: [UInt32] = [0, 0]
    private var barriers: [[(number: UInt32, count: UInt32)]] = [[], []]

    mutating func wrote(_ node: Int) { counts[node] += 1 }

    mutating func barrier(_ node: Int, _ number: UInt32) {
        barriers[node].append((number, counts[node]))
        counts[node] = 0
    }

    /// - Returns: what is wrong with the acknowledgement that the receiver sends.
    mutating func acknowledged(by receiver: Int, _ number: UInt32, _ count: UInt32) -> String? {
        let sender = 1 - receiver
        guard let oldest = barriers[sender].first else {
            return "P_BARRIER_ACK \(number), but no barrier is out"
        }
        barriers[sender].removeFirst()
        guard oldest.number == number, oldest.count == count else {
            return "P_BARRIER_ACK \(number) for \(count) writes instead of \(oldest.number) for "
                + "\(oldest.count)"
        }
        return nil
    }

    mutating func newConnection(_ node: Int) {
        counts[node] = 0
        barriers[node].removeAll()
    }
}
