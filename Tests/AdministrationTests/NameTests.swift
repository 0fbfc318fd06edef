import Administration
import Control
import Testing

@Suite struct NameTests {
    private static let two = Sample.resource("r0") + Sample.resource("r1", minor: 1)

    @Test func `all stands for the resources of the file in its order`() {
        var site = Site(
            Sample.resource("zz", minor: 1) + Sample.resource("aa"),
            running: [Sample.snapshot("aa"), Sample.snapshot("zz")])
        #expect(site.run("primary", "all") == 0)
        #expect(site.daemons.told == ["primary zz", "primary aa"])
    }

    @Test func `a daemon that the file does not know comes last`() {
        var site = Site(running: [Sample.snapshot("gone"), Sample.snapshot("r0")])
        #expect(site.run("secondary", "all") == 0)
        #expect(site.daemons.told == ["secondary r0", "secondary gone"])
    }

    @Test func `what is not in the file cannot be brought up`() {
        var site = Site(running: [Sample.snapshot("gone")])
        #expect(site.run("up", "gone") == 1)
        #expect(site.errors == "'gone' not defined in your config (for this host).\n")
        #expect(site.run("up", "all") == 0)
        #expect(site.daemons.told == ["start r0", "up r0"])
    }

    @Test func `an unknown name is refused before anything is done`() {
        var site = Site(Self.two, running: [Sample.snapshot("r0")])
        #expect(site.run("primary", "r0", "nosuch") == 1)
        #expect(site.daemons.told == [])
        #expect(site.errors.contains("'nosuch' not defined in your config"))
    }

    @Test func `a running resource is found without any configuration`() {
        var site = Site(nil, running: [Sample.snapshot("r0")])
        #expect(site.run("role", "r0") == 0)
        #expect(site.output == "Secondary/Secondary\n")
        #expect(site.errors == "")
    }

    @Test func `without a configuration nobody knows what all is`() {
        var site = Site(nil)
        #expect(site.run("up", "all") == 20)
        #expect(site.errors.contains("/nowhere"))
    }

    @Test func `a resource of other nodes is refused, and who this node is taken for is said`() {
        var site = Site(node: "carol")
        #expect(site.run("up", "r0") == 1)
        #expect(site.errors.contains("'r0' not defined in your config (for this host)."))
        #expect(site.errors.contains("This node is 'carol'"))
        #expect(site.errors.contains("--node-name"))
    }

    @Test func `volume 0 may be named, no other`() {
        var site = Site(running: [Sample.snapshot("r0")])
        #expect(site.run("cstate", "r0/0") == 0)
        #expect(site.output == "Connected\n")
        #expect(site.run("cstate", "r0/1") == 1)
        #expect(site.errors.contains("volume 0 is the only one"))
    }

    @Test func `a command that changes something needs a name`() {
        var site = Site()
        #expect(site.run("down") == 1)
        #expect(site.errors == "No resource names specified\n")
    }

    @Test func `what is without effect is told once`() {
        let option = "disk { fencing resource-only; }"
        var site = Site(
            Sample.resource("r0", body: option), running: [Sample.snapshot("r0")])
        #expect(site.run("up", "r0", "r0") == 0)
        #expect(
            site.errors
                == "\(OneFile.path):1: in resource r0: WARN: 'fencing' has no effect in this "
                + "version of repd.\n")
    }

    @Test func `an address that is not here is refused, a loopback one is everybody's`() {
        let text = Sample.resource().replacing("127.0.0.1:7000", with: "192.0.2.1:7000")
            .replacing("127.0.0.1:7100", with: "192.0.2.2:7000")
        var site = Site(text)
        #expect(site.run("up", "r0") == 10)
        #expect(site.errors.contains("IP 192.0.2.1 not found on this host."))
        #expect(site.daemons.told == [])
    }
}

@Suite struct ExitCodeTests {
    private static let three =
        Sample.resource("r0") + Sample.resource("r1", minor: 1) + Sample.resource("r2", minor: 2)

    private func site(_ codes: [String: Int32]) -> Site {
        let names = ["r0", "r1", "r2"]
        let site = Site(Self.three, running: names.map { Sample.snapshot($0) })
        site.daemons.change { state in
            for (name, code) in codes {
                state.replies[name] = [ControlReply(exitCode: code, message: "\(name): no")]
            }
        }
        return site
    }

    @Test func `of several exit codes the highest counts`() {
        var site = site(["r0": 17, "r1": 11])
        #expect(site.run("primary", "all") == 17)
        #expect(site.errors == "r0: no\nr1: no\n")
        #expect(site.daemons.told == ["primary r0", "primary r1", "primary r2"])
    }

    @Test func `20 ends the work on the others`() {
        var site = site(["r1": 20])
        #expect(site.run("primary", "all") == 20)
        #expect(site.daemons.told == ["primary r0", "primary r1"])
    }

    @Test func `a daemon that does not answer keeps nobody from the others`() {
        var site = site([:])
        site.daemons.change { $0.errors["r0"] = .timeout(resource: "r0", seconds: 7) }
        #expect(site.run("primary", "all") == 10)
        #expect(site.errors == "r0: repd did not answer within 7 s\n")
        #expect(site.daemons.told == ["primary r1", "primary r2"])
    }

    @Test(arguments: [
        ("detach", "0: Failure: (127) Device minor not allocated"),
        ("primary", "0: Failure: (127) Device minor not allocated"),
        ("secondary", "0: Failure: (127) Device minor not allocated"),
        ("attach", "0: Failure: (127) Device minor not allocated"),
        ("role", "0: Failure: (127) Device minor not allocated"),
        ("connect", "r0: Failure: (158) Unknown resource"),
        ("disconnect", "??: Failure: (162) Invalid configuration request"),
        ("status", "r0: No such resource"),
    ])
    func `without a daemon a command is refused with 10`(command: String, text: String) {
        var site = Site()
        #expect(site.run(command, "r0") == 10)
        #expect(site.errors.hasPrefix(text + "\n"))
    }

    @Test(arguments: ["down", "wait-connect", "wait-sync"])
    func `where nothing runs there is nothing to stop or to wait for`(command: String) {
        var site = Site()
        #expect(site.run(command, "r0") == 0)
        #expect(site.output == "")
        // As the kernel's tools; but a reader is told.
        let note = "r0: no repd is running, so there is nothing to wait for\n"
        #expect(site.errors == (command == "down" ? "" : note))
    }
}
