import DRBDWire
import Support

/// What the codecs have in common, so that one helper tests them all.
protocol Encodable {
    func encode(into bytes: inout MutableRawSpan)
}

protocol FixedCodec: Encodable, Equatable {
    static var encodedSize: Int { get }
    init(decoding bytes: RawSpan)
}

extension DataPacket: FixedCodec {}
extension DiscardPacket: FixedCodec {}
extension BlockAck: FixedCodec {}
extension BlockRequest: FixedCodec {}
extension OutOfSync: FixedCodec {}
extension Barrier: FixedCodec {}
extension BarrierAck: FixedCodec {}
extension StatePacket: FixedCodec {}
extension StateChangeRequest: FixedCodec {}
extension StateChangeReply: FixedCodec {}
extension UUIDs: FixedCodec {}
extension SyncUUIDPacket: FixedCodec {}
extension Features: FixedCodec {}
extension SyncParameters: FixedCodec {}
extension Sizes: Encodable {}
extension ProtocolParameters: Encodable {}
extension PacketHeader: Encodable {}
extension ShortHeader: Encodable {}
extension LargeHeader: Encodable {}

/// Lends `bytes` to a decoder.
func reading<Value>(_ bytes: [UInt8], _ decode: (RawSpan) -> Value) -> Value {
    unsafe decode(bytes.span.bytes)
}

/// What `value` writes over bytes that were not zero.
func encoded(_ value: some Encodable, size: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xa5, count: size)
    var span = bytes.mutableSpan
    var raw = unsafe span.mutableBytes
    value.encode(into: &raw)
    return bytes
}

func encoded<Value: FixedCodec>(_ value: Value) -> [UInt8] {
    encoded(value, size: Value.encodedSize)
}

func decoded<Value: FixedCodec>(_ bytes: [UInt8], as type: Value.Type = Value.self) -> Value {
    reading(bytes, Value.init(decoding:))
}

/// The bytes of a hexadecimal text; spaces are only for the eye.
func bytes(_ text: some StringProtocol) -> [UInt8] {
    var result: [UInt8] = []
    var high: UInt8?
    for digit in text.utf8 where digit != UInt8(ascii: " ") {
        let value: UInt8
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): value = digit - UInt8(ascii: "a") + 10
        default: invariantFailed("no hexadecimal digit: \(digit)")
        }
        if let first = high {
            result.append(first << 4 | value)
            high = nil
        } else {
            high = value
        }
    }
    invariant(high == nil, "half a byte at the end")
    return result
}

func hexadecimal(_ value: some UnsignedInteger, digits: Int = 1) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}
