//! The `kvnode` program: [`kvnode::cli`] reads what was typed and runs it.

fn main() -> std::process::ExitCode {
    kvnode::cli::main()
}
