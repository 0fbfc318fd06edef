import MetaDisk
import Support
import Testing

/// The text of dump-md read back, and meta data made of it.
@Suite struct RestorationTests {
    /// In pieces of a few bytes, as a pipe may give them.
    static func reader(_ text: String, pieces: Int = 7) -> DumpReader {
        var rest = Array(text.utf8)[...]
        return DumpReader {
            let piece = rest.prefix(pieces)
            rest = rest.dropFirst(pieces)
            return Array(piece)
        }
    }

    static func restore(
        _ text: String, _ placement: MetaLocation.Placement = .internalData, to image: inout Image,
        shape: (stripes: UInt32, stripeBlocks: UInt32)? = nil
    ) throws -> MetaRestoration {
        var reader = reader(text, pieces: 5000)
        var restoration = try MetaRestoration(
            reader.header(), placement: placement, deviceSize: image.size, shape: shape)
        restoration.begin(on: &image)
        while let run = try reader.nextRun() { restoration.add(run, to: &image) }
        restoration.finish(on: &image)
        return restoration
    }

    /// Its text needs the log applied, or has bits that do not exist.
    static let changing: Set = [
        "crash-al1237", "crash-conn", "crash-disc", "crash-diskless", "crash-striped",
        "live-al-restriped-online", "ok-bits-beyond-end", "bad-la-size-too-big",
    ]

    @Test(arguments: Fixture.valid.filter { !changing.contains($0) })
    func `a dump restored on a used disk is dumped as the same text`(name: String) throws {
        let fixture = try Fixture(name)
        var source = fixture.image
        _ = try source.apply(fixture.placement)
        let text = try source.dump(fixture.placement)
        var target = Image(size: source.size)
        let location = try source.superblock(fixture.placement)
            .locate(deviceSize: source.size, placement: fixture.placement)
        target[location.bitmapOffset] = [UInt8](repeating: 0x77, count: 4096)
        target[location.logOffset] = [UInt8](repeating: 0x77, count: 4096)
        let restoration = try Self.restore(text, fixture.placement, to: &target)
        let found = try target.dump(fixture.placement)
        // create-md and restore-md both say 257 in a comment.
        #expect(
            found.replacing(/# al-extents [0-9]+;/, with: "")
                == text.replacing(/# al-extents [0-9]+;/, with: ""))
        #expect(!restoration.isCut)
        let after = try target.superblock(fixture.placement)
        #expect(after.flags == (try source.superblock(fixture.placement)).flags)
        let end = location.bitmapOffset + location.bitmapCapacityBytes
        let used = location.bitmapOffset + BitmapLayout.byteCount(sectors: after.lastAgreedSize)
        for offset in stride(from: used, to: min(end, used + (1 << 20)), by: 4096) {
            #expect(target[offset].allSatisfy { $0 == 0 })
        }
    }

    /// Safety rule S14.
    @Test(arguments: 0..<20 as Range<UInt64>)
    func `a crash while restoring leaves the old state or a full sync`(seed: UInt64) throws {
        let (start, location) = try CreationTests.member(size: 1 << 26)
        var source = try Fixture("crash-few").image
        _ = try source.apply(.internalData)
        let text = try source.dump(.internalData)
        var image = start
        _ = try Self.restore(text, to: &image)
        let wanted = image.quiet
        let old = try start.superblock(.internalData)
        var random = RandomSource(seed: seed)
        for count in 0...image.operations.count {
            let crashed = CreationTests.crash(
                start, after: image.operations[..<count], &random)
            let found = try crashed.superblock(.internalData)
            if found.flags.contains(.fullSync) { continue }
            let bitmap = crashed[location.bitmapOffset]
            if found.uuids == old.uuids {
                #expect(bitmap == start[location.bitmapOffset])
            } else {
                #expect(bitmap == wanted[location.bitmapOffset])
                #expect(crashed[location.logOffset] == wanted[location.logOffset])
            }
        }
        #expect(try !wanted.superblock(.internalData).flags.contains(.fullSync))
    }

    @Test func `another shape of the log moves the bitmap`() throws {
        var source = try Fixture("crash-few").image
        _ = try source.apply(.internalData)
        let before = try source.superblock(.internalData)
        let old = try before.locate(deviceSize: source.size, placement: .internalData)
        let text = try source.dump(.internalData)
        var target = Image(size: source.size)
        let restoration = try Self.restore(text, to: &target, shape: (2, 8))
        let after = try target.superblock(.internalData)
        let location = try after.validate(deviceSize: target.size, placement: .internalData)
        #expect(location == restoration.location)
        #expect((after.stripes, after.stripeBlocks) == (2, 8))
        let count = BitmapLayout.bitCount(sectors: after.lastAgreedSize)
        #expect(target.bits(location, count: count) == source.bits(old, count: count))
    }

    static let good = """
        # comment
        version "v08";
        uuid { 0x0000000000000004; 0x0000000000000000; 0x0000000000000000; 0x0000000000000000;
        flags 0x00000091; }
        la-size-sect 130992;
        bm-byte-per-bit 4096; device-uuid 0x0000000000000001;
        la-peer-max-bio-size 4096;
        al-stripes 1;
        al-stripe-size-4k 8;
        bm { 0x00000000000000FF; 510 times 0x0000000000000000;
        0xFFFFFFFFFFFFFFFF; }

        """

    @Test(arguments: [1, 2, 3, 64, 10_000])
    func `the pieces do not matter`(pieces: Int) throws {
        var reader = Self.reader(Self.good, pieces: pieces)
        let header = try reader.header()
        #expect(header.lastAgreedSize == 130992)
        #expect(header.flags.rawValue == 0x91)
        #expect(header.peerMaximumRequest == 4096)
        #expect(try reader.nextRun() == DumpRun(count: 1, word: 0xFF))
        #expect(try reader.nextRun() == DumpRun(count: 510, word: 0))
        #expect(try reader.nextRun() == DumpRun(count: 1, word: .max))
        #expect(try reader.nextRun() == nil)
    }

    @Test func `bits behind the end and bitmap without room are left out`() throws {
        var image = Image(size: 1 << 26)
        var restoration = try Self.restore(Self.good, to: &image)
        // The last word lies behind the 16374 bits in use.
        #expect(image.bits(restoration.location, count: 32768) == [[0, 7]])
        #expect(!restoration.isCut)
        let long = Self.good.replacing("510 times", with: "511 times")
        restoration = try Self.restore(long, to: &image)
        #expect(restoration.isCut)
    }

    @Test(
        arguments: [
            ("", "", "line 1: keyword 'version' expected, but end of file encountered"),
            ("la-size-sect 130992;", "la-size-sect 130992", "semicolon (;) expected"),
            ("\"v08\"", "\"v09\"", "dump is 'v09' you requested 'v08'."),
            ("\"v08\"", "\"v08", "a string without end"),
            ("0x00000091", "0x91", "line 4: invalid hex number"),
            ("0x00000091", "0x+0000091", "line 4: invalid hex number"),
            ("0x00000000000000FF", "0x-000000000000000", "invalid hex number"),
            ("0x00000091", "0x0000000000000091", "an 8-digit hex number expected"),
            ("uuid {", "uuid", "line 3: opening brace ({) expected"),
            ("4096; device", "8192; device", "Invalid value for bm-byte-per-bit: 8192"),
            ("al-stripes 1;", "", "keyword 'al-stripes' expected, not 'al-stripe-size-4k'"),
            ("al-stripes 1", "al-stripes 0", "out of range"),
            ("130992", "99999999999999999999", "no number of at most 19 digits"),
            ("130992", "2199023255553", "out of range (0...2199023255552)"),
            ("# comment", "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.", "line 1"),
            ("510 times", "510", "keyword 'times' expected"),
            ("510 times", "9223372036854775807 times", "larger than that of 1 PiB"),
            ("0xFFFFFFFFFFFFFFFF; }", "0xFFFFFFFFFFFFFFFF;", "but end of file encountered"),
            ("0xFFFFFFFFFFFFFFFF; }", "0xFFFFFFFFFFFFFFFF; } x", "end of file expected, not 'x'"),
            ("0x00000000000000FF", "-1", "not '-1'"),
        ])
    func `a text that is no dump is refused by line`(
        old: String, new: String, complaint: String
    ) throws {
        let text = old.isEmpty ? "" : Self.good.replacing(old, with: new)
        try #require(text != Self.good)
        let error = try #require(throws: DumpError.self) {
            var reader = Self.reader(text)
            _ = try reader.header()
            while try reader.nextRun() != nil {}
        }
        #expect("\(error)".contains(complaint), "\(error)")
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func `no damage makes the reader trip`(seed: UInt64) {
        var source = RandomSource(seed: seed)
        var bytes = Array(Self.good.utf8)
        for _ in 0...source.next() % 4 {
            let place = Int(source.next() % UInt64(bytes.count))
            bytes[place] = UInt8(truncatingIfNeeded: source.next())
        }
        var rest = bytes[...]
        var reader = DumpReader {
            let piece = rest.prefix(3)
            rest = rest.dropFirst(3)
            return Array(piece)
        }
        var words: UInt64 = 0
        do {
            _ = try reader.header()
            while let run = try reader.nextRun() { words += run.count }
        } catch { #expect(!"\(error)".isEmpty) }
        #expect(words <= BitmapLayout.wordCount(sectors: BitmapLayout.maximumSectors))
    }
}

@Suite struct GenerationInputTests {
    static func change(_ text: String) throws -> Superblock {
        let location = try MetaLocation(placement: .internalData, deviceSize: 1 << 26)
        var superblock = Superblock.fresh(location: location)
        superblock.uuids = GenerationUUIDs(current: 1, bitmap: 2, history0: 3, history1: 4)
        superblock.flags = [.consistent, .logClean, MetaFlags(rawValue: 0x4000)]
        try superblock.setGenerations(text)
        return superblock
    }

    @Test func `what is empty or missing keeps its value`() throws {
        let kept: MetaFlags = [.logClean, MetaFlags(rawValue: 0x4000)]
        #expect(try Self.change(":::").generationLine == Self.change("").generationLine)
        let one = try Self.change("AA::0xBB")
        #expect(
            one.uuids
                == GenerationUUIDs(current: 0xAA, bitmap: 2, history0: 0xBB, history1: 4))
        #expect(one.flags == kept.union(.consistent))
        let flags = try Self.change("::::0:1:1:1:1:1:1").flags
        #expect(
            flags
                == kept.union([
                    .wasUpToDate, .primaryIndicator, .connectedIndicator, .fullSync,
                    .peerOutdated, .crashedPrimary,
                ]))
    }

    @Test(
        arguments: [
            ("xyz", .noNumber("xyz")), ("+1", .noNumber("+1")), ("-1", .noNumber("-1")),
            ("-0", .noNumber("-0")), ("0x-0", .noNumber("0x-0")), ("0x+1", .noNumber("0x+1")),
            ("11112222333344445", .noNumber("11112222333344445")), ("1:2:3:4:2", .noFlag("2")),
            ("1:2:3:4:0:0:0:0:0:0:0:0", .tooMany(12)),
        ] as [(String, GenerationTextError)])
    func `anything else is refused and changes nothing`(
        text: String, error: GenerationTextError
    ) throws {
        #expect(throws: error) { try Self.change(text) }
    }

    @Test func `what get-gi prints is taken back`() throws {
        let line =
            "00000000000000AA:00000000000000BB:0000000000000000:0000000000000001:"
            + "0:1:0:1:0:1:0"
        #expect(try Self.change(line).generationLine == line)
    }
}
