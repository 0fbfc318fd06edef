@main struct Main {
    static func main() {
        print("repctl: not built yet")
    }
}
