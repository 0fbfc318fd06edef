import Support

/// The out-of-sync bits in memory, one per 4 KiB block, and which 4 KiB pages of them differ from disk.
///
/// Bits at and beyond `bitCount` are always 0 (reference, meta data section 6, rule for writers).
package struct DirtyBitmap: ~Copyable {
    package static let wordsPerPage = 512
    package static let bitsPerPage = 32768

    private var words: Table<UInt64>
    private var changed: Table<Bool>
    /// Bits set in each page: searches leap over pages that have none, or only such.
    private var counts: Table<UInt16>
    /// Bits in use.
    package private(set) var bitCount: Int
    /// How many of them are set.
    package private(set) var setCount = 0
    /// Pages that differ from disk.
    package private(set) var changedPageCount = 0
    private var scanPage = 0

    /// - Parameter capacity: most bits that will ever be in use.
    package init(capacity: Int, bitCount: Int) {
        let pages = max(1, (capacity + Self.bitsPerPage - 1) / Self.bitsPerPage)
        // 512 MiB for 16 TiB: what is never set takes no memory.
        words = Table(zeros: pages * Self.wordsPerPage)
        counts = Table(zeros: pages)
        changed = Table(repeating: false, count: pages)
        self.bitCount = bitCount
    }

    /// Pages that hold bits in use.
    package var pageCount: Int { (bitCount + Self.bitsPerPage - 1) / Self.bitsPerPage }
    /// 64-bit words that hold bits in use.
    package var wordCount: Int { (bitCount + 63) / 64 }

    package subscript(block: Int) -> Bool { words[block >> 6] >> UInt64(block & 63) & 1 != 0 }
    package func word(_ index: Int) -> UInt64 { words[index] }

    private mutating func mark(wordIndex: Int) {
        let page = wordIndex / Self.wordsPerPage
        guard !changed[page] else { return }
        changed[page] = true
        changedPageCount += 1
    }

    private static func mask(_ word: Int, _ first: Int, _ last: Int) -> UInt64 {
        var mask = UInt64.max
        if word == first >> 6 { mask &= UInt64.max << UInt64(first & 63) }
        if word == last >> 6 { mask &= UInt64.max >> UInt64(63 - last & 63) }
        return mask
    }

    /// Sets `first...last`, clipped to the bits in use. - Returns: how many were clear before.
    @discardableResult
    package mutating func set(_ first: Int, through last: Int) -> Int {
        let last = min(last, bitCount - 1)
        guard first <= last else { return 0 }
        var fresh = 0
        for index in first >> 6...last >> 6 {
            let mask = Self.mask(index, first, last)
            let added = mask & ~words[index]
            guard added != 0 else { continue }
            words[index] |= added
            fresh += added.nonzeroBitCount
            counts[index / Self.wordsPerPage] += UInt16(added.nonzeroBitCount)
            mark(wordIndex: index)
        }
        setCount += fresh
        return fresh
    }

    /// Clears `first...last`. - Returns: how many were set before.
    @discardableResult
    package mutating func clear(_ first: Int, through last: Int) -> Int {
        let last = min(last, bitCount - 1)
        guard first <= last else { return 0 }
        var gone = 0
        for index in first >> 6...last >> 6 {
            let removed = Self.mask(index, first, last) & words[index]
            guard removed != 0 else { continue }
            words[index] &= ~removed
            gone += removed.nonzeroBitCount
            counts[index / Self.wordsPerPage] -= UInt16(removed.nonzeroBitCount)
            mark(wordIndex: index)
        }
        setCount -= gone
        return gone
    }

    /// Sets the bits of `value` in word `index`, those in use.
    package mutating func merge(_ value: UInt64, intoWord index: Int) {
        guard index < wordCount else { return }
        var value = value
        if index == wordCount - 1, bitCount & 63 != 0 {
            value &= UInt64.max >> UInt64(64 - bitCount & 63)
        }
        let added = value & ~words[index]
        guard added != 0 else { return }
        words[index] |= added
        setCount += added.nonzeroBitCount
        counts[index / Self.wordsPerPage] += UInt16(added.nonzeroBitCount)
        mark(wordIndex: index)
    }

    /// The first set bit at or after `start`.
    package func next(from start: Int) -> Int? {
        guard start < bitCount else { return nil }
        var index = start >> 6
        var value = words[index] & (UInt64.max << UInt64(start & 63))
        while value == 0 {
            index = leap(from: index + 1, overPagesWith: 0)
            guard index < wordCount else { return nil }
            value = words[index]
        }
        return index << 6 + value.trailingZeroBitCount
    }

    /// Whether a bit of `first...last` is set.
    package func hasAny(_ first: Int, through last: Int) -> Bool {
        guard let found = next(from: first) else { return false }
        return found <= last
    }

    /// The first clear bit at or after `start`, or `bitCount`.
    package func nextClear(from start: Int) -> Int {
        guard start < bitCount else { return bitCount }
        var index = start >> 6
        var value = ~words[index] & (UInt64.max << UInt64(start & 63))
        while value == 0 {
            index = leap(from: index + 1, overPagesWith: UInt16(Self.bitsPerPage))
            guard index < wordCount else { return bitCount }
            value = ~words[index]
        }
        return min(bitCount, index << 6 + value.trailingZeroBitCount)
    }

    /// The word at `index`, or behind all pages from there on that have `count` bits set.
    private func leap(from index: Int, overPagesWith count: UInt16) -> Int {
        guard index % Self.wordsPerPage == 0 else { return index }
        var page = index / Self.wordsPerPage
        while page < counts.count, counts[page] == count { page += 1 }
        return page * Self.wordsPerPage
    }

    /// Changes how many bits are in use; new ones are set, those dropped are forgotten.
    package mutating func resize(bitCount new: Int) {
        let old = bitCount
        if new < old {
            clear(new, through: old - 1)
            bitCount = new
        } else if new > old {
            bitCount = new
            set(old, through: new - 1)
        }
    }

    // MARK: pages

    /// Takes over a page as read from disk; surplus bits are dropped.
    package mutating func load(page: Int, from bytes: RawSpan) {
        if counts[page] == 0, Self.isZero(bytes) { return }
        for offset in 0..<min(Self.wordsPerPage, bytes.byteCount / 8) {
            let index = page * Self.wordsPerPage + offset
            guard index < wordCount else { return }
            var value = bytes[LittleField<UInt64>(at: offset * 8)]
            if index == wordCount - 1, bitCount & 63 != 0 {
                value &= UInt64.max >> UInt64(64 - bitCount & 63)
            }
            let difference = value.nonzeroBitCount - words[index].nonzeroBitCount
            setCount += difference
            counts[page] = UInt16(Int(counts[page]) + difference)
            words[index] = value
        }
    }

    /// Looks at 64 bytes at a time: most pages of a large bitmap have no bit set.
    private static func isZero(_ bytes: RawSpan) -> Bool {
        guard bytes.byteCount % 64 == 0 else { return false }
        var union = SIMD8<UInt64>()
        for offset in stride(from: 0, to: bytes.byteCount, by: 64) {
            // Unaligned and in bounds.
            union |= unsafe bytes.unsafeLoadUnaligned(
                fromByteOffset: offset, as: SIMD8<UInt64>.self)
        }
        return union == SIMD8()
    }

    package func copy(page: Int, into bytes: inout MutableRawSpan, at start: Int) {
        for offset in 0..<Self.wordsPerPage {
            bytes[LittleField<UInt64>(at: start + offset * 8)] =
                words[page * Self.wordsPerPage + offset]
        }
    }

    package func copy(words range: Range<Int>, into bytes: inout MutableRawSpan) {
        for index in range {
            bytes[LittleField<UInt64>(at: (index - range.lowerBound) * 8)] = words[index]
        }
    }

    package func isChanged(page: Int) -> Bool { changed[page] }

    /// The page is on its way to disk with its present content.
    package mutating func markWritten(page: Int) {
        guard changed[page] else { return }
        changed[page] = false
        changedPageCount -= 1
    }

    /// Every page in use counts as different from disk.
    package mutating func markAllChanged() {
        for page in 0..<pageCount { mark(wordIndex: page * Self.wordsPerPage) }
    }

    /// The next page that differs from disk, going round.
    package mutating func nextChangedPage() -> Int? {
        guard changedPageCount > 0 else { return nil }
        for _ in 0..<changed.count {
            if scanPage >= changed.count { scanPage = 0 }
            if changed[scanPage] { return scanPage }
            scanPage += 1
        }
        return nil
    }
}
