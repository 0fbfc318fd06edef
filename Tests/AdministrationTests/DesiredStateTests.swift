import Administration
import Configuration
import Control
import Testing

@Suite struct DesiredStateTests {
    @Test func `each node gets its own disk and the addresses from its side`() throws {
        let text = Sample.resource(minor: 3)
        let alice = try Sample.effective(text).settings(for: .connect)
        let bob = try Sample.effective(text, on: "bob").settings(for: .connect)
        #expect(alice.nodeName == "alice" && alice.peerName == "bob")
        #expect(alice.disk == "/dev/a3" && bob.disk == "/dev/b3")
        #expect(alice.minor == 3 && alice.device == "/dev/drbd3" && alice.volume == 0)
        #expect("\(alice.localAddress)" == "127.0.0.1:7003")
        #expect(alice.localAddress == bob.peerAddress && alice.peerAddress == bob.localAddress)
    }

    @Test func `meta data of their own come along, and never on the disk itself`() throws {
        func place(_ statement: String) throws -> ResourceSettings.MetaPlace {
            let text = Sample.resource().replacing("meta-disk internal", with: statement)
            return try Sample.effective(text).settings(for: .attach).metaDisk
        }
        #expect(try place("meta-disk internal") == .internal)
        #expect(try place("meta-disk /dev/m [3]") == .indexed(path: "/dev/m", slot: 3))
        #expect(try place("flexible-meta-disk /dev/m") == .flexible(path: "/dev/m"))
        for (statement, part) in [
            ("meta-disk /dev/a0", "use 'meta-disk internal'"),
            ("meta-disk /dev/a0 [0]", "use 'meta-disk internal'"),
            ("meta-disk /dev/m [256]", "0 to 255"),
        ] {
            let error = try #require(throws: AdministrationError.self) { try place(statement) }
            #expect(error.exitCode == 10)
            #expect(error.text.contains(part))
        }
    }

    @Test func `without options the settings are the defaults of DRBD`() throws {
        let settings = try Sample.effective(Sample.resource()).settings(for: .connect)
        #expect(settings.options == ResourceSettings.Options())
        #expect(settings.nbdListen == [])
    }

    @Test func `rates are passed on only where the file sets them`() throws {
        let none = try Sample.effective(Sample.resource(body: "disk { c-plan-ahead 0; }"))
            .settings(for: .connect).options
        #expect(none.resyncRate == nil && none.maximumRate == nil && none.planAhead == 0)
        let both = try Sample.effective(
            Sample.resource(body: "disk { resync-rate 30M; c-max-rate 60M; }")
        ).settings(for: .connect).options
        #expect(both.resyncRate == 30 * 1024 && both.maximumRate == 60 * 1024)
    }

    @Test func `every option with an effect arrives in its own unit`() throws {
        let body = """
            net { protocol A; timeout 61; ping-int 11; ping-timeout 6; connect-int 12; ko-count 8; \
            max-buffers 4096; max-epoch-size 4097; sndbuf-size 1M; rcvbuf-size 2M; use-rle no; }
            handlers { local-io-error "halt -f"; }
            disk { on-io-error call-local-io-error; al-extents 521; c-plan-ahead 21; \
            c-delay-target 13; c-fill-target 2048s; }
            repd { nbd-listen 127.0.0.1:10809; nbd-listen ipv6 [::1]:10810; flush-waits-for-peer no; \
            kernel-device no; resume-timeout 14; resume-limit 15; }
            """
        let settings = try Sample.effective(Sample.resource(body: body)).settings(for: .connect)
        var wanted = ResourceSettings.Options()
        wanted.replicationProtocol = .A
        wanted.timeout = 61
        wanted.pingInterval = 11
        wanted.pingTimeout = 6
        wanted.connectInterval = 12
        wanted.koCount = 8
        wanted.maximumBuffers = 4096
        wanted.maximumEpochSize = 4097
        wanted.sendBufferSize = 1 << 20
        wanted.receiveBufferSize = 2 << 20
        wanted.useRLE = false
        wanted.activityLogExtents = 521
        wanted.planAhead = 21
        wanted.delayTarget = 13
        wanted.fillTarget = 2048
        wanted.onIOError = .callHandler
        wanted.localIOErrorHandler = "halt -f"
        wanted.configurationPath = try Sample.effective(Sample.resource()).location.file
        wanted.flushWaitsForPeer = false
        wanted.kernelDevice = false
        wanted.resumeTimeout = 14
        wanted.resumeLimit = 15
        #expect(settings.options == wanted)
        #expect(settings.nbdListen == ["127.0.0.1:10809", "[::1]:10810"])
    }

    @Test(
        arguments: [
            "cram-hmac-alg sha1", "data-integrity-alg crc32c", "verify-alg md5", "csums-alg sha1",
            "after-sb-0pri discard-zero-changes", "after-sb-1pri consensus",
            "after-sb-2pri violently-as0p", "allow-two-primaries",
        ])
    func `what the peer would have to agree on is refused by name`(option: String) throws {
        let text = Sample.resource(body: "net { \(option); }")
        let name = option.prefix { $0 != " " }
        let error = try #require(throws: AdministrationError.self) {
            try Sample.effective(text).settings(for: .connect)
        }
        #expect(error.exitCode == 10)
        #expect(error.text.hasPrefix("\(OneFile.path):1: in resource r0: '\(name)"))
        #expect(error.text.contains("remove it on both"))
    }

    @Test func `to attach, the connection does not matter`() throws {
        let text = Sample.resource(body: "net { verify-alg md5; allow-two-primaries; }")
        #expect(try Sample.effective(text).settings(for: .attach).disk == "/dev/a0")
    }

    @Test func `all that is refused is named at once`() throws {
        let text = Sample.resource(body: "net { verify-alg md5; csums-alg sha1; }")
        let error = try #require(throws: AdministrationError.self) {
            try Sample.effective(text).settings(for: .connect)
        }
        #expect(error.text.split(separator: "\n").count == 2)
    }

    @Test func `the default policies of split brain may be spelled out`() throws {
        let text = Sample.resource(
            body: "net { after-sb-0pri disconnect; after-sb-1pri disconnect; "
                + "after-sb-2pri disconnect; allow-two-primaries no; }")
        #expect(try Sample.effective(text).settings(for: .connect).resource == "r0")
    }

    @Test func `more than one volume is refused with the way out`() throws {
        func host(_ name: String, _ port: Int) -> String {
            """
            on \(name) { address 127.0.0.1:\(port);
              volume 0 { device /dev/drbd0; disk /dev/x; meta-disk internal; }
              volume 1 { device /dev/drbd1; disk /dev/y; meta-disk internal; } }
            """
        }
        let text = "resource r0 { \(host("alice", 7000)) \(host("bob", 7001)) }"
        for purpose in [SettingsPurpose.attach, .connect] {
            let error = try #require(throws: AdministrationError.self) {
                try Sample.effective(text).settings(for: purpose)
            }
            #expect(error.text.contains("2 volumes, repd has one for each resource"))
        }
    }

    @Test func `a volume that is not number 0 is refused`() throws {
        func host(_ name: String, _ port: Int) -> String {
            "on \(name) { address 127.0.0.1:\(port); "
                + "volume 5 { device /dev/drbd0; disk /dev/x; meta-disk internal; } }"
        }
        let text = "resource r0 { \(host("alice", 7000)) \(host("bob", 7001)) }"
        let error = try #require(throws: AdministrationError.self) {
            try Sample.effective(text).settings(for: .attach)
        }
        #expect(error.text.contains("volume 5: the only volume"))
    }

    @Test func `a proxy between the nodes is refused`() throws {
        let proxy = "proxy on alice { inside 127.0.0.1:7700; outside 127.0.0.1:7701; }"
        let text = Sample.resource(host: proxy)
        let error = try #require(throws: AdministrationError.self) {
            try Sample.effective(text).settings(for: .connect)
        }
        #expect(error.text.contains("'proxy on'"))
    }
}
