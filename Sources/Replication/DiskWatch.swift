import DRBDWire
import Support

/// A disk that takes an operation and does not answer (disk-timeout): it counts as failed, and nobody
/// waits for it any longer. What it still has stays its own until it gives it back, however late.
struct DiskWatch: BitwiseCopyable {
    /// When it is looked at next; what was at the disk the last time, too, is stuck then.
    var at = Instant.never
    /// Flushes and operations on meta data that have come back.
    var answers: UInt32 = 0
    /// `answers` at the last look, if some were under way then.
    var answersSeen: UInt32?
}

extension ReplicationEngine {
    mutating func beginDiskWatch() {
        watch = DiskWatch()
        if let limit = options.diskTimeout { watch.at = now + limit }
    }

    mutating func lookAtDisk() {
        guard now >= watch.at, let limit = options.diskTimeout, diskInUse else {
            if !diskInUse || options.diskTimeout == nil { watch.at = .never }
            return
        }
        watch.at = now + limit
        var stuck = false
        for index in 0..<slots.count where slots[index].diskPending {
            stuck = stuck || slots[index].wasSeenAtDisk
            slots[index].wasSeenAtDisk = true
        }
        let waits = flushOperations > 0 || meta.outstanding > 0 || meta.flushing
        stuck = stuck || waits && watch.answersSeen == watch.answers
        watch.answersSeen = waits ? watch.answers : nil
        if stuck, !sabotaged(.waitsForDisk) { disown() }
    }

    /// Whoever waits for the disk is told that it failed.
    private mutating func disown() {
        let limit = options.diskTimeout ?? .zero
        let serves = receiver.operations > 0
        diskFailed("it has not answered for disk-timeout \(limit)")
        for index in 0..<slots.count where slots[index].diskPending && !slots[index].isDisowned {
            let id = UInt16(index)
            switch slots[index].kind {
            case .write, .zero:
                slots[index].isDisowned = true
                slots[index].failed = true
                writesAtDisk -= 1
                localDone(slots[index].entry)
                settleWrite(id)
            case .read:
                slots[index].isDisowned = true
                requests[Int(slots[index].request)].error = ReplyError.io
                segmentDone(slots[index].request)
            case .peerWrite, .peerZero, .peerRead, .resyncRead, .resyncWrite, .free: break
            }
        }
        for index in 0..<requests.count where requests[index].isAtDisk {
            guard !requests[index].isDisowned else { continue }
            requests[index].isDisowned = true
            requests[index].error = ReplyError.io
            segmentDone(UInt16(index))
        }
        // A peer gets no answer before the disk has given its own; it goes on without us.
        guard serves else { return }
        connectionLost(.timeout, "what the peer sent is stuck in the disk")
    }
}
