import Administration
import Control
import DRBDWire
import Status
import Testing

@Suite struct QuestionTests {
    @Test(arguments: [
        ("role", "Primary/Secondary\n"), ("cstate", "Connected\n"),
        ("dstate", "UpToDate/UpToDate\n"),
    ])
    func `one line is printed for a resource`(command: String, line: String) {
        var site = Site(running: [Sample.snapshot(role: .primary)])
        #expect(site.run(command, "r0") == 0)
        #expect(site.output == line && site.errors == "")
    }

    @Test(arguments: ["role", "cstate", "dstate"])
    func `a daemon with nothing to do is unconfigured`(command: String) {
        var site = Site(running: [Sample.snapshot(connection: .standAlone, disk: .diskless)])
        #expect(site.run(command, "r0") == 0)
        #expect(site.output == "Unconfigured\n")
    }

    @Test func `of several resources each has a line, even without a daemon`() {
        var site = Site(
            Sample.resource("r0") + Sample.resource("r1", minor: 1),
            running: [Sample.snapshot("r1", minor: 1)])
        #expect(site.run("role", "all") == 10)
        #expect(site.output == "Unconfigured\nSecondary/Secondary\n")
    }

    @Test func `dstate asks the disk when there is no daemon`() throws {
        let disk = try TemporaryDisk()
        _ = disk.create()
        var site = Site(Sample.resource().replacing("/dev/a0", with: disk.path))
        #expect(site.run("dstate", "r0") == 0)
        #expect(site.output == "Inconsistent\n" && site.errors == "")
    }

    @Test func `status without a name is about all that run`() {
        var site = Site(
            nil, running: [Sample.snapshot("r1", minor: 1), Sample.snapshot("r0")])
        #expect(site.run("status") == 0)
        let block = """
             role:Secondary
              disk:UpToDate
              peer role:Secondary
                replication:Established peer-disk:UpToDate


            """
        #expect(site.output == "r0" + block + "r1" + block)
    }

    @Test func `status as JSON is one list`() {
        var site = Site(nil, running: [Sample.snapshot("r0"), Sample.snapshot("r1", minor: 1)])
        #expect(site.run("status", options: CommandOptions(json: true)) == 0)
        #expect(site.output.hasPrefix("[\n"))
        #expect(site.output.contains("\"resource\" : \"r1\""))
    }

    @Test func `proc has all that run by minor`() {
        var site = Site(
            nil, running: [Sample.snapshot("a", minor: 2), Sample.snapshot("b", minor: 0)])
        #expect(site.run("proc") == 0)
        let lines = site.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines[0] == "version: 8.4.11 (api:1/proto:86-101)")
        #expect(lines[2].hasPrefix(" 0: cs:Connected ro:Secondary/Secondary"))
        #expect(lines[4] == "")
        #expect(lines[5].hasPrefix(" 2: cs:Connected"))
    }

    @Test(arguments: ["proc", "status"])
    func `a daemon that died is told, and the others are shown`(command: String) {
        var site = Site(nil, running: [Sample.snapshot("r1")])
        site.daemons.change { $0.leftovers = ["r0"] }
        #expect(site.run(command) == 10)
        #expect(site.errors.hasPrefix("r0: "))
        #expect(site.errors.contains("its repd died"))
        #expect(site.output.contains(command == "proc" ? " 0: cs:Connected" : "r1 role:"))
    }

    @Test func `show-gi shows the generations of a disk in use`() {
        var snapshot = Sample.snapshot(role: .primary)
        snapshot.volumes[0].uuids = [0x0123_4567_89AB_CDEF, 0, 2, 3]
        var site = Site(running: [snapshot])
        #expect(site.run("show-gi", "r0") == 0)
        #expect(
            site.output.contains(
                "\n0123456789ABCDEF:0000000000000000:0000000000000002:0000000000000003"
                    + ":1:1:1:1:0:0:0\n"))
        #expect(
            site.output.hasSuffix("flags: Primary, Connected, UpToDate\nmeta-data: need apply-al\n")
        )
    }

    @Test func `meta data are left alone while a daemon has the disk`() throws {
        let disk = try TemporaryDisk()
        var site = Site(
            Sample.resource().replacing("/dev/a0", with: disk.path), running: [Sample.snapshot()])
        let force = CommandOptions(force: true)
        #expect(site.run("create-md", "r0", options: force) == 20)
        #expect(site.errors.hasPrefix("Device '0' is configured!\n"))
        #expect(try disk.read(disk.size - 4096, 4096).allSatisfy { $0 == 0 })
    }

    @Test func `meta data are made, dumped and shown without a daemon`() throws {
        let disk = try TemporaryDisk()
        var site = Site(Sample.resource().replacing("/dev/a0", with: disk.path))
        #expect(site.run("create-md", "r0") == 0)
        #expect(site.run("dump-md", "r0") == 0)
        #expect(site.output.contains("New drbd meta data block successfully created.\n"))
        #expect(site.output.contains("alice> repctl dump-md r0\n"))
        #expect(site.run("show-gi", "r0") == 0)
        #expect(site.output.contains("flags: Secondary, StandAlone, Inconsistent\n"))
    }
}
