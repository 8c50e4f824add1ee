#!/bin/sh
# closed-circle.wasm, by wit-bindgen, clang (or $CC) and wasm-component-ld, which are on the path.
set -eu
cd "$(dirname "$0")"
mkdir -p build
wit-bindgen c --world admission-policy --out-dir build ../../../wit
for source in closed-circle.c libc/libc.c build/admission_policy.c; do
    "${CC:-clang}" --target=wasm32-unknown-unknown -std=c17 -Os -Wall -Wextra -Werror -ffreestanding -nostdlibinc \
        -isystem libc -I build -c "$source" -o "build/$(basename "$source" .c).o"
done
wasm-component-ld --no-entry --strip-all -o closed-circle.wasm build/*.o
