package keyring

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Files reads pairs in this process. Package keeper does it in another one, which
// is where it belongs; tests and doctor do it here.
type Files struct{}

// maxFile bounds a file, in octets: no chain has that much, and no device or
// endless pipe is read to the end.
const maxFile = 1 << 20

// Load reads and checks a pair, see Source.
func (Files) Load(p Pair, stamp string) (*Loaded, error) {
	now, err := stampOf(p)
	if err != nil {
		return nil, err
	}
	if now == stamp {
		return nil, nil
	}
	l, err := read(p)
	if err != nil {
		return nil, err
	}
	l.Stamp = now // taken before the files were read: a change meanwhile is seen the next time
	return l, nil
}

// stampOf tells the files' present state from any other.
func stampOf(p Pair) (string, error) {
	var b strings.Builder
	for _, name := range []string{p.Chain, p.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return "", unreadable(p, name, err)
		}
		inode := uint64(0)
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		fmt.Fprintf(&b, "%d %d %d %o\n", inode, info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	return b.String(), nil
}

func unreadable(p Pair, name string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s: cannot read %s: %w", p.describe(), name, err)
}

// read reads both files and holds them against each other.
func read(p Pair) (*Loaded, error) {
	chain, leaf, err := readChain(p)
	if err != nil {
		return nil, err
	}
	key, warnings, err := readKey(p)
	if err != nil {
		return nil, err
	}
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, fmt.Errorf("%s: the key in %s belongs to another certificate; put the pair's own two files there", p.describe(), p.Key)
	}
	return &Loaded{
		Certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf},
		Warnings:    warnings,
	}, nil
}

// sameKey compares public keys; those of the standard library have Equal.
func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// readChain reads the certificates of a file, the first being the server's.
func readChain(p Pair) (chain [][]byte, leaf *x509.Certificate, err error) {
	data, _, err := readFile(p, p.Chain)
	if err != nil {
		return nil, nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") && p.Chain != p.Key {
			return nil, nil, fmt.Errorf("%s: the file has a private key in it, which is kept from nobody there; take it out, or name the file under key as well", p.describe())
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: certificate %d of the file cannot be read: %w", p.describe(), len(chain)+1, err)
		}
		if leaf == nil {
			leaf = c
		}
		chain = append(chain, block.Bytes)
	}
	switch {
	case leaf == nil:
		return nil, nil, fmt.Errorf("%s: the file has no certificate in PEM", p.describe())
	case leaf.IsCA && len(chain) > 1:
		return nil, nil, fmt.Errorf("%s: the first certificate is that of an authority, %s; put the server's own first", p.describe(), leaf.Subject)
	}
	return chain, leaf, nil
}

// leastRSA is what clients ask for by default, OpenSSL at its security level 2 for
// one.
const leastRSA = 2048

// readKey reads a private key that nobody else can.
func readKey(p Pair) (crypto.Signer, []string, error) {
	data, mode, err := readFile(p, p.Key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(data)
	if mode&0o022 != 0 || mode&0o007 != 0 {
		return nil, nil, fmt.Errorf("%s: the key %s can be read by everybody or changed by others (mode %#o); chmod 600 %s", p.describe(), p.Key, mode, p.Key)
	}
	var warnings []string
	if mode&0o040 != 0 {
		warnings = append(warnings, fmt.Sprintf("the key %s can be read by its group (mode %#o); chmod 600 %s # unless that is meant", p.Key, mode, p.Key))
	}
	if n := namesOf(p.Key); n > 1 {
		warnings = append(warnings, fmt.Sprintf("the key %s is a file of %d names, and the inspector may reach it by another; find / -xdev -samefile %s # shows them", p.Key, n, p.Key))
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: the key %s cannot be used: %w", p.describe(), p.Key, err)
	}
	if r, is := key.(*rsa.PrivateKey); is && r.N.BitLen() < leastRSA {
		warnings = append(warnings, fmt.Sprintf("the key %s is an RSA key of %d bits, which most clients refuse; get a certificate for one of %d", p.Key, r.N.BitLen(), leastRSA))
	}
	return key, warnings, nil
}

// namesOf returns how many names a file has, hard links.
func namesOf(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(sys.Nlink)
	}
	return 1
}

// parseKey finds the private key in a PEM file. Errors tell nothing of it.
func parseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains([]byte(block.Headers["Proc-Type"]), []byte("ENCRYPTED")):
			return nil, errors.New("it is encrypted, and nobody is there to type the passphrase; store it without, for root alone")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			defer clear(block.Bytes)
			return parseDER(block.Bytes)
		}
	}
	return nil, errors.New("the file has no private key in PEM")
}

// parseDER tries the three forms that are in use.
func parseDER(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := key.(crypto.Signer); ok {
			return s, nil
		}
		return nil, errors.New("its kind of key cannot sign")
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("it is neither a PKCS #8, an EC nor an RSA key")
}

// readFile reads a file with its permissions.
func readFile(p Pair, name string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO that nobody writes to would be waited for
	if err != nil {
		return nil, 0, unreadable(p, name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, unreadable(p, name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %s is not a file", p.describe(), name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, 0, unreadable(p, name, err)
	case len(data) > maxFile:
		return nil, 0, fmt.Errorf("%s: %s is larger than %d KiB", p.describe(), name, maxFile>>10)
	}
	return data, info.Mode().Perm(), nil
}
