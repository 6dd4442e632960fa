package smtp

import "bytes"

// DamagedReply reads a reply that CutReply has found a fault in. Clients of the
// origin itself read such replies in their own ways; what was clear about it must
// not be lost: whether the command failed, and whether for good. Otherwise mail
// that was refused is tried for days, and mail that was taken is sent again.
//
// A line ends with LF here, and control octets in it do not matter, unless what
// follows a lone CR looks like another reply. Lines and replies may be longer than
// their limits: what is beyond them is left out. One empty line may come first. A
// line of a reply that says that the command failed may lack its code, or the space
// behind it. Codes are read as CutReply reads them.
//
// The zero value with its limits is ready to be used.
type DamagedReply struct {
	Limits ReplyLimits

	code    Code
	odd     bool
	unsure  bool
	blank   bool   // an empty line came first
	lines   int    // with a code, or in place of one
	took    int    // octets
	line    []byte // the one that is being read, up to its limit
	cut     bool   // it is longer
	digits  int    // that have come behind a CR; -1: there was no CR
	out     []byte // the lines so far, as CutReply would take them
	at      int    // where the last of them begins
	started bool   // Next was called
	said    []byte // the first octets
}

const (
	maxDamage = 1 << 20 // octets of a damaged reply that are read to find its end
	maxSaid   = 128     // octets of it that are kept
)

// Next reads in up to the reply's last line. It returns how many octets it took,
// which are all of them unless the reply is complete, and a fault when nobody can
// tell what the reply means, or where it ends.
func (d *DamagedReply) Next(in []byte) (n int, done bool, f Fault) {
	if !d.started {
		d.started, d.digits = true, -1
	}
	d.said = append(d.said, in[:min(len(in), maxSaid-len(d.said))]...)
	for n < len(in) {
		c := in[n]
		n++
		if d.took++; d.took > maxDamage {
			return n, false, LongReply
		}
		if c == '\n' {
			done, f = d.endLine()
			if done || f != NoFault {
				d.said = d.said[:min(len(d.said), d.took)]
				return n, done, f
			}
			continue
		}
		if f = d.add(c); f != NoFault {
			return n, false, f
		}
	}
	return n, false, NoFault
}

// add takes an octet of a line.
func (d *DamagedReply) add(c byte) Fault {
	switch {
	case c == '\r':
		d.digits = 0
	case d.digits >= 0 && isDigit(c):
		if d.digits++; d.digits == 3 {
			return BareCR
		}
	default:
		d.digits = -1
	}
	if len(d.line) < d.Limits.Line-len(crlf) {
		d.line = append(d.line, c)
	} else {
		d.cut = d.cut || c != '\r'
	}
	return NoFault
}

// endLine takes the line that has come. done says that it is the reply's last.
func (d *DamagedReply) endLine() (done bool, f Fault) {
	line := bytes.TrimRight(d.line, "\r")
	d.unsure = d.unsure || d.digits != 0 // no CR came last
	d.line, d.digits = d.line[:0], -1
	if len(line) == 0 && d.lines == 0 && !d.blank {
		d.blank = true
		return false, NoFault
	}
	code, text, last, ok := d.parse(line)
	switch {
	case !ok:
		return false, BadCode
	case d.lines > 0 && (code.Class() != d.code.Class() || code != d.code && code.Class() < 4):
		return false, MixedCodes
	}
	d.odd = d.odd || !code.known() || d.lines > 0 && code != d.code
	d.code = code
	d.keep(text, last)
	return last, NoFault
}

// parse reads a line. Where the command has failed, it may lack what belongs in
// front of its text.
func (d *DamagedReply) parse(line []byte) (code Code, text []byte, last, ok bool) {
	if code, last, ok = parseReplyLine(line); ok {
		return code, line[min(4, len(line)):], last, true
	}
	d.unsure = true
	if len(line) > 3 && !isDigit(line[3]) {
		if code, _, ok = parseReplyLine(line[:3]); ok && code.Class() >= 4 {
			return code, line[3:], true, true
		}
	}
	return d.code, line, false, d.Failing()
}

// keep appends a line, if there is room. Of one that is cut the last word is left
// out whole: half of it may be another.
func (d *DamagedReply) keep(text []byte, last bool) {
	d.lines++
	if most := d.Limits.Line - len("250 \r\n"); len(text) > most { // it lacked its code
		text, d.cut = text[:most], true
	}
	if d.cut {
		if i := bytes.LastIndexByte(text, ' '); i > len(text)/2 {
			text = text[:i]
		}
		d.cut = false
	}
	if d.lines <= d.Limits.Lines && len(d.out)+len(text)+6 <= d.Limits.Octets {
		d.at = len(d.out)
		d.out = AppendReplyLine(d.out, d.code, text, false)
	}
	if last {
		d.out[d.at+3] = ' '
	}
}

// Reply returns the reply when it is complete.
func (d *DamagedReply) Reply() WireReply {
	return WireReply{Code: d.code, Odd: d.odd, Damaged: true, Unsure: d.unsure, raw: d.out, said: d.said}.settled()
}

// Unfinished returns what there is of a reply that nothing follows any more; ok is
// false when it does not say that the command failed.
func (d *DamagedReply) Unfinished() (r WireReply, ok bool) {
	if len(d.line) > 0 {
		if done, f := d.endLine(); done || f != NoFault {
			return d.Reply(), f == NoFault && d.code.Class() >= 4
		}
	}
	if !d.Failing() {
		return r, false
	}
	d.out[d.at+3] = ' '
	return d.Reply(), true
}

// Failing reports whether it is clear that the command has failed, whatever else
// may come.
func (d *DamagedReply) Failing() bool { return d.lines > 0 && d.code.Class() >= 4 }

// Said returns the first octets of what was read, for records.
func (d *DamagedReply) Said() []byte { return d.said }
