import Support

/// What the simulator and diagnostics may ask of the engine without changing it.
extension ReplicationEngine {
    /// The lowest number that an accepted connection may have; `nil`: none is free, close it.
    package func freeLinkNumber() -> UInt8? {
        for index in 0..<Self.linkLimit where link.uses[index] == .free { return UInt8(index) }
        return nil
    }

    /// What is still taken; empty when nothing is under way.
    package func leaks() -> [String] {
        var found: [String] = []
        func expect(_ count: Int, _ what: String) {
            if count != 0 { found.append("\(count) \(what)") }
        }
        expect(Self.clientSlots - freeClientSlots.count, "slots of clients")
        expect(Self.peerSlots - freePeerSlots.count, "slots of the peer")
        expect(pool.taken, "buffers")
        expect(Self.requestLimit - freeRequests.count, "requests")
        expect(TransferLog.entryLimit - transfer.freeCount, "entries")
        expect(transfer.epochCount - 1, "closed epochs")
        expect(log.referencedCount, "extents")
        expect(book.count, "places in the order book")
        expect(book.waitingCount, "waiting operations")
        expect(held.count, "held writes")
        expect(logQueue.count, "writes without extents")
        expect(logWaiting.count, "writes in a transaction")
        expect(gated.count, "replies that wait for a generation")
        expect(flushing.count, "flushes")
        expect(diskOperations, "disk operations")
        expect(writesAtDisk, "writes at the disk")
        expect(flushOperations, "flush operations")
        expect(meta.outstanding, "meta data writes")
        expect(receiver.operations, "operations of the peer")
        expect(resync.outstandingCount, "resync requests")
        expect(resync.awaitingCount, "resync answers without ack")
        expect(resync.deferredCount, "deferred acks")
        return found
    }
}
