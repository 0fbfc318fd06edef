import Testing

@testable import Configuration

@Suite struct OptionTests {
    private func net(_ statements: String) -> String { resource("net { \(statements) }") }
    private func disk(_ statements: String) -> String { resource("disk { \(statements) }") }

    /// The tables of the reference, sections 2.2 to 2.4, and repd's own section.
    static let ranges: [(section: SectionKind, name: String, least: Int, most: Int, unit: String)] =
        [
            (.startup, "wfc-timeout", 0, 300_000, ""),
            (.startup, "degr-wfc-timeout", 0, 300_000, ""),
            (.startup, "outdated-wfc-timeout", 0, 300_000, ""),
            (.disk, "size", 0, 2_199_023_255_552, "s"), (.disk, "max-bio-bvecs", 0, 128, ""),
            (.disk, "resync-rate", 1, 4_194_304, "k"), (.disk, "al-extents", 67, 65_534, ""),
            (.disk, "c-plan-ahead", 0, 300, ""), (.disk, "c-delay-target", 1, 100, ""),
            (.disk, "c-fill-target", 0, 1_048_576, "s"),
            (.disk, "c-max-rate", 250, 4_194_304, "k"), (.disk, "c-min-rate", 0, 4_194_304, "k"),
            (.disk, "disk-timeout", 0, 6000, ""),
            (.disk, "rs-discard-granularity", 0, 1_048_576, ""),
            (.net, "timeout", 1, 600, ""), (.net, "ping-int", 1, 120, ""),
            (.net, "ping-timeout", 1, 300, ""), (.net, "connect-int", 1, 120, ""),
            (.net, "ko-count", 0, 200, ""), (.net, "max-buffers", 32, 131_072, ""),
            (.net, "max-epoch-size", 1, 20_000, ""), (.net, "unplug-watermark", 1, 131_072, ""),
            (.net, "sndbuf-size", 0, 10_485_760, ""), (.net, "rcvbuf-size", 0, 10_485_760, ""),
            (.net, "congestion-fill", 0, 20_971_520, "s"),
            (.net, "congestion-extents", 67, 65_534, ""),
            (.net, "socket-check-timeout", 0, 300, ""),
            (.repd, "resume-timeout", 0, 3600, ""), (.repd, "resume-limit", 0, 1000, ""),
        ]

    @Test func `every option with a range is in the table of this test`() {
        let names = SectionKind.allCases.flatMap { section in
            OptionTable[section].compactMap { name, kind in
                if case .number = kind { name } else { nil }
            }
        }
        #expect(names.sorted() == Self.ranges.map(\.name).sorted())
    }

    @Test func `the ends of every range are accepted and what is beyond is refused`() throws {
        for (section, name, least, most, unit) in Self.ranges {
            for value in [least, most] {
                let file = try read(resource("\(section) { \(name) \(value); }"))
                #expect(file.resources[0].sections[section][name]?.number == value, "\(name)")
            }
            for value in [least - 1, most + 1] where value >= 0 {
                #expect(
                    complaints(resource("\(section) { \(name) \(value); }")) == [
                        "/etc/drbd.conf:2: \(name) \(value) => \(value)\(unit) out of range "
                            + "[\(least)..\(most)]\(unit)."
                    ])
            }
        }
    }

    @Test(arguments: [
        ("4096", 4096), ("4M", 4096), ("4096k", 4096), ("4096K", 4096), ("2s", 1), ("1g", 1 << 20),
        ("1m", 1024),
    ])
    func `a rate is counted in KiB whatever its suffix`(_ text: String, _ value: Int) throws {
        let file = try read(disk("resync-rate \(text);"))
        #expect(file.resources[0].sections.disk["resync-rate"]?.number == value)
    }

    @Test func `a size is counted in sectors`() throws {
        #expect(try read(disk("size 2G;")).resources[0].sections.disk["size"]?.number == 1 << 22)
    }

    @Test(arguments: ["100MB", "1.5M", "fast", "99999999999999999999", "9223372036854775807G"])
    func `what is no number is refused with exit code 20`(_ text: String) throws {
        let error = try #require(throws: ConfigurationError.self) {
            try read(disk("resync-rate \(text);"))
        }
        #expect(error.exitCode == 20)
        #expect(error.text == "/etc/drbd.conf:2: resync-rate: \(text) is not a valid number")
    }

    @Test func `ranges are collected, a wrong token ends the reading behind them`() {
        #expect(
            complaints(net("timeout 0; ping-int 500; ping 3;")) == [
                "/etc/drbd.conf:2: timeout 0 => 0 out of range [1..600].",
                "/etc/drbd.conf:2: ping-int 500 => 500 out of range [1..120].",
                "/etc/drbd.conf:2: Parse error: 'an option keyword' expected,\n\tbut got 'ping'",
            ])
    }

    @Test func `every word of a choice is accepted and no other`() throws {
        for section in SectionKind.allCases {
            for (name, kind) in OptionTable[section] {
                guard case .choice(let words) = kind else { continue }
                for word in words {
                    let text = word.hasSuffix("-") ? word + "bob" : word
                    let file = try read(resource("\(section) { \(name) \(text); }"))
                    #expect(file.resources[0].sections[section][name]?.text == text)
                }
                #expect(complaints(resource("\(section) { \(name) sometimes; }")).count == 1)
            }
        }
        #expect(complaints(net("after-sb-0pri discard-node-;")).count == 1)
    }

    @Test func `flags take yes, no or nothing, and the old negative spellings`() throws {
        let file = try read(
            resource(
                "net { allow-two-primaries; always-asbp no; no-tcp-cork; } "
                    + "disk { no-disk-flushes; no-md-flushes; disk-drain yes; }"))
        let net = file.resources[0].sections.net
        let disk = file.resources[0].sections.disk
        #expect(net.entries.map(\.text) == ["yes", "no", "no"])
        #expect(net.entries.last?.name == "tcp-cork")
        #expect(disk.entries.map(\.name) == ["disk-flushes", "md-flushes", "disk-drain"])
        #expect(disk.entries.map(\.text) == ["no", "no", "yes"])
        #expect(!complaints(self.net("no-use-rle;")).isEmpty)
    }

    @Test func `what syncer says goes where it belongs today`() throws {
        let file = try read(
            resource(
                "syncer { rate 10M; after r1; al-extents 257; c-fill-target 10; verify-alg sha1; "
                    + "use-rle; cpu-mask f; }") + resource(name: "r1").replacingMinor())
        let sections = file.resources[0].sections
        #expect(
            sections.disk.entries.map(\.name)
                == ["resync-rate", "resync-after", "al-extents", "c-fill-target"])
        #expect(sections.net.entries.map(\.name) == ["verify-alg", "use-rle"])
        #expect(sections.options.entries.map(\.name) == ["cpu-mask"])
        for name in ["group 1", "skip-sync", "delay-probe-volume 1", "resync-rate 1M", "timeout 1"]
        {
            #expect(!complaints(resource("syncer { \(name); }")).isEmpty)
        }
    }

    @Test func `discard-my-data and words of DRBD 9 are not for the file`() {
        for text in [
            net("discard-my-data;"), resource("options { quorum majority; }"),
            resource("options { auto-promote yes; }"), resource("handlers { quorum-lost x; }"),
        ] {
            #expect(complaints(text).first?.contains("'an option keyword' expected") == true)
        }
    }

    @Test func `the global section keeps its values and refuses others`() throws {
        let file = try read(
            "global { minor-count 64; dialog-refresh 0; disable-ip-verification; usage-count no; "
                + "udev-always-use-vnr; cmd-timeout-short 1; cmd-timeout-medium 2; "
                + "cmd-timeout-long 3; }\n" + resource())
        var wanted = GlobalConfiguration()
        wanted.minorCount = 64
        wanted.dialogRefresh = 0
        wanted.disableIPVerification = true
        wanted.usageCount = .no
        wanted.udevAlwaysUseVolumeNumber = true
        wanted.commandTimeoutShort = 1
        wanted.commandTimeoutMedium = 2
        wanted.commandTimeoutLong = 3
        #expect(file.global == wanted)
        #expect(!complaints("global { minor-count 0; }").isEmpty)
        #expect(!complaints("global { cmd-timeout-long 901; }").isEmpty)
        #expect(!complaints("global { usage-count; }").isEmpty)
    }

    @Test func `a shared secret has at most 64 characters`() throws {
        let secret = String(repeating: "s", count: 64)
        _ = try read(net("shared-secret \(secret);"))
        #expect(complaints(net("shared-secret \(secret)s;")).count == 1)
    }
}

extension String {
    /// Another device and port, so that two resources can live in one file.
    func replacingMinor() -> String {
        split(separator: "\n", omittingEmptySubsequences: false).map { line in
            line.replacing("drbd0", with: "drbd1").replacing(":7788", with: ":7789")
                .replacing("sda7", with: "sda8").replacing("sdb7", with: "sdb8")
        }
        .joined(separator: "\n")
    }
}
