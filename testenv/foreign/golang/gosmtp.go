package main

import (
	"fmt"
	"net"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// sendGoSMTP sends with emersion/go-smtp.
func sendGoSMTP(j job) error {
	c, err := openGoSMTP(j)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range []string{"8BITMIME", "SMTPUTF8", "DSN", "SIZE", "AUTH", "STARTTLS", "CHUNKING"} {
		has, value := c.Extension(name)
		fmt.Println("extension", name, has, value)
	}
	if j.Auth != "" {
		if err := c.Auth(j.sasl()); err != nil {
			return fmt.Errorf("auth: %w", err)
		}
		fmt.Println("authenticated")
	}
	for _, l := range j.Letters {
		if err := letterGoSMTP(c, l); err != nil {
			fmt.Println("letter:", describe(err))
			if err := c.Reset(); err != nil {
				return err
			}
		}
	}
	return c.Quit()
}

func openGoSMTP(j job) (*smtp.Client, error) {
	conn, err := net.Dial("tcp", j.address())
	if err != nil {
		return nil, err
	}
	if !j.TLS {
		c := smtp.NewClient(conn)
		return c, c.Hello(j.Name)
	}
	config, err := j.tls()
	if err != nil {
		return nil, err
	}
	c, err := smtp.NewClientStartTLS(conn, config)
	if err != nil {
		return nil, err
	}
	return c, c.Hello(j.Name)
}

func (j job) sasl() sasl.Client {
	if j.Auth == "LOGIN" {
		return sasl.NewLoginClient(j.User, j.Password)
	}
	return sasl.NewPlainClient("", j.User, j.Password)
}

func letterGoSMTP(c *smtp.Client, l letter) error {
	options := smtp.MailOptions{Size: int64(len(l.Content)), UTF8: l.UTF8}
	if l.DSN {
		options.Return, options.EnvelopeID = smtp.DSNReturnHeaders, "QQ+314"
	}
	if l.NoAuth {
		options.Auth = new(string)
	}
	if err := c.Mail(l.From, &options); err != nil {
		return err
	}
	taken := 0
	for _, to := range l.To {
		var options smtp.RcptOptions
		if l.DSN {
			options.Notify = []smtp.DSNNotify{smtp.DSNNotifyFailure, smtp.DSNNotifyDelayed}
			options.OriginalRecipientType, options.OriginalRecipient = smtp.DSNAddressTypeRFC822, "o+x=y@example.org"
		}
		if err := c.Rcpt(to, &options); err != nil {
			fmt.Println("recipient:", describe(err))
			continue
		}
		taken++
	}
	if taken == 0 {
		return fmt.Errorf("no recipient is left")
	}
	data, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := data.Write([]byte(l.Content)); err != nil {
		return err
	}
	reply, err := data.CloseWithResponse()
	if err == nil {
		fmt.Printf("letter: sent, %q\n", reply.StatusText)
	}
	return err
}
