import Administration
import Control
import DRBDWire
import Status
import Synchronization
import Testing

@Suite struct UpgradeTests {
    @Test func `a daemon that runs is told, and the role is looked at afterwards`() {
        var site = Site(running: [Sample.snapshot("r0")])
        #expect(site.run("upgrade", "r0") == 0)
        #expect(site.daemons.told == ["upgrade r0"])
        #expect(site.errors == "")
    }

    @Test func `without a daemon there is nothing to take over`() {
        var site = Site()
        #expect(site.run("upgrade", "r0") == 10)
        #expect(site.errors.contains("no repd is running"))
    }

    @Test func `a daemon without a supervisor is left alone`() {
        var site = Site(running: [Sample.snapshot("r0")])
        site.daemons.state.withLock { $0.program = nil }
        #expect(site.run("upgrade", "r0") == 10)
        #expect(site.errors.contains("no supervisor"))
        #expect(site.daemons.told.isEmpty)
    }

    @Test(arguments: ["/nonexistent/repd", "/bin/false", "/etc/passwd"])
    func `a program that does not run changes nothing`(program: String) {
        var site = Site(running: [Sample.snapshot("r0")])
        site.daemons.state.withLock { $0.program = program }
        #expect(site.run("upgrade", "r0") == 10)
        #expect(site.errors.contains("\(program) does not run"))
        #expect(site.daemons.told.isEmpty)
    }
}
