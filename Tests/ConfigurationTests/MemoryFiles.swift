import Configuration
import Glibc
import Support

/// Files that exist in a table only.
struct MemoryFiles: ConfigurationFiles {
    var files: [String: [UInt8]]

    init(_ files: [String: [UInt8]]) { self.files = files }

    init(_ files: [String: String]) { self.files = files.mapValues { Array($0.utf8) } }

    func contents(of path: String) throws(SystemError) -> [UInt8] {
        guard let bytes = files[path] else { throw SystemError("open", path, errno: ENOENT) }
        return bytes
    }

    func paths(matching pattern: String) -> [String] {
        files.keys.filter { unsafe fnmatch(pattern, $0, FNM_PATHNAME) == 0 }.sorted()
    }

    func canonicalPath(of path: String) -> String? {
        // As realpath would: without detours.
        var parts: [Substring] = []
        for part in path.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        let real = "/" + parts.joined(separator: "/")
        return files[real] == nil && files[path] == nil ? nil : real
    }
}

/// The files beside the tests.
enum Fixture {
    static func bytes(_ path: String, file: String = #filePath) throws -> [UInt8] {
        let directory = file[..<(file.lastIndex(of: "/") ?? file.endIndex)]
        return try HostFiles().contents(of: "\(directory)/Fixtures/\(path)")
    }

    static func text(_ path: String) throws -> String {
        String(decoding: try bytes(path), as: UTF8.self)
    }

    static func names(in folder: String, suffix: String, file: String = #filePath) -> [String] {
        let directory = file[..<(file.lastIndex(of: "/") ?? file.endIndex)]
        return HostFiles().paths(matching: "\(directory)/Fixtures/\(folder)/*\(suffix)")
            .compactMap { $0.split(separator: "/").last?.dropLast(suffix.count) }.map(String.init)
    }
}

/// One configuration, at the place where DRBD's tool looks for it.
func read(_ text: String) throws(ConfigurationError) -> ConfigurationFile {
    try ConfigurationFile.read("/etc/drbd.conf", from: MemoryFiles(["/etc/drbd.conf": text]))
}

/// What `read` complains about; empty if it does not.
func complaints(_ text: String) -> [String] {
    do { _ = try read(text) } catch { return error.messages }
    return []
}

/// A resource r0 of alice and bob with more statements in it.
func resource(_ statements: String = "", name: String = "r0") -> String {
    """
    resource \(name) {
      \(statements)
      on alice {
        device /dev/drbd0; disk /dev/sda7; address 10.1.1.31:7788; meta-disk internal;
      }
      on bob {
        device /dev/drbd0; disk /dev/sdb7; address 10.1.1.32:7788; meta-disk internal;
      }
    }

    """
}
