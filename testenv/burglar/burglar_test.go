package burglar

import (
	"bytes"
	"os/exec"
	"testing"
)

// TestMemory: what another process has in its memory is found there.
func TestMemory(t *testing.T) {
	secret := []byte("a secret that the " + "shell knows")
	cmd := exec.Command("sh", "-c", `read secret; echo known; read end`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	in.Write(append(secret, '\n'))
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	found := false
	read, err := Memory(cmd.Process.Pid, func(octets []byte) { found = found || bytes.Contains(octets, secret) })
	if err != nil || !found {
		t.Errorf("of %d octets that are read none are the secret, %v", read, err)
	}
}
