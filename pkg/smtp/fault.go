package smtp

// Fault says why octets are not SMTP. The zero value means that they are, as
// far as they go.
type Fault uint8

const (
	NoFault    Fault = iota
	BareCR           // a CR that no LF follows
	BareLF           // an LF that no CR precedes
	NUL              // an octet of value 0
	LongLine         // no CRLF within the longest line allowed
	BadCode          // a reply line that does not start with 3 digits and a separator
	MixedCodes       // lines of one reply with different codes
	LongReply        // more lines or octets than a reply may have
)

var faultWords = [...]string{
	NoFault:    "none",
	BareCR:     "bare CR",
	BareLF:     "bare LF",
	NUL:        "NUL octet",
	LongLine:   "line too long",
	BadCode:    "not a reply line",
	MixedCodes: "reply lines with different codes",
	LongReply:  "reply too long",
}

// String returns the words used in records and logs.
func (f Fault) String() string { return faultWords[f] }

// Error makes a Fault usable as the cause of an error.
func (f Fault) Error() string { return f.String() }
