import NBD
import Support

/// What a client sends: the negotiation, then requests.
///
/// An input is a seed (1 byte), by which the stream behind it is cut into pieces.
enum NBDTarget {
    static func run(_ bytes: [UInt8]) {
        guard let seed = bytes.first else { return }
        let stream = Array(bytes.dropFirst())
        var whole = NBDConversation()
        whole.receive(stream)
        var cut = NBDConversation()
        for piece in pieces(of: stream, seed: UInt64(seed)) { cut.receive(Array(piece)) }
        invariant(
            whole.events == cut.events,
            "in pieces it says something else:\n\(whole.events)\n\(cut.events)")
    }
}

/// The server's side as a connection of `Node` has it, with exports that depend on the name only.
private struct NBDConversation {
    enum Event: Equatable {
        case action(NBDHandshake.Action)
        case request(NBDRequest, NBDRefusal?)
        /// The stream is not NBD, or a payload is too long.
        case closed
    }

    private(set) var events: [Event] = []
    private var handshake = NBDHandshake()
    private var pending: [UInt8] = []
    /// Bytes of the stream that came before `pending`.
    private var place = 0
    /// Where the option begins that is being read, by a second reading of the same bytes.
    private var optionStart = 4
    private var stream: [UInt8] = []
    private var limits: NBDLimits?
    private var skipping: UInt64 = 0
    private var isClosed = false

    mutating func receive(_ bytes: [UInt8]) {
        pending += bytes
        stream += bytes
        while !isClosed, limits == nil, !pending.isEmpty { if !negotiate() { return } }
        while !isClosed, let limits { if !takeRequest(limits) { return } }
    }

    private mutating func consume(_ count: Int) {
        pending.removeFirst(count)
        place += count
    }

    // MARK: the negotiation

    /// - Returns: whether to go on with what is left.
    private mutating func negotiate() -> Bool {
        let offered = pending.count
        let (consumed, action) = pending.read { handshake.receive($0) }
        invariant((0...offered).contains(consumed), "\(consumed) bytes of \(offered)")
        consume(consumed)
        if action == .needMore {
            invariant(consumed == offered, "\(offered - consumed) bytes are left over")
            return false
        }
        answer(action)
        return true
    }

    private mutating func answer(_ action: NBDHandshake.Action) {
        events.append(.action(action))
        switch action {
        case .needMore: invariantFailed("more bytes after a decision")
        case .reply(let bytes): finishOption(bytes, ends: false)
        case .transmit(let bytes): finishOption(bytes, ends: true)
        case .close(let bytes, let reason):
            isClosed = true
            invariant(!reason.isEmpty, "closed without a reason")
            if !bytes.isEmpty { checkReplies(bytes, option: option, isGo: false) }
        case .askExport(let name, _):
            let byteCount = name.utf8.count
            invariant(byteCount <= 4096, "a name of \(byteCount) bytes")
            answer(decide(name))
        case .askList:
            answer(handshake.list([Self.export("r0"), Self.export("ro")]))
        }
    }

    private mutating func decide(_ name: String) -> NBDHandshake.Action {
        switch name {
        case "", "r0": return grant("r0")
        case "ro": return grant("ro")
        case "secondary": return handshake.refuse(.policy("r0 is Secondary"))
        case "down": return handshake.refuse(.shuttingDown("repd is going down"))
        default: return handshake.refuse(.unknown("no resource '\(name)'"))
        }
    }

    private mutating func grant(_ name: String) -> NBDHandshake.Action {
        let export = Self.export(name)
        let action = handshake.grant(export)
        if case .transmit = action { limits = export.limits }
        return action
    }

    private static func export(_ name: String) -> NBDExport {
        NBDExport(
            name: name, size: name == "ro" ? (1 << 20) + 512 : 1 << 50,
            flags: name == "ro" ? [.hasFlags, .readOnly] : .standard,
            minimumBlock: name == "ro" ? 1 : 512, maximumBlock: name == "ro" ? 4096 : 32 << 20,
            description: "Größe")
    }

    private var option: UInt32 { stream.read { $0[Field<UInt32>(at: optionStart + 8)] } }

    /// The option that began at `optionStart` ends here, and has this answer.
    private mutating func finishOption(_ bytes: [UInt8], ends: Bool) {
        let (option, length) = (
            option, stream.read { $0[Field<UInt32>(at: optionStart + 12)] }
        )
        invariant(
            place == optionStart + 16 + Int(length),
            "option \(option) of \(length) ends at \(place)")
        invariant(length <= NBDHandshake.maximumOption, "option \(option) of \(length) bytes")
        optionStart = place
        if ends, option == 1 {
            invariant(bytes.count == 10 || bytes.count == 134, "EXPORT_NAME: \(bytes.count)")
        } else {
            checkReplies(bytes, option: option, isGo: ends)
        }
    }

    /// Replies to one option: informations, then one that ends it.
    private func checkReplies(_ bytes: [UInt8], option: UInt32, isGo: Bool) {
        var types: [UInt32] = []
        var start = 0
        bytes.read { bytes in
            while start < bytes.byteCount {
                invariant(bytes.byteCount - start >= 20, "a reply of \(bytes.byteCount - start)")
                let magic = bytes[Field<UInt64>(at: start)]
                invariant(magic == 0x3_e889_0455_65a9, "reply with magic \(magic)")
                let answered = bytes[Field<UInt32>(at: start + 8)]
                invariant(answered == option, "answer to \(answered) for \(option)")
                types.append(bytes[Field<UInt32>(at: start + 12)])
                let length = bytes[Field<UInt32>(at: start + 16)]
                invariant(length <= 4096 + 4104, "reply of \(length) bytes")
                start += 20 + Int(length)
            }
            invariant(start == bytes.byteCount, "a reply is cut off")
        }
        let isError = types.last.map { $0 & 0x8000_0000 != 0 } ?? false
        invariant(types.last == 1 || isError && types.count == 1 && !isGo, "replies \(types)")
        invariant(types.dropLast().allSatisfy { (2...4).contains($0) }, "replies \(types)")
        let isKnown = [2, 3, 6, 7, 8, 9, 10, 11].contains(option)
        invariant(isKnown || types == [0x8000_0001], "replies \(types) to option \(option)")
    }

    // MARK: requests

    /// - Returns: whether there was one, or a part of a payload.
    private mutating func takeRequest(_ limits: NBDLimits) -> Bool {
        if skipping > 0 {
            let count = Int(min(skipping, UInt64(pending.count)))
            consume(count)
            skipping -= UInt64(count)
            guard skipping == 0 else { return false }
        }
        let mode = handshake.mode
        let size = NBDRequest.size(mode)
        guard pending.count >= size else { return false }
        let header = Array(pending.prefix(size))
        consume(size)
        let request: NBDRequest
        do throws(NBDError) {
            request = try header.read { bytes throws(NBDError) in
                try NBDRequest(decoding: bytes, mode)
            }
        } catch {
            close()
            return false
        }
        var again = [UInt8](repeating: 0xaa, count: size)
        again.write { request.encode(into: &$0) }
        invariant(again == header, "a request is written as \(again), was \(header)")
        let refusal = limits.verdict(request, mode, hasContext: handshake.hasContext)
        events.append(.request(request, refusal))
        if refusal == nil { check(request, limits, mode) }
        checkAnswers(request, refusal, mode)
        if limits.closes(request) || refusal == nil && request.command == .disconnect {
            close()
            return false
        }
        skipping = request.payloadLength
        return true
    }

    private mutating func close() {
        isClosed = true
        events.append(.closed)
    }

    /// What holds for every request that is carried out.
    private func check(_ request: NBDRequest, _ limits: NBDLimits, _ mode: NBDMode) {
        guard let command = request.command else { invariantFailed("an unknown command is served") }
        let isReadOnly = limits.flags.contains(.readOnly)
        switch command {
        case .disconnect, .flush: return
        case .write, .trim, .writeZeroes: invariant(!isReadOnly, "\(command) to what is read-only")
        case .read, .cache: break
        case .blockStatus:
            invariant(handshake.hasContext && mode != .simple, "block status without a context")
        }
        let (end, overflow) = request.offset.addingReportingOverflow(request.length)
        invariant(!overflow && end <= limits.size, "\(command) of \(request.length) to \(end)")
        invariant(request.length > 0, "\(command) of nothing")
        let block = UInt64(limits.minimumBlock)
        invariant(request.offset % block == 0 && end % block == 0, "\(command) to \(end)")
        if command == .read || command == .write {
            invariant(request.length <= UInt64(limits.maximumBlock), "\(request.length) bytes")
            invariant(
                request.payloadLength == (command == .write ? request.length : 0),
                "payload of \(request.payloadLength)")
        } else {
            invariant(request.payloadLength == 0, "payload of \(request.payloadLength)")
        }
    }

    // MARK: replies

    private func checkAnswers(_ request: NBDRequest, _ refusal: NBDRefusal?, _ mode: NBDMode) {
        let subject = NBDReply.Subject(cookie: request.cookie, offset: request.offset)
        if let refusal {
            let text = refusal.text
            let size = NBDReply.errorSize(mode, message: text.utf8.count)
            var bytes = [UInt8](repeating: 0, count: size)
            bytes.write {
                NBDReply.encodeError(mode, subject, refusal.errno, message: text, into: &$0)
            }
            check(bytes, subject, mode, payload: 6 + text.utf8.count)
            return
        }
        var done = [UInt8](repeating: 0, count: NBDReply.doneSize(mode))
        done.write { NBDReply.encodeDone(mode, subject, into: &$0) }
        check(done, subject, mode == .extended ? mode : .simple, payload: 0)
        guard request.command == .read, let length = UInt32(exactly: request.length) else { return }
        var head = [UInt8](repeating: 0, count: NBDReply.readSize(mode))
        head.write {
            NBDReply.encodeRead(mode, subject, offset: request.offset, length: length, into: &$0)
        }
        check(head, subject, mode, payload: 8 + Int(length))
    }

    /// The head of a reply; a simple one has no length.
    private func check(
        _ bytes: [UInt8], _ subject: NBDReply.Subject, _ mode: NBDMode, payload: Int
    ) {
        bytes.read { bytes in
            let magic = bytes[Field<UInt32>(at: 0)]
            let cookie = bytes[Field<UInt64>(at: 8)]
            invariant(cookie == subject.cookie, "reply to \(cookie), not \(subject.cookie)")
            switch mode {
            case .simple:
                invariant(magic == 0x6744_6698 && bytes.byteCount == 16, "magic \(magic)")
            case .structured:
                let length = bytes[Field<UInt32>(at: 16)]
                invariant(magic == 0x668e_33ef && length == payload, "\(magic), \(length) bytes")
            case .extended:
                let length = bytes[Field<UInt64>(at: 24)]
                let offset = bytes[Field<UInt64>(at: 16)]
                invariant(magic == 0x6e8a_278c && length == payload, "\(magic), \(length) bytes")
                invariant(offset == subject.offset, "reply for \(offset)")
            }
        }
    }
}
