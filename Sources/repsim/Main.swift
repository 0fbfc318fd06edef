@main struct Main {
    static func main() {
        print("repsim: not built yet")
    }
}
