import MetaDisk

// set-gi: drbd-metadata.md, section 14.6.

extension OfflineCommands {
    /// set-gi: the super block alone, in one write; the bitmap stays as it is.
    package mutating func setGenerations(_ text: String) -> Int32 {
        perform { (commands) throws(Stop) in
            let (before, location) = try commands.metadata()
            var after = before
            do throws(GenerationTextError) {
                try after.setGenerations(text)
            } catch {
                commands.console.complain(lines: "\(error)")
                throw .exit(ExitCode.badValue)
            }
            commands.console.print(
                "previously \(before.generationLine)", "set GI to  \(after.generationLine)")
            guard commands.console.confirm("Write new GI to disk?", force: commands.force) else {
                commands.console.print("Operation canceled.")
                throw .exit(ExitCode.failed)
            }
            try commands.store(after, location)
        }
    }
}
