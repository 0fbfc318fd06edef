/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), eight bytes at a time.
///
/// The activity log starts with 0 and does not invert the result (drbd-metadata.md, section 7.2);
/// everybody else starts with all ones and inverts it: `checksum(_:)`.
package struct CRC32C: Equatable, Sendable, BitwiseCopyable {
    /// The register, not inverted.
    package private(set) var register: UInt32

    package init(register: UInt32 = 0) { self.register = register }

    /// The usual variant: register starts as all ones, result inverted.
    package static func checksum(_ bytes: RawSpan) -> UInt32 {
        var crc = CRC32C(register: .max)
        crc.update(bytes)
        return ~crc.register
    }

    package mutating func update(_ bytes: RawSpan) {
        let tables = Self.tables.span
        var crc = register
        var offset = 0
        while offset + 8 <= bytes.byteCount {
            // Unaligned and in bounds: the condition of the loop.
            let word = unsafe UInt64(
                littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
            let mixed = word ^ UInt64(crc)
            crc = tables[0x700 | Int(mixed & 0xFF)]
            crc ^= tables[0x600 | Int(mixed >> 8 & 0xFF)]
            crc ^= tables[0x500 | Int(mixed >> 16 & 0xFF)]
            crc ^= tables[0x400 | Int(mixed >> 24 & 0xFF)]
            crc ^= tables[0x300 | Int(mixed >> 32 & 0xFF)]
            crc ^= tables[0x200 | Int(mixed >> 40 & 0xFF)]
            crc ^= tables[0x100 | Int(mixed >> 48 & 0xFF)]
            crc ^= tables[Int(mixed >> 56)]
            offset += 8
        }
        while offset < bytes.byteCount {
            let byte = unsafe bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
            crc = crc >> 8 ^ tables[Int(UInt8(truncatingIfNeeded: crc) ^ byte)]
            offset += 1
        }
        register = crc
    }

    /// As if that many zero bytes came next.
    package mutating func updateZeros(count: Int) {
        let tables = Self.tables.span
        for _ in 0..<count { register = register >> 8 ^ tables[Int(register & 0xFF)] }
    }

    /// Table `k` at `256 k`: the effect of a byte that is followed by `k` others.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var crc = UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82F6_3B78 }
            tables[byte] = crc
        }
        for index in 256..<tables.count {
            let shorter = tables[index - 256]
            tables[index] = shorter >> 8 ^ tables[Int(shorter & 0xFF)]
        }
        return tables
    }()
}
