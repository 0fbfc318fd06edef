import MetaDisk
import Support

/// Meta data as they may lie on a disk, and the texts that are made of them.
///
/// An input is what it is read as (1 byte), and what that takes.
enum MetaDiskTarget {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        switch input.byte() % 6 {
        case 0: checkSuperblock(&input)
        case 1: LogFuzz.run(&input)
        case 2: DumpFuzz.read(&input)
        case 3: DumpFuzz.write(&input)
        case 4: checkTexts(&input)
        default: RelocationFuzz.run(&input)
        }
    }

    // MARK: where meta data are

    /// A place for meta data: its kind, and the size of the device in sectors with some bytes.
    static func place(_ input: inout Input) -> (MetaLocation.Placement, deviceSize: UInt64) {
        let kind = input.byte()
        let size = (input.number(UInt64.self) >> UInt64(kind >> 3 & 31)) &+ UInt64(kind & 1)
        switch kind >> 1 & 3 {
        case 0, 3: return (.internalData, size)
        case 1: return (.flexExternal, size)
        default: return (.indexed(Int(Int8(bitPattern: input.byte())) * 4 + Int(kind >> 6)), size)
        }
    }

    private static func checkSuperblock(_ input: inout Input) {
        let (placement, size) = place(&input)
        var block = [UInt8](repeating: 0, count: Superblock.encodedSize)
        let mask = input.number(UInt16.self)
        let shape = (stripes: UInt32(input.byte()) + 1, blocks: UInt32(input.number(UInt16.self)))
        // As create-md makes it, if it can be made there; then some fields are others.
        if let location = located({ () throws(MetaDiskError) in
            try MetaLocation(
                placement: placement, deviceSize: size, stripes: shape.stripes,
                stripeBlocks: shape.blocks)
        }) {
            check(location)
            block.write { Superblock.fresh(location: location).encode(into: &$0) }
        }
        for field in 0..<16 where mask >> UInt16(field) & 1 == 1 {
            // The first six have 8 bytes, the others 4.
            let (start, length) = field < 6 ? (8 * field, 8) : (56 + 4 * (field - 6), 4)
            block.replaceSubrange(
                start..<start + length, with: (0..<length).map { _ in input.byte() })
        }
        let superblock = located { () throws(MetaDiskError) in
            try block.read { bytes throws(MetaDiskError) in try Superblock(decoding: bytes) }
        }
        guard let superblock else {
            _ = block.read { Superblock.olderFormat($0) }
            return
        }
        var written = [UInt8](repeating: 0xaa, count: Superblock.encodedSize)
        written.write { superblock.encode(into: &$0) }
        let again = located { () throws(MetaDiskError) in
            try written.read { bytes throws(MetaDiskError) in try Superblock(decoding: bytes) }
        }
        invariant(again == superblock, "written as \(String(describing: again))")
        _ = superblock.generationText
        _ = superblock.diskStateWord
        if let location = located({ () throws(MetaDiskError) in
            try superblock.locate(deviceSize: size, placement: placement)
        }) {
            check(location)
            let dump = MetaDump(superblock: superblock, location: location)
            let end = location.bitmapOffset + dump.bitmapBytes
            invariant(end <= location.bitmapOffset + location.bitmapCapacityBytes, "dump to \(end)")
        }
        guard
            let location = located({ () throws(MetaDiskError) in
                try superblock.validate(deviceSize: size, placement: placement)
            })
        else { return }
        invariant(superblock.lastAgreedSize <= location.capacity, "\(superblock.lastAgreedSize)")
        let bitmap = BitmapLayout.byteCount(sectors: superblock.lastAgreedSize)
        invariant(bitmap <= location.bitmapCapacityBytes, "bitmap of \(bitmap) bytes")
        grow(superblock, location, by: input.number(UInt32.self))
    }

    /// Internal meta data may be found where the device ended before.
    private static func grow(_ superblock: Superblock, _ location: MetaLocation, by count: UInt32) {
        guard location.placement == .internalData else { return }
        _ = located { () throws(MetaDiskError) in
            try MetaRelocation(
                superblock, from: location, deviceSize: location.deviceSize + UInt64(count)
            ).new
        }
    }

    /// The value, or a refusal that says something.
    static func located<Value>(_ body: () throws(MetaDiskError) -> Value) -> Value? {
        do throws(MetaDiskError) { return try body() } catch {
            invariant(!error.description.isEmpty, "refused without a word")
            return nil
        }
    }

    /// The parts lie on the device, and not in each other.
    static func check(_ location: MetaLocation) {
        let log = UInt64(location.logBlockCount) * 4096
        var parts = [
            location.superblockOffset..<location.superblockOffset + 4096,
            location.logOffset..<location.logOffset + log,
            location.bitmapOffset..<location.bitmapOffset + location.bitmapCapacityBytes,
        ]
        parts.sort { $0.lowerBound < $1.lowerBound }
        for (one, next) in zip(parts, parts.dropFirst()) {
            invariant(one.upperBound <= next.lowerBound, "\(one) and \(next) of \(location)")
        }
        let end = parts.last?.upperBound ?? 0
        invariant(end <= location.deviceSize, "\(location) ends at \(end)")
        let usable = location.usableCapacity(dataSectors: .max)
        let needed = BitmapLayout.byteCount(sectors: usable)
        invariant(usable <= location.capacity, "\(usable) sectors of \(location.capacity)")
        invariant(needed <= location.bitmapCapacityBytes, "\(needed) bytes for \(usable) sectors")
        if location.placement == .internalData {
            invariant(usable * 512 <= parts[0].lowerBound, "\(usable) sectors before \(parts[0])")
        }
        _ = location.kernelRefusal
    }

    // MARK: small texts

    private static func checkTexts(_ input: inout Input) {
        guard input.byte() & 1 == 1 else { return checkForeignContent(&input) }
        let text = String(decoding: input.rest(), as: UTF8.self)
        var superblock = Superblock.blank
        do throws(GenerationTextError) {
            try superblock.setGenerations(text)
        } catch {
            invariant(superblock == .blank, "refused, but changed: \(error)")
            return
        }
        let allowed = text.utf8.allSatisfy {
            "0123456789abcdefABCDEFx:".utf8.contains($0)
        }
        invariant(allowed, "'\(text)' is taken")
        var again = Superblock.blank
        do throws(GenerationTextError) {
            try again.setGenerations(superblock.generationLine)
        } catch {
            invariantFailed("\(superblock.generationLine): \(error)")
        }
        invariant(again == superblock, "\(superblock.generationLine) of '\(text)'")
    }

    /// What create-md looks at, with a few bytes that are not zero.
    private static func checkForeignContent(_ input: inout Input) {
        var bytes = [UInt8](repeating: 0, count: ForeignContent.inspectedBytes)
        for _ in 0..<input.byte() & 7 {
            let start = Int(input.number(UInt32.self) % UInt32(bytes.count))
            let patch = input.take(Int(input.byte() & 15))
            let count = min(patch.count, bytes.count - start)
            bytes.replaceSubrange(start..<start + count, with: patch.prefix(count))
        }
        let found = bytes.read { ForeignContent.detect(in: $0) }
        let isZero = bytes.allSatisfy { $0 == 0 }
        invariant((found == nil) == isZero, "found \(String(describing: found))")
    }
}
