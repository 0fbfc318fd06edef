import DRBDWire
import Foundation
import Support

/// What one node sent on one TCP connection of a capture: see scripts/fixtures-wire.
struct CapturedStream {
    /// Such as `05-full-sync D2 A>B`.
    let name: String
    let capture: String
    /// The number of the TCP connection within the capture.
    let number: Int
    let isMeta: Bool
    /// The bytes that are there.
    private(set) var bytes: [UInt8] = []
    /// How many bytes are left out before which of `bytes`, in order.
    private(set) var cuts: [(position: Int, count: Int)] = []
    /// What the decoded text says of the packet that starts at a position.
    private(set) var notes: [Int: String] = [:]

    private static let directory =
        URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")

    /// The streams of all captures, in the order of their names.
    static func all() throws -> [CapturedStream] {
        let files = try FileManager.default.contentsOfDirectory(
            at: directory, includingPropertiesForKeys: nil)
        return try files.filter { $0.pathExtension == "streams" }
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
            .flatMap(streams(of:))
    }

    private static func streams(of file: URL) throws -> [CapturedStream] {
        let capture = file.deletingPathExtension().lastPathComponent
        var streams: [CapturedStream] = []
        let text = try String(contentsOf: file, encoding: .utf8)
        var current: CapturedStream?
        for line in text.split(separator: "\n") {
            if line.hasPrefix("stream ") {
                current = CapturedStream(capture, title: line.dropFirst("stream ".count))
            } else if line == "end" {
                guard let stream = current else { throw FixtureError(line: "\(capture): \(line)") }
                streams.append(stream)
                current = nil
            } else if current != nil {
                try current?.append(line)
            } else {
                throw FixtureError(line: "\(capture): \(line)")
            }
        }
        guard current == nil else { throw FixtureError(line: "\(capture): no end") }
        return streams
    }

    private init?(_ capture: String, title: Substring) {
        let words = title.split(separator: " ")
        guard words.count == 2, let kind = words[0].first, let number = Int(words[0].dropFirst())
        else { return nil }
        name = "\(capture) \(title)"
        self.capture = capture
        self.number = number
        isMeta = kind == "M"
    }

    private mutating func append(_ line: Substring) throws {
        if line.hasPrefix("cut ") {
            guard let count = Int(line.dropFirst("cut ".count)) else {
                throw FixtureError(line: "\(name): \(line)")
            }
            cuts.append((position: bytes.count, count: count))
            return
        }
        let parts = line.split(separator: ";", maxSplits: 1)
        if parts.count == 2 { notes[bytes.count] = String(parts[1].dropFirst()) }
        bytes += DRBDWireTests.bytes(parts[0])
    }
}

/// A line of a fixture that is none.
struct FixtureError: Error {
    let line: String
}

/// Reads a stream packet by packet, as a node would.
struct CaptureReader {
    let stream: CapturedStream
    private(set) var position = 0
    private var nextCut = 0

    init(_ stream: CapturedStream) { self.stream = stream }

    /// Bytes that are there up to the next cut or the end.
    var available: Int {
        let end = nextCut < stream.cuts.count ? stream.cuts[nextCut].position : stream.bytes.count
        return end - position
    }

    var atEnd: Bool { position == stream.bytes.count && nextCut == stream.cuts.count }

    /// The next bytes, without taking them; `nil` if the stream ends before.
    func peek(_ count: Int) -> [UInt8]? {
        guard count <= available else { return nil }
        return Array(stream.bytes[position..<position + count])
    }

    mutating func take(_ count: Int) -> [UInt8]? {
        guard let bytes = peek(count) else { return nil }
        position += count
        return bytes
    }

    /// Goes on by `count` bytes, whether they are there or cut; false if the stream ends before.
    mutating func skip(_ count: Int) -> Bool {
        var rest = count
        while rest > 0 {
            let step = min(rest, available)
            position += step
            rest -= step
            guard rest > 0 else { break }
            guard nextCut < stream.cuts.count, stream.cuts[nextCut].count <= rest else {
                position = stream.bytes.count
                nextCut = stream.cuts.count
                return false
            }
            rest -= stream.cuts[nextCut].count
            nextCut += 1
        }
        return true
    }
}
