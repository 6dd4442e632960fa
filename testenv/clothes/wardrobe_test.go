package clothes

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var address = Address{
	Wearable: ethernet,
	Origin4:  netip.MustParseAddr("172.16.20.254"), Origin6: netip.MustParseAddr("fd00:20::fe"),
	Gateway4: netip.MustParseAddr("172.16.40.1"), Port: smtpPort,
}

func TestSameSeedSameClothes(t *testing.T) {
	a, b := NewCloset(ethernet, 1), NewCloset(ethernet, 1)
	for serial := uint32(100); serial > 0; serial-- { // in whatever order
		b.Draw(serial, nil)
	}
	other := NewCloset(ethernet, 2)
	same := 0
	for serial := uint32(1); serial <= 100; serial++ {
		want, got, foreign := a.Draw(serial, nil), b.Draw(serial, make([]Garment, 3)), other.Draw(serial, nil)
		if want.String() != got.String() {
			t.Fatalf("%s, then %s", &want, &got)
		}
		if want.String() == foreign.String() {
			same++
		}
	}
	if same > 50 { // the plain ones
		t.Errorf("of 100 outfits another seed draws %d alike", same)
	}
}

// What an outfit is made of is a whole SYN with a right checksum, for who puts its
// fragments together as RFC 791 and RFC 8200 say and walks past its headers.
func TestDressedIsASYN(t *testing.T) {
	closet, tailor := NewCloset(ethernet, 3), NewTailor(address)
	worn := make(map[string]int)
	for serial := uint32(1); serial <= 30_000; serial++ {
		o := closet.Draw(serial, nil)
		if slices.ContainsFunc(o.Garments, func(g Garment) bool { return broken(g) || unwelcome(g.Name()) }) {
			continue
		}
		for _, g := range o.Garments {
			worn[g.Name()]++
		}
		tailor.Clear()
		tailor.Dress(&o)
		if problem := wear(tailor, serial); problem != "" {
			for n := range tailor.Len() {
				t.Logf("%x", tailor.Frame(n))
			}
			t.Fatalf("%s: %s", &o, problem)
		}
	}
	for _, name := range []string{"802.1ad tag 0", "fragments of fragments", "hop-by-hop", "option timestamp", "fragment twice", "first fragment last"} {
		if worn[name] == 0 {
			t.Errorf("nobody wore %s", name)
		}
	}
}

// broken says whether it is not said what becomes of a SYN with that.
func broken(g Garment) bool {
	switch g.Kind {
	case Longer, Missing, Stranger, Next, BadSum, Length, ViaGate:
		return true
	case Twin:
		return g.M == 1
	case Option:
		return g.N == optEnd
	}
	return false
}

// wear puts the frames together and says what is wrong.
func wear(t *Tailor, serial uint32) string {
	queues := make(map[string]*queue)
	for n := range t.Len() {
		if segment := receive(queues, strip(t.Frame(n))); segment != nil {
			return examine(segment, t.Frame(0), serial)
		}
	}
	return "it does not become whole"
}

// strip removes the link header with tags.
func strip(frame []byte) []byte {
	at := 12
	for k := binary.BigEndian.Uint16(frame[at:]); k == tpid8021Q || k == tpid8021ad; k = binary.BigEndian.Uint16(frame[at:]) {
		at += 4
	}
	return frame[at+2:]
}

// queue is a packet whose fragments arrive.
type queue struct {
	octets []byte
	have   []bool
	size   int
	next   byte
}

// receive takes a packet in and returns the TCP segment when it is whole.
func receive(queues map[string]*queue, b []byte) []byte {
	if b[0]>>4 == 4 {
		b = b[:binary.BigEndian.Uint16(b[2:])] // what trails is none of it
		payload := b[int(b[0]&15)*4:]
		field := binary.BigEndian.Uint16(b[6:])
		if field&0x3fff == 0 {
			return payload
		}
		payload, _ = collect(queues, fmt.Sprint(b[4:6]), int(field&0x1fff)*8, field&0x2000 != 0, b[9], payload)
		return payload
	}
	return walk(queues, b[6], b[40:40+int(binary.BigEndian.Uint16(b[4:]))])
}

// walk walks past extension headers.
func walk(queues map[string]*queue, next byte, b []byte) []byte {
	for b != nil && next != 6 {
		if next != extFragment {
			next, b = b[0], b[int(b[1])*8+8:]
			continue
		}
		field := binary.BigEndian.Uint16(b[2:])
		inside, key := b[0], fmt.Sprint(b[4:8])
		b = b[8:]
		next = inside
		if field&0xfff9 != 0 {
			b, next = collect(queues, key, int(field&^7), field&1 != 0, inside, b)
		}
	}
	return b
}

// collect adds a fragment and returns what it completes.
func collect(queues map[string]*queue, key string, at int, more bool, next byte, b []byte) ([]byte, byte) {
	q := queues[key]
	if q == nil {
		q = &queue{octets: make([]byte, 1<<12), have: make([]bool, 1<<12), size: -1}
		queues[key] = q
	}
	copy(q.octets[at:], b)
	for i := range b {
		q.have[at+i] = true
	}
	if at == 0 {
		q.next = next
	}
	if !more {
		q.size = at + len(b)
	}
	if q.size < 0 || slices.Contains(q.have[:q.size], false) {
		return nil, 0
	}
	return q.octets[:q.size], q.next
}

// examine looks at a segment whose source is that of the first frame's packet.
func examine(segment, frame []byte, serial uint32) string {
	packet := strip(frame)
	got, ok := serialOf(packet, false)
	if !ok || got != serial {
		return fmt.Sprintf("its source is that of SYN %d", got)
	}
	sum := uint32(6 + len(segment))
	if packet[0]>>4 == 4 {
		sum = add(sum, packet[12:20])
		if checksum(packet[:int(packet[0]&15)*4], 0) != 0 {
			return "the header's checksum is wrong"
		}
	} else {
		sum = add(sum, packet[8:40])
	}
	switch {
	case checksum(segment, sum) != 0:
		return "the checksum is wrong"
	case binary.BigEndian.Uint16(segment[2:]) != smtpPort:
		return "it is for another port"
	case segment[13]&0x17 != flagSYN:
		return fmt.Sprintf("its flags are %#x", segment[13])
	}
	return ""
}

// A fragment that comes twice with other content leaves the checksum right: whoever
// takes it has a SYN, too.
func TestTwinIsASYN(t *testing.T) {
	tailor := NewTailor(address)
	o := Outfit{Serial: 7, V6: true, Garments: []Garment{{Header, extDestination, 0}, {Data, 30, 0}, {Cut, 4, 0}, {Twin, 0, 1}}}
	tailor.Dress(&o)
	if tailor.Len() != 3 {
		t.Fatalf("%d frames", tailor.Len())
	}
	if slices.Equal(tailor.Frame(0), tailor.Frame(1)) {
		t.Error("the twins are alike")
	}
	for first := range 2 {
		queues := make(map[string]*queue)
		receive(queues, strip(tailor.Frame(first)))
		segment := receive(queues, strip(tailor.Frame(2)))
		if segment == nil {
			t.Fatal("not whole")
		}
		if problem := examine(segment, tailor.Frame(0), 7); problem != "" {
			t.Errorf("with twin %d %s", first, problem)
		}
	}
}

func TestWithout(t *testing.T) {
	o := dressed(false, Garment{Data, 1, 0}, Garment{Whole, 0, 0}, Garment{TTL, 2, 0})
	if diff := cmp.Diff([]Garment{{Data, 1, 0}, {TTL, 2, 0}}, o.Without(1).Garments); diff != "" {
		t.Error(diff)
	}
	if len(o.Garments) != 3 || o.Garments[1].Kind != Whole {
		t.Error("the outfit itself was changed")
	}
}

// Who answers names the SYN, by the address that he answers.
func TestReadAnswer(t *testing.T) {
	tailor := NewTailor(Address{Wearable: bare, Origin4: address.Origin4, Port: smtpPort})
	tailor.Dress(&Outfit{})
	quoted := tailor.Frame(0)
	for serial := range uint32(3) {
		serial = serial * 0x123456
		for _, c := range []struct {
			want  Verdict
			tcp   byte    // flags
			icmp  [2]byte // type and code in IPv4
			icmp6 [2]byte
		}{
			{want: SYNACK, tcp: 0x12}, {want: RST, tcp: 0x14}, {want: RST, tcp: 0x04}, {want: Strange, tcp: 0x10},
			{want: Reassembly, icmp: [2]byte{11, 1}, icmp6: [2]byte{3, 1}},
			{want: ICMP, icmp: [2]byte{11, 0}, icmp6: [2]byte{3, 0}},
			{want: Parameter, icmp: [2]byte{12, 0}, icmp6: [2]byte{4, 1}},
			{want: ICMP, icmp: [2]byte{3, 1}, icmp6: [2]byte{1, 4}},
		} {
			four, six := make([]byte, 20), make([]byte, 40)
			source, long := source4(serial), source6(serial)
			four[0], six[0] = 0x45, 0x60
			copy(four[16:], source[:])
			copy(six[24:], long[:])
			if c.tcp != 0 {
				segment := make([]byte, 20)
				segment[13] = c.tcp
				four[9], six[6] = 6, 6
				four, six = append(four, segment...), append(six, segment...)
			} else {
				four[9], six[6] = 1, 58
				four = append(append(four, c.icmp[0], c.icmp[1], 0, 0, 0, 0, 0, 0), quoted...)
				six = append(append(six, c.icmp6[0], c.icmp6[1], 0, 0, 0, 0, 0, 0), quoted...)
			}
			for _, packet := range [][]byte{four, six} {
				a, ok := readAnswer(packet)
				if !ok || a.Serial != serial || a.Verdict != c.want {
					t.Errorf("%x: %v %v, want %s to %d", packet, a, ok, c.want, serial)
				}
			}
		}
	}
	stranger := make([]byte, 40)
	stranger[0] = 0x45
	if _, ok := readAnswer(stranger); ok {
		t.Error("an answer to nobody was taken")
	}
}

// An error counts if it is about a SYN, or about a first fragment that does not show
// what it is of; however deep the fragment header lies.
func TestShowsSYN(t *testing.T) {
	tailor := NewTailor(Address{Wearable: bare, Origin4: address.Origin4, Origin6: address.Origin6, Port: smtpPort})
	for _, c := range []struct {
		outfit Outfit
		shows  []bool // by frame
	}{
		{dressed(false), []bool{true}},
		{dressed(false, Garment{Option, optRecord, 8}, Garment{Cut, 1, 0}), []bool{true, false}},
		{dressed(false, Garment{Length, -20, 0}), []bool{true}}, // for all that the quoted octets say
		{dressed(false, Garment{Data, 40, 0}, Garment{Cut, 3, 0}, Garment{Order, 1, 0}), []bool{false, true}},
		{dressed(true, Garment{Header, extFragment, 0}, Garment{Header, extAuth, 0}), []bool{true}},
		{dressed(true, Garment{Header, extDestination, 2}, Garment{Header, extAuth, 0}, Garment{Header, extHIP, 0}, Garment{Outside, 3, 0}, Garment{Cut, 1, 0}), []bool{true, false}},
		{dressed(true, Garment{Header, extDestination, 2}, Garment{Cut, 1, 0}), []bool{true, false}},
		{dressed(true, Garment{Cut, 2, 0}, Garment{Again, 1, 0}), []bool{true, false, false, false}},
		{dressed(true, Garment{Length, -20, 0}), []bool{false}}, // no TCP header is left
		{dressed(true, Garment{Flags, 0x10, 0}), []bool{false}},
	} {
		tailor.Clear()
		tailor.Dress(&c.outfit)
		var got []bool
		for n := range tailor.Len() {
			got = append(got, showsSYN(tailor.Frame(n)))
		}
		if diff := cmp.Diff(c.shows, got); diff != "" {
			t.Errorf("%s: %s", &c.outfit, diff)
		}
	}
}
