import Support

// The activity log of 0.7 to 8.3: drbd-metadata.md, section 7.9.

/// Sectors of 512 bytes: one update and 61 entries of context each.
struct OldLog {
    private struct Sector {
        var number: UInt32
        /// As on disk: entry 0 is the update.
        var entries: [(slot: UInt32, extent: UInt32)]
    }

    private enum Layout {
        static let magic = Field<UInt32>(at: 0)
        static let number = Field<UInt32>(at: 4)
        static func slot(_ index: Int) -> Field<UInt32> { Field(at: 8 + 8 * index) }
        static func extent(_ index: Int) -> Field<UInt32> { Field(at: 12 + 8 * index) }
        static let xor = Field<UInt32>(at: 504)
        // 4 bytes of padding, not checked.
    }

    private static let magic: UInt32 = 0x8374_0267
    private static let sectorBytes = 512
    private static let areaSectors = 64
    private static let entryCount = 62
    private static let contextCount: UInt64 = 61

    private enum Content {
        case intact(Sector)
        /// Never written.
        case zero
        case corrupt

        var sector: Sector? {
            guard case .intact(let sector) = self else { return nil }
            return sector
        }
    }

    private var sectors: [Content]

    /// The ring is only as long as the slots need.
    static func sectorCount(logExtents: UInt32) -> Int {
        let needed = 1 + (UInt64(logExtents) + contextCount - 1) / contextCount
        return min(areaSectors, Int(needed))
    }

    init(sectorCount: Int) { sectors = Array(repeating: .zero, count: sectorCount) }

    /// Takes block `index` of 4096 bytes of the log area.
    mutating func add(block: RawSpan, at index: Int) {
        let count = block.byteCount / Self.sectorBytes
        for place in 0..<count where index * count + place < sectors.count {
            let start = place * Self.sectorBytes
            sectors[index * count + place] = Self.decode(
                block.extracting(start..<start + Self.sectorBytes))
        }
    }

    private static func decode(_ bytes: RawSpan) -> Content {
        guard bytes[Layout.magic] == magic else {
            for offset in stride(from: 0, to: sectorBytes, by: 8)
            where bytes[Field<UInt64>(at: offset)] != 0 {
                return .corrupt
            }
            return .zero
        }
        var xor: UInt32 = 0
        var entries: [(slot: UInt32, extent: UInt32)] = []
        for index in 0..<entryCount {
            entries.append((bytes[Layout.slot(index)], bytes[Layout.extent(index)]))
            xor ^= bytes[Layout.extent(index)]
        }
        guard bytes[Layout.xor] == xor else { return .corrupt }
        return .intact(Sector(number: bytes[Layout.number], entries: entries))
    }

    /// Sectors that hold no transaction, or only a torn one.
    var corruptSectors: Int { sectors.count { $0.sector == nil } }

    var newestTransaction: UInt32? { ends.flatMap { sectors[$0.newest].sector?.number } }

    /// There are transactions, and none is torn but perhaps the one after the newest.
    ///
    /// A Primary that wrote anything has written a transaction: none at all is not believed.
    var isTrustworthy: Bool {
        guard let ends else { return false }
        return sectors.enumerated().allSatisfy { index, content in
            guard case .corrupt = content else { return true }
            return index == (ends.newest + 1) % sectors.count
        }
    }

    /// Oldest and newest intact sector, by difference modulo 2^32.
    private var ends: (oldest: Int, newest: Int)? {
        var ends: (oldest: Int, newest: Int)?
        for (index, content) in sectors.enumerated() {
            guard let sector = content.sector else { continue }
            guard let known = ends, let oldest = sectors[known.oldest].sector,
                let newest = sectors[known.newest].sector
            else {
                ends = (index, index)
                continue
            }
            if Int32(bitPattern: sector.number &- oldest.number) < 0 { ends?.oldest = index }
            if Int32(bitPattern: sector.number &- newest.number) > 0 { ends?.newest = index }
        }
        return ends
    }

    /// One entry per slot, in no order, with repetitions; no intact sector means none.
    func hotExtents() -> [UInt32] {
        guard let ends else { return [] }
        var slots: [UInt32: UInt32] = [:]
        var index = ends.oldest
        while true {
            // Context first, the update last; a free entry does not clear its slot.
            for entry in sectors[index].sector?.entries.reversed() ?? []
            where entry.extent != LogTransaction.freeExtent {
                slots[entry.slot] = entry.extent
            }
            if index == ends.newest { break }
            index = (index + 1) % sectors.count
        }
        return Array(slots.values)
    }
}
