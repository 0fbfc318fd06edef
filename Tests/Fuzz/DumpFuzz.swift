import MetaDisk
import Support

/// The text of dump-md, read and written.
enum DumpFuzz {
    private struct Outcome: Equatable {
        var header: DumpHeader?
        var runs: [DumpRun] = []
        var error: DumpError?

        var isWhole: Bool { header != nil && error == nil }
    }

    private static func outcome(_ pieces: [ArraySlice<UInt8>]) -> Outcome {
        var rest = pieces[...]
        var reader = DumpReader { rest.popFirst().map(Array.init) ?? [] }
        var outcome = Outcome()
        do throws(DumpError) {
            outcome.header = try reader.header()
            while let run = try reader.nextRun() { outcome.runs.append(run) }
        } catch {
            invariant(!error.description.isEmpty, "refused without a word")
            outcome.error = error
        }
        return outcome
    }

    // MARK: reading

    /// A place for the meta data, and a text.
    static func read(_ input: inout Input) {
        let seed = input.byte()
        let isExternal = seed & 1 == 1
        let text = input.rest()
        let whole = outcome([text[...]])
        invariant(
            whole == outcome(pieces(of: text, seed: UInt64(seed))), "another outcome in pieces")
        guard let header = whole.header, whole.isWhole else { return }
        let isPlain = !text.contains(UInt8(ascii: "#"))
        invariant(!(isPlain && hasSign(text)), "a number with a sign is taken")
        guard
            let restoration = MetaDiskTarget.located({ () throws(MetaDiskError) in
                try MetaRestoration(
                    header, placement: isExternal ? .flexExternal : .internalData,
                    deviceSize: isExternal ? (256 << 10) + 512 : 64 << 20)
            })
        else { return }
        restore(restoration, header, whole.runs)
    }

    /// `0x+` or `0x-`; outside of comments no number looks like that.
    private static func hasSign(_ text: [UInt8]) -> Bool {
        zip(text, text.dropFirst().enumerated()).contains { one, next in
            let follows = text.dropFirst(next.offset + 2).first
            return one == UInt8(ascii: "0") && next.element == UInt8(ascii: "x")
                && (follows == UInt8(ascii: "+") || follows == UInt8(ascii: "-"))
        }
    }

    private static func restore(
        _ start: MetaRestoration, _ header: DumpHeader, _ runs: [DumpRun]
    ) {
        var restoration = start
        let location = restoration.location
        let superblock = restoration.superblock
        MetaDiskTarget.check(location)
        var device = MetaDevice(location)
        restoration.begin(on: &device)
        for run in runs { restoration.add(run, to: &device) }
        restoration.finish(on: &device)
        let block = device.readBlock(at: location.superblockOffset)
        let written = MetaDiskTarget.located { () throws(MetaDiskError) in
            let read = try block.read { bytes throws(MetaDiskError) in
                try Superblock(decoding: bytes)
            }
            _ = try read.validate(deviceSize: location.deviceSize, placement: location.placement)
            return read
        }
        invariant(written == superblock, "restored as \(String(describing: written))")
        invariant(superblock.uuids == header.uuids, "other generations: \(superblock)")
        // Bits behind the end of the storage are not kept, and all others are.
        let bits = BitmapLayout.bitCount(sectors: superblock.lastAgreedSize)
        let bytes = BitmapLayout.byteCount(sectors: superblock.lastAgreedSize)
        let bitmap = device.bitmap(location, count: Int(bytes))
        var word = 0
        for run in runs {
            let end = min(UInt64(word) + run.count, UInt64(bitmap.count / 8))
            for index in word..<max(word, Int(end)) {
                let left = bits - min(bits, UInt64(index) * 64)
                let mask: UInt64 = left >= 64 ? .max : (1 << left) - 1
                let found = bitmap.read { $0[LittleField<UInt64>(at: 8 * index)] }
                invariant(found == run.word & mask, "word \(index) is \(found), not \(run.word)")
            }
            word = max(word, Int(end))
        }
    }

    // MARK: writing

    /// A super block's fields, and a bitmap.
    static func write(_ input: inout Input) {
        guard
            let location = MetaDiskTarget.located({ () throws(MetaDiskError) in
                try MetaLocation(placement: .internalData, deviceSize: 1 << 30)
            })
        else { return }
        var superblock = Superblock.fresh(location: location)
        superblock.lastAgreedSize = UInt64(input.number(UInt32.self)) % (1 << 21)
        superblock.uuids.current = input.number(UInt64.self)
        superblock.uuids.history1 = input.number(UInt64.self)
        superblock.deviceUUID = input.number(UInt64.self)
        superblock.flags = MetaFlags(rawValue: input.number(UInt32.self)).union(.logClean)
        superblock.peerMaximumRequest = input.number(UInt32.self)
        var dump = MetaDump(superblock: superblock, location: location)
        // Runs of words, and single ones.
        var bitmap: [UInt8] = []
        while bitmap.count < Int(dump.bitmapBytes) {
            let count = Int(input.byte()) + 1
            let word = input.take(4) + [0, 0, 0, 0]
            for _ in 0..<count { bitmap += word.prefix(4) }
        }
        bitmap.removeLast(bitmap.count - Int(dump.bitmapBytes))
        var text = dump.opening(header: ["# made by a test", ""])
        bitmap.read { dump.add(bitmap: $0, to: &text) }
        text += dump.closing()
        let read = outcome([text[...]])
        invariant(read.isWhole, "a dump is refused: \(String(describing: read.error))")
        let size = min(superblock.lastAgreedSize, location.capacity)
        let header = read.header
        invariant(
            header?.uuids == superblock.uuids && header?.flags == superblock.flags
                && header?.lastAgreedSize == size && header?.deviceUUID == superblock.deviceUUID
                && header?.peerMaximumRequest == superblock.peerMaximumRequest
                && header?.stripes == superblock.stripes
                && header?.stripeBlocks == superblock.stripeBlocks,
            "\(superblock) is read as \(String(describing: header))")
        var place = 0
        for run in read.runs {
            for _ in 0..<run.count {
                let word = bitmap.read { $0[LittleField<UInt64>(at: place)] }
                invariant(word == run.word, "word at \(place) is \(run.word), not \(word)")
                place += 8
            }
        }
        invariant(place == bitmap.count, "\(place) bytes of \(bitmap.count)")
    }
}
