import Administration
import Control
import DRBDWire
import Status
import Testing

@Suite struct WaitTests {
    /// The moment in the middle of a resync that the reference shows.
    private static var syncing: StatusSnapshot {
        var snapshot = Sample.snapshot(connection: .syncTarget)
        snapshot.volumes[0].progress = SyncProgress(
            total: 98264, left: 97357, elapsedSeconds: 1,
            marks: [SyncProgress.Mark(age: 1, left: 98264)], wantedRate: 4000)
        return snapshot
    }

    private func report(_ snapshot: StatusSnapshot) -> ControlReply {
        ControlReply(status: snapshot, isFinal: false)
    }

    @Test func `in a pipe a line is printed when the state changes`() {
        var site = Site(running: [Sample.snapshot()])
        let waiting = Sample.snapshot(connection: .wfConnection)
        let reports = [
            report(waiting), report(waiting), report(Self.syncing), report(Self.syncing),
        ]
        site.daemons.change { $0.reports = reports }
        #expect(site.run("wait-sync", "r0") == 0)
        #expect(
            site.errors == """
                r0: WFConnection, waiting for 0 s
                r0: [>....................] 1.1% finish: 0:01:37 speed: 3,628 (3,628) K/sec

                """)
        #expect(site.output == "")
    }

    @Test func `on a terminal one line is drawn again and again`() {
        var site = Site(running: [Sample.snapshot()], progressColumns: 40)
        let reports = [report(Self.syncing), report(Self.syncing)]
        site.daemons.change { $0.reports = reports }
        #expect(site.run("wait-sync", "r0") == 0)
        // One column stays free.
        let line = "\rr0: [>....................] 1.1% finish\u{1b}[K"
        #expect(site.errors == line + line + "\n")
    }

    @Test func `time-out ends with 5`() {
        var site = Site(running: [Sample.snapshot(connection: .wfConnection)])
        site.daemons.change {
            $0.replies["r0"] = [ControlReply(exitCode: 5, message: "time-out")]
        }
        #expect(site.run("wait-connect", "r0", options: CommandOptions(timeout: 3)) == 5)
        #expect(site.daemons.orders == [.waitConnect(timeout: 3)])
    }

    @Test func `the time to wait comes from the file unless it is given`() {
        let text = Sample.resource(body: "startup { wfc-timeout 9; }")
        var site = Site(text, running: [Sample.snapshot()])
        #expect(site.run("wait-connect", "r0") == 0)
        #expect(site.run("wait-sync", "r0") == 0)
        #expect(site.run("wait-connect", "r0", options: CommandOptions(timeout: 0)) == 0)
        #expect(
            site.daemons.orders == [
                .waitConnect(timeout: 9), .waitSync(timeout: nil), .waitConnect(timeout: nil),
            ])
    }

    @Test func `a connection that has ended is told, with the reason`() {
        var snapshot = Sample.snapshot(connection: .standAlone)
        snapshot.messages = ["older", "split brain"]
        var site = Site(running: [snapshot])
        #expect(site.run("wait-connect", "r0") == 0)
        #expect(site.errors == "r0: not connected (StandAlone): split brain\n")
    }

    @Test func `a daemon that dies while it is waited for is no success`() {
        var site = Site(running: [Sample.snapshot()])
        site.daemons.change { $0.errors["r0"] = .closed(resource: "r0") }
        #expect(site.run("wait-sync", "r0") == 10)
        #expect(site.errors.contains("closed the control connection"))
    }
}
