import Administration
import Control
import DRBDWire
import Testing

@Suite struct OrderTests {
    @Test func `up starts a daemon where none runs and gives it the settings`() throws {
        var site = Site()
        #expect(site.run("up", "r0") == 0)
        #expect(site.daemons.told == ["start r0", "up r0"])
        guard case .up(let settings) = try #require(site.daemons.orders.first) else {
            Issue.record("\(site.daemons.orders)")
            return
        }
        #expect(settings.resource == "r0" && settings.disk == "/dev/a0")
    }

    @Test func `up does only what is missing`() {
        let cases = [
            ("attach r0", Sample.snapshot(connection: .wfConnection, disk: .diskless)),
            ("connect r0", Sample.snapshot(connection: .standAlone)),
            ("up r0", Sample.snapshot(connection: .standAlone, disk: .diskless)),
        ]
        for (order, snapshot) in cases {
            var site = Site(running: [snapshot])
            #expect(site.run("up", "r0") == 0)
            #expect(site.daemons.told == [order])
        }
        var site = Site(running: [Sample.snapshot()])
        #expect(site.run("up", "r0") == 0)
        #expect(site.daemons.told == [])
    }

    @Test func `whatever the daemon refuses, up ends with 1`() {
        var site = Site(running: [Sample.snapshot(connection: .standAlone, disk: .diskless)])
        site.daemons.change {
            $0.replies["r0"] = [ControlReply(exitCode: 10, message: "0: Failure: (119) no")]
        }
        #expect(site.run("up", "r0") == 1)
        #expect(site.errors == "0: Failure: (119) no\n")
    }

    @Test func `what a daemon that did not start says is passed on`() {
        var site = Site()
        site.daemons.change {
            $0.startError = AdministrationError("r0: repd ended at once", exitCode: 10)
        }
        #expect(site.run("up", "r0") == 10)
        #expect(site.errors == "r0: repd ended at once\n")
    }

    @Test func `nothing is started for a configuration that is refused`() {
        var site = Site(Sample.resource(body: "net { cram-hmac-alg sha1; shared-secret x; }"))
        #expect(site.run("up", "r0") == 10)
        #expect(site.daemons.told == [])
        // The refusal says it all.
        #expect(!site.errors.contains("WARN"))
    }

    @Test func `connect refuses what up refuses, attach does not`() {
        let text = Sample.resource(body: "net { verify-alg md5; }")
        var site = Site(text, running: [Sample.snapshot()])
        #expect(site.run("connect", "r0") == 10)
        #expect(site.errors.contains("'verify-alg md5'"))
        #expect(site.run("attach", "r0") == 0)
        #expect(site.daemons.told == ["attach r0"])
    }

    @Test func `options of the command reach the daemon`() {
        let options = CommandOptions(
            force: true, discardMyData: true, disconnectClients: true)
        var site = Site(running: [Sample.snapshot()])
        for command in ["detach", "disconnect", "primary", "secondary", "connect"] {
            #expect(site.run(command, "r0", options: options) == 0)
        }
        let orders = site.daemons.orders
        #expect(
            orders.dropLast() == [
                .detach(force: true), .disconnect(force: true), .primary(force: true),
                .secondary(disconnectClients: true),
            ])
        guard case .connect(_, discardMyData: true) = orders.last else {
            Issue.record("\(orders)")
            return
        }
    }

    @Test func `down that is refused leaves the daemon and says why`() {
        var site = Site(running: [Sample.snapshot(role: .primary)])
        site.daemons.change {
            $0.replies["r0"] = [ControlReply(exitCode: 11, message: "0: (-12) held open")]
        }
        #expect(site.run("down", "r0") == 11)
        #expect(site.errors == "0: (-12) held open\n")
        #expect(site.daemons.names() == ["r0"])
    }

    @Test func `disconnect tries again while the connection is being negotiated`() {
        var site = Site(running: [Sample.snapshot()])
        let refusal = ControlReply(
            exitCode: 11, message: "??: State change failed: (-18) In transient state")
        site.daemons.change { $0.replies["r0"] = [refusal, refusal] }
        #expect(site.run("disconnect", "r0") == 0)
        #expect(site.daemons.told.count == 3)
        #expect(site.errors == "")
    }
}
