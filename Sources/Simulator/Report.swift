import DRBDWire
import Replication

/// How often what occurred, over all runs of a search.
package struct Report {
    package internal(set) var runs = 0
    package internal(set) var events = 0
    package internal(set) var requests = 0
    package internal(set) var errors = 0
    package internal(set) var crashChecks = 0
    package internal(set) var resolutions = 0
    var faults = [Int](repeating: 0, count: FaultKind.allCases.count)
    var rules = [Int](repeating: 0, count: RuleRecord.rules.count)
    var packets = [Int](repeating: 0, count: 256)
    var connections = [Int](repeating: 0, count: 24)
    var refusals = [Int](repeating: 0, count: Director.Refusal.names.count)

    /// What one node held against the other's packets; numbers replaced.
    private(set) var complaints: [(text: String, count: Int)] = []
    private static let complaintLimit = 200
    /// What one process tells another of them fits into a pipe.
    static let complaintsTold = 30

    package init() {}

    mutating func count(complaint text: String) {
        var plain = ""
        for character in text.prefix(160) where !character.isNumber || plain.last != "0" {
            plain.append(character.isNumber ? "0" : character)
        }
        add(complaint: plain, count: 1)
    }

    mutating func add(complaint plain: String, count: Int) {
        if let index = complaints.firstIndex(where: { $0.text == plain }) {
            complaints[index].count += count
        } else if complaints.count < Self.complaintLimit {
            complaints.append((plain, count))
        }
    }

    mutating func sent(_ packet: Packet) {
        guard packet.rawValue < 256 else { return }
        packets[Int(packet.rawValue)] += 1
    }

    mutating func count(state: StateWord) { connections[Int(state.connection.rawValue)] += 1 }

    mutating func count(rules record: RuleRecord) {
        for (index, rule) in RuleRecord.rules.enumerated() where record.occurred(rule) {
            rules[index] += 1
        }
    }

    private func table(_ names: [String], _ counts: [Int]) -> String {
        zip(names, counts).filter { $0.1 > 0 }.map { "\($0.0) \($0.1)" }.joined(separator: ", ")
    }

    /// Faults and rules that did not occur.
    package var missing: [String] {
        let kinds = zip(FaultKind.allCases, faults).filter { $0.1 == 0 }.map { $0.0.name }
        return kinds + zip(RuleRecord.rules, rules).filter { $0.1 == 0 }.map { "rule \($0.0)" }
    }

    package var text: String {
        let states = (0..<24).map { ConnectionState(rawValue: UInt8($0))?.name ?? "" }
        let names = (0..<256).map { Packet(rawValue: UInt16($0))?.name ?? "" }
        return """
            runs \(runs), events \(events), requests \(requests), errors \(errors), \
            power cuts imagined \(crashChecks), split brains resolved \(resolutions)
            faults: \(table(FaultKind.allCases.map(\.name), faults))
            rules: \(table(RuleRecord.rules.map { "\($0)" }, rules))
            never occurred: \(missing.isEmpty ? "nothing" : missing.joined(separator: ", "))
            refusals: \(table(Director.Refusal.names, refusals))
            states entered: \(table(states, connections))
            packets: \(table(names, packets))
            complaints: \(complaints.map { "\($0.count) x \($0.text)" }.joined(separator: "; "))
            """
    }
}
