import CShims
import Glibc
import Support
import Synchronization

/// Finds the holes of files. That can wait for the disk, so it is done on a thread of its own, which
/// lives while there is something to find.
package final class HoleFinder: Sendable {
    /// How many questions may wait.
    package static let limit = 64

    /// A part of a file.
    package struct Extent: Equatable, Sendable {
        package var length: UInt64
        /// No space is allocated for it, and it reads as zeros.
        package var isHole: Bool

        package init(length: UInt64, isHole: Bool) {
            self.length = length
            self.isHole = isHole
        }
    }

    package struct Question: Sendable {
        /// The asker's.
        package var id: Int
        package var offset: UInt64
        package var length: UInt64
        /// What is smaller than this, or not a multiple of it, is not called a hole.
        package var alignment: UInt64
        /// How many extents the answer has at most; it may then be about less than was asked for.
        package var extentLimit: Int

        package init(
            id: Int, offset: UInt64, length: UInt64, alignment: UInt64, extentLimit: Int
        ) {
            self.id = id
            self.offset = offset
            self.length = length
            self.alignment = alignment
            self.extentLimit = extentLimit
        }
    }

    package struct Answer: Sendable {
        package var id: Int
        /// From the question's offset on; empty if it could not be found out.
        package var extents: [Extent]
    }

    private struct State {
        var waiting: [(question: Question, descriptor: Int32)] = []
        var isRunning = false
    }

    private let state = Mutex(State())
    private let answers: Mailbox<Answer>

    /// - Parameter answers: with room for `limit` messages.
    package init(answers: Mailbox<Answer>) { self.answers = answers }

    /// - Parameter descriptor: copied, so that it may be closed before the answer.
    /// - Returns: false if there is no place for one more question, or no thread: it is not answered.
    package func ask(_ question: Question, of descriptor: Int32) -> Bool {
        invariant(question.length > 0 && question.extentLimit > 0, "a question about nothing")
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { return false }
        let accepted = state.withLock { state in
            guard state.waiting.count < Self.limit else { return false }
            if !state.isRunning {
                guard startThread() else { return false }
                state.isRunning = true
            }
            state.waiting.append((question, copy))
            return true
        }
        if !accepted { close(copy) }
        return accepted
    }

    private func startThread() -> Bool {
        var thread = pthread_t()
        let context = unsafe Unmanaged.passRetained(self)
        let code = unsafe pthread_create(
            &thread, nil,
            { context in
                if let context = unsafe context {
                    unsafe Unmanaged<HoleFinder>.fromOpaque(context).takeRetainedValue().run()
                }
                return nil
            }, context.toOpaque())
        if code == 0 {
            pthread_detach(thread)
        } else {
            unsafe context.release()
        }
        return code == 0
    }

    private func run() {
        while true {
            let next = state.withLock { state -> (question: Question, descriptor: Int32)? in
                guard !state.waiting.isEmpty else {
                    state.isRunning = false
                    return nil
                }
                return state.waiting.removeFirst()
            }
            guard let (question, descriptor) = next else { return }
            let extents = Self.find(question, in: descriptor)
            close(descriptor)
            let posted = answers.post(Answer(id: question.id, extents: extents))
            invariant(posted, "more answers than questions")
        }
    }

    /// What is allocated from the question's offset on; empty if the file cannot say.
    static func find(_ question: Question, in descriptor: Int32) -> [Extent] {
        let end = question.offset + question.length
        var status = stat()
        // Behind its end a file has no holes, only errors.
        guard unsafe fstat(descriptor, &status) == 0, UInt64(status.st_size) >= end else {
            return []
        }
        var extents: [Extent] = []
        var position = question.offset
        func append(until next: UInt64, isHole: Bool) {
            if let last = extents.last, last.isHole == isHole {
                extents[extents.count - 1].length += next - position
            } else {
                extents.append(Extent(length: next - position, isHole: isHole))
            }
            position = next
        }
        let alignment = question.alignment
        while position < end, extents.count < question.extentLimit {
            let data = lseek(descriptor, off_t(position), shim_seek_data)
            guard data >= 0 else {
                guard errno == ENXIO else { return [] }
                append(until: end, isHole: true)
                break
            }
            let dataStart = min(UInt64(data) / alignment * alignment, end)
            if dataStart > position {
                append(until: dataStart, isHole: true)
                continue
            }
            let hole = lseek(descriptor, max(data, off_t(position)), shim_seek_hole)
            guard hole > 0 else { return [] }
            let holeStart = (UInt64(hole) + alignment - 1) / alignment * alignment
            append(until: min(holeStart, end), isHole: false)
        }
        return extents
    }
}
