package event

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/portreeve/portreeve/pkg/flow"
)

// textFormat writes records for a reader at a terminal.
type textFormat struct{}

func (textFormat) message(b []byte, m *Message) []byte {
	b = appendHead(b, m.Start.Add(m.Total), "message", m.Outcome.String(), &m.Flow)
	b = appendTextAddr(b, "origin", m.Origin)
	b = appendTextAddr(b, "forged", m.Forged)
	b = appendTextWord(b, "unforged", m.Unforged.String())
	b = append(b, " from=<"...)
	b = append(appendEscaped(b, m.Sender), '>')
	for i := range m.Recipients {
		b = append(b, " to=<"...)
		b = append(appendEscaped(b, m.Recipients[i].Address), '>')
	}
	b = append(b, " size="...)
	b = strconv.AppendInt(b, m.Size, 10)
	b = appendDuration(b, m.Total)
	b = appendReason(b, m.Reason.String())
	return append(appendTextAnswer(b, m.Client), '\n')
}

func (textFormat) session(b []byte, s *Session) []byte {
	b = appendHead(b, s.Start.Add(s.Duration), "session", s.End.String(), &s.Flow)
	b = appendTextAddr(b, "origin", s.Origin)
	b = appendTextWord(b, "unforged", s.Unforged.String())
	b = append(b, " helo="...)
	b = appendEscaped(b, s.Hello)
	b = appendTextOctets(b, "xclient", s.XClient)
	for _, u := range s.Unreached {
		b = append(b, " unreached=\""...)
		b = append(u.Origin.AppendTo(b), ' ')
		b = append(append(b, u.Trouble.String()...), '"')
	}
	b = append(b, " messages="...)
	b = strconv.AppendInt(b, int64(s.Messages), 10)
	if s.Errors > 0 {
		b = append(b, " errors="...)
		b = strconv.AppendInt(b, int64(s.Errors), 10)
	}
	for _, t := range s.Refusals {
		b = append(b, " refused="...)
		b = append(b, t.Reason.String()...)
		b = append(b, '*')
		b = strconv.AppendInt(b, int64(t.Count), 10)
	}
	b = appendTextOctets(b, "removed", s.Removed)
	b = appendTextWord(b, "tls", s.Mode)
	b = appendTextTLS(b, "client", s.ClientTLS)
	b = appendTextTLS(b, "origin", s.OriginTLS)
	b = appendTextOpaque(b, s.Opaque)
	b = appendDuration(b, s.Duration)
	b = appendReason(b, s.Detail)
	b = appendTextOctets(b, "offence", s.Offence)
	for _, r := range s.Rewritten {
		b = appendTextOctets(b, "rewritten", r.Reply)
	}
	if s.Closing.Code != 0 {
		return append(appendTextAnswer(b, s.Closing), '\n')
	}
	return append(appendTextAnswer(b, s.Last), '\n')
}

func (textFormat) lost(b []byte, at time.Time, records uint64) []byte {
	b = at.UTC().AppendFormat(b, timeLayout)
	b = append(b, " lost records="...)
	return append(strconv.AppendUint(b, records, 10), '\n')
}

func appendHead(b []byte, t time.Time, kind, word string, f *flow.Flow) []byte {
	b = t.UTC().AppendFormat(b, timeLayout)
	b = append(b, ' ')
	b = append(b, kind...)
	b = append(b, ' ')
	b = append(b, word...)
	b = append(b, " id="...)
	b, _ = f.ID.AppendText(b) // cannot fail
	b = append(b, " service="...)
	b = appendEscaped(b, []byte(f.Service))
	b = append(b, " way="...)
	b = append(b, f.Way.String()...)
	b = appendTextAddr(b, "client", f.Client)
	b = appendTextAddr(b, "server", f.Server)
	if f.Zone.Name != "" {
		b = append(b, " zone="...)
		b = appendEscaped(b, []byte(f.Zone.Name))
	}
	return appendTextAddr(b, "via", f.Via)
}

func appendTextAddr(b []byte, name string, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=')
	return a.AppendTo(b)
}

func appendTextOctets(b []byte, name string, t Text) []byte {
	if len(t) == 0 {
		return b
	}
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=', '"')
	return append(appendEscaped(b, t), '"')
}

// appendTextWord appends a word of our own.
func appendTextWord(b []byte, name, word string) []byte {
	if word == "" {
		return b
	}
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=')
	return append(b, word...)
}

// appendTextTLS appends what is known of one side's TLS: as many of the words of
// tlsFacts as there are, and what the peer called itself.
func appendTextTLS(b []byte, side string, t *TLS) []byte {
	if t == nil {
		return b
	}
	b = append(b, ' ')
	b = append(b, side...)
	b = append(b, "_tls"...)
	sep := byte('=')
	for _, word := range tlsFacts(t) {
		if word != "" {
			b = append(append(b, sep), word...)
			sep = ','
		}
	}
	b = appendTextOctets(b, side+"_sni", t.Name)
	b = appendTextOctets(b, side+"_peer_name", t.PeerName)
	return appendTextOctets(b, side+"_tls_detail", []byte(t.Detail))
}

// tlsFacts are words of ours and of crypto/tls, none of a peer's. Who the peer is
// and why there is no TLS have words in common, so the latter is marked, and
// never stands beside the former.
func tlsFacts(t *TLS) (facts [6]string) {
	facts[0], facts[1], facts[2] = t.Version, t.Cipher, t.Group
	if t.Resumed {
		facts[3] = "resumed"
	}
	if t.Failure != NoFailure {
		facts[4], facts[5] = "failed", t.Failure.String()
	} else {
		facts[4] = t.Peer.String()
	}
	return facts
}

func appendTextOpaque(b []byte, o *Opaque) []byte {
	if o == nil {
		return b
	}
	b = append(b, " not_inspected="...)
	b = strconv.AppendInt(b, o.FromClient, 10)
	b = append(b, '+')
	return strconv.AppendInt(b, o.FromOrigin, 10)
}

func appendDuration(b []byte, d time.Duration) []byte {
	b = append(b, " seconds="...)
	return strconv.AppendFloat(b, d.Seconds(), 'f', 3, 64)
}

func appendReason(b []byte, reason string) []byte {
	if reason == "" {
		return b
	}
	b = append(b, " reason=\""...)
	return append(appendEscaped(b, []byte(reason)), '"')
}

func appendTextAnswer(b []byte, a Answer) []byte {
	if a.Code == 0 {
		return b
	}
	b = append(b, " reply=\""...)
	b = strconv.AppendInt(b, int64(a.Code), 10)
	b = append(b, ' ')
	return append(appendEscaped(b, a.Text), '"')
}
