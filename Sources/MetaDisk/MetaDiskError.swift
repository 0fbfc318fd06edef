/// Why meta data cannot be placed, read or trusted.
///
/// `description` is the message for the operator without the name of the device, which only the
/// caller knows.
package enum MetaDiskError: Error, Equatable, Sendable {
    /// The device cannot hold the meta data of this placement; sizes in bytes.
    case tooSmall(device: UInt64, needed: UInt64)
    /// The device is larger than the format can describe; sizes in bytes.
    case tooLarge(device: UInt64, limit: UInt64)
    /// A slot of fixed-size external meta data does not lie wholly on the device.
    case slotOutsideDevice(slot: Int, device: UInt64, needed: UInt64)
    case slotOutOfRange(Int)
    /// The activity log has an impossible shape.
    case logShape(stripes: UInt32, stripeBlocks: UInt32, reason: String)
    /// A super block was given as so many bytes.
    case wrongSize(Int)
    /// No super block of any known format lies here.
    case noSuperblock(magic: UInt32)
    /// A super block of another format: `v06`, `v07` or `v09`.
    case otherFormat(String)
    /// A field contradicts the device or the other fields.
    case badField(name: String, found: Int64, expected: Int64)
    /// The last agreed size is more than the device offers; both in sectors.
    case shrunk(lastAgreedSize: UInt64, capacity: UInt64)
    /// The bitmap in use, in whole pages, is more than the space for it; both in bytes.
    case bitmapTooSmall(needed: UInt64, available: UInt64)
}

extension MetaDiskError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .tooSmall(let device, let needed):
            return "the device has \(device) bytes, meta data needs at least \(needed) "
                + "(and a Linux kernel 1048576)"
        case .tooLarge(let device, let limit):
            return "the device has \(device) bytes, meta data can describe at most \(limit)"
        case .slotOutsideDevice(let slot, let device, let needed):
            return "slot \(slot) ends at byte \(needed), the device has \(device) bytes"
        case .slotOutOfRange(let slot):
            return "slot \(slot) does not exist, the slots are 0 to 255"
        case .logShape(let stripes, let stripeBlocks, let reason):
            return "activity log of \(stripes) stripes of \(stripeBlocks) blocks: \(reason)"
        case .wrongSize(let count):
            return "a super block has 4096 bytes, not \(count)"
        case .noSuperblock(let magic):
            return "no valid meta data found (magic \(hexadecimal(magic))); "
                + "use create-md, or check-resize if the device has grown"
        case .otherFormat(let format) where format == "v07" || format == "v09":
            return "meta data of format \(format) found; convert it with drbdmeta of drbd-utils: "
                + "drbdmeta MINOR v08 DEVICE INDEX create-md, and confirm 'convert to v08'"
        case .otherFormat(let format):
            return "meta data of format \(format) found; nothing converts it any more: "
                + "wipe-md and create-md, then let the peer copy everything"
        case .badField(let name, let found, let expected):
            return "meta data has \(name) \(found) where \(expected) is expected"
        case .shrunk(let size, let capacity):
            return "the size in use (\(size) sectors) is more than the disk offers (\(capacity))"
        case .bitmapTooSmall(let needed, let available):
            return "the size in use needs \(needed) bytes of bitmap, there is room for \(available)"
        }
    }
}

/// `value` as the tools print it: `0x` and every digit in upper case.
package func hexadecimal<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) -> String {
    "0x" + hexadecimalDigits(value)
}

/// Every digit of `value` in upper case.
package func hexadecimalDigits<Value: FixedWidthInteger & UnsignedInteger>(
    _ value: Value
) -> String {
    let digits = String(value, radix: 16, uppercase: true)
    return String(repeating: "0", count: Value.bitWidth / 4 - digits.count) + digits
}
