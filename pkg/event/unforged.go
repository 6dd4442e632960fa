package event

// Unforged says why an origin saw the gateway's own address although the service
// forges. The words are stable. The zero value says nothing: it saw the client's,
// the service never forges, or no origin was reached.
type Unforged uint8

const (
	NotUnforged       Unforged = iota
	UnforgedOnLink             // it would answer the client past the gateway, and forge.on_link is plain
	NoReturn                   // its replies to clients' addresses do not come back here
	OtherFamily                // no origin of the service is of the client's family
	UnforgedLinkLocal          // the client's address is link-local

	Unforgeds // how many there are
)

var unforgedWords = [Unforgeds]string{
	UnforgedOnLink: "on-link",
	NoReturn:       "no-return",
	OtherFamily:    "family",

	UnforgedLinkLocal: "link-local",
}

// String returns the word used in records and counters, nothing for NotUnforged.
func (u Unforged) String() string { return unforgedWords[u] }
