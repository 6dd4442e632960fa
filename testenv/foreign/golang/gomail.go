package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// sendGoMail sends with wneessen/go-mail, which composes the messages itself.
func sendGoMail(j job) error {
	options := []mail.Option{mail.WithPort(j.Port), mail.WithHELO(j.Name), mail.WithTimeout(time.Minute), mail.WithTLSPolicy(mail.NoTLS)}
	if j.TLS {
		config, err := j.tls()
		if err != nil {
			return err
		}
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithTLSConfig(config))
	}
	if j.Auth != "" {
		mechanism := mail.SMTPAuthType(j.Auth)
		if !j.TLS {
			mechanism += "-NOENC"
		}
		options = append(options, mail.WithSMTPAuth(mechanism), mail.WithUsername(j.User), mail.WithPassword(j.Password))
	}
	if j.Letters[0].DSN {
		options = append(options, mail.WithDSNMailReturnType(mail.DSNMailReturnHeadersOnly),
			mail.WithDSNRcptNotifyType(mail.DSNRcptNotifyFailure, mail.DSNRcptNotifyDelay))
	}
	c, err := mail.NewClient(j.Server, options...)
	if err != nil {
		return err
	}
	var messages []*mail.Msg
	for _, l := range j.Letters {
		m, err := compose(l)
		if err != nil {
			return err
		}
		messages = append(messages, m)
	}
	err = c.DialAndSend(messages...)
	for _, m := range messages {
		fmt.Printf("letter: delivered %t, reply %q, error %v, temporary %t\n", m.IsDelivered(), m.ServerResponse(), m.SendError(), m.SendErrorIsTemp())
	}
	return err
}

func compose(l letter) (*mail.Msg, error) {
	m := mail.NewMsg(mail.WithEncoding(mail.NoEncoding))
	if err := m.EnvelopeFrom(l.From); err != nil {
		return nil, err
	}
	if err := m.From(l.From); err != nil {
		return nil, err
	}
	if err := m.To(l.To...); err != nil {
		return nil, err
	}
	m.Subject(l.Subject)
	m.SetDateWithValue(time.Unix(0, 0).UTC())
	m.SetMessageIDWithValue("letter@example.net")
	m.SetBodyString(mail.TypeTextPlain, strings.ReplaceAll(l.Body, "\r\n", "\n"))
	return m, nil
}
