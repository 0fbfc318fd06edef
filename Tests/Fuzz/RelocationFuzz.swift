import MetaDisk
import Support

/// Internal meta data that are made, used, and found again when the device has grown.
enum RelocationFuzz {
    static func run(_ input: inout Input) {
        // Up to 1 GiB; often so little growth that the two places overlap.
        let size = UInt64(input.number(UInt32.self) >> 2)
        let shift = UInt64(input.byte() & 15)
        let deviceSize = size + UInt64(input.number(UInt32.self) >> 2) >> shift
        guard
            let old = MetaDiskTarget.located({ () throws(MetaDiskError) in
                try MetaLocation(placement: .internalData, deviceSize: size)
            })
        else { return }
        var superblock = Superblock.fresh(location: old)
        superblock.lastAgreedSize = min(UInt64(input.number(UInt32.self)), old.capacity)
        superblock.uuids.current = input.number(UInt64.self)
        guard
            let relocation = MetaDiskTarget.located({ () throws(MetaDiskError) in
                try MetaRelocation(superblock, from: old, deviceSize: deviceSize)
            })
        else { return }
        var device = MetaDevice(old, relocation.new)
        create(old, &device)
        let count = Int(BitmapLayout.byteCount(sectors: superblock.lastAgreedSize))
        let bitmap = bits(&input, count: count)
        device.writeSuperblock(superblock, at: old.superblockOffset)
        if count > 0 { bitmap.read { device.write($0, at: old.bitmapOffset) } }
        relocation.perform(on: &device)
        let new = relocation.new
        let moved = found(new, in: &device)
        invariant(moved == relocation.superblock, "moved as \(String(describing: moved))")
        invariant(moved?.uuids == superblock.uuids, "other generations")
        invariant(device.bitmap(new, count: count) == bitmap, "other bits, \(old) to \(new)")
    }

    /// What create-md has made is good, and has no bits.
    private static func create(_ location: MetaLocation, _ device: inout MetaDevice) {
        let creation = MetaDiskTarget.located { () throws(MetaDiskError) in
            try MetaCreation(location: location)
        }
        creation?.perform(on: &device)
        let made = found(location, in: &device)
        invariant(made == .fresh(location: location), "made as \(String(describing: made))")
    }

    private static func found(
        _ location: MetaLocation, in device: inout MetaDevice
    ) -> Superblock? {
        let block = device.readBlock(at: location.superblockOffset)
        return MetaDiskTarget.located { () throws(MetaDiskError) in
            let superblock = try block.read { bytes throws(MetaDiskError) in
                try Superblock(decoding: bytes)
            }
            _ = try superblock.validate(
                deviceSize: location.deviceSize, placement: location.placement)
            return superblock
        }
    }

    private static func bits(_ input: inout Input, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        for _ in 0..<16 where !input.isEmpty && count > 0 {
            bytes[Int(input.number(UInt32.self)) % count] = input.byte()
        }
        return bytes
    }
}
