import Support

// dump-md: drbd-metadata.md, section 14.4.

/// The text of a dump, piece by piece: `opening`, the bitmap in chunks, `closing`.
///
/// Bytes and not a `String`, because the bitmap of a large device is a gigabyte of text.
package struct MetaDump {
    private let superblock: Superblock
    private let location: MetaLocation
    /// Sectors, cut to what whole pages on the device can describe: the bitmap is read in such.
    private let size: UInt64
    private var bitmap: BitmapText

    /// - Parameter location: what `superblock.locate` said.
    package init(superblock: Superblock, location: MetaLocation) {
        self.superblock = superblock
        self.location = location
        size = min(superblock.lastAgreedSize, location.usableCapacity(dataSectors: .max))
        bitmap = BitmapText(byteCount: BitmapLayout.byteCount(sectors: size))
    }

    /// Bytes of bitmap that belong into the dump, from `location.bitmapOffset` on.
    package var bitmapBytes: UInt64 { bitmap.byteCount }

    /// The bitmap has to be given in chunks of this size, but for the last: the tool looks for
    /// runs only within such a chunk, and the same bitmap has to give the same text.
    package static let chunkBytes = 32 << 20

    /// Everything in front of the bitmap.
    ///
    /// - Parameter header: the comment lines at the top; each must start with `#` or be empty.
    package func opening(header: [String]) -> [UInt8] {
        var lines: [String] = []
        if size != superblock.lastAgreedSize {
            lines.append(
                "# la-size-sect was too big (\(superblock.lastAgreedSize)), truncated (\(size))!")
        }
        lines += header
        lines += ["version \"v08\";", ""]
        if superblock.needsLogApplied {
            lines += [
                "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.",
                "# You should \"apply-al\" first, if you plan to restore this.",
                "",
            ]
        }
        let uuids = superblock.uuids
        let generations = [uuids.current, uuids.bitmap, uuids.history0, uuids.history1]
            .map { hexadecimal($0) + ";" }
        lines += [
            "# md_size_sect \(superblock.mdSizeSectors)",
            "# md_offset \(location.superblockOffset)",
            "# al_offset \(location.logOffset)",
            "# bm_offset \(location.bitmapOffset)",
            "",
            "uuid {",
            "    " + generations.joined(separator: " "),
            // drbdmeta 9.22 prints 0 here, and a restore would believe it.
            "    flags \(hexadecimal(superblock.flags.rawValue));",
            "}",
            "# al-extents \(superblock.logExtents);",
            "la-size-sect \(size);",
            "bm-byte-per-bit \(superblock.bytesPerBit);",
            "device-uuid \(hexadecimal(superblock.deviceUUID));",
            "la-peer-max-bio-size \(superblock.peerMaximumRequest);",
            "al-stripes \(superblock.effectiveStripes);",
            "al-stripe-size-4k \(superblock.effectiveStripeBlocks);",
            "# bm-bytes \(bitmapBytes);",
            "bm {",
        ]
        return Array(lines.joined(separator: "\n").utf8)
    }

    /// Appends the text of the next chunk.
    package mutating func add(bitmap chunk: RawSpan, to text: inout [UInt8]) {
        invariant(
            chunk.byteCount == min(UInt64(Self.chunkBytes), bitmap.bytesLeft),
            "\(chunk.byteCount) bytes of bitmap where \(bitmap.bytesLeft) are left")
        bitmap.add(chunk, to: &text)
    }

    /// Everything behind the bitmap.
    ///
    /// As the tool does, bits behind the end of the storage are counted: they are in the text, too. But
    /// the number does not wrap at 2^32.
    package func closing() -> [UInt8] {
        invariant(bitmap.bytesLeft == 0, "\(bitmap.bytesLeft) bytes of bitmap were not given")
        return Array("\n}\n# bits-set \(bitmap.bitsSet);\n".utf8)
    }
}

extension Superblock {
    /// apply-al has to run before the bitmap can be believed or a Linux kernel attaches.
    package var needsLogApplied: Bool { isUnclean || !flags.contains(.logClean) }
}

/// The words of the bitmap: 8 of 32 bits on a line, long runs of equal lines as one.
private struct BitmapText {
    let byteCount: UInt64
    private(set) var bytesLeft: UInt64
    private(set) var bitsSet: UInt64 = 0
    /// Index of the next 32-bit word.
    private var index: UInt64 = 0
    /// A run that reached the end of its chunk.
    private var run: (word: UInt32, count: UInt64)?

    init(byteCount: UInt64) {
        self.byteCount = byteCount
        bytesLeft = byteCount
    }

    private static let wordsPerLine = 8
    private static let wordsPerComment: UInt64 = 64
    private static let kibibytesPerWord: UInt64 = 128

    mutating func add(_ chunk: RawSpan, to text: inout [UInt8]) {
        let count = chunk.byteCount / 4
        bytesLeft -= UInt64(chunk.byteCount)
        var place = 0
        while place < count {
            if run == nil { startLine(&text) }
            let word = run?.word ?? chunk[LittleField<UInt32>(at: 4 * place)]
            let length = Self.runLength(of: word, in: chunk, from: place, to: count)
            if length > Self.wordsPerLine {
                bitsSet += UInt64(word.nonzeroBitCount * length)
                place += length
                index += UInt64(length)
                let total = (run?.count ?? 0) + UInt64(length)
                run = (word, total)
                if place < count || bytesLeft == 0 { endRun(&text) }
            } else if run != nil {
                // One more line would not have begun a run, so it does not lengthen one.
                endRun(&text)
            } else {
                appendLine(chunk, from: place, to: &text)
                place += Self.wordsPerLine
                index += UInt64(Self.wordsPerLine)
            }
        }
    }

    /// How many words from `place` on equal `word`, in whole lines.
    private static func runLength(
        of word: UInt32, in chunk: RawSpan, from place: Int, to count: Int
    ) -> Int {
        let pair = UInt64(word) << 32 | UInt64(word)
        var end = place
        while end < count, chunk[LittleField<UInt64>(at: 4 * end)] == pair { end += 2 }
        return (end - place) / wordsPerLine * wordsPerLine
    }

    private mutating func endRun(_ text: inout [UInt8]) {
        guard let (word, count) = run else { return }
        run = nil
        text += " \(count / 2) times 0x".utf8
        append(word, &text)
        append(word, &text)
        text.append(UInt8(ascii: ";"))
    }

    private func startLine(_ text: inout [UInt8]) {
        text.append(UInt8(ascii: "\n"))
        if index % Self.wordsPerComment == 0 {
            text += "   # at \(index * Self.kibibytesPerWord)kB\n".utf8
        }
        text += "   ".utf8
    }

    private mutating func appendLine(_ chunk: RawSpan, from place: Int, to text: inout [UInt8]) {
        for word in stride(from: place, to: place + Self.wordsPerLine, by: 2) {
            let low = chunk[LittleField<UInt32>(at: 4 * word)]
            let high = chunk[LittleField<UInt32>(at: 4 * word + 4)]
            bitsSet += UInt64(low.nonzeroBitCount + high.nonzeroBitCount)
            text += " 0x".utf8
            append(high, &text)
            append(low, &text)
            text.append(UInt8(ascii: ";"))
        }
    }

    private func append(_ word: UInt32, _ text: inout [UInt8]) {
        for shift in stride(from: 28, through: 0, by: -4) {
            let digit = UInt8(truncatingIfNeeded: word >> UInt32(shift)) & 0xF
            text.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "A") + digit - 10)
        }
    }
}
