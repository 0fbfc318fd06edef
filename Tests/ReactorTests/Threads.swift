import Glibc
import Synchronization
import Testing

/// A thread that does one thing, since tests of a reactor must stay on theirs.
final class Worker: Sendable {
    private let thread: Mutex<pthread_t>

    init(_ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var thread = pthread_t()
        let context = unsafe Unmanaged.passRetained(Box(body)).toOpaque()
        let code = unsafe pthread_create(
            &thread, nil,
            { context in
                if let context = unsafe context {
                    unsafe Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
                }
                return nil
            }, context)
        #expect(code == 0)
        self.thread = Mutex(thread)
    }

    func join() { thread.withLock { _ = pthread_join($0, nil) } }
}

/// Sends bytes that do not fit into the socket at once.
func Sender(_ descriptor: Int32, _ bytes: [UInt8]) -> Worker {
    Worker {
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(
                    descriptor, $0.baseAddress.map { unsafe $0 + sent }, bytes.count - sent,
                    Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            sent += count
        }
    }
}
