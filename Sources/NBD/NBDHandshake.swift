// The server's side of the fixed newstyle negotiation.
// Source: the NBD protocol, "Newstyle negotiation", "Option types", "Option reply types", "Metadata
// querying"; EXTENDED_HEADERS: its extension-ext-header, "Option types".
//
//              greeting
//                 │
//           clientFlags ──(4 bytes)──► option ◄──────────────────┐
//                                        │ 16 bytes              │ reply
//                                        ▼                       │
//                                      data ──(length bytes)──► asking ──grant──► done
//                                                                │
//                                                  close ◄───────┘
import Support

package struct NBDHandshake {
    /// Strings have at most 4096 bytes by the standard; an option with more than this is not read.
    package static let maximumOption = 16 << 10
    static let maximumString = 4096
    /// A client that needs more than this is not trying to get anywhere.
    package static let maximumOptionCount = 1024

    package static let magic: UInt64 = 0x4e42_444d_4147_4943  // NBDMAGIC
    static let optionMagic: UInt64 = 0x4948_4156_454f_5054  // IHAVEOPT
    static let replyMagic: UInt64 = 0x0003_e889_0455_65a9
    static let fixedNewstyle: UInt16 = 1
    static let noZeroes: UInt16 = 2

    /// What a client wants to know of an export, or do with it.
    package enum Purpose: Equatable, Sendable {
        /// To know about it.
        case info
        /// To use it.
        case go
        /// To use it, by the old option: a refusal is a closed connection.
        case exportName
        /// To know, or to choose, what metadata it has; whether it can be used does not matter.
        case listContexts, setContexts
    }

    package enum Action: Equatable, Sendable {
        /// More bytes are needed; all that were offered are consumed.
        case needMore
        /// Send this, and offer what is left.
        case reply([UInt8])
        /// Answer with `grant` or `refuse`, at any later time, and offer nothing until then.
        case askExport(name: String, Purpose)
        /// Answer with `list`.
        case askList
        /// Send this; what follows are requests to the export that was granted.
        case transmit([UInt8])
        /// Send this, which may be nothing, and close. The reason is for a log.
        case close([UInt8], reason: String)
    }

    /// Why an export is not granted.
    package enum Refusal: Equatable, Sendable {
        case policy(String)
        case unknown(String)
        case shuttingDown(String)
    }

    private enum Stage: Equatable {
        case clientFlags
        case option
        case data(option: UInt32, length: Int)
        case asking(Purpose, option: UInt32, infos: [UInt16])
        /// Whether one of the client's queries is for base:allocation.
        case askingContexts(Purpose, option: UInt32, matches: Bool)
        case listing
        case done
    }

    private enum Option: UInt32 {
        case exportName = 1
        case abort = 2
        case list = 3
        case info = 6
        case go = 7
        case structuredReply = 8
        case listContexts = 9
        case setContexts = 10
        case extendedHeaders = 11
    }

    private enum Reply: UInt32 {
        case acknowledge = 1
        case server = 2
        case info = 3
        case context = 4
        case unsupported = 0x8000_0001
        case policy = 0x8000_0002
        case invalid = 0x8000_0003
        case unknown = 0x8000_0006
        case shutdown = 0x8000_0007
        case extendedHeadersRequired = 0x8000_000a
    }

    private enum Info: UInt16 {
        case export = 0
        case name = 1
        case description = 2
        case blockSize = 3
    }

    private var stage = Stage.clientFlags
    private var noZeroes = false
    private var fixed = false
    private var optionCount = 0
    /// How requests and replies are framed after the handshake.
    package private(set) var mode = NBDMode.simple
    /// The export for which base:allocation was chosen, by the server's name for it.
    private var contextExport: String?
    /// Whether the export that was granted is that one.
    package private(set) var hasContext = false
    /// What has come of the part that `stage` waits for.
    private var pending: [UInt8] = []

    package init() {}

    /// What the server says first.
    package static let greeting: [UInt8] = {
        var bytes: [UInt8] = []
        bytes.append(big: magic)
        bytes.append(big: optionMagic)
        bytes.append(big: fixedNewstyle | noZeroes)
        return bytes
    }()

    // MARK: what the client sends

    /// Takes as many bytes as belong to the negotiation, at most up to the next action.
    package mutating func receive(_ bytes: RawSpan) -> (consumed: Int, action: Action) {
        var consumed = 0
        while true {
            let wanted: Int
            switch stage {
            case .clientFlags: wanted = 4
            case .option: wanted = 16
            case .data(_, let length): wanted = length
            case .asking, .askingContexts, .listing, .done:
                invariantFailed("NBD handshake: bytes in \(stage)")
            }
            let count = min(wanted - pending.count, bytes.byteCount - consumed)
            for position in consumed..<consumed + count {
                pending.append(bytes[Field<UInt8>(at: position)])
            }
            consumed += count
            guard pending.count == wanted else { return (consumed, .needMore) }
            let part = pending
            pending.removeAll(keepingCapacity: true)
            if let action = take(part) { return (consumed, action) }
        }
    }

    /// - Returns: `nil` to go on with the next part.
    private mutating func take(_ part: [UInt8]) -> Action? {
        switch stage {
        case .clientFlags:
            return takeFlags(part)
        case .option:
            return takeOption(part)
        case .data(let option, _):
            return perform(option, part)
        case .asking, .askingContexts, .listing, .done:
            invariantFailed("NBD handshake: a part in \(stage)")
        }
    }

    private mutating func takeFlags(_ part: [UInt8]) -> Action? {
        let flags: UInt32 = part.big(at: 0)
        let known = UInt32(Self.fixedNewstyle | Self.noZeroes)
        guard flags & ~known == 0 else {
            return .close([], reason: "client flags 0x\(String(flags, radix: 16))")
        }
        fixed = flags & UInt32(Self.fixedNewstyle) != 0
        noZeroes = flags & UInt32(Self.noZeroes) != 0
        stage = .option
        return nil
    }

    private mutating func takeOption(_ part: [UInt8]) -> Action? {
        let magic: UInt64 = part.big(at: 0)
        let option: UInt32 = part.big(at: 8)
        let length: UInt32 = part.big(at: 12)
        guard magic == Self.optionMagic else {
            return .close([], reason: "option with magic 0x\(String(magic, radix: 16))")
        }
        guard length <= Self.maximumOption else {
            return .close([], reason: "option \(option) of \(length) bytes")
        }
        optionCount += 1
        guard optionCount <= Self.maximumOptionCount else {
            return .close([], reason: "more than \(Self.maximumOptionCount) options")
        }
        // A client that is not of the fixed kind would not understand the answer to another one.
        guard fixed || option == Option.exportName.rawValue else {
            return .close([], reason: "option \(option) of a client that is not fixed newstyle")
        }
        stage = .data(option: option, length: Int(length))
        return nil
    }

    private mutating func perform(_ number: UInt32, _ data: [UInt8]) -> Action {
        stage = .option
        switch Option(rawValue: number) {
        case .exportName:
            guard data.count <= Self.maximumString, let name = String(validating: data) else {
                return .close([], reason: "export name of \(data.count) bytes, or not UTF-8")
            }
            guard mode != .extended else {
                return .close([], reason: "EXPORT_NAME after extended headers were agreed on")
            }
            stage = .asking(.exportName, option: number, infos: [])
            return .askExport(name: name, .exportName)
        case .abort:
            stage = .done
            return .close(Self.encode(number, .acknowledge), reason: "the client gave up")
        case .list:
            guard data.isEmpty else { return Self.invalid(number, "LIST with data") }
            stage = .listing
            return .askList
        case .info:
            return ask(.info, number, data)
        case .go:
            return ask(.go, number, data)
        case .structuredReply, .extendedHeaders:
            return setMode(number, data)
        case .listContexts:
            return askContexts(.listContexts, number, data)
        case .setContexts:
            contextExport = nil
            return askContexts(.setContexts, number, data)
        case nil:
            return .reply(Self.encode(number, .unsupported))
        }
    }

    private mutating func setMode(_ number: UInt32, _ data: [UInt8]) -> Action {
        guard data.isEmpty else { return Self.invalid(number, "an option that has no data") }
        if number == Option.extendedHeaders.rawValue {
            mode = .extended
        } else {
            guard mode != .extended else {
                let text = "extended headers were agreed on"
                return .reply(Self.encode(number, .extendedHeadersRequired, text: text))
            }
            mode = .structured
        }
        return .reply(Self.encode(number, .acknowledge))
    }

    private mutating func ask(_ purpose: Purpose, _ number: UInt32, _ data: [UInt8]) -> Action {
        guard data.count >= 6 else { return Self.invalid(number, "too short") }
        let nameLength = Int(data.big(at: 0) as UInt32)
        guard nameLength <= Self.maximumString, data.count >= 6 + nameLength else {
            return Self.invalid(number, "name of \(nameLength) bytes")
        }
        let infoCount = Int(data.big(at: 4 + nameLength) as UInt16)
        guard data.count == 6 + nameLength + 2 * infoCount else {
            return Self.invalid(number, "\(infoCount) information requests do not fit")
        }
        guard let name = String(validating: Array(data[4..<4 + nameLength])) else {
            return Self.invalid(number, "name is not UTF-8")
        }
        let infos = (0..<infoCount).map { data.big(at: 6 + nameLength + 2 * $0) as UInt16 }
        stage = .asking(purpose, option: number, infos: infos)
        return .askExport(name: name, purpose)
    }

    private mutating func askContexts(
        _ purpose: Purpose, _ number: UInt32, _ data: [UInt8]
    ) -> Action {
        guard mode != .simple else {
            return Self.invalid(number, "metadata contexts need structured replies")
        }
        guard let request = NBDContextRequest(decoding: data) else {
            return Self.invalid(number, "malformed, or a string that is too long or not UTF-8")
        }
        let matches = request.matches(wildcards: purpose == .listContexts)
        stage = .askingContexts(purpose, option: number, matches: matches)
        return .askExport(name: request.name, purpose)
    }

    // MARK: what the caller decides

    /// Answers `askExport`.
    package mutating func grant(_ export: NBDExport) -> Action {
        if case .askingContexts(let purpose, let option, let matches) = stage {
            return grantContexts(export, purpose, option, matches)
        }
        guard case .asking(let purpose, let option, let infos) = stage else {
            invariantFailed("NBD handshake: grant in \(stage)")
        }
        switch purpose {
        case .exportName:
            stage = .done
            hasContext = contextExport == export.name
            var bytes = sizeAndFlags(export)
            if !noZeroes { bytes += [UInt8](repeating: 0, count: 124) }
            return .transmit(bytes)
        case .info:
            stage = .option
            return .reply(describe(export, option, infos))
        case .go:
            stage = .done
            hasContext = contextExport == export.name
            return .transmit(describe(export, option, infos))
        case .listContexts, .setContexts:
            invariantFailed("NBD handshake: \(purpose) among the exports")
        }
    }

    private mutating func grantContexts(
        _ export: NBDExport, _ purpose: Purpose, _ option: UInt32, _ matches: Bool
    ) -> Action {
        stage = .option
        guard matches else { return .reply(Self.encode(option, .acknowledge)) }
        let selects = purpose == .setContexts
        if selects { contextExport = export.name }
        var data: [UInt8] = []
        // In a list the number means nothing.
        data.append(big: selects ? NBDContextRequest.allocationID : 0)
        data += NBDContextRequest.allocation.utf8
        return .reply(
            Self.encode(option, .context, data) + Self.encode(option, .acknowledge))
    }

    /// Answers `askExport`.
    package mutating func refuse(_ refusal: Refusal) -> Action {
        let (purpose, option): (Purpose, UInt32)
        switch stage {
        case .asking(let asked, let number, _): (purpose, option) = (asked, number)
        case .askingContexts(let asked, let number, _): (purpose, option) = (asked, number)
        case .clientFlags, .option, .data, .listing, .done:
            invariantFailed("NBD handshake: refuse in \(stage)")
        }
        let (reply, message) =
            switch refusal {
            case .policy(let message): (Reply.policy, message)
            case .unknown(let message): (Reply.unknown, message)
            case .shuttingDown(let message): (Reply.shutdown, message)
            }
        if purpose == .exportName {
            stage = .done
            return .close([], reason: message)
        }
        stage = .option
        return .reply(Self.encode(option, reply, text: message))
    }

    /// Answers `askList`.
    package mutating func list(_ exports: [NBDExport]) -> Action {
        guard case .listing = stage else { invariantFailed("NBD handshake: list in \(stage)") }
        stage = .option
        var bytes: [UInt8] = []
        for export in exports {
            var data: [UInt8] = []
            data.append(big: UInt32(export.name.utf8.count))
            data += export.name.utf8
            data += export.description.utf8.prefix(Self.maximumString)
            bytes += Self.encode(Option.list.rawValue, .server, data)
        }
        return .reply(bytes + Self.encode(Option.list.rawValue, .acknowledge))
    }

    // MARK: what is sent

    private static func invalid(_ option: UInt32, _ message: String) -> Action {
        .reply(encode(option, .invalid, text: message))
    }

    private func sizeAndFlags(_ export: NBDExport) -> [UInt8] {
        var flags = export.flags.union(.hasFlags)
        // Only for those who know structured replies, and then every read is in one piece.
        if mode != .simple { flags.insert(.sendDF) }
        var bytes: [UInt8] = []
        bytes.append(big: export.size)
        bytes.append(big: flags.rawValue)
        return bytes
    }

    /// The answers to INFO and GO: the export and its block sizes always, texts if asked for.
    private func describe(
        _ export: NBDExport, _ option: UInt32, _ infos: [UInt16]
    ) -> [UInt8] {
        var bytes = Self.encode(
            option, .info, Self.information(.export) + sizeAndFlags(export))
        var sizes = Self.information(.blockSize)
        sizes.append(big: export.minimumBlock)
        sizes.append(big: export.preferredBlock)
        sizes.append(big: export.maximumBlock)
        bytes += Self.encode(option, .info, sizes)
        if infos.contains(Info.name.rawValue) {
            bytes += Self.encode(option, .info, Self.information(.name) + export.name.utf8)
        }
        if infos.contains(Info.description.rawValue), !export.description.isEmpty {
            let text = export.description.utf8.prefix(Self.maximumString)
            bytes += Self.encode(option, .info, Self.information(.description) + text)
        }
        return bytes + Self.encode(option, .acknowledge)
    }

    private static func information(_ type: Info) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(big: type.rawValue)
        return bytes
    }

    private static func encode(_ option: UInt32, _ reply: Reply, text: String) -> [UInt8] {
        encode(option, reply, Array(text.utf8.prefix(maximumString)))
    }

    private static func encode(
        _ option: UInt32, _ reply: Reply, _ data: [UInt8] = []
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(big: replyMagic)
        bytes.append(big: option)
        bytes.append(big: reply.rawValue)
        bytes.append(big: UInt32(data.count))
        return bytes + data
    }
}
