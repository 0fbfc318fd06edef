// The data of LIST_META_CONTEXT and SET_META_CONTEXT, and what of the standard's metadata there is.
// Source: the NBD protocol, "Metadata querying", "Option types".
import Support

/// An export's name, and which metadata contexts a client wants to know of or use.
package struct NBDContextRequest: Equatable, Sendable {
    /// The one context that this server has.
    package static let allocation = "base:allocation"
    /// Its number in block status replies.
    package static let allocationID: UInt32 = 1
    /// All contexts of its namespace, when they are listed.
    private static let wildcard = "base:"

    package let name: String
    package let queries: [String]

    /// `nil` if strings reach beyond the data or are longer than the standard allows.
    package init?(decoding data: [UInt8]) {
        var rest = data[...]
        guard let name = Self.takeString(&rest), let count = Self.takeNumber(&rest) else {
            return nil
        }
        var queries: [String] = []
        // Each has at least a length of 4 bytes: there are not more than the data allow.
        while queries.count < count {
            guard let query = Self.takeString(&rest) else { return nil }
            queries.append(query)
        }
        guard rest.isEmpty else { return nil }
        self.name = name
        self.queries = queries
    }

    /// Whether base:allocation is meant. Other contexts and namespaces are passed over.
    ///
    /// - Parameter wildcards: for a list, where no query at all asks for everything.
    package func matches(wildcards: Bool) -> Bool {
        if queries.contains(Self.allocation) { return true }
        return wildcards && (queries.isEmpty || queries.contains(Self.wildcard))
    }

    private static func takeNumber(_ rest: inout ArraySlice<UInt8>) -> Int? {
        guard rest.count >= 4 else { return nil }
        defer { rest = rest.dropFirst(4) }
        return Int(Array(rest.prefix(4)).big(at: 0) as UInt32)
    }

    private static func takeString(_ rest: inout ArraySlice<UInt8>) -> String? {
        guard let count = takeNumber(&rest), count <= NBDHandshake.maximumString,
            count <= rest.count
        else { return nil }
        defer { rest = rest.dropFirst(count) }
        return String(validating: Array(rest.prefix(count)))
    }
}
