import MetaDisk
import Support

/// An activity log, block by block, and a super block's flags.
enum LogFuzz {
    /// 64 MiB with internal meta data.
    private static let deviceSize: UInt64 = 64 << 20

    static func run(_ input: inout Input) {
        let shape = input.byte()
        let stripes = UInt32(shape & 3) + 1
        guard
            let location = MetaDiskTarget.located({ () throws(MetaDiskError) in
                try MetaLocation(
                    placement: .internalData, deviceSize: deviceSize, stripes: stripes,
                    stripeBlocks: UInt32(shape >> 2 & 3) + 8 / stripes)
            })
        else { return }
        var superblock = Superblock.fresh(location: location)
        superblock.flags = MetaFlags(rawValue: UInt32(input.number(UInt16.self)))
        superblock.isUnclean = shape & 0x40 != 0
        // Says whether the blocks are given in both orders, too.
        superblock.deviceUUID = UInt64(shape >> 7)
        superblock.logExtents = UInt32(input.number(UInt16.self))
        superblock.lastAgreedSize = min(UInt64(input.number(UInt32.self)), location.capacity)
        guard
            MetaDiskTarget.located({ () throws(MetaDiskError) in
                try superblock.validate(deviceSize: deviceSize, placement: .internalData)
            }) != nil
        else { invariantFailed("\(superblock) is refused") }
        var blocks = [[UInt8]](
            repeating: initialised, count: location.logBlockCount)
        while !input.isEmpty {
            let index = Int(input.byte()) % blocks.count
            blocks[index] = block(&input)
        }
        check(superblock, location, blocks)
    }

    private static let initialised: [UInt8] = {
        var block = [UInt8](repeating: 0, count: LogTransaction.encodedSize)
        block.write { LogTransaction.encodeInitialised(into: &$0) }
        return block
    }()

    // MARK: making blocks

    private static func block(_ input: inout Input) -> [UInt8] {
        let kind = input.byte()
        var block: [UInt8]
        switch kind & 3 {
        case 0: block = [UInt8](repeating: 0, count: LogTransaction.encodedSize)
        case 1: block = initialised
        case 2: block = transaction(&input)
        default: block = oldTransactions(&input)
        }
        // Damage, or what no writer of ours would write; the checksum may be right all the same.
        for _ in 0..<kind >> 2 & 3 {
            let place = Int(input.number(UInt16.self)) % block.count
            block[place] = input.byte()
        }
        if kind & 0x10 != 0 { sign(&block) }
        return block
    }

    private static func transaction(_ input: inout Input) -> [UInt8] {
        let number = UInt32(truncatingIfNeeded: Int(Int16(bitPattern: input.number(UInt16.self))))
        let size = max(input.number(UInt16.self), 1)
        let start = input.number(UInt16.self) % size
        var updates = Table(repeating: LogUpdate(slot: 0, extent: 0), count: 64)
        let count = Int(input.byte() & 7)
        for index in 0..<count {
            updates[index] = LogUpdate(
                slot: input.number(UInt16.self), extent: extent(input.byte()))
        }
        var extents = Table(repeating: LogTransaction.freeExtent, count: Int(size))
        for index in 0..<min(Int(input.byte() & 31), Int(size) - Int(start)) {
            extents[Int(start) + index] = extent(input.byte())
        }
        var block = [UInt8](repeating: 0, count: LogTransaction.encodedSize)
        block.write {
            LogTransaction.encode(
                number: number, contextSize: size, contextStart: start, updates: updates,
                updateCount: count, extents: extents, into: &$0)
        }
        let read = block.read { LogTransaction(decoding: $0) }
        invariant(
            read?.number == number && read?.contextStart == start && read?.contextSize == size,
            "transaction \(number) is read as \(String(describing: read))")
        return block
    }

    /// Most extents lie on the device, which has 16.
    private static func extent(_ byte: UInt8) -> UInt32 {
        switch byte {
        case 0xff: .max
        case 0xfe: .max - 1
        case 0xfd: 1 << 29
        default: UInt32(byte) % 24
        }
    }

    private static func oldTransactions(_ input: inout Input) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: LogTransaction.encodedSize)
        let count = Int(input.byte() & 7) + 1
        for sector in 0..<count {
            var xor: UInt32 = 0
            let number = UInt32(truncatingIfNeeded: Int(Int8(bitPattern: input.byte())))
            let entries = Int(input.byte() & 7)
            let data = input.take(2 * entries)
            block.write { bytes in
                let start = 512 * sector
                bytes[Field<UInt32>(at: start)] = 0x8374_0267
                bytes[Field<UInt32>(at: start + 4)] = number
                for index in 0..<62 {
                    let isGiven = 2 * index + 1 < data.count
                    let extent = isGiven ? extent(data[2 * index + 1]) : .max
                    bytes[Field<UInt32>(at: start + 8 + 8 * index)] =
                        isGiven ? UInt32(data[2 * index]) : .max
                    bytes[Field<UInt32>(at: start + 12 + 8 * index)] = extent
                    xor ^= extent
                }
                bytes[Field<UInt32>(at: start + 504)] = xor
            }
        }
        return block
    }

    /// Writes the checksum that the block should have.
    private static func sign(_ block: inout [UInt8]) {
        let crc = block.read { bytes in
            var crc = CRC32C()
            crc.update(bytes.extracting(0..<8))
            crc.updateZeros(count: 4)
            crc.update(bytes.extracting(12..<LogTransaction.encodedSize))
            return crc.register
        }
        block.write { $0[Field<UInt32>(at: 8)] = crc }
    }

    // MARK: what holds

    private static func check(
        _ superblock: Superblock, _ location: MetaLocation, _ blocks: [[UInt8]]
    ) {
        var recovery = LogRecovery(superblock: superblock)
        for index in blocks.indices { blocks[index].read { recovery.add(block: $0, at: index) } }
        let verdict = recovery.result()
        if superblock.deviceUUID & 1 == 1 {
            var backwards = LogRecovery(superblock: superblock)
            for index in blocks.indices.reversed() {
                blocks[index].read { backwards.add(block: $0, at: index) }
            }
            let other = backwards.result()
            invariant(verdict == other, "in another order: \(verdict), \(other)")
        }
        if case .hot(let extents) = verdict {
            invariant(!extents.isEmpty, "hot, but no extent")
            for (one, next) in zip(extents, extents.dropFirst()) {
                invariant(one < next, "extents \(one), \(next)")
            }
            invariant(extents.last != LogTransaction.freeExtent, "a free extent is hot")
        }
        apply(superblock, location, blocks)
    }

    private static func apply(
        _ superblock: Superblock, _ location: MetaLocation, _ blocks: [[UInt8]]
    ) {
        var device = MetaDevice(location)
        for (index, block) in blocks.enumerated() {
            block.read { device.write($0, at: location.logOffset + UInt64(4096 * index)) }
        }
        let applied = LogApplication.apply(
            to: &device, superblock: superblock, location: location)
        let after = applied.superblock
        invariant(!after.needsLogApplied, "the log is not applied: \(after)")
        let bits = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        let count = Int(BitmapLayout.byteCount(sectors: superblock.lastAgreedSize))
        let bitmap = device.bitmap(location, count: count)
        let set = UInt64(bitmap.reduce(0) { $0 + $1.nonzeroBitCount })
        invariant(set == applied.newlySetBits, "\(set) bits, not \(applied.newlySetBits)")
        switch applied.action {
        case .notPrimary, .nothingHot: invariant(set == 0, "\(set) bits")
        case .markedAll: invariant(set == bits, "\(set) bits of \(bits)")
        case .marked(let extents):
            let wanted = extents.reduce(0) {
                $0 + BitmapLayout.bits(of: ExtentIndex($1), bitCount: bits).count
            }
            invariant(set == wanted, "\(set) bits, wanted \(wanted)")
            for extent in extents {
                for bit in BitmapLayout.bits(of: ExtentIndex(extent), bitCount: bits) {
                    let isSet = bitmap[Int(bit / 8)] >> (bit % 8) & 1 == 1
                    invariant(isSet, "bit \(bit) of extent \(extent)")
                }
            }
        }
        let again = LogApplication.apply(to: &device, superblock: after, location: location)
        // Nothing is left to do, and nothing is done; a full sync stays one.
        invariant(again.superblock == after, "applied twice: \(again.superblock)")
        invariant(again.newlySetBits == 0 || flagsDemandAll(after), "\(again.newlySetBits) more")
    }

    private static func flagsDemandAll(_ superblock: Superblock) -> Bool {
        superblock.flags.contains(.primaryIndicator) && superblock.flags.contains(.logDisabled)
    }
}
