/// What is wrong with bytes that a peer sent: it costs the peer its connection.
package enum WireError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A run-length code ends within a run: `bit` is where the run starts, counted from the first
    /// code bit.
    case runCutOff(bit: Int, bitCount: Int)
    /// The runs of a code add up to more than any bitmap has.
    case runsTooLong(bit: Int)

    package var description: String {
        switch self {
        case .runCutOff(let bit, let bitCount):
            "compressed bitmap: the run at bit \(bit) goes past the \(bitCount) bits of the code"
        case .runsTooLong(let bit):
            "compressed bitmap: the runs up to bit \(bit) of the code overflow 64 bits"
        }
    }
}
