import FoundationEssentials
package import Status

/// Messages as lines of JSON.
package enum ControlCoding {
    /// One line, its newline included.
    package static func encode(_ request: ControlRequest) throws(ControlError) -> [UInt8] {
        try line(request)
    }

    /// One line, its newline included.
    package static func encode(_ reply: ControlReply) throws(ControlError) -> [UInt8] {
        try line(reply)
    }

    /// - Parameter line: without its newline.
    package static func decodeRequest(_ line: [UInt8]) throws(ControlError) -> ControlRequest {
        let request: ControlRequest = try message(line)
        try check(request.command.settings)
        return request
    }

    /// - Parameter line: without its newline.
    package static func decodeReply(_ line: [UInt8]) throws(ControlError) -> ControlReply {
        try message(line)
    }

    /// As kept in the run directory.
    package static func encode(_ state: SavedState) throws(ControlError) -> [UInt8] {
        try line(state)
    }

    package static func decodeState(_ bytes: [UInt8]) throws(ControlError) -> SavedState {
        let state: SavedState = try message(bytes)
        try check(state.settings)
        return state
    }

    private static func check(_ settings: ResourceSettings?) throws(ControlError) {
        if let complaint = settings?.complaint { throw .malformed(detail: complaint) }
    }

    /// For `status --json`: one object for each resource, to be read by people as well.
    package static func statusText(_ snapshots: [StatusSnapshot]) throws(ControlError) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        do { return String(decoding: try encoder.encode(snapshots), as: UTF8.self) + "\n" } catch {
            throw .malformed(detail: "\(error)")
        }
    }

    private struct Version: Decodable { var version: Int }

    private static func line(_ value: some Encodable) throws(ControlError) -> [UInt8] {
        let encoder = JSONEncoder()
        // The same value is always the same text; without pretty printing it is one line.
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var bytes: [UInt8]
        do { bytes = Array(try encoder.encode(value)) } catch {
            throw .malformed(detail: "\(error)")
        }
        bytes.append(UInt8(ascii: "\n"))
        guard bytes.count <= ControlProtocol.maximumMessage else {
            throw .tooLong(limit: ControlProtocol.maximumMessage)
        }
        return bytes
    }

    /// The version is looked at first: what else a message of another one says is not known.
    private static func message<Value: Decodable>(_ line: [UInt8]) throws(ControlError) -> Value {
        let version: Version = try value(line)
        guard version.version == ControlProtocol.version else {
            throw .otherVersion(theirs: version.version)
        }
        return try value(line)
    }

    private static func value<Value: Decodable>(_ bytes: [UInt8]) throws(ControlError) -> Value {
        guard bytes.count <= ControlProtocol.maximumMessage else {
            throw .tooLong(limit: ControlProtocol.maximumMessage)
        }
        do { return try JSONDecoder().decode(Value.self, from: Data(bytes)) } catch {
            throw .malformed(detail: text(error))
        }
    }

    private static func text(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "\(error)" }
        func place(_ path: [any CodingKey]) -> String {
            path.isEmpty ? "" : " in '" + path.map(\.stringValue).joined(separator: ".") + "'"
        }
        switch error {
        case .keyNotFound(let key, let context):
            return "'\(key.stringValue)' is missing" + place(context.codingPath)
        case .typeMismatch(let type, let context):
            return "no \(type)" + place(context.codingPath)
        case .valueNotFound(let type, let context):
            return "no \(type)" + place(context.codingPath)
        case .dataCorrupted(let context):
            return context.debugDescription + place(context.codingPath)
        @unknown default:
            return "\(error)"
        }
    }
}

/// Bytes of a stream, cut into lines.
package struct LineBuffer: Sendable {
    private var bytes: [UInt8] = []
    /// How far there is no newline, so that it is looked for once.
    private var searched = 0

    package init() {}

    /// - Throws: `tooLong` when the lines are not taken as they come.
    package mutating func append(_ more: some Sequence<UInt8>) throws(ControlError) {
        bytes += more
        guard bytes.count <= 2 * ControlProtocol.maximumMessage else {
            throw .tooLong(limit: ControlProtocol.maximumMessage)
        }
    }

    /// The next complete line without its newline.
    ///
    /// - Throws: `tooLong` when a line will be longer than a message may be.
    package mutating func next() throws(ControlError) -> [UInt8]? {
        guard let end = bytes[searched...].firstIndex(of: UInt8(ascii: "\n")) else {
            searched = bytes.count
            guard bytes.count <= ControlProtocol.maximumMessage else {
                throw .tooLong(limit: ControlProtocol.maximumMessage)
            }
            return nil
        }
        let line = Array(bytes[..<end])
        bytes.removeSubrange(...end)
        searched = 0
        return line
    }

    /// Whether an incomplete line waits for its rest.
    package var isEmpty: Bool { bytes.isEmpty }
}
