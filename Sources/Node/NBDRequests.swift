import Control
import Logging
import NBD
import Reactor
import Replication
import Support

/// Requests of NBD clients: decoded, checked, and given to who carries them out.
extension Daemon {
    mutating func pumpClient(_ index: Int) {
        let size = NBDRequest.size(uses[index].mode)
        while !uses[index].paused, !uses[index].closing, !quiesces {
            if uses[index].part != Use.none {
                readPart(index)
                continue
            }
            switch reactor.next(index, count: size) {
            case .payload: tell(.payload(slot: uses[index].slot))
            case .bytes:
                // Behind a disconnect nothing is read.
                if uses[index].finished { return }
                request(index, size)
            case .more:
                reactor.receive(index)
                return
            }
        }
    }

    private mutating func request(_ index: Int, _ size: Int) {
        let mode = uses[index].mode
        let request: NBDRequest
        do throws(NBDError) {
            request = try NBDRequest(decoding: reactor.take(index, count: size), mode)
        } catch {
            log.notice("client \(clientNames[Int(uses[index].id)]): \(error); closed")
            drop(index)
            return
        }
        if let refusal = limits.verdict(request, mode, hasContext: uses[index].hasContext) {
            refuse(index, request, refusal.errno, refusal.text)
            return
        }
        if drainsClients || stopping, request.command != .disconnect {
            stillDrains(index)
            let reason = stopping ? "stopped" : "demoted"
            refuse(
                index, request, .shuttingDown,
                "\(directory.name) is being \(reason) on \(nodeName)")
            return
        }
        perform(index, request)
    }

    /// Answers with an error and goes on behind the payload.
    private mutating func refuse(
        _ index: Int, _ request: NBDRequest, _ error: NBDErrno, _ text: String
    ) {
        guard !limits.closes(request) else {
            log.notice(
                "client \(clientNames[Int(uses[index].id)]): a payload of \(request.payloadLength) bytes; closed"
            )
            drop(index)
            return
        }
        if request.payloadLength > 0 { reactor.skip(index, length: Int(request.payloadLength)) }
        let subject = NBDReply.Subject(cookie: request.cookie, offset: request.offset)
        replyError(index, subject, error, text)
    }

    private mutating func perform(_ index: Int, _ request: NBDRequest) {
        switch request.command {
        case .read?:
            // Its first part is asked for next.
            if !startLargeRead(index, request) { ask(index, request, .read) }
        case .write?: ask(index, request, .write)
        case .flush?: ask(index, request, .flush)
        case .trim?: ask(index, request, .trim)
        case .writeZeroes?:
            if request.flags.contains(.fastZero),
                !disk.zeroesFast(keep: request.flags.contains(.noHole))
            {
                refuse(index, request, NBDRefusal.slow.errno, NBDRefusal.slow.text)
            } else {
                ask(index, request, .writeZeroes)
            }
        case .cache?:
            // Nothing is kept between the disk and its clients that could be filled beforehand.
            replyDone(index, NBDReply.Subject(cookie: request.cookie, offset: request.offset))
        case .blockStatus?: startBlockStatus(index, request)
        case .disconnect?: clientFinished(index)
        case nil: invariantFailed("an unknown command was not refused")
        }
    }

    private mutating func ask(
        _ index: Int, _ request: NBDRequest, _ operation: ClientRequest.Operation
    ) {
        var options: ClientRequest.Options = []
        if request.flags.contains(.fua) { options.insert(.durable) }
        if request.flags.contains(.noHole) { options.insert(.keepsAllocation) }
        tell(
            .request(
                client: uses[index].id,
                ClientRequest(
                    operation, offset: request.offset, length: request.length,
                    cookie: request.cookie, options: options)))
    }
}
