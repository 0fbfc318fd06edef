package import Support

/// Why a disk cannot be worked on while it is not in use by an engine.
package enum OfflineDiskError: Error, Equatable, Sendable {
    /// Somebody else has it; `holder` as far as the system tells.
    case busy(path: String, holder: String)
    /// What lies under a loop device is in use.
    case busyBelow(path: String, file: String, holder: String)
    /// Writes past the loop device would not be seen through it.
    case backsLoopDevice(path: String, device: String)
    case networkFileSystem(path: String, type: String)
    case neitherFileNorDevice(path: String)
    case system(SystemError)
}

extension OfflineDiskError: CustomStringConvertible {
    /// The first words are those of drbdmeta.
    package var description: String {
        switch self {
        case .busy(let path, let holder):
            "open(\(path)) failed: Device or resource busy (\(holder))"
        case .busyBelow(let path, let file, let holder):
            "open(\(path)) failed: Device or resource busy (\(file) below it: \(holder))"
        case .backsLoopDevice(let path, let device):
            "\(path): is under \(device): use that, or detach it (losetup -d \(device))"
        case .networkFileSystem(let path, let type):
            "\(path): on a network file system (\(type)), where a claim cannot be trusted"
        case .neitherFileNorDevice(let path): "'\(path)' is neither a file nor a block device!"
        case .system(let error):
            "\(error.call)(\(error.object)) failed: \(systemMessage(error.errno))"
        }
    }
}
