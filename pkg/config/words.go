package config

import (
	"slices"
	"strconv"
)

// The words of each choice, in the order of its constants. They are the only
// spelling: in the file, in messages, in status and in records.
var (
	forgeAddressWords = []string{"always", "prefer", "never"}
	onLinkWords       = []string{"refuse", "plain"}
	portModeWords     = []string{"any", "exact", "group", "random"}
	failWords         = []string{"closed", "open"}
	datapathWords     = []string{"auto", "tcx", "clsact"}
	netfilterWords    = []string{"auto", "nft", "legacy", "off"}
	forwardRulesWords = []string{"honour", "skip"}
	verdictWords      = []string{"reject", "disconnect", "accept"}
	tlsModeWords      = []string{"auto", "mirror", "passthrough", "client", "origin", "off"}
	tlsVersionWords   = []string{"TLS1.2", "TLS1.3"}
	rsaWords          = []string{"allow", "refuse"}
	clientVerifyWords = []string{"none", "optional", "always"}
	originVerifyWords = []string{"none", "system", "ca", "pin", "dane"}
	logFormatWords    = []string{"json", "text"}
)

// String returns the word used in the file.
func (f ForgeAddress) String() string { return wordOf(forgeAddressWords, f) }

// String returns the word used in the file.
func (o OnLink) String() string { return wordOf(onLinkWords, o) }

// String returns the word used in the file, "number" for PortNumber.
func (m PortMode) String() string {
	if m == PortNumber {
		return "number"
	}
	return wordOf(portModeWords, m)
}

// String returns the word or the number used in the file.
func (p ForgePort) String() string {
	if p.Mode == PortNumber {
		return strconv.Itoa(int(p.Number))
	}
	return p.Mode.String()
}

// String returns the word used in the file.
func (f Fail) String() string { return wordOf(failWords, f) }

// String returns the word used in the file.
func (d Datapath) String() string { return wordOf(datapathWords, d) }

// String returns the word used in the file.
func (n Netfilter) String() string { return wordOf(netfilterWords, n) }

// String returns the word used in the file.
func (f ForwardRules) String() string { return wordOf(forwardRulesWords, f) }

// String returns the word used in the file.
func (m TLSMode) String() string { return wordOf(tlsModeWords, m) }

// String returns the word used in the file.
func (v TLSVersion) String() string { return wordOf(tlsVersionWords, v) }

// String returns the word used in the file.
func (r RSAKeyExchange) String() string { return wordOf(rsaWords, r) }

// String returns the word used in the file.
func (v ClientVerify) String() string { return wordOf(clientVerifyWords, v) }

// String returns the word used in the file.
func (v OriginVerify) String() string { return wordOf(originVerifyWords, v) }

// wordOf returns the word of a choice, its number when it is none of them.
func wordOf[T ~uint8](words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return strconv.Itoa(int(v))
}

// choice returns the constant that a word stands for.
func choice[T ~uint8](words []string, word string) (T, bool) {
	i := slices.Index(words, word)
	return T(max(i, 0)), i >= 0
}
