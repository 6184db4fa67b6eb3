//! Links the program, and not the library, without anything of the C toolchain in it: no start files, no libc, no
//! dynamic loader. A fixed address, because a static PIE would have to relocate itself before its first instruction.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bin=initldr={argument}");
    }
}
