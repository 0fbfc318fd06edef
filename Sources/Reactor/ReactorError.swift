import CShims
import Glibc
package import Support

extension SystemError: CustomStringConvertible {
    /// Such as `open /dev/sdb1: Permission denied`.
    package var description: String {
        object.isEmpty ? "\(call): \(reason)" : "\(call) \(object): \(reason)"
    }

    /// The text of the errno alone.
    package var reason: String {
        // A constant of the C library, or nil for a number it does not know.
        guard let text = unsafe shim_error_text(errno) else { return "error \(errno)" }
        return unsafe String(cString: text)
    }
}

/// Why no reactor could be set up.
package enum ReactorError: Error, Equatable, CustomStringConvertible {
    /// io_uring is not allowed here; `setting` is the value of kernel.io_uring_disabled if it exists.
    case forbidden(SystemError, setting: Int?)
    /// The kernel lacks an operation; repd needs 5.15 or later and is tested from 6.1 on.
    case lacking(operation: String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .forbidden(let error, let setting?) where setting != 0:
            "\(error): kernel.io_uring_disabled is \(setting): set it to 0, or with 1 add repd's "
                + "group to kernel.io_uring_group"
        case .forbidden(let error, _) where error.errno == ENOSYS:
            "\(error): no io_uring in this kernel, or a sandbox (seccomp) hides it: needs a kernel "
                + "of 5.15 or later, in a container a seccomp profile that allows io_uring"
        case .forbidden(let error, _):
            "\(error): a sandbox (seccomp) forbids io_uring: in a container use a seccomp profile "
                + "that allows io_uring_setup, io_uring_enter and io_uring_register"
        case .lacking(let operation):
            "io_uring: this kernel lacks \(operation): needs a kernel of 5.15 or later"
        case .system(let error):
            error.description
        }
    }
}

/// Throws the errno of a call that returned a negative number.
@discardableResult
func check<Value: SignedInteger>(
    _ result: Value, _ call: String, _ object: @autoclosure () -> String = ""
) throws(SystemError) -> Value {
    guard result < 0 else { return result }
    throw SystemError(call, object(), errno: errno)
}
