package steer

// The programs and the types shared with them; needs clang, and gives the same
// bytes in every folder. Compiled without the system's headers, so that the
// kernel headers of the machine do not matter.
//go:generate go tool bpf2go -cc clang -strip llvm-strip -target bpfel,bpfeb -type abi -type side -type reason -type binding_flags bpf ../../bpf/steer.c -- -nostdinc -Wall -Werror -mcpu=v3 -I../../bpf/include
