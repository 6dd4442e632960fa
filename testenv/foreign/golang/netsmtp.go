package main

import (
	"errors"
	"fmt"
	"net/smtp"
)

// sendNetSMTP sends with Go's own library.
func sendNetSMTP(j job) error {
	c, err := smtp.Dial(j.address())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello(j.Name); err != nil {
		return err
	}
	if j.TLS {
		config, err := j.tls()
		if err != nil {
			return err
		}
		if err := c.StartTLS(config); err != nil {
			return err
		}
	}
	for _, name := range []string{"8BITMIME", "SMTPUTF8", "DSN", "SIZE", "AUTH", "STARTTLS"} {
		has, value := c.Extension(name)
		fmt.Println("extension", name, has, value)
	}
	if j.Auth != "" {
		if err := c.Auth(j.netAuth()); err != nil {
			return fmt.Errorf("auth: %w", err)
		}
		fmt.Println("authenticated")
	}
	for _, l := range j.Letters {
		if err := letterNetSMTP(c, l); err != nil {
			fmt.Println("letter:", describe(err))
			if err := c.Reset(); err != nil {
				return err
			}
		}
	}
	return c.Quit()
}

func letterNetSMTP(c *smtp.Client, l letter) error {
	if err := c.Mail(l.From); err != nil {
		return err
	}
	taken := 0
	for _, to := range l.To {
		if err := c.Rcpt(to); err != nil {
			fmt.Println("recipient:", describe(err))
			continue
		}
		taken++
	}
	if taken == 0 {
		return errors.New("no recipient is left")
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(l.Content)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	fmt.Println("letter: sent")
	return nil
}

// netAuth returns the library's PLAIN, or the LOGIN that its users write
// themselves: the library has none.
func (j job) netAuth() smtp.Auth {
	if j.Auth == "LOGIN" {
		return &login{j.User, j.Password}
	}
	return smtp.PlainAuth("", j.User, j.Password, j.Server)
}

// login answers the first question with the user and the second one with the password.
type login struct{ user, password string }

func (l *login) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

func (l *login) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	answer := l.user
	l.user = l.password
	return []byte(answer), nil
}
