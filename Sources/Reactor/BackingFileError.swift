package import Support

/// Who has a backing disk, as far as the system tells.
package enum BackingFileHolder: Equatable, Sendable, CustomStringConvertible {
    /// `name` is `nil` if the process has ended, and only what it had in flight still goes on.
    case process(Int32, name: String?)
    /// Such as `dm-0`.
    case device(String)
    case mounted(at: String)
    case unknown

    package var description: String {
        switch self {
        case .process(let process, let name?): "in use by pid \(process) (\(name))"
        case .process(let process, nil):
            "in use by pid \(process), which has ended, but not its I/O or its children"
        case .device(let name): "in use by \(name)"
        case .mounted(let point): "mounted on \(point)"
        case .unknown: "in use"
        }
    }
}

/// Why a backing disk cannot be had.
package enum BackingFileError: Error, Equatable, Sendable, CustomStringConvertible {
    case busy(path: String, BackingFileHolder)
    /// What is under a loop device; `device` is the loop device.
    case busyBelow(device: String, path: String, BackingFileHolder)
    /// Writing past the loop device would not be seen through it.
    case backsLoopDevice(path: String, device: String)
    /// Its locks cannot be trusted between nodes, and a stopped server stops everything.
    case networkFileSystem(path: String, type: String)
    case neitherFileNorDevice(path: String)
    /// A block device that was told to take no writes.
    case readOnly(path: String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .busy(let path, let holder): "\(path): \(holder)"
        case .busyBelow(let device, let path, let holder): "\(device): \(path) below it: \(holder)"
        case .backsLoopDevice(let path, let device):
            "\(path): is under \(device): use that, or detach it (losetup -d \(device))"
        case .networkFileSystem(let path, let type):
            "\(path): on a network file system (\(type)), where a claim cannot be trusted"
        case .neitherFileNorDevice(let path): "\(path): neither a file nor a block device"
        case .readOnly(let path): "\(path): is read-only (blockdev --setrw \(path))"
        case .system(let error): error.description
        }
    }
}
