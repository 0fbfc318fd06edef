import Support
import Testing

@testable import Simulator

@Suite struct SimulatedDiskTests {
    private let disk = SimulatedDisk()
    private var random = RandomSource(seed: 1)

    init() { disk.reset(size: 1 << 20, hasCache: true) }

    private func write(_ value: UInt64, block: Int, blocks: Int = 1, durable: Bool = false) {
        let bytes = Bytes(count: blocks << 12)
        bytes.fill(0, operation: value, sector: UInt64(block * 8), sectors: blocks * 8)
        disk.land(from: bytes, at: 0, to: block << 12, count: blocks << 12, durable: durable)
    }

    private func value(_ block: Int) -> UInt64 { disk.current.bytes.word(block << 12) }

    @Test mutating func `what was not flushed can be lost, and is what was there before`() {
        write(1, block: 3)
        disk.stabilise(before: disk.horizon)
        write(2, block: 3)
        #expect(value(3) == 2)
        disk.losePower(.everything, &random)
        #expect(value(3) == 1)
    }

    @Test mutating func `a flush covers what had ended when it was asked for`() {
        write(1, block: 1)
        let horizon = disk.horizon
        write(2, block: 2)
        disk.stabilise(before: horizon)
        disk.losePower(.everything, &random)
        #expect(value(1) == 1)
        #expect(value(2) == 0)
    }

    @Test mutating func `a durable write survives, and no older one comes over it`() {
        write(1, block: 5)
        write(2, block: 5, durable: true)
        write(3, block: 6)
        disk.losePower(.nothing, &random)
        #expect(value(5) == 2)
        #expect(value(6) == 3)
    }

    @Test mutating func `a disk without a cache loses nothing`() {
        disk.reset(size: 1 << 20, hasCache: false)
        write(1, block: 5)
        disk.losePower(.everything, &random)
        #expect(value(5) == 1)
    }

    @Test mutating func `a torn write leaves whole sectors, old or new`() {
        var mixed = 0
        for seed in 0..<64 {
            random = RandomSource(seed: UInt64(seed))
            disk.reset(size: 1 << 20, hasCache: true)
            write(1, block: 0, blocks: 4)
            disk.stabilise(before: disk.horizon)
            write(2, block: 0, blocks: 4)
            disk.losePower(.torn, &random)
            var found: [UInt64] = []
            for sector in 0..<32 {
                let place = sector << 9
                found.append(disk.current.bytes.word(place))
                let isWhole = disk.current.bytes.isEqual(
                    place, disk.current.bytes, place + 16, count: 496)
                #expect(isWhole)
            }
            #expect(found.allSatisfy { $0 == 1 || $0 == 2 })
            if found.contains(1), found.contains(2) { mixed += 1 }
        }
        #expect(mixed > 10)
    }

    @Test mutating func `an imagined power cut changes nothing`() {
        let overlay = Overlay()
        write(1, block: 0)
        disk.stabilise(before: disk.horizon)
        write(2, block: 0)
        disk.crashImage(.nothing, &random, into: overlay)
        let place = overlay.find(0)
        let imagined = place.map { overlay.bytes.word($0) }
        #expect(imagined == 2)
        #expect(disk.stable.bytes.word(0) == 1)
        disk.crashImage(.everything, &random, into: overlay)
        #expect(overlay.find(0) == nil)
    }
}
