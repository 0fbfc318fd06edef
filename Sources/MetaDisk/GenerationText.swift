// get-gi, show-gi and dstate: drbd-metadata.md, section 14.5.

extension Superblock {
    /// What get-gi prints: four generations and seven flags, without a line end.
    package var generationLine: String {
        let numbers = [uuids.current, uuids.bitmap, uuids.history0, uuids.history1]
        let shown: [MetaFlags] = [
            .consistent, .wasUpToDate, .primaryIndicator, .connectedIndicator, .fullSync,
            .peerOutdated, .crashedPrimary,
        ]
        let members =
            numbers.map { hexadecimalDigits($0) } + shown.map { flags.contains($0) ? "1" : "0" }
        return members.joined(separator: ":")
    }

    /// What set-gi makes of a text like `generationLine`: members that are empty or missing keep their
    /// value.
    package mutating func setGenerations(_ text: String) throws(GenerationTextError) {
        let members = text.split(separator: ":", omittingEmptySubsequences: false)
        let flagged: [MetaFlags] = [
            .consistent, .wasUpToDate, .primaryIndicator, .connectedIndicator, .fullSync,
            .peerOutdated, .crashedPrimary,
        ]
        let places = [
            \GenerationUUIDs.current, \.bitmap, \.history0, \.history1,
        ]
        guard members.count <= places.count + flagged.count else { throw .tooMany(members.count) }
        var changed = self
        for (index, member) in members.enumerated() where !member.isEmpty {
            if index < places.count {
                let digits = member.hasPrefix("0x") ? member.dropFirst(2) : member
                // UInt64 takes signs, too.
                guard digits.utf8.count <= 16, let value = UInt64(digits, radix: 16),
                    digits.allSatisfy(\.isHexDigit)
                else { throw .noNumber(String(member)) }
                changed.uuids[keyPath: places[index]] = value
            } else if member == "0" {
                changed.flags.remove(flagged[index - places.count])
            } else if member == "1" {
                changed.flags.insert(flagged[index - places.count])
            } else {
                throw .noFlag(String(member))
            }
        }
        self = changed
    }

    /// What show-gi prints, with all line ends.
    package var generationText: String {
        let lines = Self.legendAbove + [generationLine] + Self.legendBelow + [""] + statement
        return lines.map { $0 + "\n" }.joined()
    }

    private var statement: [String] {
        let role =
            (flags.contains(.crashedPrimary) ? "crashed " : "")
            + (flags.contains(.primaryIndicator) ? "Primary" : "Secondary")
        let connection = flags.contains(.connectedIndicator) ? "Connected" : "StandAlone"
        let disk =
            !flags.contains(.consistent)
            ? "Inconsistent" : flags.contains(.wasUpToDate) ? "UpToDate" : "Outdated"
        var words = [role, connection, disk]
        if flags.contains(.fullSync) { words.append("need full sync") }
        if flags.contains(.peerOutdated) { words.append("peer Outdated") }
        let lines = [
            "flags: " + words.joined(separator: ", "),
            "meta-data: " + (flags.contains(.logClean) ? "clean" : "need apply-al"),
        ]
        guard lastAgreedSize != 0 else {
            return lines + ["zero size device -- never seen peer yet?"]
        }
        let size = prettySize(kibibytes: lastAgreedSize / 2)
        return lines + [
            "last agreed size: \(size) (\(lastAgreedSize) sectors)",
            "last agreed max bio size: \(peerMaximumRequest) Byte",
        ]
    }

    /// What dstate prints for a disk that is not attached.
    package var diskStateWord: String {
        guard flags.contains(.consistent) else { return "Inconsistent" }
        guard flags.contains(.wasUpToDate) else { return "Outdated" }
        return flags.contains(.peerOutdated) ? "UpToDate" : "Consistent"
    }

    private static let legendAbove = [
        "",
        "       +--<  Current data generation UUID  >-",
        "       |               +--<  Bitmap's base data generation UUID  >-",
        "       |               |                 +--<  younger history UUID  >-",
        "       |               |                 |         +-<  older history  >-",
        "       V               V                 V         V",
    ]

    private static let legendBelow = [
        "                                                                    ^ ^ ^ ^ ^ ^ ^",
        "                                      -<  Data consistency flag  >--+ | | | | | |",
        "                             -<  Data was/is currently up-to-date  >--+ | | | | |",
        "                                  -<  Node was/is currently primary  >--+ | | | |",
        "                                  -<  Node was/is currently connected  >--+ | | |",
        "         -<  Node was in the progress of setting all bits in the bitmap  >--+ | |",
        "                        -<  The peer's disk was out-dated or inconsistent  >--+ |",
        "      -<  This node was a crashed primary, and has not seen its peer since   >--+",
    ]
}

/// Why a text says no generations.
package enum GenerationTextError: Error, Equatable, Sendable, CustomStringConvertible {
    case noNumber(String)
    case noFlag(String)
    case tooMany(Int)

    package var description: String {
        switch self {
        case .noNumber(let text): "'\(text)' is not a number of at most 16 hex digits."
        case .noFlag(let text): "'\(text)' is not 0 or 1."
        case .tooMany(let count):
            "\(count) members, there are 4 generations and 7 flags (as get-gi prints them)"
        }
    }
}
