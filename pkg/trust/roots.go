package trust

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxRoots bounds a file of authorities, in octets; that of a whole system has a
// quarter of it.
const maxRoots = 1 << 20

// ReadRoots reads a file of authorities, in PEM. Nothing else in it matters.
func ReadRoots(file string) (*x509.CertPool, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO that nobody writes to would be waited for
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read authorities: %s is not a file", file)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRoots+1))
	pool := x509.NewCertPool()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read authorities: %w", err)
	case len(data) > maxRoots:
		return nil, fmt.Errorf("read authorities: %s is larger than %d KiB", file, maxRoots>>10)
	case !pool.AppendCertsFromPEM(data):
		return nil, fmt.Errorf("read authorities: %s has no certificate in PEM", file)
	}
	return pool, nil
}
