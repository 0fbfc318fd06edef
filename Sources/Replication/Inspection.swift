import DRBDWire
import MetaDisk
package import Support

/// What status and tests look at; nothing here decides anything.
extension ReplicationEngine {
    /// A free number for a connection that the peer has opened; `nil`: close it.
    package func freeLinkNumber() -> UInt8? {
        for index in 0..<Self.linkLimit where link.uses[index] == .free { return UInt8(index) }
        return nil
    }

    /// Requests of the client that have not been answered.
    package func requestsInFlight(client: UInt8) -> Int {
        Int(clients[Int(client)].users) + (clients[Int(client)].waiting == nil ? 0 : 1)
    }

    /// One of them is a write of which not everything has arrived.
    package func isReceiving(client: UInt8) -> Bool { clients[Int(client)].slot != none }

    /// Whether the slot holds a block that a resync brought.
    package func isResyncWrite(_ slot: SlotID) -> Bool { slots[Int(slot)].kind == .resyncWrite }

    /// Some client waits for a place or a buffer.
    package var clientsWait: Bool { pausedClients > 0 }

    /// The node may let clients use the export.
    package var servesClients: Bool { state.role == .primary && !order.promoting || isResuming }

    /// The role is being given up: no new client is let in, no request of one accepted.
    package var isDemoting: Bool { order.demoting }

    /// Whether an order is being carried out.
    package var isBusy: Bool { order.current != nil || attachment.stage != .none }

    package struct Pending: Equatable, Sendable {
        /// Requests of clients, of which `peer` wait for the peer; operations at the disk.
        package var requests = 0
        package var peer = 0
        package var disk = 0
        /// Of the peer's, unanswered.
        package var unacknowledged = 0
        package var epochs = 1
    }

    package var pending: Pending {
        var pending = Pending()
        pending.requests = Self.requestLimit - freeRequests.count
        pending.disk = diskOperations
        pending.unacknowledged = receiver.operations
        pending.epochs = max(1, transfer.epochCount)
        pending.peer = resync.outstandingCount
        for index in 0..<Self.clientSlots
        where slots[index].kind != .free && slots[index].ackPending { pending.peer += 1 }
        return pending
    }

    package struct Progress: Equatable, Sendable {
        /// Blocks of 4 KiB.
        package var total: Int
        package var left: Int
        package var failed: Int
        package var started: Instant
    }

    /// A resync runs or is paused; `progress` tells how far it is.
    package var isResyncing: Bool {
        state.connection == .syncSource || state.connection == .syncTarget
            || state.connection == .pausedSyncS || state.connection == .pausedSyncT
    }

    /// `takeTransitions` or `takeResults` have something.
    package var hasNews: Bool { !transitions.isEmpty || !results.isEmpty }

    /// `nil` when no resync runs.
    package var progress: Progress? {
        guard isResyncing else { return nil }
        return Progress(
            total: resync.total, left: max(0, bitmap.setCount - resync.failedBlocks),
            failed: resync.failedBlocks, started: resync.started)
    }

    /// Whether there is network configuration in use: StandAlone has none.
    package var hasConnection: Bool { link.stage != .off }

    package var isDiskOpen: Bool { diskInUse }

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
