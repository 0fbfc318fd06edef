// Names of digest algorithms, NUL-terminated: drbd-wire sections 4.7 and 4.8.
import Support

/// The room for a name, with its NUL.
let algorithmNameSize = 64

/// The name at `range`: up to the first NUL, at most 63 bytes.
///
/// Bytes that are not ASCII become question marks: such a name matches no algorithm, and has as many
/// bytes as came, so that it always fits again.
func algorithmName(in bytes: RawSpan, at range: Range<Int>) -> String {
    var name = ""
    for offset in range.prefix(algorithmNameSize - 1) {
        let byte = bytes[Field<UInt8>(at: offset)]
        guard byte != 0 else { break }
        name.unicodeScalars.append(byte < 0x80 ? Unicode.Scalar(byte) : "?")
    }
    return name
}

/// Writes `name` and NULs up to the end of `range`.
func encode(algorithm name: String, into bytes: inout MutableRawSpan, at range: Range<Int>) {
    invariant(name.utf8.count < range.count, "algorithm name of \(name.utf8.count) bytes")
    for offset in range { bytes[Field<UInt8>(at: offset)] = 0 }
    for (offset, byte) in zip(range, name.utf8) { bytes[Field<UInt8>(at: offset)] = byte }
}
