import Configuration
import Testing

/// The broken configurations of the reference and what DRBD's own tool says about them.
@Suite struct InvalidTests {
    /// What a fixture says about one call.
    struct Call {
        var command = ""
        var host = ""
        var address = ""
        var exitCode: Int32 = 0
        var standardError = ""
        var standardOutput = ""

        init(_ text: String) throws {
            var isOutput = false
            for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
                if line.hasPrefix("# command: drbdadm ") {
                    let words = line.dropFirst("# command: drbdadm ".count)
                    let parts = words.split(separator: "(", maxSplits: 1)
                    command = parts[0].split(separator: " ").joined(separator: " ")
                    let names = parts[1].split(separator: ",")
                    host = String(names[0].dropFirst("host name ".count))
                    address = String(names[1].dropFirst(" local address ".count))
                } else if line.hasPrefix("# exit code: ") {
                    exitCode = try #require(Int32(line.dropFirst("# exit code: ".count)))
                } else if line.hasPrefix("# why:") || line == "# stderr:" {
                    continue
                } else if line.hasPrefix("# stdout:") {
                    isOutput = true
                } else if isOutput {
                    standardOutput += line + "\n"
                } else {
                    standardError += line + "\n"
                }
            }
        }
    }

    struct Outcome: Equatable {
        var exitCode: Int32
        var standardError: String
        var standardOutput: String
    }

    /// Where repd says something else, and why.
    static let deviations: [String: (reason: String, exitCode: Int32, standardError: String)] = [
        "05-eof-in-resource": (
            "a file that was cut off says so", 0,
            "/etc/drbd.conf:14: WARN: end of file closes resource r0\n"
        ),
        "21-protocol-unknown": (
            "with the place", 10,
            "/etc/drbd.conf:2: unknown protocol 'D', should be one of A,B,C\n"
        ),
        "22-protocol-in-net-unknown": (
            "with the place", 10,
            "/etc/drbd.conf:2: unknown protocol 'F', should be one of A,B,C\n"
        ),
        "27-rate-mb-suffix": (
            "with the place and the name", 20,
            "/etc/drbd.conf:3: resync-rate: 100MB is not a valid number\n"
        ),
        "30-port-range": (
            "said once", 10,
            "/etc/drbd.conf:5: port 77880 => 77880 out of range [1..65535].\n"
        ),
        "45-duplicate-disk-same-disk": (
            "two volumes on one disk destroy each other", 0,
            "/etc/drbd.conf:18: WARN: r1/0 and r0/0 have the same disk /dev/sda7 on alice\n"
                + "/etc/drbd.conf:24: WARN: r1/0 and r0/0 have the same disk /dev/sda7 on bob\n"
        ),
        "50-one-host-only": (
            "without a peer there is no up", 10,
            "/etc/drbd.conf:1: in resource r0:\n\tMissing section 'on <PEER> { ... }'.\n"
        ),
        "51-three-hosts": (
            "without a peer there is no up", 10,
            "/etc/drbd.conf:1: in resource r0:\n"
                + "\tThere are multiple host sections for the peer node.\n"
                + "\tUse the --peer option to select which peer section to use.\n"
        ),
        "71-enum-junk": (
            "checked while reading", 10,
            "/etc/drbd.conf:3: on-io-error: invalid argument 'panic', "
                + "should be one of pass_on,call-local-io-error,detach\n"
        ),
        "72-enum-junk-up": (
            "checked while reading", 10,
            "/etc/drbd.conf:3: on-io-error: invalid argument 'panic', "
                + "should be one of pass_on,call-local-io-error,detach\n"
        ),
        "75-nbsp": ("no-break spaces are blanks", 0, ""),
    ]

    @Test(arguments: Fixture.names(in: "invalid", suffix: ".conf"))
    func `a broken file draws the complaint of the reference`(_ name: String) throws {
        let call = try Call(try Fixture.text("invalid/\(name).expected"))
        let outcome = run(call, try Fixture.bytes("invalid/\(name).conf"))
        if let deviation = Self.deviations[name] {
            let wanted = Outcome(
                exitCode: deviation.exitCode, standardError: deviation.standardError,
                standardOutput: outcome.standardOutput)
            #expect(outcome == wanted, "\(deviation.reason)")
            // A deviation that is none does not belong into the list.
            #expect(
                outcome.exitCode != call.exitCode || outcome.standardError != call.standardError)
            return
        }
        let wanted = Outcome(
            exitCode: call.exitCode, standardError: call.standardError,
            standardOutput: DumpTests.corrected(call.standardOutput))
        #expect(outcome == wanted)
    }

    @Test func `all 82 broken files are there`() {
        #expect(Fixture.names(in: "invalid", suffix: ".conf").count == 82)
        #expect(Fixture.names(in: "invalid", suffix: ".expected").count == 82)
    }

    private func run(_ call: Call, _ bytes: [UInt8]) -> Outcome {
        let node = NodeIdentity(name: call.host, addresses: [call.address])
        var outcome = Outcome(exitCode: 0, standardError: "", standardOutput: "")
        do {
            let files = MemoryFiles(["/etc/drbd.conf": bytes])
            let file = try ConfigurationFile.read("/etc/drbd.conf", from: files)
            outcome.standardError = file.warnings.map { $0 + "\n" }.joined()
            switch call.command {
            case "dump":
                try file.checkAddresses(of: file.resources.map(\.name), on: node)
                outcome.standardOutput = ConfigurationDump.all(
                    of: file, on: node, absolutePath: "/etc/drbd.conf")
            case "-d up r0", "role r0":
                _ = try file.effective("r0", on: node)
            case "role all":
                _ = try file.allNames(on: node)
            default:
                Issue.record("unknown command \(call.command)")
            }
        } catch {
            outcome.exitCode = error.exitCode
            outcome.standardError += error.text + "\n"
        }
        return outcome
    }
}
