package clothes

import (
	"encoding/binary"
	"net/netip"
)

// Address says whom the SYNs are for and what is between.
type Address struct {
	Wearable
	Origin4, Origin6   netip.Addr
	Gateway4           netip.Addr // on the client side
	Port               uint16
	GatewayMAC, OurMAC [6]byte // where Ethernet
}

// Sources of the SYNs, so many that each has its own: whoever answers names the
// SYN, however little of it he quotes.
var (
	Sources4 = netip.MustParsePrefix("10.0.0.0/8")
	Sources6 = netip.MustParsePrefix("fd00:99::/64")
)

// smtpPort is what the SYNs are for.
const smtpPort = 25

// MaxSerial is the highest serial that a source address can tell.
const MaxSerial = 1<<24 - 1<<16

// Tailor makes frames of outfits. What it returns is overwritten by the next
// Clear.
type Tailor struct {
	Address
	arena  []byte
	frames []span

	segment, chain, outer []byte // of one outfit, reused
	pieces                []piece
	one                   []byte
}

type span struct{ start, end int }

// NewTailor makes frames for a link.
func NewTailor(a Address) *Tailor { return &Tailor{Address: a} }

// Clear forgets all frames.
func (t *Tailor) Clear() { t.arena, t.frames = t.arena[:0], t.frames[:0] }

// Len returns the number of frames.
func (t *Tailor) Len() int { return len(t.frames) }

// Frame returns a frame, or a packet where the link has no header.
func (t *Tailor) Frame(n int) []byte { return t.arena[t.frames[n].start:t.frames[n].end] }

// Dress appends the frames of an outfit.
func (t *Tailor) Dress(o *Outfit) {
	t.makeSegment(o)
	if o.V6 {
		t.dress6(o)
	} else {
		t.dress4(o)
	}
}

// source4 is the address of a serial.
func source4(serial uint32) [4]byte {
	return [4]byte{10, byte(serial >> 16), byte(serial >> 8), byte(serial)}
}

func source6(serial uint32) [16]byte {
	a := Sources6.Addr().As16()
	binary.BigEndian.PutUint32(a[12:], serial)
	return a
}

const tcpOptionSets = 7

// tcpOptions are what SYNs bear, from nothing to all that fits.
var tcpOptions = [tcpOptionSets][]byte{
	{},
	{2, 4, 5, 180},
	{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}, // as Linux
	{2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2},                          // as Windows
	{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
	{34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 180, 0, 0},                                        // Fast Open with a cookie
	{253, 12, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 30, 12, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 19, 18}, // experiment, MPTCP, and one that is cut
}

// makeSegment makes the TCP segment, whose checksum is right.
func (t *Tailor) makeSegment(o *Outfit) {
	flags, _ := o.has(Flags)
	options := tcpOptions[o.number(Options, 0)]
	header := 20 + (len(options)+3)/4*4
	size := header + o.number(Data, 0)
	t.segment = append(t.segment[:0], make([]byte, size)...)
	b := t.segment
	binary.BigEndian.PutUint16(b, 1024+uint16(o.Serial%60000))
	binary.BigEndian.PutUint16(b[2:], t.Port)
	binary.BigEndian.PutUint32(b[4:], o.Serial)
	b[12] = byte(header/4)<<4 | byte(flags.M)
	b[13] = flagSYN | byte(flags.N)
	binary.BigEndian.PutUint16(b[14:], 64240)
	copy(b[20:], options)
	for i := header; i < size; i++ {
		b[i] = byte('a' + i%26)
	}
	sum := checksum(b, t.pseudo(o, size))
	if _, wrong := o.has(BadSum); wrong {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[16:], sum)
}

// pseudo is the sum of the pseudo header.
func (t *Tailor) pseudo(o *Outfit, size int) uint32 {
	sum := uint32(6 + size)
	if o.V6 {
		s, d := source6(o.Serial), t.Origin6.As16()
		return add(add(sum, s[:]), d[:])
	}
	s, d := source4(o.Serial), t.Origin4.As4()
	return add(add(sum, s[:]), d[:])
}

// add sums octets as 16-bit words.
func add(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// checksum is that of RFC 1071.
func checksum(b []byte, sum uint32) uint16 {
	sum = add(sum, b)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
