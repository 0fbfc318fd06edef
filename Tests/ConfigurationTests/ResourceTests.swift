import Configuration
import Testing

@Suite struct ResourceTests {
    @Test func `options of common are inherited one by one`() throws {
        let file = try read(
            "common { net { timeout 50; ping-int 9; } disk { resync-rate 1M; } }\n"
                + resource("net { timeout 40; } disk { on-io-error detach; }"))
        let resource = file.resources[0]
        #expect(resource.own.net.entries.map(\.text) == ["40"])
        #expect(resource.sections.net["timeout"]?.number == 40)
        #expect(resource.sections.net["ping-int"]?.number == 9)
        #expect(resource.sections.disk.entries.map(\.name) == ["resync-rate", "on-io-error"])
    }

    @Test func `common counts wherever it stands, and the last one wins`() throws {
        let file = try read(
            "common { net { timeout 50; } }\n" + resource() + "common { net { ping-int 9; } }\n")
        #expect(file.resources[0].sections.net.entries.map(\.name) == ["ping-int"])
    }

    @Test func `a section in a host wins over the resource, a volume over both`() throws {
        let file = try read(
            """
            resource r0 {
              options { cpu-mask 1; }
              disk { resync-rate 1M; c-max-rate 10M; }
              volume 0 { device minor 0; disk /dev/a; meta-disk internal;
                         disk { resync-rate 2M; } }
              on alice { address 10.0.0.1:7788; options { cpu-mask 2; }
                         volume 0 { disk /dev/b; } }
              on bob { address 10.0.0.2:7788; }
            }
            """)
        let alice = try file.effective("r0", on: NodeIdentity(name: "alice"))
        let bob = try file.effective("r0", on: NodeIdentity(name: "bob"))
        #expect(alice.options.cpuMask == "2")
        #expect(bob.options.cpuMask == "1")
        #expect(alice.volumes[0].disk == "/dev/b")
        #expect(bob.volumes[0].disk == "/dev/a")
        #expect(alice.volumes[0].device == "/dev/drbd0")
        #expect(alice.volumes[0].options.resyncRate == 2048)
        #expect(alice.volumes[0].options.maximumRate == 10_240)
    }

    @Test(arguments: [
        ("/dev/drbd3", "/dev/drbd3", 3), ("drbd3", "/dev/drbd3", 3), ("minor 3", "/dev/drbd3", 3),
        ("/dev/drbd3 minor 3", "/dev/drbd3", 3), ("drbd_data minor 3", "/dev/drbd_data", 3),
        ("/dev/nbd3", "/dev/nbd3", 3), ("/dev/nbd3 minor 7", "/dev/nbd3", 7),
    ])
    func `a device has a name and a minor`(_ text: String, _ path: String, _ minor: Int) throws {
        let file = try read(resource().replacing("device /dev/drbd0", with: "device \(text)"))
        let volume = file.resources[0].hosts[0].volumes[0]
        #expect(volume.device == path)
        #expect(volume.minor == minor)
    }

    @Test(arguments: [
        ("address 10.1.1.31:7788", Address(family: .ipv4, host: "10.1.1.31", port: 7788)),
        ("address ipv4 10.1.1.31:1", Address(family: .ipv4, host: "10.1.1.31", port: 1)),
        ("address ipv6 [fd01::1]:65535", Address(family: .ipv6, host: "fd01::1", port: 65535)),
        ("address ipv6 [ fe80::1%eth0 ]:2", Address(family: .ipv6, host: "fe80::1%eth0", port: 2)),
        ("address sdp 10.1.1.31:7788", Address(family: .sdp, host: "10.1.1.31", port: 7788)),
    ])
    func `an address has a family, a host and a port`(_ text: String, _ address: Address) throws {
        let file = try read(resource().replacing("address 10.1.1.31:7788", with: text))
        #expect(file.resources[0].hosts[0].address == address)
    }

    @Test(arguments: [
        "address 300.1.1.1:7788", "address 10.1.1.31:0", "address ipv6 [fd01::1::2]:7788",
        "address ipv6 [fd01]:7788", "address ipv4 fd01::1", "address 10.1.1.31 7788",
        "address 10.1.1.31:x",
    ])
    func `what is no address is refused`(_ text: String) {
        #expect(complaints(resource().replacing("address 10.1.1.31:7788", with: text)).count == 1)
    }

    @Test func `meta data may be internal, on a device of its own or at an index`() throws {
        func metaDisk(_ statement: String) throws -> MetaDisk? {
            let text = resource().replacing("meta-disk internal", with: statement)
            return try read(text).resources[0].hosts[0].volumes[0].metaDisk
        }
        #expect(try metaDisk("flexible-meta-disk internal") == .internal)
        #expect(try metaDisk("meta-disk /dev/m") == .flexible(path: "/dev/m"))
        #expect(try metaDisk("flexible-meta-disk /dev/m") == .flexible(path: "/dev/m"))
        #expect(try metaDisk("meta-disk /dev/m [7]") == .indexed(path: "/dev/m", index: 7))
    }

    @Test func `loopback addresses may be the same on several hosts, but once on one`() throws {
        let one = resource().replacing("10.1.1.31", with: "127.0.0.1")
            .replacing("10.1.1.32", with: "127.0.0.1")
        _ = try read(one)
        #expect(
            complaints(one + one.replacing("r0", with: "r1").replacing("drbd0", with: "drbd1")) == [
                "/etc/drbd.conf:13: conflicting use of IP 'alice:127.0.0.1:7788' ...\n"
                    + "/etc/drbd.conf:4: IP 'alice:127.0.0.1:7788' first used here."
            ])
    }

    @Test func `a place for meta data is used once on a host`() {
        let one = resource().replacing("meta-disk internal", with: "meta-disk /dev/m[0]")
        let other = one.replacing("r0", with: "r1").replacingMinor()
        #expect(complaints(one + other).first?.contains("meta-disk:alice:/dev/m[0]") == true)
        #expect(complaints(one + other.replacing("[0]", with: "[1]")).isEmpty)
    }

    @Test func `the same section, minor or volume for another host is no conflict`() throws {
        let text =
            resource()
            + resource(name: "r1").replacing("alice", with: "carol")
            .replacing("bob", with: "dave").replacing(":7788", with: ":7789")
        #expect(try read(text).resources.map(\.name) == ["r0", "r1"])
    }

    @Test func `a floating section is for the host with its address`() throws {
        let file = try read(
            """
            resource r1 {
              device minor 1; disk /dev/a; meta-disk internal;
              floating 10.1.1.31:7789;
              floating 10.1.1.32:7789 { disk /dev/b; }
            }
            """)
        let node = NodeIdentity(name: "whoever", addresses: ["10.1.1.32"])
        let resource = try file.effective("r1", on: node)
        #expect(resource.volumes[0].disk == "/dev/b")
        #expect(resource.peerAddress.host == "10.1.1.31")
        #expect(file.resources(on: NodeIdentity(name: "whoever")).isEmpty)
    }

    @Test func `two floating sections that both fit are refused`() throws {
        let file = try read(
            """
            resource r1 {
              device minor 1; disk /dev/a; meta-disk internal;
              floating 127.0.0.1:7789;
              floating 127.0.0.1:7790;
            }
            """)
        let error = try #require(throws: ConfigurationError.self) {
            try file.effective("r1", on: NodeIdentity(name: "whoever"))
        }
        #expect(error.text.hasSuffix("There are multiple host sections for this node."))
    }

    @Test func `skip leaves out what is in its braces, whatever that is`() throws {
        let file = try read(
            "skip { a { \"}\" } # }\n ä = 1 }\nskip some-text { resource r0 { } }\n" + resource())
        #expect(file.resources.map(\.location.line) == [4])
        #expect(complaints("skip {\n { }") == ["/etc/drbd.conf:1: skip section is not closed"])
    }

    @Test func `a resource may be called by a keyword`() throws {
        #expect(try read(resource(name: "net")).resources[0].name == "net")
    }

    @Test(arguments: [
        // A volume of the resource joins the statements of its hosts.
        "volume 1 { device minor 1; disk /dev/c; meta-disk internal; }",
        "device minor 1; disk /dev/c; meta-disk internal; volume 1 { device minor 2; "
            + "disk /dev/d; meta-disk internal; }",
    ])
    func `a resource has volumes or is one, whoever says so`(statements: String) {
        #expect(
            complaints(resource(statements)).contains {
                $0.hasSuffix("in resource r0: you must not mix implicit and explicit volumes")
            })
    }

    @Test(arguments: ["/dev/drbd1048576", "/dev/nbd1048576", "drbd123456789"])
    func `a minor in the name of a device has the limits of any other`(device: String) {
        let text = resource().replacing("device /dev/drbd0;", with: "device \(device);")
        #expect(complaints(text).first?.hasSuffix("out of range [0..1048575].") == true)
        let largest = resource().replacing("device /dev/drbd0;", with: "device drbd1048575;")
        #expect(complaints(largest) == [])
    }

    @Test func `volumes are numbers, once for each host, and complete`() {
        let text = resource().replacing("device /dev/drbd0;", with: "")
        #expect(complaints(text).map { $0.hasSuffix("'device' keyword missing.") } == [true, true])
        #expect(!complaints("resource r0 { volume x { } }").isEmpty)
        #expect(!complaints("resource r0 { volume 65536 { } }").isEmpty)
        #expect(!complaints("common { volume 0 { device minor 1; } }").isEmpty)
    }

    @Test func `the stacked section gets the hosts of the resource below, found later too`() throws
    {
        let file = try read(
            """
            resource up {
              stacked-on-top-of r0 { device minor 10; address 10.1.1.40:7790; }
              on carol { device minor 10; disk /dev/c; address 10.1.1.33:7790; meta-disk internal; }
            }

            """ + resource())
        #expect(file.resources[0].hosts[0].names == ["alice", "bob"])
        let error = try #require(throws: ConfigurationError.self) {
            try file.effective("up", on: NodeIdentity(name: "alice"))
        }
        #expect(
            error.text == "/etc/drbd.conf:1: in resource up:\n"
                + "\tstacked resources are not supported by repd.")
    }

    @Test func `a device below a stacked resource is used once on its hosts`() {
        let text =
            "resource up { stacked-on-top-of r0 { device minor 0; address 10.1.1.40:7790; } }\n"
            + resource()
        #expect(complaints(text).first?.contains("device-minor:alice:0") == true)
    }
}
