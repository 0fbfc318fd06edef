import Support

// Where the meta data lies: drbd-metadata.md, section 2.

/// Position and size of every part of the meta data on its device.
package struct MetaLocation: Equatable, Sendable {
    package enum Placement: Equatable, Sendable {
        /// At the end of the device that holds the data.
        case internalData
        /// A whole device of its own.
        case flexExternal
        /// Slot 0 to 255 of 128 MiB on a device shared with other volumes.
        case indexed(Int)
    }

    package let placement: Placement
    /// Bytes of the device that holds the meta data.
    package let deviceSize: UInt64
    package let stripes: UInt32
    package let stripeBlocks: UInt32

    /// Absolute, in bytes, as all offsets here.
    package let superblockOffset: UInt64
    package let logOffset: UInt64
    package let bitmapOffset: UInt64
    /// The space for the bitmap; what is in use depends on the size of the volume.
    package let bitmapCapacityBytes: UInt64
    /// As in the super block.
    package let mdSizeSectors: UInt32
    package let alOffset: Int32
    package let bmOffset: Int32

    /// Blocks of 4 KiB in the ring of the activity log.
    package var logBlockCount: Int { Int(stripes) * Int(stripeBlocks) }

    /// Why a Linux kernel refuses to attach these meta data, though repd and drbdmeta take them; nil
    /// if it does not.
    package var kernelRefusal: String? {
        if deviceSize < Self.kernelDeviceSize {
            return "a Linux kernel needs a device of at least \(Self.kernelDeviceSize) bytes"
        }
        guard case .indexed = placement,
            (stripes, stripeBlocks) != (Self.defaultStripes, Self.defaultStripeBlocks)
        else { return nil }
        return "a Linux kernel takes a slot only with an activity log of 1 stripe of 32 KiB"
    }

    /// Sectors that the volume can offer with internal meta data: all in front of the bitmap.
    ///
    /// For external meta data: what the bitmap can describe.
    package var capacity: UInt64 {
        switch placement {
        case .internalData: min(bitmapOffset / 512, BitmapLayout.maximumSectors)
        case .flexExternal, .indexed:
            UInt64(Int64(mdSizeSectors) - Int64(bmOffset)) * Self.sectorsPerBitmapSector
        }
    }

    /// Sectors that the volume can offer when its data lie on a device of `dataSectors`.
    ///
    /// With internal meta data that device is this one, and the argument changes nothing.
    package func capacity(dataSectors: UInt64) -> UInt64 {
        placement == .internalData ? capacity : min(capacity, dataSectors)
    }

    /// `capacity(dataSectors:)` without what only a page could describe that reaches over the end of
    /// the meta data: bitmaps are read and written in whole pages.
    package func usableCapacity(dataSectors: UInt64) -> UInt64 {
        let pages = bitmapCapacityBytes / UInt64(BitmapLayout.pageBytes)
        return min(capacity(dataSectors: dataSectors), pages * BitmapLayout.sectorsPerPage)
    }
}

extension MetaLocation {
    /// What the tools demand of any device that holds meta data.
    package static let minimumDeviceSize: UInt64 = 69632
    /// What a Linux kernel demands.
    private static let kernelDeviceSize: UInt64 = 2048 * 512
    package static let slotBytes: UInt64 = 128 << 20
    package static let slotSectors: UInt32 = 262144
    package static let defaultStripes: UInt32 = 1
    package static let defaultStripeBlocks: UInt32 = 8
    /// Blocks in the ring: what a kernel accepts.
    package static let logBlockLimits: ClosedRange<UInt64> = 8...4_194_304
    /// Blocks in the ring: what create-md makes.
    package static let createdLogBlockLimits: ClosedRange<UInt64> = 8...8192

    private static let blockBytes: UInt64 = 4096
    private static let sectorsPerBlock: UInt64 = 8
    /// One sector of bitmap has 4096 bits of 8 sectors.
    private static let sectorsPerBitmapSector: UInt64 = 32768
    /// `md_size_sect` has 32 bits and would wrap.
    private static let flexExternalLimit: UInt64 = 2 << 40
    private static let internalLimit: UInt64 = 1 << 50

    /// Where to look for a super block, before the shape of the log is known.
    package static func superblockOffset(
        placement: Placement, deviceSize: UInt64
    ) throws(MetaDiskError) -> UInt64 {
        guard deviceSize >= minimumDeviceSize else {
            throw .tooSmall(device: deviceSize, needed: minimumDeviceSize)
        }
        switch placement {
        case .internalData:
            guard deviceSize <= internalLimit else {
                throw .tooLarge(device: deviceSize, limit: internalLimit)
            }
            return (deviceSize - blockBytes) / blockBytes * blockBytes
        case .flexExternal:
            guard deviceSize < flexExternalLimit else {
                throw .tooLarge(device: deviceSize, limit: flexExternalLimit - 512)
            }
            return 0
        case .indexed(let slot):
            guard (0...255).contains(slot) else { throw .slotOutOfRange(slot) }
            let end = slotBytes * UInt64(slot + 1)
            // drbdmeta takes a slot that is cut off; a kernel does not, and the bitmap would
            // reach behind the end of the device.
            guard end <= deviceSize else {
                throw .slotOutsideDevice(slot: slot, device: deviceSize, needed: end)
            }
            return slotBytes * UInt64(slot)
        }
    }

    /// Where format v07 had its super block with the kind of internal meta data that took the last
    /// 128 MiB (section 15.1); nil if the device is too small for that.
    ///
    /// Nothing else is looked for there: who finds no super block asks whether it is one of these.
    package static func fixedInternalOffset(
        placement: Placement, deviceSize: UInt64
    ) -> UInt64? {
        let end = deviceSize / blockBytes * blockBytes
        guard placement == .internalData, end > slotBytes else { return nil }
        return end - slotBytes
    }

    /// - Parameter deviceSize: bytes of the device that holds the meta data.
    package init(
        placement: Placement, deviceSize: UInt64, stripes: UInt32 = defaultStripes,
        stripeBlocks: UInt32 = defaultStripeBlocks
    ) throws(MetaDiskError) {
        let superblock = try Self.superblockOffset(placement: placement, deviceSize: deviceSize)
        let blocks = UInt64(stripes) * UInt64(stripeBlocks)
        guard Self.logBlockLimits.contains(blocks) else {
            let reason = "\(blocks) blocks, allowed are 8 to 4194304"
            throw .logShape(stripes: stripes, stripeBlocks: stripeBlocks, reason: reason)
        }
        let log = blocks * Self.sectorsPerBlock
        switch placement {
        case .internalData:
            let pages = (deviceSize / 512 + Self.slotSectorsWide - 1) / Self.slotSectorsWide
            let bitmap = pages * Self.sectorsPerBlock
            // In front of the bitmap at least one block of data must be left.
            let needed = (log + bitmap + 2 * Self.sectorsPerBlock) * 512
            guard needed <= deviceSize else { throw .tooSmall(device: deviceSize, needed: needed) }
            self.init(
                placement, deviceSize, stripes, stripeBlocks, superblock: superblock,
                mdSize: bitmap + 8 + log, alOffset: -Int64(log), bmOffset: -Int64(log + bitmap),
                bitmapSectors: bitmap)
        case .flexExternal:
            let needed = (Self.sectorsPerBlock + log + Self.sectorsPerBlock) * 512
            guard needed <= deviceSize else { throw .tooSmall(device: deviceSize, needed: needed) }
            let sectors = deviceSize / 512
            self.init(
                placement, deviceSize, stripes, stripeBlocks, superblock: superblock,
                mdSize: sectors, alOffset: 8, bmOffset: Int64(8 + log),
                bitmapSectors: sectors - 8 - log)
        case .indexed:
            // At least one page of bitmap has to be left.
            guard log + 2 * Self.sectorsPerBlock <= Self.slotSectorsWide else {
                let reason = "a slot has 128 MiB"
                throw .logShape(stripes: stripes, stripeBlocks: stripeBlocks, reason: reason)
            }
            self.init(
                placement, deviceSize, stripes, stripeBlocks, superblock: superblock,
                mdSize: Self.slotSectorsWide, alOffset: 8, bmOffset: Int64(8 + log),
                bitmapSectors: Self.slotSectorsWide - 8 - log)
        }
    }

    private static let slotSectorsWide = UInt64(slotSectors)

    private init(
        _ placement: Placement, _ deviceSize: UInt64, _ stripes: UInt32, _ stripeBlocks: UInt32,
        superblock: UInt64, mdSize: UInt64, alOffset: Int64, bmOffset: Int64,
        bitmapSectors: UInt64
    ) {
        self.placement = placement
        self.deviceSize = deviceSize
        self.stripes = stripes
        self.stripeBlocks = stripeBlocks
        superblockOffset = superblock
        logOffset = UInt64(Int64(superblock) + alOffset * 512)
        bitmapOffset = UInt64(Int64(superblock) + bmOffset * 512)
        bitmapCapacityBytes = bitmapSectors * 512
        mdSizeSectors = UInt32(mdSize)
        self.alOffset = Int32(alOffset)
        self.bmOffset = Int32(bmOffset)
    }

    /// The same place with the whole-device size that a flex-external super block records.
    func recording(mdSizeSectors: UInt32) -> MetaLocation {
        invariant(placement == .flexExternal, "only flex-external meta data records its size")
        return MetaLocation(
            placement, deviceSize, stripes, stripeBlocks, superblock: superblockOffset,
            mdSize: UInt64(mdSizeSectors), alOffset: Int64(alOffset), bmOffset: Int64(bmOffset),
            bitmapSectors: UInt64(mdSizeSectors) - UInt64(bmOffset))
    }
}
