@main struct Main {
    static func main() {
        print("repd: not built yet")
    }
}
