import DRBDWire
import MetaDisk
import Replication
import Support

/// One node: the engine, and what a daemon would keep for it.
final class SimulatedNode {
    enum LinkState: UInt8 { case free, connecting, opening, open, closing }

    struct Link {
        var state = LinkState.free
        var outgoing = 0
        var incoming = 0
        var isPaused = false
        /// The order to close it came when it stood already, and was not heard of yet.
        var closeWasEarly = false
        /// A payload that is coming in.
        var slot = Pipe.noSlot
        var place = 0
        var left = 0
        var skip = 0
    }

    enum OperationKind: UInt8 { case free, write, read, zero, flush, metaWrite, metaRead }

    struct Operation: BitwiseCopyable {
        var kind = OperationKind.free
        /// Slot, meta id or flush index.
        var number: UInt16 = 0
        var purpose = FlushPurpose.client
        /// In the buffers, or in `metaBytes`.
        var place = 0
        var length = 0
        var offset = 0
        var durable = false
        var epoch: UInt32 = 0
        var horizon: UInt64 = 0
    }

    /// What the last byte of a payload that leaves belongs to.
    struct Leaving: BitwiseCopyable {
        var isClient = false
        var operation: UInt32 = 0
        var progress = 0
        var place = 0
        var length = 0
    }

    struct Reply: BitwiseCopyable {
        var operation: UInt32 = 0
        var number: UInt8 = 0
        var error: UInt8 = 0
    }

    let index: UInt8
    var replies = [Reply](repeating: Reply(), count: ReplicationEngine.requestLimit)
    var engine = ReplicationEngine(options: Options(), seed: 0)
    /// A process: every start is a new one.
    var life: UInt32 = 0
    var isAlive = false
    let buffers = Bytes(count: BufferPool.arenaSize, zeroed: false)
    var disk = SimulatedDisk()
    /// The disk that was replaced, and may be put back.
    var drawer: SimulatedDisk?
    /// A disk that nobody uses: they are large.
    var shelf: SimulatedDisk?
    var links = [Link](repeating: Link(), count: ReplicationEngine.linkLimit)
    var operations: [Operation] = []
    var freeOperations: [UInt32] = []
    var running = 0
    /// Bytes of meta data writes that are under way, one page-aligned place per operation.
    let metaBytes = Bytes(count: 64 * 65536, zeroed: false)
    var freeMetaPlaces: [Int] = []
    var leaving = [Leaving](repeating: Leaving(), count: 2048)
    var tickSerial: UInt32 = 0
    var tickAt: UInt64 = .max
    var needsSettle = false
    var diskIsOpen = false
    /// The generations that the role record names, the latest first; empty: there is none.
    var roleRecord: [UInt64] = []
    /// Connections of clients that the engine knows.
    var clientOf = [Int16](repeating: -1, count: ReplicationEngine.clientLimit)
    /// Operations whose client died, until the engine gives the number back.
    var orphans = [[UInt32]](repeating: [], count: ReplicationEngine.clientLimit)

    // Faults of the disk.
    var failsWrites = false
    var failsReads = false
    var failsFlushes = false
    var failsMeta = false
    var slowness = 1

    // What the checker watches.
    var epochOfSlot = [UInt32](repeating: 0, count: 2048)
    var incomingEpoch: UInt32 = 1
    var lastPacketIsData = false
    var knownLogVersion: UInt64 = .max
    var hotExtents: [UInt32] = []
    var logIsUsable = true

    init(index: UInt8) { self.index = index }

    var failsAnything: Bool { failsWrites || failsReads || failsFlushes || failsMeta }

    func takeOperation(_ operation: Operation) -> UInt32 {
        running += 1
        if let index = freeOperations.popLast() {
            operations[Int(index)] = operation
            return index
        }
        operations.append(operation)
        return UInt32(operations.count - 1)
    }

    func endOperation(_ index: UInt32) {
        running -= 1
        operations[Int(index)].kind = .free
        freeOperations.append(index)
    }

    func takeMetaPlace() -> Int {
        guard let place = freeMetaPlaces.popLast() else {
            invariantFailed("more than 64 meta data operations at once")
        }
        return place
    }

    func reset() {
        life = 0
        isAlive = false
        forgetProcess()
        (failsWrites, failsReads, failsFlushes, failsMeta) = (false, false, false, false)
        slowness = 1
        roleRecord = []
        knownLogVersion = .max
    }

    /// Everything that a process keeps is gone.
    func forgetProcess() {
        for index in links.indices { links[index] = Link() }
        operations.removeAll(keepingCapacity: true)
        freeOperations.removeAll(keepingCapacity: true)
        running = 0
        freeMetaPlaces.removeAll(keepingCapacity: true)
        for place in 0..<64 { freeMetaPlaces.append((63 - place) * 65536) }
        tickSerial &+= 1
        tickAt = .max
        needsSettle = false
        diskIsOpen = false
        for index in clientOf.indices {
            clientOf[index] = -1
            orphans[index].removeAll(keepingCapacity: true)
        }
        for index in epochOfSlot.indices { epochOfSlot[index] = 0 }
        incomingEpoch = 1
        lastPacketIsData = false
    }
}
