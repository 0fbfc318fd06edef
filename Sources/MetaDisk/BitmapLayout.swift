// The bitmap: drbd-metadata.md, sections 1 and 6.

/// Number of a block: what one bit of the bitmap covers, 4 KiB of storage.
@frozen @usableFromInline
package struct BlockIndex: Comparable, Hashable, Sendable, BitwiseCopyable {
    @usableFromInline package var number: UInt64
    @inlinable package init(_ number: UInt64) { self.number = number }

    /// The block that holds `sector`.
    @inlinable package init(sector: UInt64) { number = sector / BitmapLayout.sectorsPerBit }

    @inlinable package var firstSector: UInt64 { number * BitmapLayout.sectorsPerBit }

    /// The extent that holds this block; extents are numbered by 32 bits.
    @inlinable package var extent: ExtentIndex {
        ExtentIndex(UInt32(truncatingIfNeeded: number / BitmapLayout.bitsPerExtent))
    }

    /// The 4 KiB page of the bitmap that holds this block's bit.
    @inlinable package var page: Int { Int(number / BitmapLayout.bitsPerPage) }

    @inlinable package static func < (one: BlockIndex, other: BlockIndex) -> Bool {
        one.number < other.number
    }
}

/// Number of an extent: what one entry of the activity log covers, 4 MiB of storage.
@frozen @usableFromInline
package struct ExtentIndex: Comparable, Hashable, Sendable, BitwiseCopyable {
    @usableFromInline package var number: UInt32
    @inlinable package init(_ number: UInt32) { self.number = number }

    /// The extent that holds `sector`.
    @inlinable package init(sector: UInt64) {
        number = UInt32(truncatingIfNeeded: sector / BitmapLayout.sectorsPerExtent)
    }

    /// "Nothing here" in a slot of the activity log.
    @inlinable package static var free: ExtentIndex { ExtentIndex(.max) }

    @inlinable package var firstBlock: BlockIndex {
        BlockIndex(UInt64(number) * BitmapLayout.bitsPerExtent)
    }

    /// The 4 KiB page of the bitmap that holds this extent's bits.
    @inlinable package var page: Int { Int(number / BitmapLayout.extentsPerPage) }

    @inlinable package static func < (one: ExtentIndex, other: ExtentIndex) -> Bool {
        one.number < other.number
    }
}

/// Sizes and positions within the bitmap.
@usableFromInline package enum BitmapLayout {
    @inlinable package static var sectorBytes: UInt64 { 512 }
    /// Storage behind one bit.
    @inlinable package static var bytesPerBit: UInt64 { 4096 }
    @inlinable package static var sectorsPerBit: UInt64 { 8 }
    /// An extent of the activity log: 4 MiB.
    @inlinable package static var bitsPerExtent: UInt64 { 1024 }
    @inlinable package static var sectorsPerExtent: UInt64 { 8192 }
    @inlinable package static var bitmapBytesPerExtent: Int { 128 }
    /// A page, the unit of bitmap I/O: 4096 bytes of bitmap for 128 MiB of storage.
    @inlinable package static var pageBytes: Int { 4096 }
    @inlinable package static var bitsPerPage: UInt64 { 32768 }
    @inlinable package static var sectorsPerPage: UInt64 { 262144 }
    @inlinable package static var extentsPerPage: UInt32 { 32 }
    /// The largest storage that the format describes: 1 PiB, a bitmap of 32 GiB.
    @inlinable package static var maximumSectors: UInt64 { 1 << 41 }

    /// Bits in use; the last one of an odd size covers less than 4 KiB.
    @inlinable package static func bitCount(sectors: UInt64) -> UInt64 {
        sectors / 8 + (sectors % 8 == 0 ? 0 : 1)
    }

    /// 64-bit words in use.
    @inlinable package static func wordCount(sectors: UInt64) -> UInt64 {
        (bitCount(sectors: sectors) + 63) / 64
    }

    /// Pages in use.
    @inlinable package static func pageCount(sectors: UInt64) -> UInt64 {
        (bitCount(sectors: sectors) + bitsPerPage - 1) / bitsPerPage
    }

    /// Bytes in use on disk: whole pages.
    @inlinable package static func byteCount(sectors: UInt64) -> UInt64 {
        pageCount(sectors: sectors) * UInt64(pageBytes)
    }

    /// Extents of the activity log that storage of this size touches.
    @inlinable package static func extentCount(sectors: UInt64) -> UInt64 {
        (sectors + sectorsPerExtent - 1) / sectorsPerExtent
    }

    /// The blocks that the sectors touch, partially touched ones included; empty for no sectors.
    @inlinable package static func blocks(touchedBy sectors: Range<UInt64>) -> Range<UInt64> {
        guard !sectors.isEmpty else {
            return sectors.lowerBound / sectorsPerBit..<sectors.lowerBound / sectorsPerBit
        }
        return sectors.lowerBound / sectorsPerBit..<(sectors.upperBound - 1) / sectorsPerBit + 1
    }

    /// The blocks that lie wholly inside the sectors; the last block of storage of `size` sectors
    /// counts as whole when everything that exists of it is inside.
    @inlinable package static func blocks(
        coveredBy sectors: Range<UInt64>, size: UInt64
    ) -> Range<UInt64> {
        let first = (sectors.lowerBound + sectorsPerBit - 1) / sectorsPerBit
        let end =
            sectors.upperBound == size
            ? bitCount(sectors: size) : sectors.upperBound / sectorsPerBit
        return first..<max(first, end)
    }

    /// The bits of an extent in storage of `bits` bits; empty beyond the end.
    @inlinable package static func bits(of extent: ExtentIndex, bitCount: UInt64) -> Range<UInt64> {
        let first = min(extent.firstBlock.number, bitCount)
        return first..<min(first + bitsPerExtent, bitCount)
    }
}
