import MetaDisk
import Support

/// The end of a disk, where its meta data lies; nothing is kept of the rest.
struct MetaArea: MetaAccess {
    private var content: [UInt8]
    private let start: UInt64

    /// New meta data on a disk of `size` bytes.
    init(diskSize size: UInt64) throws(MetaDiskError) {
        let location = try MetaLocation(placement: .internalData, deviceSize: size)
        start = min(location.bitmapOffset, location.logOffset)
        content = [UInt8](repeating: 0, count: Int(size - start))
        try MetaCreation(location: location).perform(on: &self)
    }

    @_lifetime(borrow self)
    func bytes(at offset: UInt64, count: Int) -> RawSpan {
        let first = Int(offset - start)
        return content.rawBytes.extracting(first..<first + count)
    }

    mutating func read(at offset: UInt64, into bytes: inout MutableRawSpan) {
        for index in 0..<bytes.byteCount {
            bytes[Field<UInt8>(at: index)] = content[Int(offset - start) + index]
        }
    }

    mutating func write(_ bytes: RawSpan, at offset: UInt64) {
        for index in 0..<bytes.byteCount {
            content[Int(offset - start) + index] = bytes[Field<UInt8>(at: index)]
        }
    }

    mutating func zero(_ range: Range<UInt64>) {
        for offset in range { content[Int(offset - start)] = 0 }
    }

    mutating func flush() {}
}
