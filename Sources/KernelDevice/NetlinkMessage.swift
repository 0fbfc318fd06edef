// One message of generic netlink, and its attributes.
// Source: linux/netlink.h, linux/genetlink.h. Everything is in the byte order of the machine, which is
// little-endian wherever repd runs; messages and attributes begin at multiples of 4 bytes.

/// A message to a family of generic netlink, or an answer of one.
struct NetlinkMessage: Equatable {
    /// The family's number, or one of the types of netlink itself.
    var type: UInt16
    var flags: UInt16 = 0
    var sequence: UInt32 = 0
    /// The family's command; 0 in messages of netlink itself.
    var command: UInt8
    var attributes = NetlinkAttributes()

    static let request: UInt16 = 1
    static let wantsAcknowledgement: UInt16 = 4
    /// The type of answers that carry an errno, 0 for success.
    static let error: UInt16 = 2

    private enum Layout {
        // nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32.
        static let header = 16
        // genlmsghdr: command u8, version u8, reserved u16.
        static let generic = 4
    }

    /// - Parameter version: of the family.
    func encoded(version: UInt8 = 1) -> [UInt8] {
        var bytes: [UInt8] = []
        let length = Layout.header + Layout.generic + attributes.bytes.count
        bytes.append(little: UInt32(length))
        bytes.append(little: type)
        bytes.append(little: flags)
        bytes.append(little: sequence)
        // The port is the kernel's to fill in.
        bytes.append(little: UInt32(0))
        bytes += [command, version, 0, 0]
        return bytes + attributes.bytes
    }

    /// What came in.
    enum Received: Equatable {
        /// The errno, 0 for success.
        case acknowledgement(sequence: UInt32, errno: Int32)
        case message(NetlinkMessage)
    }

    /// The messages of one datagram; what is cut off or no message ends it.
    static func decode(_ bytes: [UInt8]) -> [Received] {
        var all: [Received] = []
        var rest = bytes[...]
        while let length: UInt32 = rest.little(at: 0), length >= Layout.header,
            Int(length) <= rest.count, let one = decodeOne(rest.prefix(Int(length)))
        {
            all.append(one)
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return all
    }

    private static func decodeOne(_ bytes: ArraySlice<UInt8>) -> Received? {
        guard let type: UInt16 = bytes.little(at: 4), let flags: UInt16 = bytes.little(at: 6),
            let sequence: UInt32 = bytes.little(at: 8)
        else { return nil }
        if type == error {
            guard let code: Int32 = bytes.little(at: Layout.header) else { return nil }
            // The kernel has them negative.
            return .acknowledgement(sequence: sequence, errno: code == .min ? .max : -code)
        }
        guard let command: UInt8 = bytes.little(at: Layout.header) else { return nil }
        let attributes = bytes.dropFirst(Layout.header + Layout.generic)
        return .message(
            NetlinkMessage(
                type: type, flags: flags, sequence: sequence, command: command,
                attributes: NetlinkAttributes(bytes: Array(attributes))))
    }
}

/// Attributes behind each other: length u16 with these four bytes, type u16, value, filled up.
struct NetlinkAttributes: Equatable {
    private(set) var bytes: [UInt8] = []

    /// The value is attributes itself.
    private static let nested: UInt16 = 0x8000
    private static let typeMask: UInt16 = 0x3fff
    private static let header = 4

    init(bytes: [UInt8] = []) { self.bytes = bytes }

    mutating func append<Value: FixedWidthInteger & BitwiseCopyable>(_ type: UInt16, _ value: Value)
    {
        var data: [UInt8] = []
        data.append(little: value)
        append(type, data)
    }

    /// With the zero that ends it.
    mutating func append(_ type: UInt16, text: String) { append(type, Array(text.utf8) + [0]) }

    mutating func append(_ type: UInt16, nested attributes: NetlinkAttributes) {
        append(type | Self.nested, attributes.bytes)
    }

    private mutating func append(_ type: UInt16, _ value: [UInt8]) {
        bytes.append(little: UInt16(Self.header + value.count))
        bytes.append(little: type)
        bytes += value
        bytes += [UInt8](repeating: 0, count: (4 - value.count & 3) & 3)
    }

    /// The value of the first one of this type.
    func value(_ type: UInt16) -> ArraySlice<UInt8>? {
        var rest = bytes[...]
        while let length: UInt16 = rest.little(at: 0), let found: UInt16 = rest.little(at: 2),
            Int(length) >= Self.header, Int(length) <= rest.count
        {
            if found & Self.typeMask == type {
                return rest.prefix(Int(length)).dropFirst(Self.header)
            }
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return nil
    }

    /// `nil` also if the value has another size.
    func number<Value: FixedWidthInteger & BitwiseCopyable>(_ type: UInt16) -> Value? {
        guard let value = value(type), value.count == MemoryLayout<Value>.size else { return nil }
        return value.little(at: 0)
    }
}

extension Array where Element == UInt8 {
    fileprivate mutating func append<Value: FixedWidthInteger>(little value: Value) {
        for index in 0..<MemoryLayout<Value>.size {
            append(UInt8(truncatingIfNeeded: value >> (8 * index)))
        }
    }
}

extension ArraySlice where Element == UInt8 {
    fileprivate func little<Value: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Value? {
        let size = MemoryLayout<Value>.size
        guard count >= offset + size else { return nil }
        var value: Value = 0
        for index in 0..<size {
            value |= Value(truncatingIfNeeded: self[startIndex + offset + index]) << (8 * index)
        }
        return value
    }
}
