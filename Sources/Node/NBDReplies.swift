import Control
import DRBDWire
import Logging
import NBD
import Reactor
import Replication
import Support

/// A read that is carried out in parts, each a chunk of its own: so it needs neither all of its
/// buffers at once nor more room than a write of the same length.
struct LargeRead: BitwiseCopyable {
    static let limit = 64

    var connection = Use.none
    var subject = NBDReply.Subject(cookie: 0, offset: 0)
    /// What has not been asked of the engine.
    var offset: UInt64 = 0
    var left: UInt32 = 0
    /// Parts that have not been answered.
    var outstanding: UInt16 = 0
    var failed = false
}

/// Answers to requests, in the form that the client has negotiated.
extension Daemon {
    /// Whether something can still be queued for the connection; `gone` ones are answered here.
    func accepts(_ connection: UInt8) -> Bool {
        connection != Use.none && !uses[Int(connection)].gone
    }

    /// The engine's answer. Of a read, the payload is queued next.
    @inline(__always)
    mutating func answer(
        _ connection: UInt8, _ request: UInt16, error: UInt8, isPart: Bool, length: UInt32,
        _ subject: NBDReply.Subject
    ) {
        guard accepts(connection) else {
            late.append(.replied(request: request))
            return
        }
        let index = Int(connection)
        let mode = uses[index].mode
        if error != 0 || isPart {
            answerSpecially(index, error: error, isPart: isPart, length: length, subject)
        } else if length > 0 {
            var bytes = reactor.header(index, size: NBDReply.readSize(mode))
            NBDReply.encodeRead(
                mode, subject, offset: subject.offset, length: length, into: &bytes)
        } else {
            var bytes = reactor.header(index, size: NBDReply.doneSize(mode))
            NBDReply.encodeDone(mode, subject, into: &bytes)
        }
        reactor.notify(index, owner: Owner.request(request))
    }

    /// - Parameter subject: of a part, the number of its read and its own offset.
    private mutating func answerSpecially(
        _ index: Int, error: UInt8, isPart: Bool, length: UInt32, _ subject: NBDReply.Subject
    ) {
        guard isPart else {
            queueError(index, subject, errno(error), message(error))
            return
        }
        let id = Int(subject.cookie)
        largeReads[id].outstanding -= 1
        let read = largeReads[id]
        let isLast = read.left == 0 && read.outstanding == 0
        if error == 0 {
            let mode = uses[index].mode
            var bytes = reactor.header(index, size: NBDReply.readSize(mode))
            NBDReply.encodeRead(
                mode, read.subject, offset: subject.offset, length: length, isLast: isLast,
                into: &bytes)
        } else if !read.failed {
            largeReads[id].failed = true
            queueError(index, read.subject, errno(error), message(error), isLast: isLast)
        } else if isLast {
            var bytes = reactor.header(index, size: NBDReply.endSize(uses[index].mode))
            NBDReply.encodeEnd(uses[index].mode, read.subject, into: &bytes)
        }
        if isLast { endLargeRead(id) }
    }

    private func errno(_ error: UInt8) -> NBDErrno {
        NBDErrno(rawValue: UInt32(error)) ?? .inputOutput
    }

    /// What an errno of the engine means.
    private func message(_ error: UInt8) -> String {
        switch errno(error) {
        case .shuttingDown:
            "\(directory.name) is \(engine.state.role.name) on \(nodeName)"
        case .inputOutput: "\(directory.name) has no usable disk on \(nodeName)"
        case .invalid, .noSpace: "not whole sectors of the volume"
        case .notPermitted, .noMemory, .overflow, .notSupported: ""
        }
    }

    private mutating func queueError(
        _ index: Int, _ subject: NBDReply.Subject, _ error: NBDErrno, _ message: String,
        isLast: Bool = true
    ) {
        let mode = uses[index].mode
        let size = NBDReply.errorSize(mode, message: message.utf8.count)
        var bytes = reactor.header(index, size: size)
        NBDReply.encodeError(
            mode, subject, error, message: message, isLast: isLast, into: &bytes)
    }

    // MARK: what the engine is not asked

    /// Whether `size` more bytes can be queued; who sends but does not read is dropped.
    mutating func hasRoom(_ index: Int, _ size: Int) -> Bool {
        if reactor.canQueue(index, bytes: size) { return true }
        log.notice(
            "client \(clientNames[Int(uses[index].id)]) sends, but reads no answers: dropped")
        drop(index)
        return false
    }

    mutating func replyError(
        _ index: Int, _ subject: NBDReply.Subject, _ error: NBDErrno, _ message: String
    ) {
        let size = NBDReply.errorSize(uses[index].mode, message: message.utf8.count)
        guard hasRoom(index, size) else { return }
        queueError(index, subject, error, message)
    }

    mutating func replyDone(_ index: Int, _ subject: NBDReply.Subject) {
        let mode = uses[index].mode
        guard hasRoom(index, NBDReply.doneSize(mode)) else { return }
        var bytes = reactor.header(index, size: NBDReply.doneSize(mode))
        NBDReply.encodeDone(mode, subject, into: &bytes)
    }

    // MARK: reads in parts

    /// Begins a read in parts. - Returns: false if it has to be done in one.
    mutating func startLargeRead(_ index: Int, _ request: NBDRequest) -> Bool {
        guard request.length > UInt64(ReplicationEngine.segmentSize), uses[index].mode != .simple,
            !request.flags.contains(.df)
        else { return false }
        var id = 0
        while id < LargeRead.limit, largeReads[id].connection != Use.none { id += 1 }
        guard id < LargeRead.limit else { return false }
        largeReads[id] = LargeRead(
            connection: UInt8(index),
            subject: NBDReply.Subject(cookie: request.cookie, offset: request.offset),
            offset: request.offset, left: UInt32(request.length))
        uses[index].part = UInt8(id)
        uses[index].pending += 1
        return true
    }

    /// Asks the engine for the next part of the read that the connection is busy with.
    mutating func readPart(_ index: Int) {
        let id = Int(uses[index].part)
        let length = min(largeReads[id].left, ReplicationEngine.segmentSize)
        let offset = largeReads[id].offset
        largeReads[id].offset += UInt64(length)
        largeReads[id].left -= length
        largeReads[id].outstanding += 1
        if largeReads[id].left == 0 { uses[index].part = Use.none }
        tell(
            .request(
                client: uses[index].id,
                ClientRequest(
                    .read, offset: offset, length: UInt64(length), cookie: UInt64(id),
                    options: .isPart)))
    }

    private mutating func endLargeRead(_ id: Int) {
        uses[Int(largeReads[id].connection)].pending -= 1
        largeReads[id] = LargeRead()
    }

    /// The connection is closed: the engine answers nothing more of it.
    mutating func forgetLargeReads(_ index: Int) {
        for id in 0..<LargeRead.limit where largeReads[id].connection == UInt8(index) {
            largeReads[id] = LargeRead()
        }
    }
}
