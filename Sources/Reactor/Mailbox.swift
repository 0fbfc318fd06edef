import CShims
import Glibc
package import Support
import Synchronization

/// How other threads reach a reactor: a queue with a limit, and an eventfd that wakes the reactor up.
package final class Mailbox<Message: Sendable>: Sendable {
    let descriptor: Int32
    private let limit: Int
    private let messages = Mutex<[Message]>([])

    /// - Parameter limit: how many messages may wait.
    package init(limit: Int) throws(SystemError) {
        self.limit = limit
        descriptor = shim_eventfd()
        guard descriptor >= 0 else { throw SystemError("eventfd", errno: -descriptor) }
    }

    deinit { close(descriptor) }

    /// - Returns: false if the mailbox is full, and the message is not in it.
    package func post(_ message: sending Message) -> Bool {
        let (accepted, first) = messages.withLock { messages in
            guard messages.count < limit else { return (false, false) }
            messages.append(message)
            return (true, messages.count == 1)
        }
        // Whoever takes the messages takes all: one wake-up is enough.
        if first { shim_eventfd_post(descriptor) }
        return accepted
    }

    /// All messages, in the order in which they were posted.
    package func take() -> [Message] {
        messages.withLock { messages in
            let all = messages
            messages = []
            return all
        }
    }
}
