import Support

// The super block of format v08: drbd-metadata.md, sections 3 to 5.

/// The generations of the data that a volume remembers.
package struct GenerationUUIDs: Equatable, Sendable, BitwiseCopyable {
    /// Of the local data; bit 0 says that a Primary made or held it.
    package var current: UInt64
    /// The one that the bitmap is relative to; 0 while nothing is tracked.
    package var bitmap: UInt64
    /// Earlier values of `bitmap`, the younger one first.
    package var history0: UInt64
    package var history1: UInt64

    package init(current: UInt64, bitmap: UInt64, history0: UInt64, history1: UInt64) {
        self.current = current
        self.bitmap = bitmap
        self.history0 = history0
        self.history1 = history1
    }

    /// The current generation of a device that was never used.
    package static let justCreated: UInt64 = 4
    /// Added to the bitmap UUID when a resync starts.
    package static let newBitmapOffset: UInt64 = 0x0001_0000_0000_0000
}

/// Bits that this format does not define are kept as they were found.
package struct MetaFlags: OptionSet, Hashable, Sendable, BitwiseCopyable {
    package var rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The local disk was better than Inconsistent.
    package static let consistent = MetaFlags(rawValue: 0x001)
    /// The role was Primary, or that of a diskless peer.
    package static let primaryIndicator = MetaFlags(rawValue: 0x002)
    package static let connectedIndicator = MetaFlags(rawValue: 0x004)
    /// The bitmap counts as all ones, whatever it holds.
    package static let fullSync = MetaFlags(rawValue: 0x008)
    /// The local disk was better than Outdated.
    package static let wasUpToDate = MetaFlags(rawValue: 0x010)
    /// The peer's disk was Inconsistent or Outdated.
    package static let peerOutdated = MetaFlags(rawValue: 0x020)
    package static let crashedPrimary = MetaFlags(rawValue: 0x040)
    /// The activity log need not be looked at.
    package static let logClean = MetaFlags(rawValue: 0x080)
    /// The activity log was not written: after a crash of a Primary only a full sync is safe.
    package static let logDisabled = MetaFlags(rawValue: 0x100)
}

package struct Superblock: Equatable, Sendable, BitwiseCopyable {
    /// Sectors; 0 when the device was never used.
    package var lastAgreedSize: UInt64
    package var uuids: GenerationUUIDs
    /// Random, of this meta data; 0 is allowed.
    package var deviceUUID: UInt64
    package var flags: MetaFlags
    /// In use, or not recovered after use: the magic is that of an 8.4 driver at work.
    package var isUnclean: Bool
    /// Sectors; offsets are in sectors relative to the super block.
    package var mdSizeSectors: UInt32
    package var alOffset: Int32
    /// Slots of the activity log (`al_nr_extents`).
    package var logExtents: UInt32
    package var bmOffset: Int32
    package var bytesPerBit: UInt32
    /// Bytes of the largest request that the last peer took; 0 if none was seen.
    package var peerMaximumRequest: UInt32
    /// As written; both 0 in meta data of 8.4.2 and older. See `effectiveStripes`.
    package var stripes: UInt32
    package var stripeBlocks: UInt32

    package var effectiveStripes: UInt32 {
        stripes == 0 && stripeBlocks == 0 ? MetaLocation.defaultStripes : stripes
    }

    package var effectiveStripeBlocks: UInt32 {
        stripes == 0 && stripeBlocks == 0 ? MetaLocation.defaultStripeBlocks : stripeBlocks
    }

    /// What create-md writes.
    package static func fresh(location: MetaLocation) -> Superblock {
        Superblock(
            lastAgreedSize: 0,
            uuids: GenerationUUIDs(
                current: GenerationUUIDs.justCreated, bitmap: 0, history0: 0, history1: 0),
            deviceUUID: 0, flags: .logClean, isUnclean: false,
            mdSizeSectors: location.mdSizeSectors, alOffset: location.alOffset, logExtents: 257,
            bmOffset: location.bmOffset, bytesPerBit: UInt32(BitmapLayout.bytesPerBit),
            peerMaximumRequest: 0, stripes: location.stripes,
            stripeBlocks: location.stripeBlocks)
    }
}

extension Superblock {
    private enum Layout {
        static let lastAgreedSize = Field<UInt64>(at: 0)
        static let current = Field<UInt64>(at: 8)
        static let bitmap = Field<UInt64>(at: 16)
        static let history0 = Field<UInt64>(at: 24)
        static let history1 = Field<UInt64>(at: 32)
        static let deviceUUID = Field<UInt64>(at: 40)
        // 8 reserved bytes at 48, written as zero, ignored when read.
        static let flags = Field<UInt32>(at: 56)
        static let magic = Field<UInt32>(at: 60)
        static let mdSizeSectors = Field<UInt32>(at: 64)
        static let alOffset = Field<Int32>(at: 68)
        static let logExtents = Field<UInt32>(at: 72)
        static let bmOffset = Field<Int32>(at: 76)
        static let bytesPerBit = Field<UInt32>(at: 80)
        static let peerMaximumRequest = Field<UInt32>(at: 84)
        static let stripes = Field<UInt32>(at: 88)
        static let stripeBlocks = Field<UInt32>(at: 92)
        // The rest is written as zero and ignored when read.

        /// Where format v07 has its magic.
        static let magic07 = Field<UInt32>(at: 28)
    }

    private enum Magic {
        static let version06: UInt32 = 0x8374_0269
        static let version07: UInt32 = 0x8374_026A
        static let version08: UInt32 = 0x8374_026B
        static let unclean84: UInt32 = 0x8374_026C
        static let version09: UInt32 = 0x8374_026D
    }

    package static let encodedSize = 4096

    /// Takes the fields as they are; `validate` decides whether they make sense.
    ///
    /// - Throws: if this is no super block of format v08.
    package init(decoding bytes: RawSpan) throws(MetaDiskError) {
        guard bytes.byteCount == Self.encodedSize else { throw .wrongSize(bytes.byteCount) }
        let magic = bytes[Layout.magic]
        switch magic {
        case Magic.version08, Magic.unclean84: break
        case Magic.version09: throw .otherFormat("v09")
        case Magic.version07: throw .otherFormat("v07")
        case Magic.version06: throw .otherFormat("v06")
        default:
            switch bytes[Layout.magic07] {
            case Magic.version07: throw .otherFormat("v07")
            case Magic.version06: throw .otherFormat("v06")
            default: throw .noSuperblock(magic: magic)
            }
        }
        lastAgreedSize = bytes[Layout.lastAgreedSize]
        uuids = GenerationUUIDs(
            current: bytes[Layout.current], bitmap: bytes[Layout.bitmap],
            history0: bytes[Layout.history0], history1: bytes[Layout.history1])
        deviceUUID = bytes[Layout.deviceUUID]
        flags = MetaFlags(rawValue: bytes[Layout.flags])
        isUnclean = magic == Magic.unclean84
        mdSizeSectors = bytes[Layout.mdSizeSectors]
        alOffset = bytes[Layout.alOffset]
        logExtents = bytes[Layout.logExtents]
        bmOffset = bytes[Layout.bmOffset]
        bytesPerBit = bytes[Layout.bytesPerBit]
        peerMaximumRequest = bytes[Layout.peerMaximumRequest]
        stripes = bytes[Layout.stripes]
        stripeBlocks = bytes[Layout.stripeBlocks]
    }

    /// The format that has its super block here, if that is an older one than v08.
    package static func olderFormat(_ bytes: RawSpan) -> String? {
        do throws(MetaDiskError) {
            _ = try Superblock(decoding: bytes)
        } catch {
            if case .otherFormat(let format) = error, format < "v08" { return format }
        }
        return nil
    }

    /// Writes every one of the `encodedSize` bytes.
    package func encode(into bytes: inout MutableRawSpan) {
        invariant(bytes.byteCount == Self.encodedSize, "super block into \(bytes.byteCount) bytes")
        fillZero(&bytes)
        bytes[Layout.lastAgreedSize] = lastAgreedSize
        bytes[Layout.current] = uuids.current
        bytes[Layout.bitmap] = uuids.bitmap
        bytes[Layout.history0] = uuids.history0
        bytes[Layout.history1] = uuids.history1
        bytes[Layout.deviceUUID] = deviceUUID
        bytes[Layout.flags] = flags.rawValue
        bytes[Layout.magic] = isUnclean ? Magic.unclean84 : Magic.version08
        bytes[Layout.mdSizeSectors] = mdSizeSectors
        bytes[Layout.alOffset] = alOffset
        bytes[Layout.logExtents] = logExtents
        bytes[Layout.bmOffset] = bmOffset
        bytes[Layout.bytesPerBit] = bytesPerBit
        bytes[Layout.peerMaximumRequest] = peerMaximumRequest
        bytes[Layout.stripes] = stripes
        bytes[Layout.stripeBlocks] = stripeBlocks
    }
}

/// Zeroes whole 8-byte words; the blocks of this target are multiples of 512 bytes.
func fillZero(_ bytes: inout MutableRawSpan) {
    for offset in stride(from: 0, to: bytes.byteCount, by: 8) {
        bytes[Field<UInt64>(at: offset)] = 0
    }
}

extension Superblock {
    /// Checks the fields against the device and each other: section 3.1, the stricter column.
    ///
    /// A magic or a flag that demands apply-al is not an error here.
    ///
    /// - Returns: where everything lies, as this super block says.
    package func validate(
        deviceSize: UInt64, placement: MetaLocation.Placement
    ) throws(MetaDiskError) -> MetaLocation {
        let location = try locate(deviceSize: deviceSize, placement: placement)
        guard lastAgreedSize <= location.capacity else {
            throw .shrunk(lastAgreedSize: lastAgreedSize, capacity: location.capacity)
        }
        let needed = BitmapLayout.byteCount(sectors: lastAgreedSize)
        guard needed <= location.bitmapCapacityBytes else {
            // Only where the space is no whole pages: the last one would reach over its end.
            throw .bitmapTooSmall(needed: needed, available: location.bitmapCapacityBytes)
        }
        return location
    }

    /// `validate` but for the last agreed size, which a dump cuts to what fits.
    package func locate(
        deviceSize: UInt64, placement: MetaLocation.Placement
    ) throws(MetaDiskError) -> MetaLocation {
        try require(bytesPerBit, "bm_bytes_per_bit", BitmapLayout.bytesPerBit)
        guard (stripes == 0) == (stripeBlocks == 0) else {
            let reason = "one of the two is 0"
            throw .logShape(stripes: stripes, stripeBlocks: stripeBlocks, reason: reason)
        }
        var location = try MetaLocation(
            placement: placement, deviceSize: deviceSize, stripes: effectiveStripes,
            stripeBlocks: effectiveStripeBlocks)
        try require(alOffset, "al_offset", location.alOffset)
        try require(bmOffset, "bm_offset", location.bmOffset)
        if placement == .flexExternal {
            // It records the device's size at its creation: smaller is fine, larger would put
            // bitmap behind the end of the device.
            let least = location.bmOffset + 8
            guard mdSizeSectors >= least, mdSizeSectors <= location.mdSizeSectors else {
                let limit = mdSizeSectors < least ? Int64(least) : Int64(location.mdSizeSectors)
                throw .badField(
                    name: "md_size_sect", found: Int64(mdSizeSectors), expected: limit)
            }
            location = location.recording(mdSizeSectors: mdSizeSectors)
        } else {
            try require(mdSizeSectors, "md_size_sect", location.mdSizeSectors)
        }
        return location
    }

    private func require<Found: FixedWidthInteger, Expected: FixedWidthInteger>(
        _ found: Found, _ name: String, _ expected: Expected
    ) throws(MetaDiskError) {
        guard Int64(found) == Int64(expected) else {
            throw .badField(name: name, found: Int64(found), expected: Int64(expected))
        }
    }
}
