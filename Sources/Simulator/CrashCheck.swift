import DRBDWire
import MetaDisk
import Replication
import Support

/// I-5, I-2, I-11: if the power went now, would the next handshake find every difference?
extension World {
    func takeSample() {
        schedule(.sample, in: spread(.milliseconds(300)))
        checkCrashNow("sample")
        checkQuietPair()
    }

    /// Imagines a power cut of both nodes at this moment and compares what is left.
    func checkCrashNow(_ occasion: String) {
        guard violation == nil, imaginesPowerCuts, let first = checker.locations[0],
            checker.locations[1] != nil
        else {
            return
        }
        let losses: [SimulatedDisk.Loss] = [.some, .torn, .everything, .nothing]
        var views: [CrashView] = []
        for node in nodes {
            let overlay = overlays[Int(node.index)]
            node.disk.crashImage(losses[pick(4)], &random, into: overlay)
            guard let location = checker.locations[Int(node.index)],
                let view = CrashView(node.disk, overlay, location)
            else {
                violate("I-19", "\(occasion): the meta data cannot be read after a power cut")
                return
            }
            views.append(view)
        }
        report.crashChecks += 1
        checkClearedBits()
        if views[0].forcesFullSync(views[1]) { return }
        let blocks = (checker.volumeSectors + 7) / 8
        for page in 0..<min(blocks, Int(first.capacity >> 3)) {
            guard mayDiffer(page), differs(page) else { continue }
            if views[0].covers(block: page) || views[1].covers(block: page) { continue }
            violate(
                "I-5",
                "\(occasion): after a power cut now block \(page) differs (A "
                    + "#\(value(0, page)), B #\(value(1, page))) and nothing says so")
            return
        }
    }

    /// I-3: the source clears a bit after the target has, which says so by its ack.
    private func checkClearedBits() {
        guard
            let source = nodes.first(where: { $0.engine.state.connection == .syncSource }),
            other(source).engine.state.connection == .syncTarget,
            source.isAlive, other(source).isAlive, !other(source).failsAnything
        else { return }
        let target = other(source)
        let words = min(source.engine.bitmap.wordCount, target.engine.bitmap.wordCount)
        for index in 0..<words {
            let only = target.engine.bitmap.word(index) & ~source.engine.bitmap.word(index)
            guard only != 0 else { continue }
            violate(
                "I-3",
                "the source counts block \(index * 64 + only.trailingZeroBitCount) as in sync, "
                    + "which the target still lacks")
            return
        }
    }

    /// Pages that nobody ever wrote are zeros on both disks.
    private func mayDiffer(_ page: Int) -> Bool {
        for node in 0..<2
        where nodes[node].disk.stable.isTouched(page) || overlays[node].find(page) != nil {
            return true
        }
        return false
    }

    private func differs(_ page: Int) -> Bool {
        let (left, right) = (nodes[0].disk, nodes[1].disk)
        let places = (overlays[0].find(page), overlays[1].find(page))
        let sectors = min(8, checker.volumeSectors - page * 8) << 9
        let offset = page << 12
        switch places {
        case (nil, nil):
            return !left.stable.bytes.isEqual(offset, right.stable.bytes, offset, count: sectors)
        case (let one?, nil):
            return !overlays[0].bytes.isEqual(one, right.stable.bytes, offset, count: sectors)
        case (nil, let two?):
            return !left.stable.bytes.isEqual(offset, overlays[1].bytes, two, count: sectors)
        case (let one?, let two?):
            return !overlays[0].bytes.isEqual(one, overlays[1].bytes, two, count: sectors)
        }
    }

    private func value(_ node: Int, _ page: Int) -> UInt64 {
        if let place = overlays[node].find(page) { return overlays[node].bytes.word(place) }
        return nodes[node].disk.stable.bytes.word(page << 12)
    }

    /// I-2, I-25: a pair in step, with nothing under way, is equal and counts no blocks.
    func checkQuietPair() {
        guard isIdle else { return }
        let states = nodes.map { $0.engine.state }
        for state in states {
            guard state.connection == .connected, state.disk == .upToDate,
                state.peerDisk == .upToDate
            else { return }
        }
        for node in nodes where node.engine.bitmap.setCount != 0 {
            violate("I-25", "a quiet pair in step counts \(node.engine.bitmap.setCount) blocks")
        }
        compareImages("quiet pair", "I-2")
    }

    /// No process is down, nothing is queued or on its way.
    var isIdle: Bool {
        for node in nodes {
            guard node.isAlive, node.running == 0, !node.needsSettle else { return false }
            for link in node.links where link.state == .open {
                let pipe = pipes[link.outgoing]
                guard pipe.isEmpty, pipe.wire.count == 0, pipe.held == 0 else { return false }
            }
            for link in node.links where link.state != .open && link.state != .free {
                return false
            }
        }
        return clients.allSatisfy { $0.waiting.isEmpty }
            && nodes.allSatisfy { $0.orphans.allSatisfy(\.isEmpty) }
    }

    func compareImages(_ what: String, _ invariant: String) {
        let length = checker.volumeSectors << 9
        var offset = 0
        while offset < length {
            let count = min(4096, length - offset)
            let page = offset >> 12
            if nodes[0].disk.current.isTouched(page) || nodes[1].disk.current.isTouched(page),
                !nodes[0].disk.current.bytes.isEqual(
                    offset, nodes[1].disk.current.bytes, offset, count: count)
            {
                violate(
                    invariant,
                    "\(what): block \(offset >> 12) differs: A #"
                        + "\(nodes[0].disk.current.bytes.word(offset)), B "
                        + "#\(nodes[1].disk.current.bytes.word(offset))")
                return
            }
            offset += count
        }
    }

    /// I-1: every sector of the node's disk holds what it may hold.
    func checkImage(_ node: Int, _ what: String, _ invariant: String = "I-1") {
        clock += 1
        for sector in checker.table.touched {
            checker.checkRead(
                node: node, bytes: nodes[node].disk.current.bytes, at: Int(sector) << 9,
                sector: Int(sector), sectors: 1, submitted: clock, what: what,
                invariant: invariant, world: self)
            if violation != nil { return }
        }
    }
}

/// The meta data that a node would find after a power cut.
private struct CrashView {
    let superblock: Superblock
    private let bitmap: [UInt64]
    private var hot: [UInt32] = []
    private var isFull = false

    init?(_ disk: SimulatedDisk, _ overlay: Overlay, _ location: MetaLocation) {
        func page(_ offset: Int, _ body: (RawSpan) -> Void) {
            if let place = overlay.find(offset >> 12) {
                overlay.bytes.with(place, count: 4096, body)
            } else {
                disk.stable.bytes.with(offset, count: 4096, body)
            }
        }
        var decoded: Superblock?
        // An unreadable one makes the whole view nil, which the caller reports.
        page(Int(location.superblockOffset)) { decoded = try? Superblock(decoding: $0) }
        guard let decoded else { return nil }
        superblock = decoded
        let pages = Int(BitmapLayout.bitCount(sectors: location.capacity) + 32767) / 32768
        var words: [UInt64] = []
        for index in 0..<pages {
            page(Int(location.bitmapOffset) + index << 12) { bytes in
                for word in 0..<512 { words.append(bytes[LittleField<UInt64>(at: word * 8)]) }
            }
        }
        bitmap = words
        let flags = superblock.flags
        if flags.contains(.fullSync) { isFull = true }
        guard flags.contains(.primaryIndicator) else { return }
        var recovery = LogRecovery(superblock: superblock)
        for index in 0..<location.logBlockCount {
            page(Int(location.logOffset) + index * 4096) { recovery.add(block: $0, at: index) }
        }
        if recovery.needsFullSync(flags: flags) { isFull = true }
        if case .hot(let extents) = recovery.result() { hot = extents }
    }

    func covers(block: Int) -> Bool {
        if isFull || bitmap[block >> 6] >> UInt64(block & 63) & 1 != 0 { return true }
        return hot.contains(UInt32(block >> 10))
    }

    /// Whether the generations make the next resync a full one, or forbid any.
    func forcesFullSync(_ other: CrashView) -> Bool {
        var context = ComparisonContext()
        let mark = MetaFlags([.primaryIndicator, .crashedPrimary])
        context.ownCrashed = !superblock.flags.isDisjoint(with: mark)
        context.peerCrashed = !other.superblock.flags.isDisjoint(with: mark)
        let created = GenerationUUIDs.justCreated
        if superblock.uuids.current == created, other.superblock.uuids.current == created {
            return true
        }
        switch compareGenerations(own: superblock.uuids, peer: other.superblock.uuids, context)
            .result
        {
        case .source(let full), .target(let full): return full
        case .splitBrain(let related): return !related
        case .unrelated, .failed: return true
        case .equal: return false
        }
    }
}
