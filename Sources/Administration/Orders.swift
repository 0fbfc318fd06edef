import Control
import DRBDWire
import Status

// Commands that change something and are more than one order.

extension Administrator {
    mutating func up(_ resource: String) -> Int32 {
        do throws(AdministrationError) {
            let settings = try settings(of: resource, for: .connect)
            var snapshot = try running(resource)
            if snapshot == nil {
                try daemons.start(resource)
                snapshot = try running(resource)
            }
            guard let order = Self.missing(snapshot, settings) else { return Exit.done }
            let code = try tell(order, resource, .unknownResource)
            return code == Exit.done ? Exit.done : Exit.usage
        } catch {
            return complain(error)
        }
    }

    /// What is left to be done until the resource is up; `nil`: nothing.
    static func missing(
        _ snapshot: StatusSnapshot?, _ settings: ResourceSettings
    ) -> ControlCommand? {
        guard let volume = snapshot?.volumes.first else { return .up(settings) }
        switch (volume.disk != .diskless, volume.connection != .standAlone) {
        case (false, false): return .up(settings)
        case (true, false): return .connect(settings, discardMyData: false)
        case (false, true): return .attach(settings)
        case (true, true): return nil
        }
    }

    /// The state of a resource, `nil` without a daemon.
    func running(_ resource: String) throws(AdministrationError) -> StatusSnapshot? {
        do throws(ControlError) {
            return try daemons.perform(.status, on: resource, deadline: Deadline.query).status
        } catch {
            guard case .noDaemon = error else { throw AdministrationError(error) }
            return nil
        }
    }

    mutating func down(_ resource: String, force: Bool) -> Int32 {
        do throws(AdministrationError) {
            let reply = try daemons.stop(resource, force: force, deadline: Deadline.change)
            return reply.map { finish($0) } ?? Exit.done
        } catch {
            return complain(error)
        }
    }

    /// While a connection is being negotiated it cannot be ended; that does not take long.
    mutating func disconnect(_ resource: String, force: Bool) -> Int32 {
        let end = ContinuousClock.now + Deadline.transient
        while true {
            do throws(ControlError) {
                let reply = try daemons.perform(
                    .disconnect(force: force), on: resource, deadline: Deadline.change)
                let isTransient = reply.message?.contains("(-18)") ?? false
                guard isTransient, ContinuousClock.now < end else { return finish(reply) }
                Host.sleep(.milliseconds(100))
            } catch {
                guard case .noDaemon = error else { return complain(AdministrationError(error)) }
                return reportNoDaemon(resource, .unknownConnection)
            }
        }
    }
}
