//! The `sisforge` program: everything is in the library.

fn main() -> std::process::ExitCode {
    sisforge::cli::main()
}
