import MetaDisk
import Support

/// A device in memory of which only what is not zero takes space.
///
/// It lets nobody read or write outside the meta data.
struct MetaDevice: MetaAccess {
    /// The super block, the log and the bitmap, of every place that meta data have.
    private let allowed: [Range<UInt64>]
    /// Sectors that are not zero, as words.
    private var sectors: [UInt64: [UInt64]] = [:]

    init(_ locations: MetaLocation...) {
        allowed = locations.flatMap { location in
            let bitmapEnd = location.bitmapOffset + location.bitmapCapacityBytes
            let logEnd = location.logOffset + UInt64(location.logBlockCount) * 4096
            return [
                location.superblockOffset..<location.superblockOffset + 4096,
                location.logOffset..<logEnd, location.bitmapOffset..<bitmapEnd,
            ]
        }
    }

    mutating func read(at offset: UInt64, into bytes: inout MutableRawSpan) throws(Never) {
        check(offset, bytes.byteCount)
        for place in stride(from: 0, to: bytes.byteCount, by: 512) {
            let sector = sectors[offset + UInt64(place)]
            for index in 0..<64 {
                bytes[Field<UInt64>(at: place + 8 * index)] = sector?[index] ?? 0
            }
        }
    }

    mutating func write(_ bytes: RawSpan, at offset: UInt64) throws(Never) {
        check(offset, bytes.byteCount)
        for place in stride(from: 0, to: bytes.byteCount, by: 512) {
            let words = (0..<64).map { bytes[Field<UInt64>(at: place + 8 * $0)] }
            let isZero = words.allSatisfy { $0 == 0 }
            sectors[offset + UInt64(place)] = isZero ? nil : words
        }
    }

    mutating func zero(_ range: Range<UInt64>) throws(Never) {
        check(range.lowerBound, Int(range.count))
        for offset in sectors.keys where range.contains(offset) { sectors[offset] = nil }
    }

    mutating func flush() throws(Never) {}

    private func check(_ offset: UInt64, _ count: Int) {
        invariant(offset % 512 == 0 && count % 512 == 0, "\(count) bytes at \(offset)")
        let end = offset + UInt64(count)
        invariant(
            allowed.contains { $0.lowerBound <= offset && end <= $0.upperBound },
            "\(count) bytes at \(offset), the meta data are \(allowed)")
    }

    /// The bitmap's first bytes.
    mutating func bitmap(_ location: MetaLocation, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.write { read(at: location.bitmapOffset, into: &$0) }
        return bytes
    }
}
