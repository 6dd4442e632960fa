package forward

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/portreeve/portreeve/pkg/config"
)

// Rung is the way in which the source of an origin leg was chosen.
type Rung uint8

const (
	RungPlain  Rung = iota // the gateway's own address, a port of the kernel's choice
	RungAny                // the client's address, a port of the kernel's choice
	RungClient             // the client's address and port
	RungGroup              // the client's address, another port of its port's group
	RungRandom             // the client's address, an unpredictable port of its port's group
	RungNumber             // the client's address, the configured port
)

// String returns the words under which the rung is recorded.
func (r Rung) String() string {
	names := [...]string{"gateway's address", "any port", "client's port", "port of the group", "random port", "configured port"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("rung(%d)", uint8(r))
}

// portTries bounds the ports of a group that are tried before the flow is given
// up. Each costs a socket; a group must be nearly full for all of them to fail.
const portTries = 64

// ports yields the source ports to be tried for a client's port, with their
// rungs. Port 0 leaves the choice to the kernel.
func ports(f config.ForgePort, client uint16) iter.Seq2[Rung, uint16] {
	return func(yield func(Rung, uint16) bool) {
		switch f.Mode {
		case config.PortAny:
			yield(RungAny, 0)
		case config.PortExact:
			yield(RungClient, client)
		case config.PortNumber:
			yield(RungNumber, f.Number)
		case config.PortGroup:
			if yield(RungClient, client) {
				walk(group(client), RungGroup, yield)
			}
		case config.PortRandom:
			walk(group(client), RungRandom, yield)
		}
	}
}

// span is the ports from first to last.
type span struct{ first, last uint16 }

// group returns the group of a port: a server that trusts low ports sees a low
// port if and only if the client has one.
func group(port uint16) span {
	switch {
	case port < 512:
		return span{1, 511}
	case port < 1024:
		return span{512, 1023}
	}
	return span{1024, 65535}
}

// stride is a prime that divides no group's size (511, 512, 64512), so that
// steps of it meet every port of a group once before they meet one again.
const stride = 257

// walk yields ports of a group, the first one unpredictable.
func walk(g span, r Rung, yield func(Rung, uint16) bool) {
	size := uint32(g.last-g.first) + 1
	at := random(size)
	for range portTries {
		if !yield(r, g.first+uint16(at)) {
			return
		}
		at = (at + stride) % size
	}
}

// random returns an unpredictable number below n, which is at most 65536. What
// 32 bits do not divide evenly by n favours no number by more than 1 in 65536.
func random(n uint32) uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails, Go 1.24
	return binary.NativeEndian.Uint32(b[:]) % n
}
