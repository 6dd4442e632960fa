package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/portreeve/portreeve/pkg/config"
	"github.com/portreeve/portreeve/testenv"
)

// What an older inspector has needed is not removed while a newer one makes
// ready: that is in no plan of the one in between.
func TestSettleLeavesWhatAnHeirHasMade(t *testing.T) {
	n := testenv.ForTest(t)
	read := func(service string) (*env, *config.Config) {
		t.Helper()
		e := &env{stdout: io.Discard, stderr: io.Discard, environ: []string{"PORTREEVE_BPFFS=" + n.BPFFS, "PORTREEVE_RUN_DIR=" + n.RunDir}}
		e.file.value = filepath.Join(t.TempDir(), "portreeve.yaml")
		text := "interfaces: {client: [ext0], origin: [dmz0]}\nservices: [{name: " + service + ", listen: \"172.16.40.1:25\", origins: \"172.16.20.254:25\"}]\n"
		if err := os.WriteFile(e.file.value, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := e.load()
		if err != nil {
			t.Fatal(err)
		}
		return e, c
	}
	e, between := read("mx")
	heir, coming := read("mail")
	err := n.Gateway.Enter(func() error {
		if _, err := e.install(between, manner{}); err != nil {
			return err
		}
		if err := heir.prepare(coming); err != nil {
			return err
		}
		for _, there := range []bool{true, false} {
			done, err := e.settle(between, func() (bool, error) { return there, nil })
			if err != nil || done == there {
				t.Errorf("heir there: %v; done: %v, %v", there, done, err)
			}
			changes, err := e.install(between, manner{dryRun: true})
			if err != nil || (len(changes) > 0) != there {
				t.Errorf("heir there: %v; what is not of the plan: %v, %v", there, changes, err)
			}
		}
		if _, err := heir.install(coming, manner{letMailStop: true}); err != nil {
			return err
		}
		if _, err := e.settle(between, func() (bool, error) { return false, nil }); !errors.Is(err, errOverruled) {
			t.Errorf("settled over another attach: %v", err)
		}
		if changes, err := heir.install(coming, manner{dryRun: true}); err != nil || len(changes) > 0 {
			t.Errorf("settling changed what was attached since: %v, %v", changes, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
