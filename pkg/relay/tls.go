package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/portreeve/portreeve/pkg/event"
	"github.com/portreeve/portreeve/pkg/secure"
	"github.com/portreeve/portreeve/pkg/session"
	"github.com/portreeve/portreeve/pkg/trust"
)

// TLS is what a service does about it.
type TLS struct {
	// Session says when which side gets TLS; who makes the handshakes is filled in
	// here.
	Session session.TLS
	Clients *tls.Config   // for the handshake with clients
	Origins *tls.Config   // for the one with origins; those that can be anybody are also offered RSA key exchange
	Policy  *trust.Policy // who an origin has to be
	Opaque  bool          // after STARTTLS the session is carried without being looked at
}

// tls returns what the session of this call has to know.
func (c *call) tls() session.TLS {
	t := c.service.TLS
	if t == nil {
		return session.TLS{}
	}
	o := t.Session
	o.OriginMust = o.OriginMust || c.must
	if t.Clients != nil {
		o.ClientSide = clientSide{t.Clients}
	}
	if t.Origins != nil {
		o.OriginSide = originSide{t, c.path.Origin.Port()}
		if t.Policy.Method == trust.Anybody { // who has to be somebody must not be spared it by failing
			o.Again = c.again
		}
	}
	if t.Opaque {
		o.Tunnel = c.tunnel
	}
	return o
}

// demandsTLS asks whether the origin is known to have TLS, whatever it offers.
func (c *call) demandsTLS() bool {
	t := c.service.TLS
	if t == nil || t.Policy == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(c.r.dialling, dialPatience)
	defer cancel()
	return t.Policy.Demands(ctx, c.path.Origin.Port())
}

// clientSide makes the handshakes with clients.
type clientSide struct{ config *tls.Config }

// Start makes one.
func (s clientSide) Start(leg session.Leg, by time.Time) (session.Leg, event.TLS) {
	conn, t := secure.Server(leg, s.config, by)
	if conn == nil {
		return nil, t
	}
	return conn, t
}

// originSide makes the handshakes with origins.
type originSide struct {
	service *TLS
	port    uint16
}

// Start makes one, if it can be known whom to expect.
func (s originSide) Start(leg session.Leg, by time.Time) (session.Leg, event.TLS) {
	ctx, cancel := context.WithDeadline(context.Background(), by)
	defer cancel()
	judge, proof, err := s.service.Policy.Judge(ctx, s.port)
	if err != nil {
		return nil, unjudged(err)
	}
	config := s.service.Origins
	if !proof { // without forward secrecy is better than in clear
		config = config.Clone()
		config.CipherSuites = secure.Suites(true)
	}
	conn, t := secure.Client(leg, config, judge, by)
	if conn == nil {
		return nil, t
	}
	return conn, t
}

// unjudged is the record of a handshake that is not made.
func unjudged(err error) event.TLS {
	t := event.TLS{Failure: event.FailureResolver, Detail: err.Error()}
	if known, ok := errors.AsType[*trust.Error](err); ok {
		t.Failure = known.Failure()
	}
	return t
}
