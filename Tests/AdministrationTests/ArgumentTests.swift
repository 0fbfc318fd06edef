import Administration
import ArgumentParser
import Testing

@testable import repctl

@Suite struct ArgumentTests {
    private func parse(_ words: String...) throws -> any TableCommand {
        try #require(try Repctl.parseAsRoot(words) as? any TableCommand)
    }

    @Test func `every entry of the table is a command, in its order`() {
        let names = Repctl.configuration.subcommands.map { $0.configuration.commandName }
        #expect(names == Command.table.map(\.name))
    }

    @Test(arguments: Command.table.map(\.name))
    func `every command takes names and has help`(name: String) throws {
        // These take something in front of the names.
        let first = ["set-gi", "restore-md", "verify-dump"].contains(name) ? ["1::"] : []
        let words = [name] + first + ["r0", "all"]
        let command = try #require(try Repctl.parseAsRoot(words) as? any TableCommand)
        #expect(command.options.argument == first.joined())
        #expect(type(of: command).entry.name == name)
        #expect(command.resources.names == ["r0", "all"])
        let help = Repctl.helpMessage(for: type(of: command))
        #expect(help.contains(type(of: command).entry.abstract.prefix(20)))
        #expect(help.contains("--node-name"))
    }

    @Test func `options may stand before and behind the names`() throws {
        for words in [["primary", "--force", "r0"], ["primary", "r0", "--force"]] {
            let command = try #require(try Repctl.parseAsRoot(words) as? any TableCommand)
            #expect(command.options == CommandOptions(force: true))
        }
        #expect(try parse("primary", "r0").options == CommandOptions())
        #expect(try parse("primary", "--overwrite-data-of-peer", "r0").options.force)
    }

    @Test func `the shape of the log is told in stripes and KiB`() throws {
        let shaped = try parse(
            "create-md", "--al-stripes", "4", "--al-stripe-size-kB", "64", "--peer-max-bio-size",
            "4096", "--ignore-sanity-checks", "--force", "r0"
        ).options
        #expect(shaped.logShape == CommandOptions.LogShape(stripes: 4, stripeBlocks: 16))
        #expect(shaped.peerMaximumRequest == 4096)
        #expect(shaped.ignoresSanityChecks && shaped.force)
        #expect(try parse("create-md", "r0").options == CommandOptions())
        #expect(
            try parse("restore-md", "--al-stripes", "2", "f", "r0").options.logShape
                == CommandOptions.LogShape(stripes: 2, stripeBlocks: 8))
        #expect(throws: (any Error).self) {
            try parse("create-md", "--al-stripe-size-kB", "33", "r0")
        }
        #expect(try parse("check-resize", "--old-size", "1048576", "r0").options.oldSize == 1 << 20)
    }

    @Test func `options of commands are what they say`() throws {
        #expect(
            try parse("connect", "--discard-my-data", "r0").options
                == CommandOptions(discardMyData: true))
        #expect(
            try parse("secondary", "--disconnect-clients", "r0").options
                == CommandOptions(disconnectClients: true))
        #expect(
            try parse("status", "-v", "-s", "--json").options
                == CommandOptions(verbose: true, statistics: true, json: true))
        for spelling in ["-t", "--timeout", "--wfc-timeout"] {
            #expect(
                try parse("wait-sync", spelling, "30", "r0").options == CommandOptions(timeout: 30))
        }
        for command in ["down", "detach", "disconnect", "create-md", "dump-md"] {
            #expect(try parse(command, "--force", "r0").options == CommandOptions(force: true))
        }
    }

    @Test func `places may be named in front of the command or behind it`() throws {
        let front = try parse(
            "-c", "f", "--run-dir", "d", "--node-name", "n", "role", "r0")
        let site = front.resources.site.inheriting(front.root.site)
        #expect(site.configFile == "f" && site.runDir == "d" && site.nodeName == "n")
        let both = try parse("-c", "f", "role", "-c", "g", "r0")
        #expect(both.resources.site.inheriting(both.root.site).configFile == "g")
    }

    @Test(arguments: [
        ["primary"], ["primary", "--timeout", "3", "r0"], ["role", "--force", "r0"],
        ["wait-sync", "-t", "-1", "r0"], ["wait-sync", "-t", "300001", "r0"],
        ["connect", "-d", "r0"], ["up", "-c"],
    ])
    func `wrong arguments are refused`(words: [String]) {
        #expect(throws: (any Error).self) { try Repctl.parseAsRoot(words) }
    }

    @Test func `status and proc need no name`() throws {
        #expect(try parse("status").resources.names == [])
        #expect(try parse("proc").resources.names == [])
    }

    @Test func `a first word that is no command is named as such`() {
        #expect(Main.unknownCommand(["-c", "up", "frob", "r0"])?.contains("'frob'") == true)
        #expect(Main.unknownCommand(["--run-dir=x", "up", "frob"]) == nil)
        #expect(Main.unknownCommand(["help", "frob"]) == nil)
        #expect(Main.unknownCommand([]) == nil)
    }
}
