/// A system call that failed: which, on what, and its errno.
package struct SystemError: Error, Equatable, Sendable {
    /// The call as in its manual page, such as `open`.
    package let call: String
    /// What it was about: a path, an address, or empty.
    package let object: String
    package let errno: Int32

    package init(_ call: String, _ object: String = "", errno: Int32) {
        self.call = call
        self.object = object
        self.errno = errno
    }
}
