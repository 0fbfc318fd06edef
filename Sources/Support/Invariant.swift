/// Stops the process when a promise between our own parts is broken; stays in release builds.
///
/// Input from clients, peers, disks and operators is never checked with this: it is refused.
@inlinable
package func invariant(
    _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String,
    file: StaticString = #fileID, line: UInt = #line
) {
    if !condition() { invariantFailed(message(), file: file, line: line) }
}

/// Prints what was expected and stops the process.
@inline(never) @usableFromInline
package func invariantFailed(
    _ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) -> Never {
    fatalError("invariant: \(message())", file: file, line: line)
}
