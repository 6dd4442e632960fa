package clothes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Verdict is what came back for a SYN.
type Verdict uint8

// The verdicts. The last is that of a SYN that nobody spoke about.
const (
	SYNACK Verdict = iota
	RST
	Reassembly // ICMP: fragments did not become a packet in time
	Parameter  // ICMP: a header that the sender ought not to have sent
	ICMP       // any other
	Strange    // anything else
	Unreadable // ICMP about a packet that shows no SYN, see showsSYN
	Silence
	Verdicts // their number
)

func (v Verdict) String() string {
	return [...]string{"SYN-ACK", "RST", "ICMP reassembly", "ICMP parameter", "ICMP", "strange", "ICMP about no SYN", "silence"}[v]
}

// Answer is a packet to the source of a SYN.
type Answer struct {
	Serial uint32
	Verdict
	Port uint16 // that a TCP answer comes from
	Ack  uint32 // that a TCP answer acknowledges
}

// Judge hears what leaves a device for the sources of SYNs, whoever says it.
type Judge struct {
	fd     int
	buffer []byte
}

// NewJudge listens at a device of the calling thread's network namespace.
func NewJudge(device string) (*Judge, error) {
	fd, err := listen(device, answersFilter(nil, nil))
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("judge at %s: %w", device, err)
	}
	return &Judge{fd, make([]byte, 1<<16)}, nil
}

// listen opens a packet socket that takes what a filter lets through.
func listen(device string, filter []bpf.Instruction) (int, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return -1, fmt.Errorf("listen: %w", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("listen at %s: %w", device, err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	err = errors.Join(attachFilter(fd, filter), unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen at %s: %w", device, err)
	}
	return fd, nil
}

func attachFilter(fd int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// answersFilter takes the packets that leave for the source of a SYN and that the
// filters for IPv4 and IPv6 take; these begin with the packet at hand, end with
// an instruction that takes it and refuse it by a jump to their end. nil takes all.
func answersFilter(v4, v6 []bpf.Instruction) []bpf.Instruction {
	take, refuse := bpf.RetConstant{Val: 1 << 16}, bpf.RetConstant{}
	if v4 == nil {
		v4, v6 = []bpf.Instruction{take}, []bpf.Instruction{take}
	}
	prefix := Sources6.Addr().As16()
	high, low := binary.BigEndian.Uint32(prefix[:]), binary.BigEndian.Uint32(prefix[4:])
	filter := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		refuse,
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x40, SkipFalse: uint8(3 + len(v4))},
		bpf.LoadAbsolute{Off: 16, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(Sources4.Addr().As4()[0]), SkipFalse: uint8(len(v4))},
	}
	filter = append(append(filter, v4...), refuse)
	filter = append(filter,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x60, SkipFalse: uint8(4 + len(v6))},
		bpf.LoadAbsolute{Off: 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: high, SkipFalse: uint8(2 + len(v6))},
		bpf.LoadAbsolute{Off: 28, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: low, SkipFalse: uint8(len(v6))},
	)
	return append(append(filter, v6...), refuse)
}

// Hear returns the next answer, or false when there was none for a time.
func (j *Judge) Hear(patience time.Duration) (Answer, bool, error) {
	for {
		n, err := unix.Read(j.fd, j.buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && patience > 0:
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(j.fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if ready == 0 && err == nil {
				return Answer{}, false, nil
			}
			continue
		case err == unix.EAGAIN:
			return Answer{}, false, nil
		case err != nil:
			return Answer{}, false, fmt.Errorf("hear answers: %w", err)
		}
		if a, ok := readAnswer(j.buffer[:n]); ok {
			return a, true, nil
		}
	}
}

// Deaf returns how many answers were lost since the last call because nobody read
// them in time.
func (j *Judge) Deaf() (uint32, error) {
	s, err := unix.GetsockoptTpacketStats(j.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("ask how many answers were lost: %w", err)
	}
	return s.Drops, nil
}

// Close ends the judge.
func (j *Judge) Close() error { return unix.Close(j.fd) }

// serialOf returns the serial of the SYN whose source a packet goes to, or comes
// from.
func serialOf(b []byte, to bool) (uint32, bool) {
	if len(b) < 20 {
		return 0, false
	}
	at4, at6 := 12, 8
	if to {
		at4, at6 = 16, 24
	}
	switch b[0] >> 4 {
	case 4:
		return binary.BigEndian.Uint32(b[at4:]) & 0xffffff, b[at4] == Sources4.Addr().As4()[0]
	case 6:
		prefix := Sources6.Addr().As16()
		if len(b) < 40 || string(b[at6:at6+8]) != string(prefix[:8]) {
			return 0, false
		}
		return binary.BigEndian.Uint32(b[at6+12:]), true
	}
	return 0, false
}

// readAnswer reads a packet to the source of a SYN.
func readAnswer(b []byte) (Answer, bool) {
	serial, ok := serialOf(b, true)
	if !ok {
		return Answer{}, false
	}
	a := Answer{Serial: serial, Verdict: Strange}
	protocol, payload := b[9], b[min(len(b), int(b[0]&15)*4):]
	if b[0]>>4 == 6 {
		protocol, payload = b[6], b[40:]
	}
	switch {
	case protocol == unix.IPPROTO_TCP && len(payload) >= 20:
		a.Port, a.Ack = binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[8:])
		a.Verdict = tcpVerdict(payload[13])
	case protocol == unix.IPPROTO_ICMP && len(payload) >= 8:
		a.Verdict = icmpVerdict(payload, 11, 12)
	case protocol == unix.IPPROTO_ICMPV6 && len(payload) >= 8:
		a.Verdict = icmpVerdict(payload, 3, 4)
	}
	return a, true
}

func tcpVerdict(flags byte) Verdict {
	switch {
	case flags&0x12 == 0x12:
		return SYNACK
	case flags&0x04 != 0:
		return RST
	}
	return Strange
}

// icmpVerdict takes an ICMP error and the types of "time exceeded" and "parameter
// problem".
func icmpVerdict(b []byte, time, parameter byte) Verdict {
	switch kind, code := b[0], b[1]; {
	case !showsSYN(b[8:]):
		return Unreadable
	case kind == time && code == 1:
		return Reassembly
	case kind == parameter:
		return Parameter
	}
	return ICMP
}

// showsSYN says whether a packet that an ICMP error quotes is a SYN to smtpPort, or a
// first fragment that ends before it shows what it is of. Others may have been made of
// a SYN, but nobody who sees them can know: later fragments, and packets that their
// length, or connection tracking on the way (which writes to the wrong octet when a
// fragment header lies behind the first 255), made into something else.
func showsSYN(b []byte) bool {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		fragment, header := binary.BigEndian.Uint16(b[6:]), int(b[0]&15)*4
		if fragment&0x1fff != 0 || b[9] != unix.IPPROTO_TCP {
			return false
		}
		more := fragment&0x2000 != 0 || int(binary.BigEndian.Uint16(b[2:])) > len(b)
		return isSYN(b[min(header, len(b)):], more)
	case len(b) >= 40 && b[0]>>4 == 6:
		size := int(binary.BigEndian.Uint16(b[4:]))
		return showsSYN6(b[6], b[40:min(40+size, len(b))], size > len(b)-40)
	}
	return false
}

// showsSYN6 walks past extension headers. more says that the packet goes on behind
// the octets.
func showsSYN6(next byte, b []byte, more bool) bool {
	for next != unix.IPPROTO_TCP {
		if len(b) < 8 {
			return more
		}
		size := int(b[1])*8 + 8
		switch next {
		case extFragment:
			field := binary.BigEndian.Uint16(b[2:])
			if field&^7 != 0 {
				return false
			}
			more = more || field&1 != 0
			size = 8
		case extAuth:
			size = int(b[1])*4 + 8
		case extHop, extRouting, extDestination, extMobility, extHIP, extShim:
		default:
			return false
		}
		next, b = b[0], b[min(size, len(b)):]
	}
	return isSYN(b, more)
}

func isSYN(b []byte, more bool) bool {
	if len(b) < 14 {
		return more
	}
	return binary.BigEndian.Uint16(b[2:]) == smtpPort && b[13]&0x12 == flagSYN
}
