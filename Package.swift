// swift-tools-version: 6.2
import PackageDescription

/// Deliberate faults in the replication, to judge the simulator by (scripts/test-faults).
let faults: [SwiftSetting] =
    Context.environment["REPD_FAULTS"] == nil ? [] : [.define("REPD_FAULTS")]

/// Coverage for the fuzz targets (scripts/fuzz); their libraries are built with it into a path of
/// their own.
let isFuzzing = Context.environment["REPD_FUZZ"] != nil

let settings: [SwiftSetting] =
    faults + (isFuzzing ? [.unsafeFlags(["-sanitize=fuzzer"])] : []) + [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableExperimentalFeature("Lifetimes"),
        .strictMemorySafety(),
        .treatAllWarnings(as: .error),
    ]
// Glibc hides O_DIRECT, accept4, fallocate flags and pipe2 without it. Only what is compiled as C may
// see it: CShims.h says why.
let linux: [CSetting] = [.define("_GNU_SOURCE")]

let parser = Target.Dependency.product(
    name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

/// A library target of this package; the import table of the design is checked by scripts/lint.
func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func program(_ name: String, _ dependencies: [Target.Dependency], path: String? = nil) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: path, swiftSettings: settings)
}

func tests(
    _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings)
}

/// What libFuzzer runs; the linker finds it with lld only, and no other build knows the target.
let fuzzTarget: Target = .executableTarget(
    name: "repd-fuzz",
    dependencies: ["Configuration", "Control", "MetaDisk", "NBD", "Status", "Support"],
    path: "Tests/Fuzz", exclude: ["corpus", "dictionaries"],
    swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])],
    linkerSettings: [.unsafeFlags(["-sanitize=fuzzer", "-use-ld=lld"])])

let package = Package(
    name: "repd",
    products: [
        .executable(name: "repd", targets: ["repd"]),
        .executable(name: "repctl", targets: ["repctl"]),
        .executable(name: "repsim", targets: ["repsim"]),
        .executable(name: "engine-bench", targets: ["engine-bench"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    ],
    targets: [
        // liburing is linked in, so that a release binary needs no library that Debian lacks.
        .target(
            name: "CShims", cSettings: linux, linkerSettings: [.linkedLibrary(":liburing.a")]),
        library("Support"),
        library("DRBDWire", ["Support"]),
        library("MetaDisk", ["Support"]),
        library("Replication", ["DRBDWire", "MetaDisk", "Support"]),
        library("NBD", ["Support"]),
        library("Reactor", ["CShims", "Support"]),
        library("KernelDevice", ["CShims", "Support"]),
        library("Configuration", ["Support"]),
        library("Status", ["DRBDWire", "Support"]),
        library("Control", ["Status", "Support"]),
        library(
            "Node",
            [
                "Control", "DRBDWire", "KernelDevice", "MetaDisk", "NBD", "Reactor",
                "Replication", "Status", "Support", logging,
            ]),
        library(
            "Administration",
            ["Configuration", "Control", "DRBDWire", "MetaDisk", "Status", "Support"]),
        library("Simulator", ["DRBDWire", "MetaDisk", "Replication", "Support"]),
        program("repd", ["Node", "Support", parser, logging]),
        program("repctl", ["Administration", "Configuration", "Control", "Status", parser]),
        program("repsim", ["Simulator", "Replication", parser]),
        program(
            "engine-bench", ["DRBDWire", "MetaDisk", "NBD", "Replication", "Support"],
            path: "Benchmarks/EngineWrites"),
        tests("SupportTests", ["Support"]),
        tests("DRBDWireTests", ["DRBDWire", "Support"], exclude: ["Fixtures"]),
        tests("MetaDiskTests", ["MetaDisk", "Support"], exclude: ["Fixtures"]),
        tests("ReplicationTests", ["Replication", "DRBDWire", "MetaDisk", "Support"]),
        tests("NBDTests", ["NBD", "Support"]),
        tests("ReactorTests", ["CShims", "Reactor", "Support"]),
        tests("KernelDeviceTests", ["KernelDevice", "Support"]),
        tests("ConfigurationTests", ["Configuration", "Support"], exclude: ["Fixtures"]),
        tests("StatusTests", ["Status", "DRBDWire"], exclude: ["Fixtures"]),
        tests("ControlTests", ["Control", "DRBDWire", "Status"]),
        tests(
            "AdministrationTests",
            [
                "Administration", "Configuration", "Control", "DRBDWire", "MetaDisk", "repctl",
                "Status", "Support", parser,
            ]),
        tests("SimulatorTests", ["DRBDWire", "Simulator", "Replication", "Support"]),
    ] + (isFuzzing ? [fuzzTarget] : [])
)
