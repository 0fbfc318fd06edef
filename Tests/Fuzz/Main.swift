// Fuzz targets, run by libFuzzer: scripts/fuzz.
//
// One program with all of them: `repd-fuzz --target=nbd ...`. libFuzzer ignores arguments that begin with
// two dashes, and passes them on to the processes that it starts itself.
import Glibc
import Support

/// A part of repd that reads what others wrote.
private enum FuzzTarget: String {
    case nbd, metadisk, configuration, control

    func run(_ bytes: [UInt8]) {
        switch self {
        case .nbd: NBDTarget.run(bytes)
        case .metadisk: MetaDiskTarget.run(bytes)
        case .configuration: ConfigurationTarget.run(bytes)
        case .control: ControlTarget.run(bytes)
        }
    }
}

/// The value of `--target=`.
private let target: FuzzTarget = {
    let option = "--target="
    let name = CommandLine.arguments.last { $0.hasPrefix(option) }?.dropFirst(option.count) ?? ""
    guard let target = FuzzTarget(rawValue: String(name)) else {
        print("repd-fuzz: no target '\(name)', use \(option)nbd|metadisk|configuration|control")
        exit(2)
    }
    return target
}()

/// One input. A property that does not hold stops the process, as every trap does.
@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    // libFuzzer's memory, copied during the call.
    target.run(unsafe Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}

@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// SwiftPM looks for `main` under this name.
@_cdecl("repd_fuzz_main")
func main(
    _ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> CInt {
    _ = target
    var count = count
    var arguments = unsafe arguments
    // The arguments are those of the process and live as long.
    return unsafe runDriver(&count, &arguments, testOneInput)
}
