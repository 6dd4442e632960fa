package clothes

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Counter counts what leaves a device for the sources of SYNs, by verdict, without
// reading it: the kernel counts what passes a socket's filter, room for it or not.
type Counter struct{ sockets map[Verdict]int }

// Counted is how many packets there were of each verdict.
type Counted [Verdicts]uint64

// NewCounter counts at a device of the calling thread's network namespace SYN-ACK
// and RST from a port, and ICMP (all under that name).
func NewCounter(device string, port uint16) (*Counter, error) {
	c := &Counter{make(map[Verdict]int)}
	for verdict, filter := range map[Verdict][]bpf.Instruction{
		SYNACK: flagsFilter(port, 0x12, 0x12),
		RST:    flagsFilter(port, 0x04, 0x04),
		ICMP:   answersFilter(protocolFilter(9, unix.IPPROTO_ICMP), protocolFilter(6, unix.IPPROTO_ICMPV6)),
	} {
		fd, err := listen(device, filter)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.sockets[verdict] = fd
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			return nil, errors.Join(fmt.Errorf("count at %s: %w", device, err), c.Close())
		}
	}
	return c, nil
}

// flagsFilter takes TCP from a port of whose flags those in mask are as in want.
func flagsFilter(port uint16, mask, want uint32) []bpf.Instruction {
	flags := []bpf.Instruction{
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: want, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
	}
	v4 := append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipFalse: 7},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 4},
		bpf.LoadIndirect{Off: 13, Size: 1},
	}, flags...)
	v6 := append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipFalse: 6},
		bpf.LoadAbsolute{Off: 40, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 4},
		bpf.LoadAbsolute{Off: 53, Size: 1},
	}, flags...)
	return answersFilter(v4, v6)
}

// protocolFilter takes a protocol, which the packet names at an offset.
func protocolFilter(at, protocol uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: at, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocol, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
	}
}

// Count returns what was counted since the last call.
func (c *Counter) Count() (counted Counted, err error) {
	for verdict, fd := range c.sockets {
		s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return counted, fmt.Errorf("count answers: %w", err)
		}
		counted[verdict] = uint64(s.Packets)
	}
	return counted, nil
}

// Close ends the counter.
func (c *Counter) Close() error {
	var failures []error
	for _, fd := range c.sockets {
		failures = append(failures, unix.Close(fd))
	}
	return errors.Join(failures...)
}
