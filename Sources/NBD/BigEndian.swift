// Integers and strings of the handshake, which is not on the request path.

extension [UInt8] {
    /// The big-endian integer at `offset`, which the caller knows to be there.
    func big<Value: FixedWidthInteger & UnsignedInteger>(at offset: Int) -> Value {
        self[offset..<offset + Value.bitWidth / 8].reduce(0) { $0 << 8 | Value($1) }
    }

    mutating func append(big value: some FixedWidthInteger & UnsignedInteger) {
        for shift in stride(from: value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }
}

extension String {
    /// `nil` if the bytes are not UTF-8.
    init?(validating bytes: [UInt8]) {
        self.init(validating: bytes, as: UTF8.self)
    }
}
