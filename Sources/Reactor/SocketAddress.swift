import CShims
import Glibc

/// An IPv4 or IPv6 address with a port.
@safe package struct SocketAddress: BitwiseCopyable, Sendable, CustomStringConvertible {
    /// No address.
    static let none = SocketAddress(storage: sockaddr_storage(), size: 0)

    /// First, so that the kernel finds it at the address of the whole.
    private var storage: sockaddr_storage
    let size: socklen_t

    private init(storage: sockaddr_storage, size: socklen_t) {
        self.storage = storage
        self.size = size
    }

    /// - Parameter host: numeric; an IPv6 one may name its interface, as in `fe80::1%eth0`, and be
    ///   in brackets. `nil` for anything else.
    package init?(host: String, port: UInt16) {
        var text = host[...]
        if text.hasPrefix("["), text.hasSuffix("]") { text = text.dropFirst().dropLast() }
        var four = sockaddr_in()
        if unsafe inet_pton(AF_INET, String(text), &four.sin_addr) == 1 {
            four.sin_family = sa_family_t(AF_INET)
            four.sin_port = port.bigEndian
            self.init(copying: four)
            return
        }
        let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
        var six = sockaddr_in6()
        guard let address = parts.first,
            unsafe inet_pton(AF_INET6, String(address), &six.sin6_addr) == 1
        else { return nil }
        if parts.count == 2 {
            let interface = String(parts[1])
            six.sin6_scope_id = unsafe UInt32(interface) ?? if_nametoindex(interface)
            guard six.sin6_scope_id > 0 else { return nil }
        }
        six.sin6_family = sa_family_t(AF_INET6)
        six.sin6_port = port.bigEndian
        self.init(copying: six)
    }

    private init<Address>(copying address: Address) {
        storage = sockaddr_storage()
        size = socklen_t(MemoryLayout<Address>.size)
        unsafe withUnsafeMutableBytes(of: &storage) { place in
            unsafe place.storeBytes(of: address, as: Address.self)
        }
    }

    /// The address of one end of a socket, `nil` if it has none.
    private init?(
        of descriptor: Int32,
        _ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) {
        var storage = sockaddr_storage()
        var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let code = unsafe withUnsafeMutablePointer(to: &storage) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe call(descriptor, $0, &size)
            }
        }
        let family = Int32(storage.ss_family)
        guard code == 0, family == AF_INET || family == AF_INET6 else { return nil }
        self.init(storage: storage, size: size)
    }

    /// The far end of a connected TCP socket.
    package init?(peerOf descriptor: Int32) {
        unsafe self.init(of: descriptor) { unsafe getpeername($0, $1, $2) }
    }

    /// The near end of a TCP socket.
    package init?(of descriptor: Int32) {
        unsafe self.init(of: descriptor) { unsafe getsockname($0, $1, $2) }
    }

    var family: Int32 { Int32(storage.ss_family) }

    package var port: UInt16 {
        // In both families the two bytes behind the family.
        unsafe withUnsafeBytes(of: storage) {
            unsafe UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
        }
    }

    /// The address without the port.
    package var host: String {
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let code = unsafe withPointer { address, size in
            unsafe getnameinfo(
                address, size, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST)
        }
        guard code == 0 else { return "?" }
        let bytes = text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// `127.0.0.1:7788` or `[::1]:7788`.
    package var description: String {
        family == AF_INET6 ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    func withPointer<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        unsafe withUnsafePointer(to: storage) { place in
            unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, size)
            }
        }
    }
}
