import DRBDWire
import MetaDisk
import Replication
import Support

/// The disks as they are before anything happens.
extension World {
    func prepareDisks() {
        initialOperations = [0, 0]
        checker.locations = [nil, nil]
        for node in nodes {
            guard
                let location = try? MetaLocation(
                    placement: .internalData, deviceSize: UInt64(node.disk.size))
            else {
                // Any size a profile can have is large enough.
                invariantFailed("a disk of \(node.disk.size) bytes has no place for meta data")
            }
            checker.locations[Int(node.index)] = location
            node.disk.activityLog =
                Int(location.logOffset)..<Int(location.logOffset) + location.logBlockCount * 4096
            var access = DiskAccess(disk: node.disk)
            guard let creation = try? MetaCreation(location: location) else {
                invariantFailed("a log of \(location.logBlockCount) blocks")
            }
            creation.perform(on: &access)
        }
        let capacities = checker.locations.compactMap { $0?.capacity }
        checker.volumeSectors = Int(capacities.min() ?? 0)
        if profile.isPaired, !profile.isForeign { pairDisks() } else { fillDisks() }
        if profile.isForeign { nameForeign() }
    }

    /// Both disks hold the same, and know it.
    private func pairDisks() {
        director.wasEverGood = true
        let generation = random.next() | 8
        for node in nodes {
            guard let location = checker.locations[Int(node.index)] else { continue }
            var superblock = Superblock.fresh(location: location)
            superblock.lastAgreedSize = UInt64(checker.volumeSectors)
            superblock.uuids.current = generation & ~1
            superblock.flags.insert(.consistent)
            superblock.flags.insert(.wasUpToDate)
            var access = DiskAccess(disk: node.disk)
            access.writeSuperblock(superblock, at: location.superblockOffset)
            node.disk.stabilise(before: node.disk.horizon)
        }
    }

    /// Each disk holds something else, which a first synchronisation has to get over.
    private func fillDisks() {
        for node in nodes {
            clock += 1
            var operation = ClientOperation()
            operation.submitted = 0
            operation.ended = 0
            operations.append(operation)
            let number = operations.count - 1
            initialOperations[Int(node.index)] = UInt64(number)
            let sectors = min(checker.volumeSectors, 256)
            let bytes = Bytes(count: sectors << 9)
            bytes.fill(0, operation: UInt64(number), sector: 0, sectors: sectors)
            node.disk.land(from: bytes, at: 0, to: 0, count: sectors << 9, durable: false)
            node.disk.stabilise(before: node.disk.horizon)
        }
    }

    /// Each disk is good, and of another pair.
    private func nameForeign() {
        director.wasEverGood = true
        for node in nodes {
            updateSuperblock(node) { superblock in
                superblock.lastAgreedSize = UInt64(checker.volumeSectors)
                superblock.uuids.current = (random.next() | 8) & ~1
                if profile.hasHistory {
                    superblock.uuids.history0 = random.next() | 8
                    superblock.uuids.history1 = random.next() | 8
                }
                superblock.flags.insert(.consistent)
                superblock.flags.insert(.wasUpToDate)
            }
        }
    }

    /// Changes the super block of a disk that no engine has.
    private func updateSuperblock(_ node: SimulatedNode, _ body: (inout Superblock) -> Void) {
        guard let location = checker.locations[Int(node.index)],
            var superblock = stableSuperblock(node, location)
        else { return }
        body(&superblock)
        var access = DiskAccess(disk: node.disk)
        access.writeSuperblock(superblock, at: location.superblockOffset)
        node.disk.stabilise(before: node.disk.horizon)
    }

    /// create-md, whole or only its first steps, on a disk that no engine has.
    func createMetadata(_ node: SimulatedNode, steps: Int = .max) {
        guard let location = checker.locations[Int(node.index)],
            let creation = try? MetaCreation(location: location)
        else { invariantFailed("no place for new meta data") }
        var access = DiskAccess(disk: node.disk)
        // The first two make the old super block invalid.
        let first = sabotaged(.keepsOldSuperblock) ? 2 : 0
        for step in creation.steps.dropFirst(first).prefix(steps) {
            switch step {
            case .zero(let range): access.zero(range)
            case .initialiseLog(let location): access.initialiseLog(location)
            case .writeSuperblock(let superblock, let offset):
                access.writeSuperblock(superblock, at: offset)
            case .flush: access.flush()
            }
        }
        note(node, "create-md\(steps == .max ? "" : ", interrupted after \(steps) steps")")
    }

    /// What the sector of the node's disk held at the start, as far as that is still the case.
    func initialValue(_ node: Int, _ sector: Int) -> UInt64 {
        sector < 256 ? initialOperations[node] : 0
    }

    func takeOverInitial(from source: Int, to target: Int) {
        initialOperations[target] = initialOperations[source]
    }
}

/// Meta data written directly, before there is an engine.
struct DiskAccess: MetaAccess {
    let disk: SimulatedDisk

    func read(at offset: UInt64, into bytes: inout MutableRawSpan) throws(Never) {
        for index in 0..<bytes.byteCount / 8 {
            let word = disk.current.bytes.word(Int(offset) + index * 8)
            bytes.storeBytes(of: word, toByteOffset: index * 8, as: UInt64.self)
        }
    }

    func write(_ bytes: RawSpan, at offset: UInt64) throws(Never) {
        let copy = Bytes(count: bytes.byteCount)
        copy.copy(from: bytes, to: 0)
        disk.land(from: copy, at: 0, to: Int(offset), count: bytes.byteCount, durable: false)
    }

    func zero(_ range: Range<UInt64>) throws(Never) {
        disk.landZeros(Int(range.lowerBound), range.count)
    }

    func flush() throws(Never) { disk.stabilise(before: disk.horizon) }
}
