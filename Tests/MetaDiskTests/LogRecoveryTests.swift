import MetaDisk
import Support
import Testing

@Suite struct LogRecoveryTests {
    /// A ring as the engine would write it, and what it believes is hot.
    struct Writer {
        let ring = LogRing(stripes: 2, stripeBlocks: 4)
        var slots: [UInt32]
        var number: UInt32
        var cycle = 0
        var blocks: [[UInt8]]

        init(slots count: Int, number: UInt32 = 0) {
            slots = Array(repeating: LogTransaction.freeExtent, count: count)
            self.number = number
            let empty = LogTransactionTests.block { LogTransaction.encodeInitialised(into: &$0) }
            blocks = Array(repeating: empty, count: ring.blockCount)
        }

        var nextBlock: Int { ring.blockIndex(position: ring.position(transaction: number)) }

        var lastBlock: Int { ring.blockIndex(position: ring.position(transaction: number &- 1)) }

        mutating func write(_ updates: [LogUpdate]) {
            blocks[nextBlock] = LogTransactionTests.block(
                number: number, start: UInt16(cycle), updates: updates, extents: slots)
            for update in updates { slots[Int(update.slot)] = update.extent }
            number &+= 1
            cycle += LogTransaction.contextCount
            if cycle >= slots.count { cycle = 0 }
        }

        var hot: [UInt32] {
            Set(slots).subtracting([LogTransaction.freeExtent]).sorted()
        }

        var recovery: LogRecovery {
            var recovery = LogRecovery(stripes: ring.stripes, stripeBlocks: ring.stripeBlocks)
            // In an order that is not the order on the disk.
            for index in blocks.indices.reversed() {
                let block = blocks[index]
                recovery.add(block: block.rawBytes, at: index)
            }
            return recovery
        }
    }

    static func random(_ writer: inout Writer, _ source: inout RandomSource) {
        var updates: [LogUpdate] = []
        let first = UInt16.random(in: 0..<UInt16(writer.slots.count), using: &source)
        for step in 0..<UInt16.random(in: 1...20, using: &source) {
            let slot = (first &+ step * 13) % UInt16(writer.slots.count)
            if updates.contains(where: { $0.slot == slot }) { continue }
            updates.append(LogUpdate(slot: slot, extent: .random(in: 0..<4096, using: &source)))
        }
        writer.write(updates)
    }

    @Test(arguments: [1, 67, 1237, 6433], [0, 0x7FFF_FFF8, 0xFFFF_FFF8] as [UInt32])
    func `the hot set is recovered after every transaction, at every wrap`(
        slots: Int, number: UInt32
    ) {
        var writer = Writer(slots: slots, number: number)
        var source = RandomSource(seed: UInt64(slots) << 32 | UInt64(number))
        for _ in 0..<30 {
            Self.random(&writer, &source)
            let recovery = writer.recovery
            #expect(recovery.result() == .hot(writer.hot))
            #expect(recovery.newestTransaction == writer.number &- 1)
            #expect(recovery.corruptBlocks == 0)
            #expect(!recovery.needsFullSync(flags: .primaryIndicator))
        }
    }

    @Test(arguments: [67, 1237, 6433])
    func `a torn newest block costs only its own updates`(slots: Int) {
        var writer = Writer(slots: slots)
        var source = RandomSource(seed: UInt64(slots))
        for _ in 0..<30 {
            let before = writer.hot
            var torn = writer
            Self.random(&writer, &source)
            torn.blocks[torn.nextBlock].replaceSubrange(
                0..<512, with: writer.blocks[torn.nextBlock][0..<512])
            // Where the second half is as it was before, nothing was torn.
            guard torn.blocks != writer.blocks else { continue }
            let recovery = torn.recovery
            #expect(recovery.result() == (before.isEmpty ? .nothingHot : .hot(before)))
            #expect(recovery.corruptBlocks == 1)
            #expect(!recovery.needsFullSync(flags: .primaryIndicator))
        }
    }

    @Test func `a corrupt block that is not the next one is no torn write`() {
        var writer = Writer(slots: 67)
        for extent in 0..<20 { writer.write([LogUpdate(slot: 3, extent: UInt32(extent))]) }
        for index in writer.blocks.indices {
            var damaged = writer
            damaged.blocks[index][2000] ^= 1
            let recovery = damaged.recovery
            let isTorn = index == writer.nextBlock || index == writer.lastBlock
            #expect(recovery.needsFullSync(flags: .primaryIndicator) == !isTorn)
            #expect(!recovery.needsFullSync(flags: .consistent))
        }
    }

    @Test func `two corrupt blocks are too many`() {
        var writer = Writer(slots: 67)
        for extent in 0..<20 { writer.write([LogUpdate(slot: 3, extent: UInt32(extent))]) }
        writer.blocks[writer.nextBlock][2000] ^= 1
        #expect(!writer.recovery.needsFullSync(flags: .primaryIndicator))
        writer.blocks[0][2000] ^= 1
        writer.blocks[5][2000] ^= 1
        #expect(writer.recovery.needsFullSync(flags: .primaryIndicator))
    }

    @Test func `a log that was switched off says nothing`() {
        var writer = Writer(slots: 67)
        writer.write([LogUpdate(slot: 3, extent: 5)])
        #expect(writer.recovery.needsFullSync(flags: [.primaryIndicator, .logDisabled]))
        #expect(!writer.recovery.needsFullSync(flags: .logDisabled))
    }

    @Test func `a fresh ring has nothing hot, nor one whose first transaction is torn`() {
        var writer = Writer(slots: 67)
        #expect(writer.recovery.result() == .nothingHot)
        #expect(!writer.recovery.holdsTransactions)
        writer.blocks[0][100] ^= 1
        #expect(writer.recovery.result() == .nothingHot)
        #expect(!writer.recovery.needsFullSync(flags: .primaryIndicator))
    }

    @Test func `a ring without transactions and a corrupt block elsewhere is unusable`() {
        var writer = Writer(slots: 67)
        writer.blocks[1][100] ^= 1
        guard case .unusable = writer.recovery.result() else {
            Issue.record("believed \(writer.recovery.result())")
            return
        }
        #expect(writer.recovery.needsFullSync(flags: .primaryIndicator))
    }

    @Test func `a ring without one intact block is unusable`() {
        var writer = Writer(slots: 67)
        for index in writer.blocks.indices { writer.blocks[index][100] ^= 1 }
        guard case .unusable = writer.recovery.result() else {
            Issue.record("believed \(writer.recovery.result())")
            return
        }
        #expect(writer.recovery.newestTransaction == nil)
    }

    @Test func `a slot that became free is not hot`() {
        var writer = Writer(slots: 67)
        writer.write([LogUpdate(slot: 3, extent: 5), LogUpdate(slot: 4, extent: 6)])
        writer.write([LogUpdate(slot: 3, extent: LogTransaction.freeExtent)])
        #expect(writer.recovery.result() == .hot([6]))
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func `nonsense with a right checksum is read without harm`(seed: UInt64) {
        var source = RandomSource(seed: seed)
        var recovery = LogRecovery(stripes: 2, stripeBlocks: 4)
        for index in 0..<8 {
            var block = (0..<4096).map { _ in UInt8(truncatingIfNeeded: source.next()) }
            block.withMutableRawBytes { bytes in
                bytes[Field<UInt32>(at: 0)] = LogTransaction.magic
                bytes[Field<UInt32>(at: 8)] = 0
                bytes[Field<UInt16>(at: 12)] = 0
            }
            var crc = CRC32C()
            crc.update(block.rawBytes)
            block.withMutableRawBytes { $0[Field<UInt32>(at: 8)] = crc.register }
            recovery.add(block: block.rawBytes, at: index)
        }
        #expect(recovery.corruptBlocks == 0)
        guard case .hot(let extents) = recovery.result() else {
            Issue.record("\(recovery.result())")
            return
        }
        #expect(extents == Set(extents).sorted())
    }

    @Test func `an extent in two slots counts once`() {
        var writer = Writer(slots: 67)
        writer.write([LogUpdate(slot: 3, extent: 5), LogUpdate(slot: 4, extent: 5)])
        #expect(writer.recovery.result() == .hot([5]))
    }
}

/// The format of 8.3, from bytes written here by hand.
@Suite struct OldLogTests {
    static func sector(_ number: UInt32, _ entries: [(UInt32, UInt32)]) -> [UInt8] {
        var words: [UInt32] = [0x8374_0267, number]
        var xor: UInt32 = 0
        for index in 0..<62 {
            let (slot, extent) = index < entries.count ? entries[index] : (.max, .max)
            words += [slot, extent]
            xor ^= extent
        }
        words += [xor, 0]
        return words.flatMap { word in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) }
        }
    }

    static func recovery(_ sectors: [Int: [UInt8]]) throws -> LogRecovery {
        let location = try MetaLocation(placement: .internalData, deviceSize: 1 << 26)
        var superblock = Superblock.fresh(location: location)
        superblock.flags = [.consistent, .primaryIndicator]
        superblock.logExtents = 127
        var recovery = LogRecovery(superblock: superblock)
        var area = [UInt8](repeating: 0, count: 32768)
        for (index, sector) in sectors {
            area.replaceSubrange(512 * index..<512 * (index + 1), with: sector)
        }
        for index in 0..<8 {
            let block = Array(area[4096 * index..<4096 * (index + 1)])
            recovery.add(block: block.rawBytes, at: index)
        }
        return recovery
    }

    @Test func `updates win over context, later over earlier, free clears nothing`() throws {
        let recovery = try Self.recovery([
            0: Self.sector(9, [(1, 13), (0, 10), (1, 11)]),
            1: Self.sector(10, [(2, 14), (3, .max)]),
            2: Self.sector(7, [(3, 15), (0, 99)]),
        ])
        #expect(recovery.style == .sectors)
        #expect(recovery.result() == .hot([10, 13, 14, 15]))
        #expect(recovery.newestTransaction == 10)
    }

    @Test func `only as many sectors count as the slots need`() throws {
        // 1 + ceil(127 / 61) = 4.
        let recovery = try Self.recovery([
            0: Self.sector(1, [(0, 5)]), 4: Self.sector(2, [(1, 6)]),
        ])
        #expect(recovery.result() == .hot([5]))
    }

    @Test func `no sector at all means nothing hot, but is not believed of a Primary`() throws {
        let recovery = try Self.recovery([:])
        #expect(recovery.result() == .nothingHot)
        #expect(recovery.needsFullSync(flags: .primaryIndicator))
        #expect(!recovery.needsFullSync(flags: []))
    }

    @Test func `one torn sector after the newest is believed, elsewhere not`() throws {
        var torn = Self.sector(3, [(2, 7)])
        torn[100] ^= 1
        let good = [0: Self.sector(1, [(0, 5)]), 1: Self.sector(2, [(1, 6)])]
        let after = try Self.recovery(good.merging([2: torn]) { $1 })
        #expect(after.result() == .hot([5, 6]))
        #expect(!after.needsFullSync(flags: .primaryIndicator))
        let before = try Self.recovery(good.merging([3: torn]) { $1 })
        #expect(before.needsFullSync(flags: .primaryIndicator))
    }
}
