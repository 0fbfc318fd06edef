import CShims
import Glibc
import Support

/// What /sys says about loop devices.
enum LoopDevice {
    /// What lies under a loop device or a partition of one.
    struct Backing {
        var path: String
        /// Where the device begins in it, in bytes.
        var offset: UInt64
        /// Whether the device is all of it, so that a claim of the device is one of the whole file.
        var whole: Bool
    }

    /// `nil` if the device is no loop device, or the file under it has been deleted.
    static func backing(of device: dev_t) -> Backing? {
        let place =
            "/sys/dev/block/\(shim_device_major(device)):\(shim_device_minor(device))"
        if let backing = backing(at: place) { return backing }
        // A partition's directory lies in that of its disk.
        guard let start = number(place + "/start"), var backing = backing(at: place + "/..") else {
            return nil
        }
        backing.offset += start * 512
        backing.whole = false
        return backing
    }

    private static func backing(at place: String) -> Backing? {
        guard let path = line(place + "/loop/backing_file"), !path.hasSuffix(" (deleted)") else {
            return nil
        }
        let offset = number(place + "/loop/offset") ?? 0
        let limit = number(place + "/loop/sizelimit") ?? 0
        return Backing(path: path, offset: offset, whole: offset == 0 && limit == 0)
    }

    /// The loop device that has this file under it.
    static func device(over status: stat) -> String? {
        for name in names(in: "/sys/block") where name.hasPrefix("loop") {
            guard let path = line("/sys/block/\(name)/loop/backing_file") else { continue }
            var other = stat()
            if unsafe stat(path, &other) == 0, other.st_dev == status.st_dev,
                other.st_ino == status.st_ino
            {
                return "/dev/\(name)"
            }
        }
        return nil
    }

    private static func line(_ path: String) -> String? {
        readText(path).map { $0.hasSuffix("\n") ? String($0.dropLast()) : $0 }
    }

    private static func number(_ path: String) -> UInt64? { line(path).flatMap { UInt64($0) } }
}
