import Foundation
import MetaDisk
import Support
import Testing

/// A device in memory of which only blocks that are not zero take space.
///
/// It records what is done to it, so that a test can stop between any two steps.
struct Image: MetaAccess, Equatable {
    enum Operation: Equatable {
        case write(UInt64, [UInt8])
        case zero(Range<UInt64>)
        case flush
    }

    let size: UInt64
    private(set) var blocks: [UInt64: [UInt8]] = [:]
    private(set) var operations: [Operation] = []

    init(size: UInt64) { self.size = size }

    static func == (one: Image, other: Image) -> Bool {
        one.size == other.size && one.blocks == other.blocks
    }

    /// Without its record.
    var quiet: Image {
        var copy = self
        copy.operations = []
        return copy
    }

    mutating func read(at offset: UInt64, into bytes: inout MutableRawSpan) {
        let block = self[offset, count: bytes.byteCount]
        unsafe bytes.withUnsafeMutableBytes { unsafe $0.copyBytes(from: block) }
    }

    mutating func write(_ bytes: RawSpan, at offset: UInt64) {
        perform(.write(offset, unsafe bytes.withUnsafeBytes { unsafe Array($0) }))
    }

    mutating func zero(_ range: Range<UInt64>) { perform(.zero(range)) }

    mutating func flush() { perform(.flush) }

    mutating func perform(_ operation: Operation) {
        operations.append(operation)
        switch operation {
        case .write(let offset, let bytes): self[offset] = bytes
        case .zero(let range):
            precondition(range.upperBound <= size, "zeros behind the end")
            let whole = (range.lowerBound + 4095) / 4096 * 4096..<range.upperBound / 4096 * 4096
            for offset in blocks.keys where whole.contains(offset) { blocks[offset] = nil }
            if range.upperBound % 4096 != 0 {
                let start = max(range.lowerBound, range.upperBound / 4096 * 4096)
                self[start] = [UInt8](repeating: 0, count: Int(range.upperBound - start))
            }
        case .flush: break
        }
    }

    subscript(offset: UInt64, count count: Int) -> [UInt8] {
        precondition(offset + UInt64(count) <= size, "read behind the end")
        var bytes: [UInt8] = []
        var place = offset
        let end = offset + UInt64(count)
        while place < end {
            let start = place / 4096 * 4096
            let stop = min(end, start + 4096)
            let block = blocks[start] ?? [UInt8](repeating: 0, count: 4096)
            bytes += block[Int(place - start)..<Int(stop - start)]
            place = stop
        }
        return bytes
    }

    /// Replaces the bytes from an offset on.
    subscript(offset: UInt64) -> [UInt8] {
        get { self[offset, count: 4096] }
        set {
            precondition(offset + UInt64(newValue.count) <= size, "write behind the end")
            if offset % 4096 == 0 && newValue.count == 4096 {
                blocks[offset] = newValue.contains { $0 != 0 } ? newValue : nil
                return
            }
            for (index, byte) in newValue.enumerated() {
                let place = offset + UInt64(index)
                let start = place / 4096 * 4096
                if blocks[start] == nil && byte == 0 { continue }
                blocks[start, default: [UInt8](repeating: 0, count: 4096)][Int(place - start)] =
                    byte
            }
            let touched = offset / 4096...(offset + UInt64(newValue.count) - 1) / 4096
            for index in touched where blocks[index * 4096]?.allSatisfy({ $0 == 0 }) ?? false {
                blocks[index * 4096] = nil
            }
        }
    }
}

extension Image {
    /// Reads the text of scripts/fixtures-metadata.
    init(text: String) throws {
        var lines = text.split(separator: "\n")[...]
        size = try #require(lines.popFirst().flatMap { UInt64($0) })
        while let head = lines.popFirst(), let body = lines.popFirst() {
            let offset = try #require(UInt64(head.dropFirst()))
            var block: [UInt8] = []
            for token in body.split(separator: " ") {
                let parts = token.split(separator: "*")
                let word = try #require(UInt32(parts[parts.count - 1], radix: 16))
                let count = parts.count == 2 ? try #require(Int(parts[0])) : 1
                let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) }
                for _ in 0..<count { block += bytes }
            }
            blocks[offset] = block
        }
    }

    func superblock(_ placement: MetaLocation.Placement) throws -> Superblock {
        let offset = try MetaLocation.superblockOffset(placement: placement, deviceSize: size)
        return try Superblock(decoding: self[offset].rawBytes)
    }

    /// What dump-md prints, without header.
    func dump(_ placement: MetaLocation.Placement) throws -> String {
        let superblock = try superblock(placement)
        let location = try superblock.locate(deviceSize: size, placement: placement)
        var dump = MetaDump(superblock: superblock, location: location)
        var text = dump.opening(header: [])
        var offset: UInt64 = 0
        while offset < dump.bitmapBytes {
            let count = min(UInt64(MetaDump.chunkBytes), dump.bitmapBytes - offset)
            let chunk = self[location.bitmapOffset + offset, count: Int(count)]
            dump.add(bitmap: chunk.rawBytes, to: &text)
            offset += count
        }
        text += dump.closing()
        return String(decoding: text, as: UTF8.self)
    }

    /// The bits set among the first `count`, as closed ranges.
    func bits(_ location: MetaLocation, count: UInt64) -> [[UInt64]] {
        var ranges: [[UInt64]] = []
        let bytes = self[location.bitmapOffset, count: Int((count + 7) / 8)]
        for bit in 0..<count where bytes[Int(bit / 8)] >> (bit % 8) & 1 == 1 {
            if let last = ranges.last, last[1] + 1 == bit {
                ranges[ranges.count - 1][1] = bit
            } else {
                ranges.append([bit, bit])
            }
        }
        return ranges
    }
}

/// One golden image and what the reference says about it.
struct Fixture {
    struct Expectation: Decodable {
        struct Text: Decodable {
            var exit: Int
            var stdout: [String]
            var stderr: [String]
            var flags_after: String?
            var bits_set_after: [[UInt64]]?
        }
        struct Log: Decodable { var hot_extents: [UInt32] }
        struct Fields: Decodable {
            var flags: String?
            var magic: String
            var al_nr_extents: UInt32
        }
        struct Offsets: Decodable {
            var superblock: UInt64
            var activity_log: UInt64
            var bitmap: UInt64
            var max_usable_sectors: UInt64
            var bitmap_bytes: UInt64
        }
        var layout: String
        var device_bytes: UInt64
        var superblock: Fields?
        var offsets: Offsets?
        var bits: UInt64?
        var bits_set_on_disk: [[UInt64]]?
        var al: Log?
        var apply_al: Text?
        var get_gi: Text?
        var dstate: Text?
        var blocks_differing_from_peer: [[UInt64]]?
        var refused_because: String?
    }

    let name: String
    let image: Image
    let expected: Expectation

    static let directory = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Fixtures")

    init(_ name: String) throws {
        self.name = name
        let directory = Self.directory.appending(path: name)
        image = try Image(
            text: String(contentsOf: directory.appending(path: "image.txt"), encoding: .utf8))
        expected = try JSONDecoder().decode(
            Expectation.self, from: Data(contentsOf: directory.appending(path: "expect.json")))
    }

    var placement: MetaLocation.Placement {
        switch expected.layout {
        case "flex-external": .flexExternal
        case let text: Int(text).map { .indexed($0) } ?? .internalData
        }
    }

    /// The lines of a recorded dump but for those that cannot be the same: three of the header.
    ///
    /// The tool prints 0 for every flags word; `flags` is what it should have printed.
    func recordedDump(_ file: String, flags: MetaFlags) throws -> String {
        let url = Self.directory.appending(path: name).appending(path: file)
        let text = try String(contentsOf: url, encoding: .utf8)
        let header = try #require(text.range(of: "#\n\n"))
        let notice = text.hasPrefix("# la-size") ? text.prefix { $0 != "\n" } + "\n" : ""
        return notice
            + text[header.upperBound...].replacing(
                "flags 0x00000000;", with: "flags \(hexadecimal(flags.rawValue));")
    }

    static let valid = names { $0.superblock != nil && $0.layout != "fixed-internal" }
        .filter { !$0.hasPrefix("v0") && $0 != "bad-bm-bytes-per-bit" }
    static let refused = names { $0.refused_because != nil }

    private static func names(where condition: (Expectation) -> Bool) -> [String] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        return all.sorted().filter { name in
            (try? Fixture(name)).map { condition($0.expected) } ?? false
        }
    }
}
