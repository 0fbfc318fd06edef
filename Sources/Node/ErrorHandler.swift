import Control
import Glibc
import Logging
import Reactor
import Support

/// The administrator's program for a disk that failed, `on-io-error call-local-io-error` (reference,
/// admin 2.5). It may halt the machine: nothing waits for it.
extension Daemon {
    mutating func callErrorHandler() {
        guard let settings, let command = settings.options.localIOErrorHandler else {
            log.warning("on-io-error call-local-io-error: no handler local-io-error is configured")
            return
        }
        guard errorHandler == nil else {
            log.warning("the handler local-io-error is still running since the last failure")
            return
        }
        do throws(SystemError) {
            errorHandler = try reactor.spawn(
                "/bin/sh", arguments: ["-c", command], environment: handlerEnvironment(settings))
            log.notice("the handler local-io-error runs: \(command)")
        } catch {
            log.error("the handler local-io-error cannot be run: \(error)")
        }
    }

    mutating func errorHandlerExited(_ status: Int32) {
        errorHandler = nil
        if status == 0 {
            log.notice("the handler local-io-error ended")
        } else {
            log.warning("the handler local-io-error ended with status \(status)")
        }
    }

    private func handlerEnvironment(_ settings: ResourceSettings) -> [String] {
        var environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        let peer = settings.peerAddress
        environment += [
            "DRBD_RESOURCE=\(settings.resource)", "DRBD_MINOR=\(settings.minor)",
            "DRBD_VOLUME=\(settings.volume)", "DRBD_LL_DISK=\(settings.disk)",
            "DRBD_PEER=\(settings.peerName)", "DRBD_PEERS=\(settings.peerName)",
            "DRBD_PEER_AF=\(peer.family.rawValue)", "DRBD_PEER_ADDRESS=\(peer.host)",
        ]
        if let path = settings.options.configurationPath { environment.append("DRBD_CONF=\(path)") }
        return environment
    }
}
