import Support

// What create-md finds on a device: drbd-metadata.md, section 14.3.

/// Something other than zeros at the start of a device.
package struct ForeignContent: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        case swap, physicalVolume, ext2, ext3, xfs, jfs, reiser
        case unknown
    }

    package let kind: Kind
    /// Bytes that it uses; nil if it does not say.
    package let usedBytes: UInt64?

    /// How much of the device has to be given to `detect`.
    package static let inspectedBytes = 68 * 1024

    /// As the tool names it, after `Found `.
    package var name: String {
        switch kind {
        case .swap: "swap space signature"
        case .physicalVolume: "LVM2 physical volume signature"
        case .ext2: "ext2 filesystem"
        case .ext3: "ext3 filesystem"
        case .xfs: "xfs filesystem"
        case .jfs: "JFS filesystem"
        case .reiser: "reiser filesystem"
        case .unknown: "some data"
        }
    }

    /// Looks at the first `inspectedBytes` of a device; nil if they are all zero.
    package static func detect(in bytes: RawSpan) -> ForeignContent? {
        invariant(bytes.byteCount == inspectedBytes, "\(bytes.byteCount) bytes of a device")
        if isSwap(bytes) { return ForeignContent(kind: .swap, usedBytes: nil) }
        if matches("LVM2", bytes, at: 0x218) {
            return ForeignContent(kind: .physicalVolume, usedBytes: nil)
        }
        if bytes[LittleField<UInt16>(at: 0x438)] == 0xEF53 { return ext(bytes) }
        if matches("XFSB", bytes, at: 0) {
            return ForeignContent(
                kind: .xfs, blocks: bytes[Field<UInt64>(at: 8)],
                blockSize: UInt64(bytes[Field<UInt32>(at: 4)]))
        }
        if matches("JFS1", bytes, at: 0x8000) {
            return ForeignContent(
                kind: .jfs, blocks: bytes[LittleField<UInt64>(at: 0x8008)],
                blockSize: UInt64(bytes[LittleField<UInt32>(at: 0x8018)]))
        }
        if matches("ReIsErFs", bytes, at: 0x10034) || matches("ReIsEr2Fs", bytes, at: 0x10034) {
            return ForeignContent(
                kind: .reiser, blocks: UInt64(bytes[LittleField<UInt32>(at: 0x10000)]),
                blockSize: UInt64(bytes[LittleField<UInt16>(at: 0x1002C)]))
        }
        for offset in stride(from: 0, to: bytes.byteCount, by: 8)
        where bytes[Field<UInt64>(at: offset)] != 0 {
            return ForeignContent(kind: .unknown, usedBytes: nil)
        }
        return nil
    }

    private static func isSwap(_ bytes: RawSpan) -> Bool {
        [4096, 8192].contains { end in
            matches("SWAP-SPACE", bytes, at: end - 10) || matches("SWAPSPACE2", bytes, at: end - 10)
        }
    }

    /// ext4 is called ext3, as the tool does.
    private static func ext(_ bytes: RawSpan) -> ForeignContent {
        let hasJournal = bytes[LittleField<UInt32>(at: 0x45C)] & 4 != 0
        let shift = bytes[LittleField<UInt32>(at: 0x418)]
        return ForeignContent(
            kind: hasJournal ? .ext3 : .ext2,
            blocks: UInt64(bytes[LittleField<UInt32>(at: 0x404)]),
            blockSize: shift < 32 ? 1024 << UInt64(shift) : .max)
    }

    private init(kind: Kind, usedBytes: UInt64?) {
        self.kind = kind
        self.usedBytes = usedBytes
    }

    /// A size that does not fit is larger than every device, not unknown.
    private init(kind: Kind, blocks: UInt64, blockSize: UInt64) {
        let (product, overflow) = blocks.multipliedReportingOverflow(by: blockSize)
        self.init(kind: kind, usedBytes: overflow ? .max : product)
    }

    private static func matches(_ text: StaticString, _ bytes: RawSpan, at offset: Int) -> Bool {
        "\(text)".utf8.enumerated().allSatisfy { index, byte in
            bytes[Field<UInt8>(at: offset + index)] == byte
        }
    }
}
