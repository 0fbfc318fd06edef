import DRBDWire
import Replication
import Support

/// Everything that a seed decides once: sizes, speeds, features, and how often what goes wrong.
package struct Profile {
    package var seed: UInt64
    /// Bytes of each backing disk.
    var deviceSizes = [2 << 20, 2 << 20]
    /// The two disks begin as a pair in step; otherwise with fresh meta data.
    var isPaired = true
    var replicationProtocol = ReplicationProtocol.c
    var flushWaitsForPeer: Bool?
    var logExtents: Int?
    /// Where B's differ.
    var logExtentsOfB: Int?
    var maximumEpochSize = 2048
    var compressesBitmap = true
    var koCount = 7
    var diskTimeout: Duration?
    var onIOError = OnIOError.detach
    /// Where B's differs.
    var onIOErrorOfB: OnIOError?
    var hasCache = [true, true]
    /// By node: its peer takes it for a kernel, because the private feature bit is masked away.
    var hidesRepd = [false, false]
    /// The disks were never a pair; by `hasHistory` each has a past of its own.
    var isForeign = false
    var hasHistory = false
    /// The operator replaces disks, and puts old ones back.
    var replacesDisks = false
    /// A process that is killed is started again at once, and may be Primary again.
    var isSupervised = false

    /// Mean times.
    var diskTime: Duration = .microseconds(200)
    var wireTime: Duration = .microseconds(100)
    /// Bytes that leave or arrive at once, at most.
    var chunk = 1 << 20
    var clientCount = 2
    var depth = 8
    var pause: Duration = .milliseconds(2)
    /// Blocks at the start of the volume that most requests go to, so that they overlap.
    var hotBlocks = 32
    var largestWrite = 64 << 10

    var duration: Duration = .seconds(8)
    /// Mean time between two faults or orders; zero: none.
    var faultInterval: Duration = .zero
    var orderInterval: Duration = .seconds(1)
    /// Weights of the faults, in the order of `FaultKind.allCases`.
    var faultWeights = [UInt64](repeating: 0, count: FaultKind.allCases.count)
    /// The operator also does what a sane one does not.
    var isInsane = false
    var clientsDie = false
    /// What only goes on because a ping makes the engine look again is found as stuck.
    var hasSlowPings = false
    var recordsTrace = false
    /// Called with the world before it runs; directed scenarios set the rest themselves.
    var isDirected = false

    package init(quiet seed: UInt64) { self.seed = seed }

    /// What the swarm does with this seed.
    package init(swarm seed: UInt64) {
        self.seed = seed
        var random = RandomSource(seed: seed &* 0x9e37_79b9_7f4a_7c15 ^ 0x7265_7073_696d)
        func pick<Value>(_ values: [Value]) -> Value {
            values[Int(random.next() % UInt64(values.count))]
        }
        isPaired = !random.chance(1, in: 8)
        let size = isPaired ? pick([1, 2, 4, 8, 12, 16]) << 20 : pick([1, 2]) << 20
        deviceSizes = [size, size]
        if isPaired, random.chance(1, in: 16) { deviceSizes[1] += Int(random.next() % 16) * 4096 }
        replicationProtocol = pick([.a, .b, .c, .c, .c])
        flushWaitsForPeer = pick([nil, nil, true, false])
        logExtents = size >= 8 << 20 ? pick([nil, 2, 2, 3]) : nil
        maximumEpochSize = pick([2, 16, 2048, 2048])
        compressesBitmap = random.chance(3, in: 4)
        koCount = pick([2, 7, 7])
        hasCache = [random.chance(5, in: 6), random.chance(5, in: 6)]
        diskTime = .microseconds(pick([20, 200, 1000, 4000]))
        wireTime = .microseconds(pick([20, 100, 1000, 10000]))
        chunk = pick([1, 4, 64, 1024, 1024]) << 10
        if size > 4 << 20 { chunk = max(chunk, 16 << 10) }
        if isPaired, size == 1 << 20, random.chance(1, in: 8) {
            chunk = 500
            largestWrite = 8 << 10
        }
        hasSlowPings = random.chance(1, in: 6)
        clientCount = pick([1, 2, 3, 4])
        depth = pick([1, 4, 8, 32])
        pause = .microseconds(pick([2000, 5000, 20000, 100_000]))
        hotBlocks = pick([4, 32, 256, 4096])
        if chunk > 500 { largestWrite = pick([4, 16, 64, 64, 700]) << 10 }
        duration = .milliseconds(pick([1000, 2000, 4000]))
        faultInterval = .milliseconds(pick([50, 200, 800]))
        orderInterval = .milliseconds(pick([100, 500, 2000]))
        isInsane = random.chance(1, in: 4)
        clientsDie = random.chance(1, in: 3)
        for index in faultWeights.indices {
            faultWeights[index] = random.chance(1, in: 2) ? random.next() % 8 : 0
        }
        if hasSlowPings {
            // Without pings nobody notices silence.
            for kind: FaultKind in [.blackHole, .blackHoleOneWay, .powerLoss, .powerLossBoth] {
                faultWeights[kind.rawValue] = 0
            }
        }
        // Disks that fail stay away until somebody attaches them: less often than the rest.
        if !random.chance(1, in: 3) {
            for kind in FaultKind.allCases where kind.isDiskError {
                faultWeights[kind.rawValue] = 0
            }
        }
        // What came later is drawn last, so that older seeds keep their meaning.
        switch random.next() % 48 {
        case 0..<6: replacesDisks = isPaired
        case 6: (isForeign, hasHistory) = (isPaired, false)
        case 7: (isForeign, hasHistory) = (isPaired, true)
        case 8..<11: hidesRepd = [true, true]
        default: break
        }
        isSupervised = random.chance(1, in: 3)
        if random.chance(1, in: 8) { diskTimeout = .milliseconds(pick([100, 300, 1000])) }
        onIOError = pick([.detach, .detach, .callHandler, .passOn, .passOn])
    }

    var options: Options {
        var options = Options()
        options.replicationProtocol = replicationProtocol
        options.flushWaitsForPeer = flushWaitsForPeer
        options.logExtents = logExtents
        options.maximumEpochSize = maximumEpochSize
        options.compressesBitmap = compressesBitmap
        options.koCount = koCount
        options.diskTimeout = diskTimeout
        options.onIOError = onIOError
        options.timeout = .seconds(1)
        options.pingInterval = hasSlowPings ? .seconds(200) : .seconds(2)
        options.pingTimeout = .milliseconds(500)
        options.connectInterval = .seconds(2)
        options.demotionDeadline = .seconds(20)
        return options
    }
}

/// What can go wrong.
package enum FaultKind: Int, CaseIterable {
    case cut, cutOneSocket, blackHole, blackHoleOneWay, kill, powerLoss, powerLossBoth, killBoth
    case writeError, readError, flushError, metaError, clientDeath, slowDisk

    var isDiskError: Bool {
        switch self {
        case .writeError, .readError, .flushError, .metaError: true
        case .cut, .cutOneSocket, .blackHole, .blackHoleOneWay, .kill, .powerLoss,
            .powerLossBoth, .killBoth, .clientDeath, .slowDisk:
            false
        }
    }

    package var name: String { "\(self)" }
}
