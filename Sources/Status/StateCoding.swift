package import DRBDWire

// In JSON a state is the word that /proc/drbd prints, for the sake of those who read it.

/// A state that has a name.
private protocol Named: CaseIterable, Sendable {
    var name: String { get }
}

extension Role: Named {}
extension DiskState: Named {}
extension ConnectionState: Named {}

extension Named {
    fileprivate static func named(_ decoder: any Decoder) throws -> Self {
        let container = try decoder.singleValueContainer()
        let name = try container.decode(String.self)
        guard let value = allCases.first(where: { $0.name == name }) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "no \(Self.self) is called '\(name)'")
        }
        return value
    }

    fileprivate func encodeName(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(name)
    }
}

extension Role: Codable {
    package init(from decoder: any Decoder) throws { self = try Self.named(decoder) }
    package func encode(to encoder: any Encoder) throws { try encodeName(to: encoder) }
}

extension DiskState: Codable {
    package init(from decoder: any Decoder) throws { self = try Self.named(decoder) }
    package func encode(to encoder: any Encoder) throws { try encodeName(to: encoder) }
}

extension ConnectionState: Codable {
    package init(from decoder: any Decoder) throws { self = try Self.named(decoder) }
    package func encode(to encoder: any Encoder) throws { try encodeName(to: encoder) }
}
