package event

// TLS is what is known of one side's TLS: that it is in force, or why it is not.
// Who makes the record cuts what a stranger chose.
type TLS struct {
	Version  string       // "TLS1.3"; empty: no handshake was completed
	Cipher   string       // IANA's name of the cipher suite
	Group    string       // of the key exchange, as crypto/tls calls it: "X25519MLKEM768"
	Name     Text         // SNI: the name that was asked for, by a client any octets; at most 255
	Resumed  bool         // an earlier session was taken up, without certificates
	Peer     Verification // what was found out about the peer's certificate
	PeerName Text         // subject of the peer's certificate, where it was looked at; at most 1024 octets

	Failure Failure // why there is no TLS, or none any more
	Detail  string  // what exactly; of what the peer said at most 1024 octets
}

// Active reports whether the side has TLS.
func (t *TLS) Active() bool { return t.Version != "" && t.Failure == NoFailure }

// Verification is what was found out about a peer's certificate. These words are
// stable.
type Verification uint8

const (
	Unverified Verification = iota // nobody looked, or no policy asked
	Anonymous                      // the peer, a client, showed none
	Verified                       // the chain leads to a root that is trusted, and the name fits
	Pinned                         // its key is one of those configured
	DANE                           // it matches a TLSA record that DNSSEC vouches for

	Verifications // how many there are
)

var verificationWords = [Verifications]string{
	Unverified: "unverified",
	Anonymous:  "anonymous",
	Verified:   "verified",
	Pinned:     "pinned",
	DANE:       "dane",
}

// String returns the word used in records.
func (v Verification) String() string { return verificationWords[v] }

// Authentic reports whether the peer is known to be the one that was meant.
func (v Verification) Authentic() bool { return v >= Verified }

// Failure says why TLS did not come about. These words are stable: they are used
// in records, counters and the manual.
type Failure uint8

const (
	NoFailure          Failure = iota
	FailureNotOffered          // the origin does not offer STARTTLS
	FailureRefused             // the origin offered STARTTLS and then refused it
	FailureInjected            // octets were sent behind STARTTLS or its 220
	FailureTimeout             // the handshake was not completed in time
	FailureClosed              // the peer closed or reset the connection
	FailureNotTLS              // the peer sent something else than TLS
	FailureVersion             // no version in common: the peer knows old ones only
	FailureParameters          // no cipher suite, group or signature in common
	FailureAlert               // the peer gave the handshake up
	FailureCertificate         // the peer's certificate is missing or broken
	FailureName                // it is for another name
	FailureAuthority           // it leads to no root that is trusted
	FailureExpired             // it has expired, or is not yet valid
	FailurePin                 // its key is none of those configured
	FailureDANE                // it matches none of the TLSA records
	FailureResolver            // DNS gave no trustworthy answer
	FailureKey                 // our own key could not be used
	FailureProtocol            // the peer broke the rules of TLS

	Failures // how many there are
)

var failureWords = [Failures]string{
	NoFailure:          "",
	FailureNotOffered:  "not-offered",
	FailureRefused:     "refused",
	FailureInjected:    "injected",
	FailureTimeout:     "timeout",
	FailureClosed:      "closed",
	FailureNotTLS:      "not-tls",
	FailureVersion:     "version",
	FailureParameters:  "parameters",
	FailureAlert:       "alert",
	FailureCertificate: "certificate",
	FailureName:        "name",
	FailureAuthority:   "authority",
	FailureExpired:     "expired",
	FailurePin:         "pin",
	FailureDANE:        "dane",
	FailureResolver:    "resolver",
	FailureKey:         "key",
	FailureProtocol:    "protocol",
}

// String returns the word used in records, nothing for NoFailure.
func (f Failure) String() string { return failureWords[f] }

// Opaque is a stretch of a session that was carried without being looked at.
type Opaque struct {
	FromClient, FromOrigin int64 // octets
	Detail                 string
}
