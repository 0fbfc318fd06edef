package import Support

#if canImport(Glibc)
    import Glibc
#endif

/// Where configurations come from: the host, or a table in a test.
package protocol ConfigurationFiles {
    func contents(of path: String) throws(SystemError) -> [UInt8]
    /// The paths that a shell pattern stands for, sorted; empty if there are none.
    func paths(matching pattern: String) -> [String]
    /// The one name of a file that may have several; `nil` if it does not exist.
    func canonicalPath(of path: String) -> String?
}

/// The files of this machine; the path `-` is standard input.
package struct HostFiles: ConfigurationFiles {
    /// A configuration is text that a person wrote: more than this is some other file.
    package static let maximumSize = 4 << 20

    package init() {}

    package func contents(of path: String) throws(SystemError) -> [UInt8] {
        let descriptor = path == "-" ? STDIN_FILENO : unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemError("open", path, errno: errno) }
        defer { if descriptor != STDIN_FILENO { _ = close(descriptor) } }
        var contents: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            // The pointer is used during the call only.
            let count = unsafe read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemError("read", path, errno: errno) }
            guard count > 0 else { return contents }
            contents += chunk[..<count]
            guard contents.count <= Self.maximumSize else {
                throw SystemError("read", path, errno: EFBIG)
            }
        }
    }

    package func paths(matching pattern: String) -> [String] {
        var matches = unsafe glob_t()
        // The paths are copied before the list that glob allocated is freed.
        defer { unsafe globfree(&matches) }
        guard unsafe glob(pattern, 0, nil, &matches) == 0 else { return [] }
        return unsafe (0..<Int(matches.gl_pathc)).compactMap { index in
            unsafe matches.gl_pathv[index].map { unsafe String(cString: $0) }
        }
    }

    package func canonicalPath(of path: String) -> String? {
        // realpath allocates the result, which is copied and freed here.
        guard let resolved = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }

    /// Whether the text is an IPv6 address; a scope behind `%` is not looked at.
    static func isIPv6Address(_ text: String) -> Bool {
        let address = text.split(separator: "%", omittingEmptySubsequences: false)[0]
        var bytes = in6_addr()
        // Written by the call only, into a value of the size it expects.
        return unsafe inet_pton(AF_INET6, String(address), &bytes) == 1
    }
}

extension NodeIdentity {
    /// The addresses of all interfaces that are configured, as text without scope.
    package static func localAddresses() -> Set<String> {
        var first: UnsafeMutablePointer<ifaddrs>? = nil
        guard unsafe getifaddrs(&first) == 0 else { return [] }
        // Every string is copied before the list is freed.
        defer { unsafe freeifaddrs(first) }
        var addresses: Set<String> = []
        var next = unsafe first
        while let interface = unsafe next {
            if let address = unsafe interface.pointee.ifa_addr,
                let text = unsafe numericHost(address)
            {
                addresses.insert(text)
            }
            unsafe next = interface.pointee.ifa_next
        }
        return addresses
    }

    private static func numericHost(_ address: UnsafeMutablePointer<sockaddr>) -> String? {
        let length: Int
        switch unsafe Int32(address.pointee.sa_family) {
        case AF_INET: length = MemoryLayout<sockaddr_in>.size
        case AF_INET6: length = MemoryLayout<sockaddr_in6>.size
        default: return nil
        }
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        // The buffer is as long as the call is told.
        let result = unsafe getnameinfo(
            address, socklen_t(length), &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
        guard result == 0 else { return nil }
        let bytes = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return String(decoding: bytes.prefix { $0 != UInt8(ascii: "%") }, as: UTF8.self)
    }
}

extension ConfigurationError {
    init(cannotOpen path: String, _ error: SystemError, exitCode: Int32) {
        // strerror's text is copied at once.
        let reason = unsafe strerror(error.errno).map { unsafe String(cString: $0) } ?? ""
        self.init(["Can not open '\(path)': \(reason)"], exitCode: exitCode)
    }
}
