import Configuration
import Testing

@Suite struct EffectiveTests {
    private let alice = NodeIdentity(name: "alice", addresses: ["10.1.1.31"])

    private func effective(_ statements: String) throws -> EffectiveResource {
        try read(resource(statements)).effective("r0", on: alice)
    }

    @Test func `nothing said means the defaults of 8.4`() throws {
        let resource = try effective("")
        let net = resource.net
        #expect(net.protocol == .C)
        #expect([net.timeout, net.pingInterval, net.pingTimeout] == [60, 10, 5])
        #expect([net.connectInterval, net.koCount, net.maximumBuffers] == [10, 7, 2048])
        #expect([net.maximumEpochSize, net.sendBufferSize, net.receiveBufferSize] == [2048, 0, 0])
        #expect(
            [net.unplugWatermark, net.congestionFill, net.congestionExtents] == [128, 0, 1237])
        #expect(net.useRLE && net.tcpCork && !net.allowTwoPrimaries && !net.alwaysAfterSplitBrain)
        #expect(net.afterSplitBrain0 == .disconnect && net.afterSplitBrain1 == .disconnect)
        #expect(net.afterSplitBrain2 == .disconnect && net.roleConflict == .disconnect)
        #expect(net.onCongestion == .block && net.verifyAlgorithm.isEmpty && net.set.isEmpty)
        let disk = resource.volumes[0].options
        #expect(disk.onIOError == .detach && disk.fencing == .dontCare && disk.size == 0)
        #expect(!disk.barrier && disk.flushes && disk.drain && disk.metaDataFlushes)
        #expect(disk.resyncRate == nil && disk.activityLogExtents == nil && disk.maximumRate == nil)
        #expect([disk.planAhead, disk.delayTarget, disk.fillTarget] == [20, 10, 100])
        #expect([disk.minimumRate, disk.diskTimeout] == [250, 0])
        #expect(disk.activityLogUpdates && disk.readBalancing == "prefer-local" && disk.set.isEmpty)
        #expect(resource.startup.timeout == 0 && resource.startup.degradedTimeout == 0)
        #expect(resource.options.onNoDataAccessible == .ioError && resource.options.cpuMask.isEmpty)
        #expect(resource.repd.nbdListen.isEmpty && resource.repd.flushWaitsForPeer == nil)
        #expect([resource.repd.resumeTimeout, resource.repd.resumeLimit] == [10, 5])
        #expect(resource.repd.kernelDevice == nil && resource.warnings.isEmpty)
    }

    @Test func `what is said is kept, the last of two, and known as said`() throws {
        let resource = try effective(
            """
            protocol A;
            net { timeout 50; timeout 40; sndbuf-size 512k; use-rle no; after-sb-0pri discard-node-bob;
                  after-sb-1pri consensus; after-sb-2pri violently-as0p; rr-conflict call-pri-lost;
                  on-congestion pull-ahead; verify-alg crc32c; }
            disk { on-io-error pass_on; fencing resource-and-stonith; resync-rate 4M; al-extents 257;
                   c-max-rate 30M; c-plan-ahead 0; size 1G; resync-after r0; }
            startup { wfc-timeout 1; degr-wfc-timeout 2; outdated-wfc-timeout 3; wait-after-sb;
                      become-primary-on alice bob; }
            options { on-no-data-accessible suspend-io; }
            handlers { outdate-peer "/bin/fence now"; }
            """)
        let net = resource.net
        #expect(net.protocol == .A && net.timeout == 40 && net.sendBufferSize == 524_288)
        #expect(!net.useRLE && net.afterSplitBrain0 == .discardNode("bob"))
        #expect(net.afterSplitBrain1 == .consensus && net.afterSplitBrain2 == .violently)
        #expect(net.roleConflict == .callPrimaryLost && net.onCongestion == .pullAhead)
        #expect(net.set.isSuperset(of: ["timeout", "protocol", "use-rle"]))
        #expect(!net.set.contains("ping-int"))
        let disk = resource.volumes[0].options
        #expect(disk.onIOError == .passOn && disk.fencing == .resourceAndStonith)
        #expect(disk.resyncRate == 4096 && disk.activityLogExtents == 257)
        #expect(disk.maximumRate == 30_720 && disk.planAhead == 0 && disk.size == 2_097_152)
        #expect(disk.resyncAfter == "r0")
        let startup = resource.startup
        #expect([startup.timeout, startup.degradedTimeout, startup.outdatedTimeout] == [1, 2, 3])
        #expect(startup.waitAfterSplitBrain && startup.becomePrimaryOn == ["alice", "bob"])
        #expect(resource.options.onNoDataAccessible == .suspendIO)
        #expect(resource.handlers == ["fence-peer": "/bin/fence now"])
    }

    @Test func `each node sees itself as local`() throws {
        let file = try read(resource())
        let here = try file.effective("r0", on: alice)
        let there = try file.effective("r0", on: NodeIdentity(name: "bob"))
        #expect(here.nodeName == "alice" && here.peerName == "bob")
        #expect(here.localAddress == there.peerAddress && here.peerAddress == there.localAddress)
        #expect(here.localAddress == Address(family: .ipv4, host: "10.1.1.31", port: 7788))
        #expect(here.volumes[0].disk == "/dev/sda7" && there.volumes[0].disk == "/dev/sdb7")
        #expect(here.volumes[0].minor == 0 && here.volumes[0].device == "/dev/drbd0")
    }

    @Test func `words without effect are named once each`() throws {
        let warnings = try effective(
            "net { timeout 50; verify-alg md5; verify-alg sha1; } "
                + "startup { wfc-timeout 9; degr-wfc-timeout 0; }"
        ).warnings
        #expect(
            warnings == [
                "/etc/drbd.conf:2: in resource r0: WARN: "
                    + "'verify-alg' has no effect in this version of repd.",
                "/etc/drbd.conf:2: in resource r0: WARN: "
                    + "'degr-wfc-timeout' has no effect in this version of repd.",
            ])
    }

    @Test(
        arguments: [
            ("meta-disk /dev/m[7]", .indexed(path: "/dev/m", index: 7)),
            ("meta-disk /dev/m", .flexible(path: "/dev/m")),
            ("flexible-meta-disk /dev/m", .flexible(path: "/dev/m")),
            ("flexible-meta-disk internal", .internal),
        ] as [(String, MetaDisk)])
    func `meta data are where the file says`(statement: String, place: MetaDisk) throws {
        let text = resource().replacing("meta-disk internal", with: statement)
        let effective = try read(text).effective("r0", on: alice)
        #expect(effective.volumes.map(\.metaDisk) == [place])
    }

    @Test func `a resource for other hosts is not ours`() throws {
        let file = try read(resource())
        for (name, node) in [("r9", "alice"), ("r0", "carol")] {
            #expect(
                throws: ConfigurationError(
                    ["'\(name)' not defined in your config (for this host)."], exitCode: 1)
            ) { try file.effective(name, on: NodeIdentity(name: node)) }
        }
        #expect(try file.allNames(on: alice) == ["r0"])
        #expect(throws: ConfigurationError(["no resources defined!"], exitCode: 1)) {
            try read("global { }").allNames(on: alice)
        }
    }

    @Test func `of three hosts the peer has to be chosen`() throws {
        let third =
            "on carol { device minor 0; disk /dev/c; address 10.1.1.33:7788; meta-disk internal; }"
        let file = try read(resource(third))
        #expect(throws: ConfigurationError.self) { try file.effective("r0", on: alice) }
        #expect(try file.effective("r0", on: alice, peer: "carol").peerAddress.host == "10.1.1.33")
        #expect(throws: ConfigurationError.self) {
            try file.effective("r0", on: alice, peer: "dave")
        }
    }

    @Test func `two families cannot talk, and old ones not at all`() {
        for address in ["ipv6 [fd01::1]:7788", "sdp 10.1.1.31:7788"] {
            let text = resource().replacing("10.1.1.31:7788", with: address)
            #expect(throws: ConfigurationError.self) { try read(text).effective("r0", on: alice) }
        }
    }

    @Test func `an address that is not here is refused unless nobody is to look`() throws {
        let text = resource()
        let stranger = NodeIdentity(name: "alice", addresses: ["10.1.1.99"])
        #expect(
            throws: ConfigurationError([
                "/etc/drbd.conf:4: in resource r0, on alice:\n\tIP 10.1.1.31 not found on this host."
            ])
        ) { try read(text).checkAddresses(of: ["r0"], on: stranger) }
        try read(text).checkAddresses(of: ["r0"], on: alice)
        try read(text).checkAddresses(of: ["r1"], on: stranger)
        try read("global { disable-ip-verification; }" + text).checkAddresses(
            of: ["r0"], on: stranger)
        try read(text.replacing("10.1.1.31", with: "127.0.0.5")).checkAddresses(
            of: ["r0"], on: stranger)
    }

    @Test func `the repd section may stand inside, outside or in common`() throws {
        let text =
            "common { repd { resume-limit 1; nbd-listen 10.0.0.1:10809; } }\n"
            + resource(
                "repd { flush-waits-for-peer yes; nbd-listen 127.0.0.1:1; nbd-listen ipv6 [::1]:2; }"
            )
            + resource(name: "r1").replacingMinor()
            + "repd r1 { resume-timeout 20; kernel-device; }\n"
        let file = try read(text)
        let first = try file.effective("r0", on: alice).repd
        #expect(first.nbdListen == ["127.0.0.1:1", "[::1]:2"])
        #expect(first.flushWaitsForPeer == true && first.resumeLimit == 1)
        let second = try file.effective("r1", on: alice).repd
        #expect(second.nbdListen == ["10.0.0.1:10809"] && second.kernelDevice == true)
        #expect(second.resumeTimeout == 20 && second.flushWaitsForPeer == nil)
        #expect(try file.effective("r1", on: alice).warnings.isEmpty)
    }

    @Test func `a repd section is refused twice, for nobody, or with other words`() {
        #expect(
            complaints("repd r0 { }\n" + resource("repd { kernel-device; }")) == [
                "/etc/drbd.conf:3: conflicting use of repd section 'r0:repd' ...\n"
                    + "/etc/drbd.conf:1: repd section 'r0:repd' first used here."
            ])
        #expect(!complaints("repd r0 { }\nrepd r0 { }\n" + resource()).isEmpty)
        #expect(
            complaints("repd r7 { }\n" + resource())
                == ["/etc/drbd.conf:1: repd section of unknown resource 'r7'"])
        #expect(!complaints(resource("repd { timeout 1; }")).isEmpty)
        #expect(!complaints(resource("repd { nbd-listen everywhere:10809; }")).isEmpty)
    }
}
